"""The order of a set: a permutation at any size, computed place by place where it is large."""

import pytest
import torch

from scorefield.data import order
from scorefield.data.image_files import Images, hold_out
from scorefield.data.order import places
from scorefield.noise import Noise

NOISE = Noise(3)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 17, 64, 1000, 4097])
def test_computed_places_are_a_permutation(monkeypatch, n):
    monkeypatch.setattr(order, "MOST_IN_MEMORY", 0)
    found = places(NOISE, n, 0, torch.arange(n))
    assert sorted(found.tolist()) == list(range(n))
    # Place by place, and in any shape.
    assert [int(places(NOISE, n, 0, torch.tensor(k))) for k in range(min(n, 9))] == found[
        :9
    ].tolist()
    assert torch.equal(places(NOISE, n, 0, torch.arange(n).reshape(1, n)), found[None])


def test_a_billion_points_need_no_memory_and_come_once():
    n = 10**9
    offset = torch.randint(n, (200_000,), generator=torch.Generator().manual_seed(0)).unique()
    found = places(NOISE, n, 0, offset)
    assert 0 <= int(found.min()) <= int(found.max()) < n
    assert len(found.unique()) == len(offset)
    assert not torch.equal(found, places(NOISE, n, 1, offset))
    assert not torch.equal(found, places(Noise(4), n, 0, offset))
    assert not torch.equal(found, places(NOISE, n, 0, offset, "held out"))


def test_computed_places_are_spread_evenly_and_neighbours_are_independent():
    """Among 100,000: counts in 64 equal parts, and of pairs of successive ones in 8 × 8 parts, by
    chi squared; 63 degrees of freedom exceed 139 with probability 1e-7."""
    n, many = 10**9, 100_000
    for first in (0, 123_456_789, n - many):
        found = places(NOISE, n, 2, torch.arange(first, first + many))
        counts = torch.bincount(found * 64 // n, minlength=64).double()
        eighths = found * 8 // n
        pairs = torch.bincount(eighths[:-1:2] * 8 + eighths[1::2], minlength=64).double()
        for c in (counts, pairs):
            expected = c.sum() / 64
            assert float(((c - expected).square() / expected).sum()) < 139


def numbers(part):
    """Which images a part has, from their two bytes."""
    high, low = part.pixels.long().flatten(1).T
    return 256 * high + low


def test_held_out_images_are_drawn_of_each_class_in_proportion():
    classes = torch.cat((torch.zeros(400), torch.ones(200), torch.full((10,), 2))).long()
    number = torch.arange(610)
    images = torch.stack((number // 256, number % 256), 1).byte().reshape(610, 2, 1, 1)
    found = hold_out(Images(images, classes), 0)
    assert torch.bincount(found.test.labels).tolist() == [20, 10]
    both = torch.cat((numbers(found.train), numbers(found.test)))
    assert sorted(both.tolist()) == list(range(610))
    for part in (found.train, found.test):
        assert torch.equal(classes[numbers(part)], part.labels)
        some = torch.tensor([[3, 0], [7, 3]])
        assert torch.equal(part.at(some), part.pixels[some])
    again, other = hold_out(Images(images, classes), 0), hold_out(Images(images, classes), 1)
    assert torch.equal(again.test.pixels, found.test.pixels)
    assert not torch.equal(other.test.pixels, found.test.pixels)
    # Spread over the set, not at its end: 30 of 610 are in order of their numbers.
    assert int(numbers(found.test).min()) < 300


@pytest.mark.parametrize("n", [2, 3, 19, 20, 39, 40, 101])
def test_one_of_twenty_is_held_out_and_at_least_one(n):
    images = torch.zeros(n, 1, 1, 1, dtype=torch.uint8)
    for classes in (None, torch.arange(n) % 7):
        for seed in (None, 0):
            found = hold_out(Images(images, classes), seed)
            assert len(found.test) == max(1, n // 20)
            assert len(found.train) + len(found.test) == n


def test_the_sums_of_a_part_are_those_of_the_whole_without_the_others():
    images = torch.randint(0, 256, (50, 2, 3, 4), dtype=torch.uint8)
    known = images.long().sum(0), int(images.long().square().sum())
    for sums in (None, known):
        for part in vars(hold_out(Images(images, sums=sums), 0)).values():
            if isinstance(part, Images):
                total, squares = part.totals()
                assert torch.equal(total, part.pixels.long().sum(0))
                assert squares == int(part.pixels.long().square().sum())

"""Precision, recall, density, coverage and copies, against sums over all pairs."""

import pytest
import torch

from scorefield.metrics import neighbours
from scorefield.metrics.neighbours import (
    coverage,
    density,
    memorisation,
    nearest,
    nearest_rows,
    precision,
    recall,
)
from scorefield.noise import Noise


def normals(n, dim, seed, shift=0.0, std=1.0):
    return shift + std * Noise(seed).normal("test", (dim,), torch.arange(n), dtype=torch.float64)


def brute(x, y, k):
    """Which points of y have a ball around which points of x are, pair by pair."""
    radius = [sorted(float((a - b).norm()) for b in y)[k] for a in y]
    return torch.tensor(
        [[float((a - b).norm()) <= radius[j] for j, b in enumerate(y)] for a in x],
        dtype=torch.float64,
    )


@pytest.mark.parametrize(("shift", "std"), [(0.0, 1.0), (1.5, 1.0), (0.0, 0.3), (30.0, 1.0)])
def test_they_are_the_sums_over_all_pairs(shift, std, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    x, y = normals(40, 3, 0, shift, std), normals(25, 3, 1)
    inside, swapped, wide = brute(x, y, 3), brute(y, x, 3), brute(x, y, 5)
    assert precision(x, y).value == float(inside.any(dim=1).double().mean())
    assert recall(x, y).value == float(swapped.any(dim=1).double().mean())
    assert density(x, y).value == pytest.approx(float(wide.sum(dim=1).mean()) / 5, rel=1e-12)
    assert coverage(x, y).value == float(wide.any(dim=0).double().mean())


def test_equal_distributions_have_density_one_and_the_coverage_of_the_paper():
    """For equal sizes coverage is 1 - 2^-k to order 1 / n; 4,000 points are within 0.01 of it."""
    x, y = normals(4000, 2, 0), normals(4000, 2, 1)
    found = coverage(x, y)
    assert abs(found.value - (1 - 2**-5)) < 0.01 + 5 * found.standard_error
    found = density(x, y)
    assert abs(found.value - 1) < 0.1


def test_a_share_of_all_or_none_is_not_without_error():
    x, y = normals(40, 2, 0), normals(30, 2, 1, shift=99.0)
    assert precision(x, y).value == recall(x, y).value == coverage(x, y).value == 0
    low, high = precision(x, y).interval()
    assert low < 0 < high < 0.2
    with pytest.raises(ValueError, match="need more than 3 points"):
        precision(x, y[:3])


@pytest.mark.slow
@pytest.mark.parametrize("n", [500, 5000])
def test_the_intervals_of_precision_recall_and_density_cover_95_percent(n):
    """For one reference of 60 points the truth is that of 2e6 samples, and for recall, of as many
    samples, that of 2e6 reference points. Of 1,000 intervals of 93 to
    97 % coverage, fewer than 886 or more than 995 hold it with probability below 1e-6.
    """
    y = normals(60, 2, 1)
    for metric in (precision, lambda x, y: recall(y, x), density):
        truth = sum(metric(normals(20_000, 2, -k, 0.5), y).value for k in range(1, 101)) / 100
        found = [metric(normals(n, 2, seed, 0.5), y).interval() for seed in range(2, 1002)]
        assert 886 <= sum(low <= truth <= high for low, high in found) <= 995


@pytest.mark.slow
def test_the_interval_of_coverage_covers_95_percent():
    """The truth is the mean of all, whose error is a twentieth of one's. Of 400 intervals of at
    least 93 % coverage fewer than 345 hold it with probability below 1e-6.
    """
    found = [coverage(normals(500, 2, 2 * k, 0.5), normals(500, 2, 2 * k + 1)) for k in range(400)]
    truth = sum(one.value for one in found) / len(found)
    assert sum(low <= truth <= high for low, high in (f.interval() for f in found)) >= 345


def test_the_nearest_row_of_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", 5)
    x, y = normals(12, 3, 0), normals(17, 3, 1)
    exact = (x[:, None] - y[None]).norm(dim=2).min(dim=1).values
    torch.testing.assert_close(nearest(x, y.split(4)), exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_nearest_rows_are_those_of_all_pairs(monkeypatch, k):
    """With blocks of fewer rows than are wanted."""
    monkeypatch.setattr(neighbours, "_BLOCK", 5)
    x, y = normals(12, 3, 0), normals(17, 3, 1)
    exact = (x[:, None] - y[None]).norm(dim=2).topk(k, dim=1, largest=False)
    found, which = nearest_rows(x, y.split(4), k)
    torch.testing.assert_close(found, exact.values, rtol=1e-10, atol=1e-12)
    assert torch.equal(which, exact.indices)
    with pytest.raises(ValueError, match="the 18 nearest of 17 rows"):
        nearest_rows(x, [y], 18)


def test_memorisation_is_the_share_of_pairs():
    a = torch.tensor([0.0, 1.0, 2.0, 2.0, 5.0], dtype=torch.float64)
    b = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    pairs = (a[:, None] < b).double() + 0.5 * (a[:, None] == b).double()
    found = memorisation(a, b)
    assert found.value == pytest.approx(float(pairs.mean()), rel=1e-12)
    variance = float(pairs.mean(dim=1).var()) / 5 + float(pairs.mean(dim=0).var()) / 3
    assert found.standard_error == pytest.approx(variance**0.5, rel=1e-12)
    copies = memorisation(torch.zeros(50), torch.rand(30) + 1)
    assert copies.value == 1
    assert copies.interval()[0] == pytest.approx(1 - 3 / 30, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("n", [500, 5000])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_interval_of_memorisation_covers_95_percent(n, shift):
    """Between normal distances it is the normal distribution function at shift / √2."""
    truth = float(torch.special.ndtr(torch.tensor(shift / 2**0.5, dtype=torch.float64)))
    found = [
        memorisation(normals(n, 1, 2 * k)[:, 0], normals(n // 2, 1, 2 * k + 1, shift)[:, 0])
        for k in range(1000)
    ]
    covered = sum(f.interval()[0] <= truth <= f.interval()[1] for f in found)
    assert 886 <= covered <= 995

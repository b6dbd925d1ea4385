"""Truths about finite data."""

import pytest
import torch

from scorefield import ArraySource, digits
from scorefield.noise import Noise

N = 37


@pytest.fixture
def source():
    items = torch.arange(100, dtype=torch.float64).reshape(50, 2)
    return ArraySource(items[:N], items[N:], "pairs")


def numbers(batch):
    """Which items a batch of pairs holds."""
    return (batch[..., 0] / 2).long()


@pytest.mark.parametrize("batch_size", [1, 5, 16, 37, 100])
def test_every_epoch_visits_every_item_once(source, batch_size):
    epochs = 5
    steps = -(-epochs * N // batch_size)
    stream = numbers(source.batch(Noise(0), torch.arange(steps), batch_size)).reshape(-1)
    orders = stream[: epochs * N].reshape(epochs, N)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(N).expand(epochs, N))
    assert len(orders.unique(dim=0)) == epochs


@pytest.mark.parametrize("batch_size", [5, 16, 100])
def test_many_steps_at_once_are_the_single_steps(source, batch_size):
    steps = torch.tensor([0, 1, 2, 7, 8, 40])
    together = source.batch(Noise(1), steps, batch_size)
    assert together.shape == (6, batch_size, 2)
    for row, step in enumerate(steps.tolist()):
        assert torch.equal(together[row], source.batch(Noise(1), step, batch_size))


def test_seeds_give_different_orders(source):
    assert not torch.equal(source.batch(Noise(0), 0, N), source.batch(Noise(2**32), 0, N))


def test_reference_points_are_distinct_and_of_their_split(source):
    for split, items in (("train", range(N)), ("test", range(N, 50))):
        points = numbers(source.reference(len(items), 0, split))
        assert points.sort().values.tolist() == list(items)
        assert torch.equal(numbers(source.reference(5, 0, split)), points[:5])
    assert not torch.equal(source.reference(13, 0), source.reference(13, 1))


def test_more_reference_points_than_there_are_is_an_error(source, unchecked):
    with pytest.raises(ValueError, match="pairs has 13 test points, 14 were requested"):
        source.reference(14, 0)
    with pytest.raises(ValueError, match="37 train points"):
        source.reference(38, 0, "train")
    with pytest.raises(ValueError, match="train or test"):
        source.reference(3, 0, "validation")


def test_moments_are_those_of_the_training_points(source):
    items = source.reference(N, 0, "train", torch.float64)
    torch.testing.assert_close(source.mean, items.mean(dim=0))
    assert source.std == pytest.approx(float(items.var(dim=0, correction=0).mean().sqrt()))
    assert (source.name, source.shape, source.size, source.truth) == ("pairs", (2,), N, None)


def test_two_parts_of_different_shape_are_an_error(unchecked):
    with pytest.raises(ValueError, match="not one data set"):
        ArraySource(torch.zeros(3, 2), torch.zeros(3, 4), "mixed")
    with pytest.raises(ValueError, match="nothing: train must be at least one point"):
        ArraySource(torch.zeros(0, 2), torch.zeros(3, 2), "nothing")


def test_digits_are_all_there_once():
    from sklearn.datasets import load_digits

    source = digits()
    train, test = source.reference(1437, 0, "train"), source.reference(360, 0, "test")
    together = torch.cat((train, test)).add(1).mul(8).reshape(1797, 64)
    original = torch.as_tensor(load_digits().data, dtype=torch.float32)
    order = [sorted(map(tuple, t.tolist())) for t in (together, original)]
    assert order[0] == order[1]


def test_digits_are_images_between_minus_one_and_one():
    source = digits()
    assert (source.shape, source.size) == ((1, 8, 8), 1437)
    batch = source.batch(Noise(0), torch.arange(3), 64)
    assert batch.shape == (3, 64, 1, 8, 8)
    assert batch.dtype == torch.float32
    assert (batch.min(), batch.max()) == (-1, 1)
    with pytest.raises(ValueError, match="digits has 360 test points"):
        source.reference(361, 0)


def test_the_split_of_digits_is_fixed_and_disjoint():
    source, again = digits(), digits()
    train, test = (source.reference(n, 0, s) for n, s in ((1437, "train"), (360, "test")))
    assert torch.equal(test, again.reference(360, 0))
    # scikit-learn's images are distinct, so that no test image is a training image
    assert torch.cdist(test.flatten(1), train.flatten(1)).min() > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_points_that_are_not_finite_are_found(bad):
    good, points = torch.zeros(4, 2, 3), torch.zeros(5, 2, 3)
    points[3, 1, 2] = points[4, 0, 0] = bad
    first = rf"must be finite: 2 of 5 points are not, the first is {bad} at index \(3, 1, 2\)"
    with pytest.raises(ValueError, match=f"pairs: train {first}"):
        ArraySource(points, good, "pairs")
    with pytest.raises(ValueError, match=f"pairs: test {first}"):
        ArraySource(good, points, "pairs")

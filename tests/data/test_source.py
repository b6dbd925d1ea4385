"""Truths about endless data and the stream's addresses."""

import pytest
import torch

from scorefield import GaussianMixture, TargetSource
from scorefield.noise import Noise

TRUTH = GaussianMixture.ring()


@pytest.fixture
def source():
    return TargetSource(TRUTH, "ring")


def test_it_speaks_for_its_law(source):
    assert (source.name, source.shape, source.size) == ("ring", (2,), None)
    assert source.truth is TRUTH
    assert source.std == TRUTH.std
    assert torch.equal(source.mean, TRUTH.mean)


def test_many_steps_at_once_are_the_single_steps(source):
    together = source.batch(Noise(0), torch.arange(5, 12), 16)
    assert together.shape == (7, 16, 2)
    for row, step in enumerate(range(5, 12)):
        assert torch.equal(together[row], source.batch(Noise(0), step, 16))


def test_the_stream_does_not_depend_on_the_batch_size(source):
    stream = source.batch(Noise(0), 0, 120)
    for size in (1, 8, 40):
        steps = source.batch(Noise(0), torch.arange(120 // size), size)
        assert torch.equal(steps.reshape(120, 2), stream)


def test_reference_points_are_never_trained_on(source):
    seed = 3
    test, train = source.reference(500, seed), source.reference(500, seed, "train")
    stream = source.batch(Noise(seed), 0, 500)
    assert torch.equal(train, stream)
    assert torch.cdist(test.double(), stream.double()).min() > 0
    assert torch.equal(source.reference(20, seed), test[:20])


def test_dtype_only_rounds(source):
    exact = source.batch(Noise(0), 1, 32, torch.float64)
    assert exact.dtype == torch.float64
    assert torch.equal(source.batch(Noise(0), 1, 32), exact.float())


def test_an_address_out_of_range_is_an_error(source, unchecked):
    with pytest.raises(ValueError, match="-1"):
        source.batch(Noise(0), -1, 8)
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        source.batch(Noise(0), 0, 0)
    with pytest.raises(ValueError, match="train or test"):
        source.reference(3, 0, "validation")

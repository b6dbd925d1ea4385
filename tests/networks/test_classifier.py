"""Truths about the classifier."""

import pytest
import torch

from scorefield.networks.classifier import Classifier


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 32, 24), (1, 1, 3)])
def test_it_takes_images_of_any_size(shape):
    network = Classifier(shape, classes=7, channels=4, features=5)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    assert network(x).shape == (3, 7)
    assert network.features(x).shape == (3, 5)
    torch.testing.assert_close(network(x), network.last(network.features(x)))


def test_rows_do_not_see_each_other():
    network = Classifier((1, 6, 6), classes=3)
    x = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.features(x)[2:3], network.features(x[2:3]))


def test_weights_are_a_function_of_the_seed():
    one, same, other = (Classifier((1, 8, 8), 10, seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["first.weight"], other["first.weight"])


def test_sizes_that_make_no_sense_are_an_error():
    with pytest.raises(ValueError, match=r"shape must be .*, got \(8, 8\)"):
        Classifier((8, 8), 10)
    with pytest.raises(ValueError, match="classes must be a positive integer, got 0"):
        Classifier((1, 8, 8), 0)

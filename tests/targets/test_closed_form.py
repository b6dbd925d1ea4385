"""Fields in closed form of labelled data, at points that have each a class of their own."""

import pytest
import torch

from scorefield import VP, IdealScore, LocalScore
from tests.laws.cases import normal

SDE = VP()
IMAGES = normal((6, 1, 4, 5), "images")
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
CLASSES = torch.tensor([0, 1, 3, 2, 1])
POINTS = normal((5, 1, 4, 5), "points")


@pytest.fixture(params=[IdealScore, LocalScore])
def field(request):
    return request.param(IMAGES, SDE, labels=LABELS)


def test_a_batch_may_be_empty(field):
    for classes in (CLASSES[:0], 1):
        assert field.score(POINTS[:0], 0.5, classes).shape == (0, 1, 4, 5)
        assert field.jacobian(POINTS[:0], 0.5, classes).shape == (0, 20, 20)


@pytest.mark.parametrize("shape", [(3,), (5, 1)])
def test_times_are_one_or_as_many_as_the_points(field, shape):
    with pytest.raises(ValueError, match="5 points need one time or as many"):
        field.score(POINTS, torch.full(shape, 0.5), CLASSES)


def test_a_time_is_not_rounded_to_the_dtype_of_the_points(field):
    coarse = POINTS.bfloat16()
    expected = field.score(coarse.double(), 0.31, CLASSES)
    torch.testing.assert_close(field.score(coarse, 0.31, CLASSES), expected.bfloat16())


def test_the_field_of_a_class_is_made_once_and_is_no_part_of_the_state(field):
    before = field.state_dict().keys()
    expected = field.score(POINTS, 0.5, CLASSES)
    part = field.of_class(1)
    assert torch.equal(field.score(POINTS, 0.5, CLASSES), expected)
    assert field.of_class(1) is part
    assert field.state_dict().keys() == before
    assert field.under(SDE).of_class(1) is not part

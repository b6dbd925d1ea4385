"""Fields of points that have each a class of their own, where every class has a field."""

import pytest
import torch

from scorefield.sde import VP
from scorefield.targets import IdealScore, LocalScore
from tests.laws.cases import normal

SDE = VP()
IMAGES = normal((6, 1, 4, 5), "images")
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
CLASSES = torch.tensor([0, 1, 3, 2, 1])
POINTS = normal((5, 1, 4, 5), "points")


@pytest.fixture(params=[IdealScore, LocalScore])
def field(request):
    return request.param(IMAGES, SDE, labels=LABELS).given(CLASSES)


def test_a_batch_may_be_empty(field):
    for bound in (field, field.given(1)):
        assert bound.score(POINTS[:0], 0.5).shape == (0, 1, 4, 5)
        assert bound.jacobian(POINTS[:0], 0.5).shape == (0, 20, 20)


@pytest.mark.parametrize("shape", [(3,), (5, 1)])
def test_times_are_one_or_as_many_as_the_points(field, shape):
    with pytest.raises(ValueError, match="5 points need one time or as many"):
        field.score(POINTS, torch.full(shape, 0.5))


def test_a_time_is_not_rounded_to_the_dtype_of_the_points(field):
    coarse = POINTS.bfloat16()
    expected = field.score(coarse.double(), 0.31)
    torch.testing.assert_close(field.score(coarse, 0.31), expected.bfloat16())


def test_a_part_of_a_batch_shares_the_fields_of_its_classes(field):
    rows = torch.tensor([4, 2])
    part = field.for_rows(rows)
    torch.testing.assert_close(part.score(POINTS[rows], 0.5), field.score(POINTS, 0.5)[rows])
    assert {b.data_ptr() for b in part.parts.buffers()} == {
        b.data_ptr() for b in field.parts.buffers()
    }
    assert field.index.tolist() == CLASSES.tolist()

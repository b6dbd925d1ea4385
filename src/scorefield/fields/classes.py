r"""Classes of points: how a field is conditioned on them, and how they are checked.

Every evaluation of a field takes ``classes``: one integer for all points, an integer tensor with
the class of each, or ``None`` for points of any class. Classes count from 0; the number of classes
:math:`K` denotes no class. Code that repeats, selects or splits points does the same with their
classes, as with their times.

References:
    Classifier-free diffusion guidance (Ho and Salimans, 2022), section 3.2.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from scorefield.checks import kind_of
from scorefield.errors import UserError

Classes = Int[Tensor, " batch"] | int | None
"""The class of each point, of all points, or none."""

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def class_rows(
    owner: str, known: int | None, unlabelled: bool, classes: Classes, points: Tensor
) -> Int[Tensor, " batch"] | None:
    """See :meth:`ScoreField.class_rows() <scorefield.fields.base.ScoreField.class_rows>`."""
    if classes is None:
        if not unlabelled:
            raise UserError(
                f"{owner} was trained on points of known classes only, and needs their classes"
            )
        return None
    if known is None:
        raise UserError(f"{owner} has no classes, and was given {_shown(classes)}")
    if isinstance(classes, Tensor):
        integral = classes.dtype in _INTEGERS
    else:
        integral = isinstance(classes, int) and not isinstance(classes, bool)
    if not integral:
        raise UserError(f"classes must be integers, got {_shown(classes)}")
    if isinstance(classes, Tensor) and classes.shape != points.shape[:1]:
        raise UserError(f"{len(points)} points need as many classes, got {_shown(classes)}")
    last = known if unlabelled else known - 1
    ends = (classes, classes)
    if isinstance(classes, Tensor):
        # Values on a GPU would have to be waited for, those of a graph that is made are not there.
        there = classes.device.type == "cpu" and not torch.compiler.is_compiling()
        seen = there and len(classes)
        ends = classes.aminmax() if seen else (0, 0)
    for end in map(int, ends):
        if not 0 <= end <= last:
            raise UserError(f"classes must lie in 0 … {last}, got {end}")
    if isinstance(classes, Tensor):
        return classes.to(points.device, torch.int64)
    return torch.full(points.shape[:1], classes, dtype=torch.int64, device=points.device)


def classes_at(
    classes: Int[Tensor, " batch"] | None, rows: Int[Tensor, " rows"] | slice
) -> Int[Tensor, " _"] | None:
    """The classes of some of the points."""
    return None if classes is None else classes[rows]


def _shown(classes: object) -> str:
    return repr(classes) if isinstance(classes, float | int | str) else kind_of(classes)

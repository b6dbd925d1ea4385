"""What a field is evaluated at: the one place where points and times are checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from numbers import Real

import torch
from torch import Tensor

from scorefield.checks import check_floating, inspect, kind_of
from scorefield.errors import UserError
from scorefield.sde.base import SDE

# Of times in bfloat16.
_ROUNDING = 2.0**-8


def check_batch(owner: str, x: Tensor) -> None:
    """Raises ``ValueError`` unless points are rows of floating-point numbers."""
    check_floating(f"the points of {owner}", x)
    if not x.dim():
        raise UserError(f"{owner} has one point in each row, got {kind_of(x)}")


def check_event(field: Sequence[int], data: Sequence[int]) -> None:
    """Raises ``ValueError`` unless points of data have the shape of a field's.

    Noise is added to data before a field sees them, and might give them that shape.
    """
    if tuple(field) != tuple(data):
        rows = "" if len(data) else "; a point is a row of the data, as in a tensor of shape (n, D)"
        raise UserError(
            f"the field has points of shape {tuple(field)}, the data of shape {tuple(data)}{rows}"
        )


def check_values(owner: str, values: object, shape: tuple[int, ...]) -> None:
    """Raises ``ValueError`` unless values have the shape that belongs to the points.

    Those that only broadcast to it would be taken for the values of another field.
    """
    if not isinstance(values, Tensor) or values.shape != shape:
        raise UserError(f"{owner} must give values of shape {tuple(shape)}, got {kind_of(values)}")


def check_number(t: object, n: int) -> None:
    """Raises ``ValueError`` unless times are real numbers: one, or one for each of ``n`` points."""
    if isinstance(t, Tensor):
        if t.dtype == torch.bool or t.is_complex():
            raise UserError(f"times are real numbers, got {kind_of(t)}")
        if t.dim() > 1 or (t.dim() == 1 and t.shape[0] not in (1, n)):
            raise UserError(f"{n} points need one time or as many, got {tuple(t.shape)}")
    elif isinstance(t, bool) or not isinstance(t, Real):
        raise UserError(f"times are a real number or a tensor of them, got {kind_of(t)}")


def check_times(owner: str, t: float | Tensor, sde: SDE, first: float | None) -> None:
    """Raises ``ValueError`` unless times are within those of a process.

    See :meth:`ScoreField.check_inputs() <scorefield.fields.base.ScoreField.check_inputs>`.
    """
    if torch.compiler.is_compiling():
        return
    low = earliest(sde) if first is None else first
    last = (1 + _ROUNDING) * latest(sde)

    def within(least: float, most: float) -> None:
        # A step to the clean data may pass by times before the first.
        early = not (least > 0 or least >= low)
        if early or not most <= last:
            begin = "above 0 and" if low > 0 else "from 0"
            wrong = least if early else most
            raise UserError(f"{owner} has times {begin} up to {sde.t_max:g}, got {wrong:g}")

    def numbers(times: Tensor) -> None:
        within(*map(float, times.aminmax() if times.dim() else (times, times)))

    if isinstance(t, Tensor):
        inspect(t, numbers)
    else:
        within(t, t)


@lru_cache
def earliest(sde: SDE) -> float:
    """The first time of a process: 0 where there is noise then already."""
    noise = float(sde.noise_level(torch.tensor(0.0, dtype=torch.float64)))
    return 0.0 if noise > 0 else sde.t_min


@lru_cache
def latest(sde: SDE) -> float:
    r"""The time of :math:`\sqrt 2` times the greatest noise level, the most that churn makes of it.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        algorithm 2.
    """
    level = torch.tensor(math.sqrt(2) * sde.sigma_max, dtype=torch.float64)
    return max(sde.t_max, float(sde.time(level)))

"""Checks of numbers, points and objects: those that a user gives, and those that a network or a
field receives.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.errors import UnsupportedError, UserError


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raises ``ValueError`` unless a number is an integer, and not below the least."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        words = {0: "an integer that is not negative", 1: "a positive integer"}
        wanted = words.get(least, f"an integer of at least {least}")
        raise UserError(f"{name} must be {wanted}, got {shown(value)}")


def check_finite(name: str, value: object) -> None:
    """Raises ``ValueError`` unless a value is a finite real number."""
    _check_real(name, value, "finite", lambda number: True)


def check_positive(name: str, value: object) -> None:
    """Raises ``ValueError`` unless a number is positive and finite."""
    _check_real(name, value, "positive", lambda number: number > 0)


def check_not_negative(name: str, value: object) -> None:
    """Raises ``ValueError`` unless a number is at least 0, and finite."""
    _check_real(name, value, "at least 0", lambda number: number >= 0)


def check_fraction(name: str, value: object) -> None:
    """Raises ``ValueError`` unless a number is in [0, 1)."""
    _check_real(name, value, "in [0, 1)", lambda number: 0 <= number < 1)


def check_probability(name: str, value: object) -> None:
    """Raises ``ValueError`` unless a number is in [0, 1]."""
    _check_real(name, value, "in [0, 1]", lambda number: 0 <= number <= 1)


def check_share(name: str, value: object) -> None:
    """Raises ``ValueError`` unless a number is in (0, 1)."""
    _check_real(name, value, "in (0, 1)", lambda number: 0 < number < 1)


def _check_real(name: str, value: object, wanted: str, fits: Callable[[float], bool]) -> None:
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and fits(float(value))):  # type: ignore[arg-type]
        raise UserError(f"{name} must be {wanted}, got {shown(value)}")


def check_floating(name: str, points: object) -> None:
    """Raises ``ValueError`` unless points are a tensor of floating-point numbers.

    Bytes are images only for a :class:`~.DataSource`, which divides them by 255.
    """
    if isinstance(points, Tensor) and points.layout is not torch.strided:
        raise _without_numbers(name, f"of {points.layout}")
    if not isinstance(points, Tensor) or not points.is_floating_point():
        hint = ": divide bytes by 255" if getattr(points, "dtype", None) == torch.uint8 else ""
        if isinstance(points, np.ndarray | list | tuple):
            hint = ": make a tensor of it, as by torch.as_tensor"
        raise UserError(f"{name} must be floating-point numbers, got {kind_of(points)}{hint}")


def _without_numbers(name: str, what: str) -> UserError:
    return UserError(f"{name} must have a number for each coordinate, got a tensor {what}")


def check_data(name: str, points: Any, least: int = 1) -> None:
    """Raises ``ValueError`` unless data are rows of finite floating-point numbers, at least so many
    points, each of at least one coordinate.
    """
    check_floating(name, points)
    check_rows(name, points, least)


def check_rows(name: str, points: Tensor, least: int = 1) -> None:
    """As :func:`check_data`, for numbers of any kind."""
    if points.layout is not torch.strided or points.is_meta:
        raise _without_numbers(
            name, "on the device meta" if points.is_meta else f"of {points.layout}"
        )
    if not points.dim() or len(points) < least or 0 in points.shape[1:]:
        some = "one point" if least == 1 else f"{least} points"
        raise UserError(f"{name} must be at least {some} of numbers, got {kind_of(points)}")
    finite = points.detach().isfinite() if points.is_floating_point() else None
    if finite is not None and not bool(finite.all()):
        bad = int((~finite.reshape(len(points), -1).all(dim=1)).sum())
        place = tuple((~finite).nonzero()[0].tolist())
        raise UserError(
            f"{name} must be finite: {bad} of {len(points)} points are not, the first is "
            f"{float(points.detach()[place])} at index {place}"
        )


def check_kind(name: str, value: object, kind: type) -> None:
    """Raises ``TypeError`` unless a value is an object of a class."""
    if not isinstance(value, kind):
        raise UnsupportedError(f"{name} must be of class {kind.__name__}, got {kind_of(value)}")


def shown(value: object) -> str:
    """A value in a line: itself, where it is short."""
    if isinstance(value, Tensor | np.ndarray):
        return kind_of(value)
    return reprlib.repr(value)


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | complex):
        return repr(value)
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def within(name: str, values: Tensor, low: float | int, high: float | int) -> None:
    """Raises ``ValueError`` unless all numbers are in a range; see :func:`inspect`."""

    def check(numbers: Tensor) -> None:
        least, most = (float(bound) for bound in numbers.aminmax())
        if not (low <= least and most <= high):
            raise UserError(f"{name} must lie in [{low:g}, {high:g}], got {least:g} to {most:g}")

    inspect(values, check)


def inspect(values: Tensor, check: Callable[[Tensor], None]) -> None:
    """Calls a check with the numbers of a tensor, all of them inside of a map by ``torch.func``.

    Numbers on a GPU would have to be waited for, and those of a graph that is being compiled are
    not there yet: neither is checked.
    """
    if values.device.type != "cpu" or not values.numel() or torch.compiler.is_compiling():
        return
    values = values.detach()
    try:
        check(values)
    except RuntimeError:
        # A map does not give numbers out, only a function of its own receives them.
        _Inspection.apply(values, check)  # type: ignore[no-untyped-call]


class _Inspection(torch.autograd.Function):
    """Nothing, after a look at numbers inside of all transforms of ``torch.func``."""

    @staticmethod
    def forward(values: Tensor, check: Callable[[Tensor], None]) -> Tensor:
        check(values)
        return values.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, values: Tensor, check: Callable[[Tensor], None]
    ) -> tuple[Tensor, None]:
        output: Tensor = _Inspection.apply(values, check)  # type: ignore[no-untyped-call]
        return output, None

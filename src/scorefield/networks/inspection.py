"""Checks of the numbers that a network receives, where looking at them costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scorefield.errors import UserError


def within(name: str, values: Tensor, low: float | int, high: float | int) -> None:
    """Checks that numbers lie in a range; see :func:`inspect`.

    Raises:
        ValueError: If a number is less than ``low``, more than ``high``, or NaN.
    """

    def check(numbers: Tensor) -> None:
        least, most = (float(bound) for bound in numbers.aminmax())
        if not (low <= least and most <= high):
            raise UserError(f"{name} must lie in [{low}, {high}], got {least} to {most}")

    inspect(values, check)


def inspect(values: Tensor, check: Callable[[Tensor], None]) -> None:
    """Calls a check with the numbers of a tensor, all of them inside of a map by ``torch.func``.

    Numbers on a GPU would have to be waited for, and those of a graph that is being compiled are
    not there yet: neither is checked.
    """
    if values.device.type == "cpu" and values.numel() and not torch.compiler.is_compiling():
        _Inspection.apply(values.detach(), check)  # type: ignore[no-untyped-call]


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

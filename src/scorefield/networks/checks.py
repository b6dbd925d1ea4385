"""Checks of what a network is made of, and of the numbers that it receives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from scorefield.errors import UserError


def check_sizes(owner: str, **sizes: int) -> None:
    """Raises ``ValueError`` unless every size is positive."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{owner} needs {name} >= 1, got {size}")


def image_shape(shape: Sequence[int], levels: int = 1, name: str = "shape") -> tuple[int, ...]:
    """The shape of an image of which each of several levels has half the side of the one before.

    Raises:
        ValueError: If it is not that of an image, or its sides cannot be halved so often.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"{name} must be (channels, height, width), got {tuple(shape)}")
    factor = 2 ** (levels - 1)
    if shape[1] % factor or shape[2] % factor:
        raise UserError(
            f"{name}: {levels} levels fit images whose sides are multiples of {factor}, "
            f"got {shape[1]} x {shape[2]}"
        )
    return tuple(shape)


def within(name: str, values: Tensor, low: float | int, high: float | int) -> None:
    """Raises ``ValueError`` unless all numbers are in a range; see :func:`inspect`."""

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

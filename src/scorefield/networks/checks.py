"""Checks of what a network is made of."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.checks import check_count, kind_of
from scorefield.errors import UserError

LARGEST = 10**9
"""The largest size of a network."""


def check_sizes(owner: str, **sizes: int) -> None:
    """Raises ``ValueError`` unless every size is a positive integer, and none is too large for the
    numbers of a tensor to be counted.
    """
    for name, size in sizes.items():
        check_count(f"{owner}: {name}", size)
        if size > LARGEST:
            raise UserError(f"{owner}: {name} must be at most {LARGEST:,}, got {size:,}")


def image_shape(shape: Sequence[int], levels: int = 1, name: str = "shape") -> tuple[int, ...]:
    """The shape of an image of which each of several levels has half the side of the one before.

    Raises:
        ValueError: If it is not that of an image, or its sides cannot be halved so often.
    """
    if not isinstance(shape, Sequence) or len(shape) != 3 or min(shape) < 1:
        given = tuple(shape) if isinstance(shape, Sequence) else kind_of(shape)
        raise UserError(f"{name} must be (channels, height, width), got {given}")
    factor = 2 ** (levels - 1)
    if shape[1] % factor or shape[2] % factor:
        raise UserError(
            f"{name}: {levels} levels fit images whose sides are multiples of {factor}, "
            f"got {shape[1]} x {shape[2]}"
        )
    return tuple(shape)

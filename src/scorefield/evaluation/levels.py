"""Integers as points of a density: the levels of a data set, and noise in their cells."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.config.data import DigitsData, ImagesData
from scorefield.likelihood.density import CENTERED_BYTES, UNIT_BYTES, DataTransform
from scorefield.noise import Noise

DIGIT_LEVELS = DataTransform(2.0, -1.0, levels=17)
"""The pixels 0 … 16 of the digits, in [-1, 1]."""


class Levels(NamedTuple):
    """How integers became the points of some data, and whether these have noise already."""

    transform: DataTransform
    noisy: bool = False


def levels_of(data: object) -> Levels | None:
    """The levels of the data of a section of a configuration; ``None`` if they have none."""
    match data:
        case DigitsData():
            return Levels(DIGIT_LEVELS)
        case ImagesData(centered=centered, dequantize=noisy):
            return Levels(CENTERED_BYTES if centered else UNIT_BYTES, noisy)
    return None


def within_cells(
    x: Float[Tensor, "n *event"], levels: Levels, seed: int
) -> Float[Tensor, "n *event"]:
    """Points of a lattice moved into the cells of their levels; as they are, if they have noise.

    With the levels at :math:`b + a k / (L - 1)`, which fill the interval to both its ends, the
    points become :math:`b + a (k + u) / L` for :math:`u` uniform at ``("dequantize", index)``.
    """
    transform, noisy = levels
    if noisy:
        return x
    level = ((x - transform.shift) / transform.scale * (transform.levels - 1)).round()
    index = torch.arange(len(x), device=x.device)
    u = Noise(seed).uniform("dequantize", x.shape[1:], index, dtype=x.dtype)
    return transform.shift + transform.cell * (level + u)

"""The points that a model is measured on, and the noise levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.data.arrays import FiniteSource
from scorefield.data.source import DataSource, Split
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise

LEVELS = 10
"""How many noise levels are tried."""
_EDGE = 1e-6
_FITTED = 2048
"""The most points that the trivial denoiser is fitted to."""


@dataclass(frozen=True)
class Points:
    """Held-out points, the noise that is added to them at every noise level, their classes, and
    the points that the trivial denoiser is fitted to; the same by default.
    """

    clean: Float[Tensor, "n *event"]
    noise: Float[Tensor, "n *event"]
    classes: Tensor | None = None
    others: Float[Tensor, "m *event"] | None = None

    @classmethod
    def of(cls, field: ScoreField, source: DataSource, n: int, seed: int) -> Points:
        """So many points of a source, and their classes where the field knows classes; the trivial
        denoiser is fitted to training points.
        """
        split = split_of(source)
        clean = source.reference(n, seed, split, torch.float64)
        z = Noise(-1 - seed).normal("check/noise", clean.shape[1:], torch.arange(n),
                                    dtype=torch.float64)  # fmt: skip
        classes = None
        if field.classes is not None and source.classes is not None:
            classes = source.reference_classes(n, seed, split)
        most = _FITTED if source.size is None else min(_FITTED, source.size)
        return cls(clean, z, classes, source.reference(most, seed, "train", torch.float64))


def held_out(source: DataSource) -> int | None:
    """The number of held-out points of a source; ``None`` if there is no end of them."""
    if source.size is None:
        return None
    if not isinstance(source, FiniteSource):
        raise UserError(
            f"{source.name} is finite, and states its held-out points as a FiniteSource only"
        )
    return source.count("test")


def split_of(source: DataSource) -> Split:
    """The split that a model is measured on: held-out points, or training points without any."""
    return "train" if held_out(source) == 0 else "test"


def noise_levels(field: ScoreField, std: float) -> tuple[float, ...]:
    """Noise levels from a hundredth of the data's spread to five times it, as far as the process
    has them.
    """
    if not std:
        raise UserError("the points of the data are all equal: there is nothing to measure")
    least, most = field.sde.level_range
    low, high = max(least * (1 + _EDGE), 0.01 * std), min(most * (1 - _EDGE), 5 * std)
    if not low < high:
        raise UserError(
            f"the process has noise levels from {least:.3g} to {most:.3g}, which do not cover "
            f"the standard deviation of the data, {std:.3g}: are these its units?"
        )
    return tuple(np.geomspace(low, high, LEVELS).tolist())

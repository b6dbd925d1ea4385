"""A regulariser that draws the field to an oracle."""

from __future__ import annotations

from dataclasses import InitVar
from typing import Literal

import torch
from torch import Tensor

from scorefield.fields import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.oracle import Oracle
from scorefield.objectives.regularizer import PointRegularizer

ScoreWeighting = Literal["sigma", "none"]
"""``sigma`` for errors in units of the noise, ``none`` for those of the score itself."""


class Regression(PointRegularizer):
    r"""The mean squared error :math:`\frac{\sigma^2}{D} \|s - s_*\|^2` against an oracle's score.

    The oracle is no part of what is trained or stored. The cost is one evaluation of the field and
    one of the oracle, which has no gradient.

    Arguments:
        oracle: The field to be drawn to, under the process of the field.
        weighting: ``sigma``, or ``none`` for :math:`\frac1D \|s - s_*\|^2`.

    Raises:
        ValueError: If an argument is out of range; in use, if the oracle is a field of another
            process or domain.
    """

    name = "regression"
    purpose = "points"

    oracle: InitVar[ScoreField]
    weighting: ScoreWeighting = "sigma"

    def __post_init__(self, oracle: ScoreField) -> None:
        super().__post_init__()
        self._check_choice("weighting", ScoreWeighting)
        self.truth = Oracle(oracle)

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        self.truth.check(self.name, field)
        return super().draw(field, law, noise, rows, step)

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        with torch.no_grad(), self.truth.asked(x) as oracle:
            target = oracle.predict_noise(x, t)
        square = (field.predict_noise(x, t) - target).square().reshape(len(t), -1).mean(dim=1)
        if self.weighting == "none":
            square = square / field.sde.sigma(t) ** 2
        return square.mean()

"""A regulariser that draws the field to an oracle."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.balance import BalancedWeight
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.objective import Regularizer
from scorefield.objectives.oracle import Oracle
from scorefield.objectives.points import PointLaw, check_points, draw_points, place_points

ScoreWeighting = Literal["sigma", "none"]
"""``sigma`` for errors in units of the noise, ``none`` for those of the score itself."""


class Regression(Regularizer):
    r"""The mean squared error :math:`\frac{\sigma^2}{D} \|s - s_*\|^2` against an oracle's score.

    The oracle is no part of what is trained or stored. The cost is one evaluation of the field and
    one of the oracle, which has no gradient.

    Arguments:
        weight: The weight, averaged over steps, or a controller.
        oracle: The field to be drawn to, under the process of the field.
        weighting: ``sigma``, or ``none`` for :math:`\frac1D \|s - s_*\|^2`.
        points: ``data`` for noised points of the batch, ``uniform`` for those of a torus.
        rows: The number of points, at most the batch.
        every: Evaluated at every ``every``-th step.
        sigma_min: The least noise level; the process's by default.
        sigma_max: The largest; the process's by default.

    Raises:
        ValueError: If an argument is out of range; in use, if the oracle is a field of another
            process or domain.
    """

    name = "regression"

    def __init__(
        self,
        weight: float | BalancedWeight,
        oracle: ScoreField,
        weighting: ScoreWeighting = "sigma",
        points: PointLaw = "data",
        rows: int = 64,
        every: int = 1,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__(weight, every, sigma_min, sigma_max)
        check_weighting(self.name, weighting)
        check_points(self.name, points, rows)
        self.oracle = Oracle(oracle)
        self.weighting = weighting
        self.points: PointLaw = points
        self.rows = rows

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        self.oracle.check(self.name, field)
        index = torch.arange(min(rows, self.rows))
        t = self.times(law, field.sde, noise, index, step)
        return t, draw_points(self.points, field, noise, "regression/points", index, step)

    def energy(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        t, drawn = draws
        x_t = place_points(self.points, field, x, t, drawn)
        with torch.no_grad(), self.oracle.asked(x) as oracle:
            truth = oracle.predict_noise(x_t, t)
        square = (field.predict_noise(x_t, t) - truth).square().reshape(len(t), -1).mean(dim=1)
        if self.weighting == "none":
            square = square / field.sde.sigma(t) ** 2
        return square.mean()


def check_weighting(owner: str, weighting: str) -> None:
    """Raises ``ValueError`` unless the weighting is known."""
    if weighting not in get_args(ScoreWeighting):
        raise UserError(f"{owner}: weighting is sigma or none, not {weighting!r}")

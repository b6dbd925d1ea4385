"""A regulariser on the residual of the score Fokker–Planck equation."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from scorefield.calculus import (
    FokkerPlanckForm,
    fokker_planck_terms,
    per_log_noise,
    unbiased_square,
)
from scorefield.errors import UserError
from scorefield.fields import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.balance import BalancedWeight
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.objective import Regularizer
from scorefield.objectives.points import PointLaw, check_points, draw_points, place_points

FokkerPlanckWeighting = Literal["sigma", "none"]
"""``sigma`` for the residual in units of the noise, per unit of its logarithm; ``none`` for that of
the score, per unit of time."""


class FokkerPlanck(Regularizer):
    r"""The mean square of a coordinate of the residual of the score Fokker–Planck equation.

    .. math:: \frac1D\, \mathbb{E}\,\|\rho\|^2, \qquad \rho = \frac{2 \sigma^3}{g^2}\, r,

    with the residual :math:`r` of :mod:`scorefield.calculus.fokker_planck`; with the weighting
    ``none`` that of :math:`r` itself, which at little noise is larger by powers of
    :math:`1 / \sigma`, so that its weight has to be as small as :math:`10^{-5}`.

    The exact residual takes an evaluation of the field at :math:`D` copies of the points and two
    passes back through it, or three for the component form, before the one to the weights. For a
    perceptron of two coordinates that makes a step of a batch of 512 with 64 such points 2.9 times
    as long, or 3.5 times. Where :math:`D` is large, ``probes`` take the place of the copies, and a
    few more passes at the points. The square is then that of the mean of independent draws, without
    bias: the mean of their products two by two.

    The network has to have second derivatives: those of rectified linear units are zero.

    Arguments:
        weight: The weight, averaged over steps, or a controller.
        form: ``gradient`` for the equation as it is; ``component`` for the form that agrees with it
            for gradients only.
        weighting: ``sigma`` or ``none``.
        probes: The number of random signs a point, at least 2; exact if not given.
        points: ``data`` for noised points of the batch, ``uniform`` for points anywhere on a torus.
        rows: The number of points, at most the batch.
        every: Evaluated at every ``every``-th step.
        sigma_min: The least noise level; the process's by default.
        sigma_max: The largest; the process's by default.

    Raises:
        ValueError: If an argument is out of range; in use, if uniform points are asked for and the
            field is not on a torus.

    References:
        FP-diffusion: improving score-based diffusion models by enforcing the underlying score
        Fokker–Planck equation (Lai, Takida, Murata, Uesaka, Mitsufuji and Ermon, 2023).
    """

    name = "fokker_planck"

    def __init__(
        self,
        weight: float | BalancedWeight,
        form: FokkerPlanckForm = "gradient",
        weighting: FokkerPlanckWeighting = "sigma",
        probes: int | None = None,
        points: PointLaw = "data",
        rows: int = 64,
        every: int = 1,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__(weight, every, sigma_min, sigma_max)
        if form not in get_args(FokkerPlanckForm):
            raise UserError(f"fokker_planck: form is gradient or component, not {form!r}")
        if weighting not in get_args(FokkerPlanckWeighting):
            raise UserError(f"fokker_planck: weighting is sigma or none, not {weighting!r}")
        if probes is not None and probes < 2:
            raise UserError(
                f"fokker_planck: a square without bias takes at least 2 probes, got {probes}"
            )
        check_points("fokker_planck", points, rows)
        self.form: FokkerPlanckForm = form
        self.weighting = weighting
        self.probes = probes
        self.points: PointLaw = points
        self.rows = rows

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        index = torch.arange(min(rows, self.rows))
        t = self.times(law, field.sde, noise, index, step)
        drawn = draw_points(self.points, field, noise, "fokker_planck/point", index, step)
        if self.probes is None:
            return t, drawn
        shape = (self.probes, *field.domain.shape)
        v = noise.signs("fokker_planck/probe", shape, index, step)
        return t, drawn, v.movedim(2, 1)

    def energy(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        t, drawn, *probes = draws
        sde, x_t = field.sde, place_points(self.points, field, x, t, drawn)
        v = probes[0] if probes else None
        terms = fokker_planck_terms(field.score, x_t, t, sde, (self.form,), v)[self.form]
        residual = terms.residual(t, sde)
        if self.weighting == "sigma":
            residual = per_log_noise(residual, t, sde)
        return unbiased_square(residual).mean()

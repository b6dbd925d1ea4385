"""A regulariser on the residual of the score Fokker–Planck equation."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from scorefield.calculus.fokker_planck import (
    FokkerPlanckForm,
    fokker_planck_terms,
    per_log_noise,
    unbiased_square,
)
from scorefield.checks import check_count
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.regularizer import PointRegularizer

FokkerPlanckWeighting = Literal["sigma", "none"]
"""``sigma`` for the residual in units of the noise, per unit of its logarithm; ``none`` for that of
the score, per unit of time."""


class FokkerPlanck(PointRegularizer):
    r"""The mean square of a coordinate of the residual of the score Fokker–Planck equation.

    .. math:: \frac1D\, \mathbb{E}\,\|\rho\|^2, \qquad \rho = \frac{2 \sigma^3}{g^2}\, r,

    with the residual :math:`r` of :mod:`scorefield.calculus.fokker_planck`; with the weighting
    ``none`` that of :math:`r` itself, which at little noise is larger by powers of
    :math:`1 / \sigma`, so that its weight has to be as small as :math:`10^{-5}`.

    The exact residual takes an evaluation of the field at :math:`D` copies of the points and two
    passes back through it, or three for the component form, before the one to the weights. Where
    :math:`D` is large, ``probes`` take the place of the copies, and a few more passes at the
    points; the square is then the mean of the products of independent draws two by two, without
    bias.

    The network has to have second derivatives: those of rectified linear units are zero.

    Arguments:
        form: ``gradient`` for the equation as it is; ``component`` for the form that agrees with it
            for gradients only.
        weighting: ``sigma`` or ``none``.
        probes: The number of random signs a point, at least 2; exact if not given.

    Raises:
        ValueError: If an argument is out of range; in use, if uniform points are requested and the
            field is not on a torus.

    References:
        FP-diffusion: improving score-based diffusion models by enforcing the underlying score
        Fokker–Planck equation (Lai, Takida, Murata, Uesaka, Mitsufuji and Ermon, 2023).
    """

    name = "fokker_planck"
    purpose = "point"

    form: FokkerPlanckForm = "gradient"
    weighting: FokkerPlanckWeighting = "sigma"
    probes: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("form", FokkerPlanckForm)
        self._check_choice("weighting", FokkerPlanckWeighting)
        if self.probes is not None:
            check_count("fokker_planck: probes", self.probes, 2)

    def directions(
        self, field: ScoreField, noise: Noise, index: Tensor, step: Tensor
    ) -> tuple[Tensor, ...]:
        if self.probes is None:
            return ()
        shape = (self.probes, *field.domain.shape)
        return (noise.signs("fokker_planck/probe", shape, index, step),)

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        sde, (v,) = field.sde, [d.transpose(0, 1) for d in directions] or (None,)
        residual = fokker_planck_terms(field.score, x, t, sde, (self.form,), v)[self.form].residual(
            t, sde
        )
        if self.weighting == "sigma":
            residual = per_log_noise(residual, t, sde)
        return unbiased_square(residual).mean()

"""A regulariser on the asymmetry of the Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.calculus import per_coordinate, probed_asymmetry
from scorefield.calculus.asymmetry import Variant
from scorefield.errors import UserError
from scorefield.fields import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.balance import BalancedWeight
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.objective import Regularizer


class Asymmetry(Regularizer):
    r"""The mean squared asymmetry :math:`\sigma^4 \|J - J^\top\|_F^2 / D` of the score's Jacobian.

    Estimated on noised points of the batch by ``probes`` random probes :math:`v` each, with one
    pass of forward mode (:math:`Jv`) and one of reverse mode (:math:`J^\top v`); unbiased.

    Arguments:
        weight: The weight, averaged over steps, or a controller.
        variant: ``difference`` for :math:`\|Jv - J^\top v\|^2`; ``trace`` for
            :math:`2(\|J^\top v\|^2 - \langle Jv, J^\top v\rangle)`, of the same mean.
        probe: ``rademacher`` or ``gaussian``.
        probes: The number of probes a point.
        rows: The number of points, at most the batch.
        every: Evaluated at every ``every``-th step.
        sigma_min: The least noise level; the process's by default.
        sigma_max: The largest; the process's by default.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Quasi-conservative score-based generative models (Chao et al., 2023), equations 9 and 12.
    """

    name = "asymmetry"

    def __init__(
        self,
        weight: float | BalancedWeight,
        variant: Variant = "trace",
        probe: str = "rademacher",
        probes: int = 1,
        rows: int = 64,
        every: int = 1,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__(weight, every, sigma_min, sigma_max)
        if variant not in ("difference", "trace"):
            raise UserError(f"asymmetry: variant is difference or trace, not {variant!r}")
        if probe not in ("rademacher", "gaussian"):
            raise UserError(f"asymmetry: probe is rademacher or gaussian, not {probe!r}")
        if min(probes, rows) < 1:
            raise UserError(f"asymmetry: probes and rows must be positive, got {probes}, {rows}")
        self.variant = variant
        self.probe = probe
        self.probes = probes
        self.rows = rows

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        index = torch.arange(min(rows, self.rows))
        t = self.times(law, field.sde, noise, index, step)
        z = noise.normal("asymmetry/perturbation", field.domain.shape, index, step)
        draw_probe = noise.signs if self.probe == "rademacher" else noise.normal
        v = draw_probe("asymmetry/probe", (self.probes, *field.domain.shape), index, step)
        return t, z, v

    def energy(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor:
        t, z, v = draws
        x_t = field.sde.perturb(x[: t.shape[0]], t, z, field.domain)
        x_t, t = x_t.repeat_interleave(self.probes, 0), t.repeat_interleave(self.probes, 0)
        skew, _ = probed_asymmetry(field.score, x_t, t, v.flatten(0, 1), self.variant)
        return per_coordinate(skew, field.sde.sigma(t), field.domain.dim).mean()

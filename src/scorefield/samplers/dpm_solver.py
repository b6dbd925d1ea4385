r"""DPM-Solver++: a multistep method on the posterior mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scorefield.fields.base import ScoreField
from scorefield.samplers.base import GridSampler
from scorefield.samplers.grid import Spacing, check_grid, grid_times
from scorefield.samplers.step import PLAIN, StepContext, Stepped, clock, level
from scorefield.sde import SDE


@dataclass(frozen=True)
class DPMSolverPlusPlus2M(GridSampler):
    r"""The second-order multistep method: one network call a step, and the line through the last
    two posterior means.

    In :math:`\hat x = x / \alpha` and :math:`\ell = -\ln\lambda` the probability-flow ODE is
    :math:`\mathrm{d}\hat x / \mathrm{d}\ell = D(\hat x, \ell) - \hat x`, linear but for the
    posterior mean :math:`D`. With :math:`h_i = \ell_{i+1} - \ell_i` and
    :math:`r = h_{i-1} / h_i`,

    .. math:: \hat x_{i+1} = e^{-h_i}\,\hat x_i + (1 - e^{-h_i}) \Big(D_i
        + \frac{1}{2r} (D_i - D_{i-1})\Big).

    The first step has no step before it, and the last goes to :math:`\lambda = 0`, infinitely far
    in :math:`\ell`: both take :math:`D_i` alone. It takes :math:`N` network calls. In a loop of
    one's own the outcome of the step before is part of the context; without it a step is one of the
    first order.

    Arguments:
        steps: The number :math:`N` of steps.
        spacing: How the levels are spaced; see :func:`~scorefield.samplers.grid.grid_times`.
        rho: The exponent of Karras' spacing.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models (Lu, Zhou,
        Bao, Chen, Li and Zhu, 2022), algorithm 2.
    """

    order: ClassVar[int] = 2
    takes_measurements: ClassVar[bool] = True

    steps: int = 20
    spacing: Spacing = "karras"
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_grid(self.steps, self.spacing, self.rho)

    def times(self, sde: SDE) -> list[float | None]:
        return [*grid_times(sde, self.steps, self.spacing, rho=self.rho).tolist(), None]

    def step(
        self, field: ScoreField, x: Tensor, t: float, s: float | None, at: StepContext = PLAIN
    ) -> Stepped:
        here, there, before = level(field.sde, t), level(field.sde, s), at.previous
        denoised = field.denoise(x, clock(t, x), at.classes)
        target = denoised
        if before is not None and s is not None:
            last = level(field.sde, before.start).sigma
            length = math.log(last / here.sigma) / math.log(here.sigma / there.sigma)
            # On a torus from the nearest image: states may have been wrapped since.
            change = field.domain.displacement(before.denoised, denoised)
            target = denoised.add(change, alpha=0.5 / length)
        moved = target.add(x / here.alpha - target, alpha=there.sigma / here.sigma)
        return Stepped(at.arrive(there.alpha * moved, there, field.domain), denoised, t, s)

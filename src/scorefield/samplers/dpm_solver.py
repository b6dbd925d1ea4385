r"""DPM-Solver++: a multistep method on the posterior mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from scorefield.fields.base import ScoreField
from scorefield.samplers.base import Block, Sampler, check_budget
from scorefield.samplers.grid import Spacing, at_times, check_grid, grid_times


@dataclass(frozen=True)
class DPMSolverPlusPlus2M(Sampler):
    r"""The second-order multistep method: one network call a step, and the line through the last
    two posterior means.

    In :math:`\hat x = x / \alpha` and :math:`\ell = -\ln\lambda` the probability-flow ODE is
    :math:`\mathrm{d}\hat x / \mathrm{d}\ell = D(\hat x, \ell) - \hat x`, linear but for the
    posterior mean :math:`D`. With :math:`h_i = \ell_{i+1} - \ell_i` and
    :math:`r = h_{i-1} / h_i`,

    .. math:: \hat x_{i+1} = e^{-h_i}\,\hat x_i + (1 - e^{-h_i}) \Big(D_i
        + \frac{1}{2r} (D_i - D_{i-1})\Big).

    The first step has no step before it, and the last goes to :math:`\lambda = 0`, infinitely far
    in :math:`\ell`: both take :math:`D_i` alone. It takes :math:`N` network calls.

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

    @property
    def stochastic(self) -> bool:
        return False

    @property
    def nfe(self) -> int:
        return self.steps

    @classmethod
    def for_nfe(cls, budget: int, **settings: Any) -> DPMSolverPlusPlus2M:
        check_budget(budget)
        return cls(steps=budget, **settings)

    def _solve(self, field: ScoreField, x: Tensor, block: Block) -> Tensor:
        times = grid_times(field.sde, self.steps, self.spacing, rho=self.rho)
        grid = at_times(times, field.sde, x)
        x = x / grid.alpha[0] if grid.alpha[0] != 1 else x
        before: Tensor | None = None
        for step, start in enumerate(grid.sigma):
            end = grid.sigma[step + 1] if step + 1 < self.steps else 0.0
            alpha = grid.alpha[step]
            denoised = field.denoise(alpha * x if alpha != 1 else x, grid.time[step], block.classes)
            target = denoised
            if before is not None and end > 0:
                length = math.log(grid.sigma[step - 1] / start) / math.log(start / end)
                target = denoised.add(denoised - before, alpha=0.5 / length)
            flat = block.impose(target.add(x - target, alpha=end / start), step + 1, 1.0, end)
            x = field.domain.wrap(flat)
            # On a torus the posterior mean goes around with the state.
            before = denoised + (x - flat)
            block.report(step, self.steps, start, end, x, denoised.clone, step + 1)
        return x

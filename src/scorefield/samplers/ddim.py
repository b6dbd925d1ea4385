r"""DDIM: from the probability flow to ancestral sampling, in steps of any length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.samplers.base import Block, Sampler, check_budget
from scorefield.samplers.grid import Spacing, at_times, check_grid, grid_times
from scorefield.samplers.karras import noise_at


@dataclass(frozen=True)
class DDIM(Sampler):
    r"""Steps that go to the posterior mean and back up to the next noise level.

    .. math:: \hat x_{i+1} = D + \sqrt{\lambda_{i+1}^2 - c_i^2}\;\hat\varepsilon + c_i\,z, \qquad
        D = \hat x_i - \lambda_i \hat\varepsilon, \qquad
        c_i = \eta\,\frac{\lambda_{i+1}}{\lambda_i} \sqrt{\lambda_i^2 - \lambda_{i+1}^2},

    in :math:`\hat x = x / \alpha` and :math:`\lambda = \sigma / \alpha`, where it is one
    method for all processes. With :math:`\eta = 0` nothing is drawn, and on Karras' grid it is
    :class:`~scorefield.samplers.euler.Euler`; with :math:`\eta = 1` it is ancestral sampling with
    the posterior variance. It takes :math:`N` network calls; the last step goes to the posterior
    mean. The noise has the address ``("ddim", sample, step)``.

    Arguments:
        steps: The number :math:`N` of steps.
        eta: The share :math:`\eta` of the noise, from 0 to 1.
        spacing: How the levels are spaced; see :func:`~scorefield.samplers.grid.grid_times`.
        rho: The exponent of Karras' spacing.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        Denoising diffusion implicit models (Song, Meng and Ermon, 2021), equations 12 and 16.
    """

    order: ClassVar[int] = 1
    takes_measurements: ClassVar[bool] = True

    steps: int = 50
    eta: float = 0.0
    spacing: Spacing = "karras"
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_grid(self.steps, self.spacing, self.rho)
        if not 0 <= self.eta <= 1:
            raise UserError(f"DDIM: eta must lie in [0, 1], got {self.eta}")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def nfe(self) -> int:
        return self.steps

    @classmethod
    def for_nfe(cls, budget: int, **settings: Any) -> DDIM:
        check_budget(budget)
        return cls(steps=budget, **settings)

    def _solve(self, field: ScoreField, x: Tensor, block: Block) -> Tensor:
        times = grid_times(field.sde, self.steps, self.spacing, rho=self.rho)
        grid = at_times(times, field.sde, x)
        x = x / grid.alpha[0] if grid.alpha[0] != 1 else x
        for step, start in enumerate(grid.sigma):
            end = grid.sigma[step + 1] if step + 1 < self.steps else 0.0
            before, noise = x, noise_at(field, x, step, grid, block.classes)
            fresh = self.eta * end / start * math.sqrt((start - end) * (start + end))
            kept = math.sqrt(max(0.0, (end - fresh) * (end + fresh)))
            x = x.add(noise, alpha=kept - start)
            if fresh > 0:
                x = x.add(block.normal("ddim", step, like=x), alpha=fresh)
            x = field.domain.wrap(block.impose(x, step + 1, 1.0, end))
            denoised = partial(torch.sub, before, noise, alpha=start)
            block.report(step, self.steps, start, end, x, denoised, step + 1)
        return x

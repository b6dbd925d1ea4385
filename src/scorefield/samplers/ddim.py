r"""DDIM: from the probability flow to ancestral sampling, in steps of any length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.samplers.base import GridSampler
from scorefield.samplers.grid import Spacing, check_grid, grid_times
from scorefield.samplers.karras import noise_at
from scorefield.samplers.step import PLAIN, StepContext, Stepped, level
from scorefield.sde import SDE


@dataclass(frozen=True)
class DDIM(GridSampler):
    r"""Steps that go to the posterior mean and back up to the next noise level.

    .. math:: \hat x_{i+1} = D + \sqrt{\lambda_{i+1}^2 - c_i^2}\;\hat\varepsilon + c_i\,z, \qquad
        D = \hat x_i - \lambda_i \hat\varepsilon, \qquad
        c_i = \eta\,\frac{\lambda_{i+1}}{\lambda_i} \sqrt{\lambda_i^2 - \lambda_{i+1}^2},

    in :math:`\hat x = x / \alpha` and :math:`\lambda = \sigma / \alpha`, where it is one
    method for all processes. With :math:`\eta = 0` nothing is drawn, and on Karras' grid it is
    :class:`~scorefield.samplers.karras.Euler`; with :math:`\eta = 1` it is ancestral sampling with
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

    def times(self, sde: SDE) -> list[float | None]:
        return [*grid_times(sde, self.steps, self.spacing, rho=self.rho).tolist(), None]

    def step(
        self, field: ScoreField, x: Tensor, t: float, s: float | None, at: StepContext = PLAIN
    ) -> Stepped:
        here, there = level(field.sde, t), level(field.sde, s)
        start, end = here.sigma, there.sigma
        fresh = self.eta * end / start * math.sqrt((start - end) * (start + end))
        kept = math.sqrt(max(0.0, (end - fresh) * (end + fresh)))
        scaled = x / here.alpha
        noise = noise_at(field, scaled, here, t, at)
        moved = scaled.add(noise, alpha=kept - start)
        if fresh > 0:
            moved = moved.add(at.normal("ddim", moved), alpha=fresh)
        x = at.arrive(there.alpha * moved, there, field.domain)
        return Stepped(x, scaled.sub(noise, alpha=start), t, s)

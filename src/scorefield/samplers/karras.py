r"""The loop that one-step methods on Karras' grid share: churn, a step, a report."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.samplers.base import Block, Sampler
from scorefield.samplers.grid import Levels, at_levels, check_steps, karras_levels


@dataclass(frozen=True)
class KarrasSampler(Sampler):
    r"""A one-step method on Karras' grid, with churn.

    With churn, a step from :math:`\lambda_i` first raises the noise level to
    :math:`\hat\lambda = (1 + \gamma)\,\lambda_i` by adding fresh noise,

    .. math:: \hat x \leftarrow \hat x
        + S_{noise} \sqrt{\hat\lambda^2 - \lambda_i^2}\; \varepsilon, \qquad
        \gamma = \min\big(S_{churn} / N,\ \sqrt 2 - 1\big)
        \text{ if } S_{tmin} \le \lambda_i \le S_{tmax} \text{, else } 0,

    and then follows the probability flow from :math:`\hat\lambda` to :math:`\lambda_{i+1}`. With
    an exact field and :math:`S_{noise} = 1` this leaves the law of the samples as it was. The
    noise has the address ``("churn", sample, step)``. Where the window takes in the top of the
    grid, the first step calls the field above its highest noise level.

    Arguments:
        steps: The number :math:`N` of steps.
        rho: The exponent of the grid.
        churn: The total amount :math:`S_{churn} \ge 0` of churn; 0 for the deterministic method.
        churn_min: The least noise level :math:`S_{tmin}` with churn, in units of the data.
        churn_max: The greatest, :math:`S_{tmax}`.
        churn_noise: The inflation :math:`S_{noise}` of the fresh noise, a pure number.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        algorithm 2.
    """

    takes_measurements: ClassVar[bool] = True

    steps: int = 18
    rho: float = 7.0
    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_steps(self.steps)
        if not (math.isfinite(self.rho) and self.rho > 0):
            raise UserError(f"{name}: rho must be positive, got {self.rho}")
        if not (math.isfinite(self.churn) and self.churn >= 0):
            raise UserError(f"{name}: churn must not be negative, got {self.churn}")
        if not 0 <= self.churn_min <= self.churn_max:
            raise UserError(
                f"{name}: 0 <= churn_min <= churn_max must hold, got "
                f"{self.churn_min} and {self.churn_max}"
            )
        if not (math.isfinite(self.churn_noise) and self.churn_noise > 0):
            raise UserError(f"{name}: churn_noise must be positive, got {self.churn_noise}")

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    @abstractmethod
    def _step(
        self,
        field: ScoreField,
        x: Tensor,
        slope: Tensor,
        step: int,
        start: float,
        grid: Levels,
        classes: Tensor | None,
    ) -> tuple[Tensor, int]:
        """Moves the states from the level ``start`` to the grid's level ``step + 1``.

        Arguments:
            field: The score field.
            x: The states at ``start``.
            slope: The slope there.
            step: The number of the step.
            start: The noise level that the step starts from.
            grid: The positive levels of the grid; the level after the last is 0.
            classes: The class of each state.

        Returns:
            The new states, and how many more network calls they took.
        """

    def _raised(self, levels: Float[Tensor, " levels"]) -> Float[Tensor, " levels"]:
        """The levels after churn."""
        gamma = min(self.churn / self.steps, math.sqrt(2) - 1)
        inside = (levels >= self.churn_min) & (levels <= self.churn_max)
        return torch.where(inside, (1 + gamma) * levels, levels)

    def _solve(self, field: ScoreField, x: Tensor, block: Block) -> Tensor:
        levels = karras_levels(field.sde, self.steps, self.rho)[:-1]
        grid = at_levels(levels, field.sde, x)
        raised = at_levels(self._raised(levels), field.sde, x) if self.stochastic else grid
        x = x / grid.alpha[0] if grid.alpha[0] != 1 else x
        nfe = 0
        for step in range(self.steps):
            sigma, start = grid.sigma[step], raised.sigma[step]
            if start > sigma:
                std = self.churn_noise * math.sqrt((start - sigma) * (start + sigma))
                x = x + std * block.normal("churn", step, like=x)
            before, slope = x, noise_at(field, x, step, raised, block.classes)
            x, more = self._step(field, x, slope, step, start, grid, block.classes)
            nfe += 1 + more
            end = grid.sigma[step + 1] if step + 1 < self.steps else 0.0
            x = field.domain.wrap(block.impose(x, step + 1, 1.0, end))
            denoised = partial(torch.sub, before, slope, alpha=start)
            block.report(step, self.steps, sigma, end, x, denoised, nfe)
        return x


def noise_at(
    field: ScoreField, x: Tensor, step: int, levels: Levels, classes: Tensor | None
) -> Tensor:
    r"""The slope :math:`\mathrm{d}\hat x / \mathrm{d}\lambda` at one of the levels."""
    alpha = levels.alpha[step]
    x = field.domain.wrap(alpha * x if alpha != 1 else x)
    return field.predict_noise(x, levels.time[step], classes)

r"""Euler's and Heun's method on Karras' grid, with churn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.samplers.base import GridSampler
from scorefield.samplers.grid import check_rho, grid_times
from scorefield.samplers.step import PLAIN, Level, StepContext, Stepped, clock, level
from scorefield.sde import SDE


@dataclass(frozen=True)
class KarrasSampler(GridSampler):
    r"""A one-step method on Karras' grid, with churn.

    With churn, a step from :math:`\lambda_i` first raises the noise level to
    :math:`\hat\lambda = (1 + \gamma)\,\lambda_i` by adding fresh noise,

    .. math:: \hat x \leftarrow \hat x
        + S_{noise} \sqrt{\hat\lambda^2 - \lambda_i^2}\; \varepsilon, \qquad
        \gamma = \min\big(S_{churn} / N,\ \sqrt 2 - 1\big)
        \text{ if } S_{tmin} \le \lambda_i \le S_{tmax} \text{, else } 0,

    and then follows the probability flow from :math:`\hat\lambda` to :math:`\lambda_{i+1}`. With
    an exact field and :math:`S_{noise} = 1` this leaves the distribution of the samples as it was.
    The noise has the address ``("churn", sample, step)``. Where the window takes in the top of the
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
        super().__post_init__()
        name = type(self).__name__
        check_rho(self.rho)
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

    def times(self, sde: SDE) -> list[float | None]:
        return [*grid_times(sde, self.steps, rho=self.rho).tolist(), None]

    def _raised(
        self, sde: SDE, x: Tensor, t: float, at: StepContext
    ) -> tuple[Tensor, Level, float]:
        r"""The scaled states :math:`\hat x` after churn, with their level and their time."""
        here = level(sde, t)
        scaled = x / here.alpha
        if not (self.churn > 0 and self.churn_min <= here.sigma <= self.churn_max):
            return scaled, here, t
        raised = (1 + min(self.churn / self.steps, math.sqrt(2) - 1)) * here.sigma
        std = self.churn_noise * math.sqrt((raised - here.sigma) * (raised + here.sigma))
        t = float(sde.time(torch.tensor(raised, dtype=torch.float64)))
        return scaled + std * at.normal("churn", scaled), Level(level(sde, t).alpha, raised), t


@dataclass(frozen=True)
class Euler(KarrasSampler):
    r"""The first-order method: one slope a step.

    .. math:: \hat x_{i+1} = \hat x_i + (\lambda_{i+1} - \lambda_i)\,
        \mathbb{E}[\varepsilon \mid \hat x_i, \lambda_i].

    It takes :math:`N` network calls. Without churn it is DDIM in the coordinates
    :math:`(\hat x, \lambda)`. Arguments and errors are those of
    :class:`~scorefield.samplers.karras.KarrasSampler`.

    Example:
        >>> x = Euler(steps=64).sample(field, n=4096, seed=0)

    References:
        Denoising diffusion implicit models (Song, Meng and Ermon, 2021), equation 13.

        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        algorithm 2 without lines 9 to 11.
    """

    order: ClassVar[int] = 1

    def step(
        self, field: ScoreField, x: Tensor, t: float, s: float | None, at: StepContext = PLAIN
    ) -> Stepped:
        scaled, here, raised = self._raised(field.sde, x, t, at)
        there = level(field.sde, s)
        slope = noise_at(field, scaled, here, raised, at)
        x = there.alpha * scaled.add(slope, alpha=there.sigma - here.sigma)
        denoised = scaled.sub(slope, alpha=here.sigma)
        return Stepped(at.arrive(x, there, field.domain), denoised, t, s)


@dataclass(frozen=True)
class Heun(KarrasSampler):
    r"""The second-order method: the mean of the slopes at both ends of a step.

    .. math:: \tilde x = \hat x_i + h\,d_i, \qquad
        \hat x_{i+1} = \hat x_i + \tfrac{h}{2} \big(d_i + d(\tilde x, \lambda_{i+1})\big),
        \qquad h = \lambda_{i+1} - \lambda_i.

    It takes :math:`2N - 1` network calls: the last step ends at :math:`\lambda = 0`, where
    there is no slope, and is Euler's. Arguments and errors are those of
    :class:`~scorefield.samplers.karras.KarrasSampler`.

    Example:
        >>> x = Heun(steps=18).sample(field, n=4096, seed=0)  # 35 network calls

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        algorithm 2 (algorithm 1 without churn).
    """

    order: ClassVar[int] = 2
    calls: ClassVar[int] = 2

    @property
    def nfe(self) -> int:
        return 2 * self.steps - 1

    def step(
        self, field: ScoreField, x: Tensor, t: float, s: float | None, at: StepContext = PLAIN
    ) -> Stepped:
        scaled, here, raised = self._raised(field.sde, x, t, at)
        there = level(field.sde, s)
        slope, length = noise_at(field, scaled, here, raised, at), there.sigma - here.sigma
        denoised = scaled.sub(slope, alpha=here.sigma)
        if s is not None:
            slope = 0.5 * (slope + noise_at(field, scaled.add(slope, alpha=length), there, s, at))
        x = there.alpha * scaled.add(slope, alpha=length)
        return Stepped(at.arrive(x, there, field.domain), denoised, t, s)


def noise_at(field: ScoreField, scaled: Tensor, here: Level, t: float, at: StepContext) -> Tensor:
    r"""The slope :math:`\mathrm{d}\hat x / \mathrm{d}\lambda` at scaled states of a time."""
    x = field.domain.wrap(here.alpha * scaled)
    return field.predict_noise(x, clock(t, x), at.classes)

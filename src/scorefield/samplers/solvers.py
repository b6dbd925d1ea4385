r"""Solvers of the probability flow on a grid of noise levels, some with optional noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scorefield.checks import check_not_negative, check_positive
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.samplers.base import GridSampler
from scorefield.samplers.grid import Spacing, check_grid, check_rho, grid_times
from scorefield.samplers.step import PLAIN, Coefficients, StepContext, Stepped, clock, level
from scorefield.sde.base import SDE


@dataclass(frozen=True)
class KarrasSampler(GridSampler):
    r"""A one-step method on Karras' grid, with churn.

    With churn, a step from :math:`\lambda_i` first raises the noise level to
    :math:`\hat\lambda = (1 + \gamma)\,\lambda_i` by adding fresh noise,

    .. math:: \hat x \leftarrow \hat x
        + S_{noise} \sqrt{\hat\lambda^2 - \lambda_i^2}\; \varepsilon, \qquad
        \gamma = \min\big(S_{churn} / N,\ \sqrt 2 - 1\big)
        \text{ if } S_{tmin} \le \lambda_i \le S_{tmax} \text{, else } 0,

    and then follows the probability flow from :math:`\hat\lambda` to :math:`\lambda_{i+1}`. With an
    exact field and :math:`S_{noise} = 1` the distribution of the samples does not change. The noise
    has the address ``("churn", sample, step)``. At the top of the grid, churn evaluates the field
    above its highest noise level.

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
        check_not_negative(f"{name}: churn", self.churn)
        check_not_negative(f"{name}: churn_min", self.churn_min)
        if not self.churn_min <= self.churn_max:
            raise UserError(
                f"{name}: 0 <= churn_min <= churn_max must hold, got "
                f"{self.churn_min} and {self.churn_max}"
            )
        check_positive(f"{name}: churn_noise", self.churn_noise)

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def times(self, sde: SDE) -> list[float | None]:
        return [*grid_times(sde, self.steps, rho=self.rho).tolist(), None]

    def _raised(
        self, sde: SDE, x: Tensor, t: float, at: StepContext
    ) -> tuple[Tensor, Coefficients, float]:
        r"""The scaled states :math:`\hat x` after churn, with their level and their time."""
        here = level(sde, t)
        scaled = x / here.alpha
        if not (self.churn > 0 and self.churn_min <= here.sigma <= self.churn_max):
            return scaled, here, t
        raised = (1 + min(self.churn / self.steps, math.sqrt(2) - 1)) * here.sigma
        std = self.churn_noise * math.sqrt((raised - here.sigma) * (raised + here.sigma))
        t = float(sde.time(torch.tensor(raised, dtype=torch.float64)))
        return (
            scaled + std * at.normal("churn", scaled),
            Coefficients(level(sde, t).alpha, raised),
            t,
        )


@dataclass(frozen=True)
class Euler(KarrasSampler):
    r"""The first-order method: one slope per step.

    .. math:: \hat x_{i+1} = \hat x_i + (\lambda_{i+1} - \lambda_i)\,
        \mathbb{E}[\varepsilon \mid \hat x_i, \lambda_i].

    It takes :math:`N` network calls. Without churn it is DDIM in the coordinates
    :math:`(\hat x, \lambda)`. Arguments and errors are those of :class:`KarrasSampler`.

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

    It takes :math:`2N - 1` network calls: the last step ends at :math:`\lambda = 0`, where there is
    no slope, and is an Euler step. Arguments and errors are those of :class:`KarrasSampler`.

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


def noise_at(
    field: ScoreField, scaled: Tensor, here: Coefficients, t: float, at: StepContext
) -> Tensor:
    r"""The slope :math:`\mathrm{d}\hat x / \mathrm{d}\lambda` at scaled states of a time."""
    x = field.domain.wrap(here.alpha * scaled)
    return field.predict_noise(x, clock(t, x), at.classes)


@dataclass(frozen=True)
class DDIM(GridSampler):
    r"""Steps to the posterior mean and back up to the next noise level.

    .. math:: \hat x_{i+1} = D + \sqrt{\lambda_{i+1}^2 - c_i^2}\;\hat\varepsilon + c_i\,z, \qquad
        D = \hat x_i - \lambda_i \hat\varepsilon, \qquad
        c_i = \eta\,\frac{\lambda_{i+1}}{\lambda_i} \sqrt{\lambda_i^2 - \lambda_{i+1}^2}.

    With :math:`\eta = 0` it is deterministic, and on Karras' grid equal to :class:`Euler`; with
    :math:`\eta = 1` it is ancestral sampling with the posterior variance. It takes :math:`N`
    network calls; the last step goes to the posterior mean. The noise has the address ``("ddim",
    sample, step)``.

    Arguments:
        steps: The number :math:`N` of steps.
        eta: The share :math:`\eta` of the noise, from 0 to 1.
        spacing: How the levels are spaced; see :func:`~.grid_times`.
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


@dataclass(frozen=True)
class DPMSolverPlusPlus2M(GridSampler):
    r"""The second-order multistep method: one network call per step, and linear extrapolation of
    the last two posterior means.

    In :math:`\hat x = x / \alpha` and :math:`\ell = -\ln\lambda` the probability-flow ODE is
    :math:`\mathrm{d}\hat x / \mathrm{d}\ell = D(\hat x, \ell) - \hat x`, linear but for the
    posterior mean :math:`D`. With :math:`h_i = \ell_{i+1} - \ell_i` and
    :math:`r = h_{i-1} / h_i`,

    .. math:: \hat x_{i+1} = e^{-h_i}\,\hat x_i + (1 - e^{-h_i}) \Big(D_i
        + \frac{1}{2r} (D_i - D_{i-1})\Big).

    A step whose context has no previous one, and the last, to :math:`\lambda = 0`, use :math:`D_i`
    alone. It takes :math:`N` network calls. Arguments and errors are those of :class:`DDIM`.

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

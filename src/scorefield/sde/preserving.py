r"""Processes that shrink the data while the noise grows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scorefield.checks import check_not_negative
from scorefield.errors import UserError
from scorefield.sde.base import SDE, PriorMean, check_range


class Preserving(SDE):
    """A process at whose end nothing is left of the data, with a prior of unit variance."""

    @property
    def prior_std(self) -> float:
        return 1.0


@dataclass(frozen=True)
class _LinearBeta(Preserving):
    r"""The schedule :math:`\beta(t) = \beta_{min} + t (\beta_{max} - \beta_{min})`, and
    :math:`\alpha = e^{-B/2}` with :math:`B(t) = \int_0^t \beta`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    prior_mean: PriorMean = 0.0
    t_min: float = 1e-5
    t_max: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        check_range(self, "beta_min", "beta_max")
        check_range(self, "t_min", "t_max")

    def beta(self, t: Tensor) -> Tensor:
        r"""The rate :math:`\beta(t)`, per unit of time."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def beta_integral(self, t: Tensor) -> Tensor:
        r"""The integral :math:`B(t) = \int_0^t \beta(s)\,\mathrm{d}s`."""
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def _inverse_integral(self, integral: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        root = torch.sqrt(self.beta_min**2 + 2 * slope * integral)
        return 2 * integral / (self.beta_min + root)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.beta_integral(t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t) * self.alpha(t)


@dataclass(frozen=True)
class VP(_LinearBeta):
    r"""Variance preserving: :math:`f = -\beta/2`, :math:`g^2 = \beta`,
    :math:`\sigma^2 = 1 - e^{-B}`.

    Arguments:
        beta_min: The rate at time 0.
        beta_max: The rate at time 1.

    Raises:
        ValueError: Unless ``0 < beta_min < beta_max`` and ``0 < t_min < 1``.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equation 11 and appendix C.
    """

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self.beta_integral(t)))

    def sigma_dot(self, t: Tensor) -> Tensor:
        return 0.5 * self.beta(t) * self.alpha(t) ** 2 / self.sigma(t)

    def time(self, noise_level: Tensor) -> Tensor:
        return self._inverse_integral(torch.log1p(noise_level**2))


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    r"""Sub-variance preserving: :math:`f = -\beta/2`, :math:`g^2 = \beta (1 - e^{-2B})`,
    :math:`\sigma = 1 - e^{-B}`.

    Arguments and errors are those of :class:`VP`.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equation 12 and appendix C.
    """

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.beta_integral(t))

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.beta(t) * self.alpha(t) ** 2

    def time(self, noise_level: Tensor) -> Tensor:
        # lambda = (1 - a^2)/a gives a = 2 / (lambda + sqrt(lambda^2 + 4)), and asinh(lambda/2)
        # is -log a without cancellation.
        return self._inverse_integral(2 * torch.asinh(0.5 * noise_level))


@dataclass(frozen=True)
class Cosine(Preserving):
    r"""The cosine schedule: :math:`\alpha(t) = \cos\theta(t) / \cos\theta(0)`,
    :math:`\sigma^2 = 1 - \alpha^2`, with
    :math:`\theta(t) = \frac{\pi}{2} \frac{t + s}{1 + m}`.

    A margin :math:`m > s` lets the process be used up to :math:`t = 1`: without an offset,
    :math:`\sigma^2 = 1 - \cos^2 \frac{\pi t}{2 (1 + m)}`.

    Arguments:
        offset: The offset :math:`s`, which keeps the noise at small times from vanishing too fast.
        t_max: Before :math:`1 + m - s`, where :math:`\alpha` vanishes.
        margin: The margin :math:`m`; equal to the offset by default, so that :math:`\alpha`
            vanishes at time 1.

    Raises:
        ValueError: Unless ``offset >= 0``, ``margin >= 0``, ``0 < t_min < t_max`` and
            ``t_max + offset < 1 + margin``.

    References:
        Improved denoising diffusion probabilistic models (Nichol and Dhariwal, 2021),
        equation 17.
    """

    offset: float = 0.008
    prior_mean: PriorMean = 0.0
    t_min: float = 1e-4
    t_max: float = 0.99
    margin: float | None = None

    def __post_init__(self) -> None:
        check_range(self, "t_min", "t_max")
        for name, value in (("offset", self.offset), ("margin", self._margin)):
            check_not_negative(f"Cosine: {name}", value)
        if not self.t_max + self.offset < 1 + self._margin:
            raise UserError(
                f"Cosine: t_max + offset must be below 1 + margin, got t_max={self.t_max}, "
                f"offset={self.offset} and margin={self._margin}"
            )

    @property
    def _margin(self) -> float:
        return self.offset if self.margin is None else self.margin

    @property
    def _rate(self) -> float:
        return 0.5 * math.pi / (1 + self._margin)

    @property
    def _start(self) -> float:
        return self._rate * self.offset

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(self._start + self._rate * t) / math.cos(self._start)

    def sigma(self, t: Tensor) -> Tensor:
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a), exact where 1 - alpha^2 would cancel
        rise = torch.sin(self._rate * t) * torch.sin(2 * self._start + self._rate * t)
        return torch.sqrt(rise) / math.cos(self._start)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -self._rate * torch.sin(self._start + self._rate * t) / math.cos(self._start)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -self.alpha(t) * self.alpha_dot(t) / self.sigma(t)

    def time(self, noise_level: Tensor) -> Tensor:
        # The tangent of the difference of two angles: arccos of alpha and the angle minus its
        # start both lose their digits at small times.
        if self._start == 0:
            return torch.atan(noise_level) / self._rate
        cosine, sine = math.cos(self._start), math.sin(self._start)
        root = torch.sqrt(noise_level**2 + sine**2)
        rise = noise_level**2 / (root + sine)
        return torch.atan2(rise * cosine, cosine**2 + root * sine) / self._rate

r"""Processes that shrink the data while the noise grows, at a rate linear in time."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from scorefield.sde.base import SDE, PriorMean, check_range


@dataclass(frozen=True)
class _LinearBeta(SDE):
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
        prior_mean: The mean of the prior.
        t_min: The earliest time that is trained or sampled at.

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

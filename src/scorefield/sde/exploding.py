r"""Processes that preserve the mean while the variance grows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scorefield.sde.base import SDE, PriorMean, check_range, check_start


class _Exploding(SDE):
    """A process that leaves the data as they are."""

    keeps_mean = True

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def noise_level(self, t: Tensor) -> Tensor:
        return self.sigma(t)


@dataclass(frozen=True)
class EDM(_Exploding):
    r"""Time is the noise level: :math:`\alpha = 1`, :math:`\sigma(t) = t`.

    Arguments:
        sigma_min: The smallest noise level, in units of the data.
        sigma_max: The largest; it should exceed the diameter of the data.

    Raises:
        ValueError: Unless ``0 < sigma_min < sigma_max``.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        table 1, column "Ours".
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    prior_mean: PriorMean = 0.0

    def __post_init__(self) -> None:
        check_range(self, "sigma_min", "sigma_max")

    @property
    def t_min(self) -> float:
        return self.sigma_min

    @property
    def t_max(self) -> float:
        return self.sigma_max

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time(self, noise_level: Tensor) -> Tensor:
        return noise_level


@dataclass(frozen=True)
class VE(_Exploding):
    r"""Variance exploding: :math:`\alpha = 1`,
    :math:`\sigma(t) = \sigma_{min} (\sigma_{max} / \sigma_{min})^t` on :math:`[0, 1]`.

    The marginal variance is :math:`\sigma(t)^2`: :math:`p_0` is the data convolved with noise of
    level :math:`\sigma_{min}`.

    Arguments:
        sigma_min: The noise level at time 0, independent of ``t_min``.
        sigma_max: The noise level at time 1.

    Raises:
        ValueError: Unless ``0 < sigma_min < sigma_max`` and ``0 <= t_min < 1``.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equation 9 and appendix C.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    prior_mean: PriorMean = 0.0
    t_min: float = 0.0
    t_max: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        check_range(self, "sigma_min", "sigma_max")
        check_start(self)

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self._log_ratio * t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self._log_ratio * self.sigma(t)

    def time(self, noise_level: Tensor) -> Tensor:
        return torch.log(noise_level / self.sigma_min) / self._log_ratio

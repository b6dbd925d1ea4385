r"""The process whose mean coefficient is a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.sde.base import SDE, PriorMean, check_range


@dataclass(frozen=True)
class Cosine(SDE):
    r"""The cosine schedule: :math:`\alpha(t) = \cos\theta(t) / \cos\theta(0)`,
    :math:`\sigma^2 = 1 - \alpha^2`, with
    :math:`\theta(t) = \frac{\pi}{2} \frac{t + s}{1 + m}`.

    A margin :math:`m > s` lets the process be used up to :math:`t = 1`: without an offset,
    :math:`\sigma^2 = 1 - \cos^2 \frac{\pi t}{2 (1 + m)}`.

    Arguments:
        offset: The offset :math:`s`, which keeps the noise at small times from vanishing too fast.
        prior_mean: The mean of the prior.
        t_min: The earliest time of training and sampling.
        t_max: The time of the prior; before :math:`1 + m - s`, where :math:`\alpha` vanishes.
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
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"Cosine: {name} must not be negative, got {value}")
        if not self.t_max + self.offset < 1 + self._margin:
            raise UserError(
                f"Cosine: t_max + offset must be below 1 + margin, got t_max={self.t_max}, "
                f"offset={self.offset} and margin={self._margin}"
            )

    @property
    def prior_std(self) -> float:
        return 1.0

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

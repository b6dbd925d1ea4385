r"""Forward processes.

A process :math:`\mathrm{d}x = f(t)\,x\,\mathrm{d}t + g(t)\,\mathrm{d}w` is given by the mean
coefficient :math:`\alpha(t)` and the standard deviation :math:`\sigma(t)` of its marginals,

.. math:: x_t = \alpha(t)\,x_0 + \sigma(t)\,\varepsilon, \qquad \varepsilon \sim N(0, I),

and everything else follows from these two and their derivatives:

.. math::
    f = \frac{\dot\alpha}{\alpha}, \qquad
    g^2 = 2\sigma\dot\sigma - 2\frac{\dot\alpha}{\alpha}\sigma^2, \qquad
    x_t \mid x_s \sim N\Big(\frac{\alpha_t}{\alpha_s} x_s,\;
    \sigma_t^2 - \frac{\alpha_t^2}{\alpha_s^2}\sigma_s^2\Big).

The *noise level* :math:`\lambda(t) = \sigma(t) / \alpha(t)`, the standard deviation of the noise
in units of the data, is the coordinate in which processes are compared: with
:math:`\hat x = x_t / \alpha(t)` every process is :math:`\hat x = x_0 + \lambda \varepsilon`.

References:
    Score-based generative modeling through stochastic differential equations (Song,
    Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, 2021), section 3 and appendix B.

    Elucidating the design space of diffusion-based generative models (Karras, Aittala, Aila and
    Laine, 2022), section 2 and appendix B.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.domain import Domain
from scorefield.noise import Noise


@dataclass(frozen=True)
class Prior:
    r"""The law :math:`N(\text{mean}, \text{std}^2 I)` that sampling starts from.

    Arguments:
        domain: Where the draws live.
        mean: The mean of every coordinate.
        std: The standard deviation of every coordinate.
    """

    domain: Domain
    mean: float
    std: float

    def sample(
        self, noise: Noise, index: Tensor, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch *event"]:
        """Draws one point for each sample index, at the addresses of purpose ``"prior"``."""
        z = noise.normal("prior", self.domain.shape, index, dtype=dtype)
        return self.domain.wrap(self.mean + self.std * z)

    def log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """The log-density in nats."""
        delta = self.domain.displacement(torch.full_like(x, self.mean), x)
        return self.domain.kernel_log_prob(delta, delta.new_full((1,), self.std))


class SDE(ABC):
    r"""A linear forward process on the times :math:`[t_{min}, t_{max}]`.

    Subclasses are frozen dataclasses that define :meth:`alpha`, :meth:`sigma`, their
    derivatives, and :meth:`time`. Times are tensors of any shape; results have that shape.

    Raises:
        ValueError: On construction, if a parameter is out of its range.
    """

    @property
    @abstractmethod
    def t_min(self) -> float:
        r"""The earliest time that is trained or sampled at; its noise level is positive."""

    @property
    @abstractmethod
    def t_max(self) -> float:
        """The time of the prior."""

    @property
    @abstractmethod
    def prior_mean(self) -> float:
        r"""The mean of every coordinate of the law of :math:`x_{t_{max}}`."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        r"""The mean coefficient :math:`\alpha(t)`."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        r"""The standard deviation :math:`\sigma(t)` of the noise."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        r"""The derivative :math:`\dot\alpha(t)`."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        r"""The derivative :math:`\dot\sigma(t)`."""

    @abstractmethod
    def time(self, noise_level: Tensor) -> Tensor:
        r"""The time at which the noise level :math:`\sigma/\alpha` has the given value."""

    def noise_level(self, t: Tensor) -> Tensor:
        r"""The noise level :math:`\sigma(t) / \alpha(t)`."""
        return self.sigma(t) / self.alpha(t)

    @property
    def sigma_min(self) -> float:
        """The noise level at ``t_min``."""
        return float(self.noise_level(torch.tensor(self.t_min, dtype=torch.float64)))

    @property
    def sigma_max(self) -> float:
        """The noise level at ``t_max``."""
        return float(self.noise_level(torch.tensor(self.t_max, dtype=torch.float64)))

    def drift(self, t: Tensor) -> Tensor:
        r"""The drift coefficient :math:`f(t) = \dot\alpha / \alpha`; the drift is :math:`f x`."""
        return self.alpha_dot(t) / self.alpha(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        r"""The squared diffusion :math:`g^2(t) = 2\sigma\dot\sigma - 2 f \sigma^2`."""
        sigma = self.sigma(t)
        return 2 * sigma * (self.sigma_dot(t) - self.drift(t) * sigma)

    def diffusion(self, t: Tensor) -> Tensor:
        """The diffusion coefficient :math:`g(t)`."""
        return self.diffusion_squared(t).sqrt()

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""The exact transition :math:`x_t \mid x_s` for :math:`s \le t`.

        Returns:
            The coefficient :math:`\alpha_t / \alpha_s` of the mean, and the standard deviation
            :math:`\alpha_t \sqrt{\lambda_t^2 - \lambda_s^2}`.

        Raises:
            ValueError: If a time precedes its start.
        """
        if bool((t < s).any()):
            raise ValueError("a transition goes forward: every t must be at least its s")
        alpha_t, lower, upper = self.alpha(t), self.noise_level(s), self.noise_level(t)
        return alpha_t / self.alpha(s), alpha_t * ((upper - lower) * (upper + lower)).sqrt()

    def perturb(
        self,
        x: Float[Tensor, "batch *event"],
        t: Float[Tensor, "#batch"],
        z: Float[Tensor, "batch *event"],
        domain: Domain | None = None,
    ) -> Float[Tensor, "batch *event"]:
        r"""Diffuses data: :math:`x_t = \alpha(t)\,x + \sigma(t)\,z`, wrapped into ``domain``.

        Arguments:
            x: Clean points.
            t: One time a point, or one for all.
            z: Standard normals.
            domain: Where the points live; flat space if not given.
        """
        shape = (-1, *(1,) * (x.dim() - 1))
        x_t = self.alpha(t).reshape(shape) * x + self.sigma(t).reshape(shape) * z
        return x_t if domain is None else domain.wrap(x_t)

    def prior(self, domain: Domain) -> Prior:
        r"""The law of :math:`x_{t_{max}}` that sampling and likelihood share.

        Its standard deviation is :math:`\sigma(t_{max})`: the spread of the data,
        :math:`\alpha(t_{max})\,\sigma_{data}`, is neglected, as is customary.
        """
        std = float(self.sigma(torch.tensor(self.t_max, dtype=torch.float64)))
        return Prior(domain, self.prior_mean, std)


@dataclass(frozen=True)
class EDM(SDE):
    r"""Time is the noise level: :math:`\alpha = 1`, :math:`\sigma(t) = t`.

    Arguments:
        sigma_min: The least noise level, in units of the data.
        sigma_max: The greatest; should exceed the diameter of the data.
        prior_mean: The mean of the prior.

    Raises:
        ValueError: Unless ``0 < sigma_min < sigma_max``.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        table 1, column "Ours".
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    prior_mean: float = 0.0

    def __post_init__(self) -> None:
        _check_range(self, "sigma_min", "sigma_max")

    @property
    def t_min(self) -> float:
        return self.sigma_min

    @property
    def t_max(self) -> float:
        return self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time(self, noise_level: Tensor) -> Tensor:
        return noise_level


@dataclass(frozen=True)
class VE(SDE):
    r"""Variance exploding: :math:`\alpha = 1`,
    :math:`\sigma(t) = \sigma_{min} (\sigma_{max} / \sigma_{min})^t` on :math:`[0, 1]`.

    The marginal variance is :math:`\sigma(t)^2`, that is, :math:`p_0` is the data blurred
    with :math:`\sigma_{min}`.

    Arguments:
        sigma_min: The noise level at time 0.
        sigma_max: The noise level at time 1.
        prior_mean: The mean of the prior; the mean of the data where that is not zero.

    Raises:
        ValueError: Unless ``0 < sigma_min < sigma_max``.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equation 9 and appendix C.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    prior_mean: float = 0.0
    t_min: float = field(default=0.0, init=False)
    t_max: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        _check_range(self, "sigma_min", "sigma_max")

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self._log_ratio * t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self._log_ratio * self.sigma(t)

    def time(self, noise_level: Tensor) -> Tensor:
        return torch.log(noise_level / self.sigma_min) / self._log_ratio


@dataclass(frozen=True)
class _LinearBeta(SDE):
    r"""The schedule :math:`\beta(t) = \beta_{min} + t (\beta_{max} - \beta_{min})`, and
    :math:`\alpha = e^{-B/2}` with :math:`B(t) = \int_0^t \beta`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    prior_mean: float = 0.0
    t_min: float = 1e-5
    t_max: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        _check_range(self, "beta_min", "beta_max")
        _check_range(self, "t_min", "t_max")

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


@dataclass(frozen=True)
class Cosine(SDE):
    r"""The cosine schedule: :math:`\alpha(t) = \cos\theta(t) / \cos\theta(0)`,
    :math:`\sigma^2 = 1 - \alpha^2`, with
    :math:`\theta(t) = \frac{\pi}{2} \frac{t + s}{1 + s}`.

    Arguments:
        offset: The offset :math:`s`, which keeps the noise at small times from vanishing fast.
        prior_mean: The mean of the prior.
        t_min: The earliest time that is trained or sampled at.
        t_max: The time of the prior; below 1, where :math:`\alpha` vanishes.

    Raises:
        ValueError: Unless ``offset > 0`` and ``0 < t_min < t_max < 1``.

    References:
        Improved denoising diffusion probabilistic models (Nichol and Dhariwal, 2021),
        equation 17.
    """

    offset: float = 0.008
    prior_mean: float = 0.0
    t_min: float = 1e-4
    t_max: float = 0.99

    def __post_init__(self) -> None:
        _check_range(self, "t_min", "t_max")
        if not (math.isfinite(self.offset) and self.offset > 0):
            raise ValueError(f"Cosine: offset must be positive, got {self.offset}")
        if not self.t_max < 1:
            raise ValueError(f"Cosine: t_max must be below 1, got {self.t_max}")

    @property
    def _rate(self) -> float:
        return 0.5 * math.pi / (1 + self.offset)

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
        # The tangent of the difference of two angles: neither arccos of alpha nor the angle less
        # its start keeps its digits at small times.
        cosine, sine = math.cos(self._start), math.sin(self._start)
        root = torch.sqrt(noise_level**2 + sine**2)
        rise = noise_level**2 / (root + sine)
        return torch.atan2(rise * cosine, cosine**2 + root * sine) / self._rate


def _check_range(owner: object, low: str, high: str) -> None:
    a, b = getattr(owner, low), getattr(owner, high)
    if not (math.isfinite(a) and math.isfinite(b) and 0 < a < b):
        name = type(owner).__name__
        raise ValueError(f"{name}: 0 < {low} < {high} must hold, got {low}={a} and {high}={b}")

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
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_finite, check_floating, check_fraction, inspect
from scorefield.domain import Domain, Torus
from scorefield.errors import UserError
from scorefield.noise import Noise

PriorMean = float | tuple[float, ...]

_FILLED = 0.01


class Prior(ABC):
    """The distribution that sampling starts from."""

    @abstractmethod
    def sample(
        self, noise: Noise, index: Tensor, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch *event"]:
        """Draw one point for each sample index, at the addresses of purpose ``"prior"``."""

    @abstractmethod
    def log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """The log-density in nats."""


@dataclass(frozen=True)
class NormalPrior(Prior):
    r"""The distribution :math:`N(\text{mean}, \text{std}^2 I)`.

    Arguments:
        domain: The domain of the draws.
        mean: Of every coordinate, or one value for each index of the first axis of the event (of
            an image: one per channel).
        std: The standard deviation of every coordinate.

    Raises:
        ValueError: If a mean is not finite, or several means do not match the length of the first
            axis.
    """

    domain: Domain
    mean: PriorMean
    std: float

    def __post_init__(self) -> None:
        shape = self.domain.shape
        if not all(map(math.isfinite, torch.tensor(self.mean).reshape(-1).tolist())):
            raise UserError(f"prior_mean must be finite, got {self.mean}")
        if isinstance(self.mean, tuple) and (not shape or len(self.mean) != shape[0]):
            raise UserError(
                f"prior_mean has {len(self.mean)} values, which do not fit points of shape {shape}"
            )

    def center(self, like: Float[Tensor, "batch *event"]) -> Tensor:
        """The mean, in a shape that broadcasts against a single point."""
        if not isinstance(self.mean, tuple):
            return like.new_full((), self.mean)
        mean = torch.stack([like.new_full((), value) for value in self.mean])
        return mean.reshape(-1, *(1,) * (like.dim() - 2))

    def sample(
        self, noise: Noise, index: Tensor, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch *event"]:
        z = noise.normal("prior", self.domain.shape, index, dtype=dtype)
        return self.center(z) + self.std * z

    def log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        delta = self.domain.displacement(self.center(x).expand_as(x), x)
        return self.domain.kernel_log_prob(delta, delta.new_full((1,), self.std))


@dataclass(frozen=True)
class UniformPrior(Prior):
    """The uniform distribution on a torus."""

    domain: Torus

    def sample(
        self, noise: Noise, index: Tensor, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "batch *event"]:
        return self.domain.uniform(noise, "prior", index, dtype=dtype)

    def log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        volume = self.domain.periods(x).log().expand(x.shape[1:]).sum()
        return -volume.expand(x.shape[0])


class SDE(ABC):
    r"""A linear forward process on the times :math:`[t_{min}, t_{max}]`.

    Subclasses are frozen dataclasses that define :meth:`alpha`, :meth:`sigma`, their
    derivatives, and :meth:`time`; ``t_min`` and ``prior_mean`` are arguments of most. Times are
    tensors of any shape; results have that shape.

    Raises:
        ValueError: On construction, if a parameter is out of its range.
    """

    keeps_mean: ClassVar[bool] = False
    r"""Whether :math:`\alpha = 1` at all times, so that the process can run on a torus."""

    @property
    @abstractmethod
    def t_min(self) -> float:
        r"""The earliest time of training and sampling; its noise level is positive."""

    @property
    @abstractmethod
    def t_max(self) -> float:
        """The time of the prior."""

    @property
    @abstractmethod
    def prior_mean(self) -> PriorMean:
        r"""The mean of :math:`x_{t_{max}}`, that of the data where it is not zero: of every
        coordinate, or one value for each index of the first axis of the event.
        """

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
    def sigma_max(self) -> float:
        """The noise level at ``t_max``."""
        return float(self.noise_level(torch.tensor(self.t_max, dtype=torch.float64)))

    @property
    def level_range(self) -> tuple[float, float]:
        """The noise levels at ``t_min`` and ``t_max``, between which fields of the process are
        trained, sampled and evaluated; the ``sigma_min`` of VE is its level at time 0, whatever its
        first time.
        """
        first = torch.tensor(self.t_min, dtype=torch.float64)
        return float(self.noise_level(first)), self.sigma_max

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
        r"""The exact transition :math:`x_t \mid x_s` for :math:`s \le t`: the coefficient
        :math:`\alpha_t / \alpha_s` of the mean, and the standard deviation
        :math:`\alpha_t \sqrt{\lambda_t^2 - \lambda_s^2}`.

        Raises:
            ValueError: If a time precedes its start.
        """
        inspect(t - s, _check_forward)
        alpha_t, lower, upper = self.alpha(t), self.noise_level(s), self.noise_level(t)
        return alpha_t / self.alpha(s), alpha_t * ((upper - lower) * (upper + lower)).sqrt()

    def perturb(
        self,
        x: Float[Tensor, "batch *event"],
        t: Float[Tensor, "#batch"],
        z: Float[Tensor, "batch *event"],
        domain: Domain | None = None,
    ) -> Float[Tensor, "batch *event"]:
        r"""Diffuse data: :math:`x_t = \alpha(t)\,x + \sigma(t)\,z` for standard normal :math:`z`,
        wrapped into ``domain``; flat space by default.

        Raises:
            ValueError: If the data are not floating-point numbers.
        """
        check_floating("data", x)
        shape = (-1, *(1,) * (x.dim() - 1))
        mean = x if self.keeps_mean else self.alpha(t).reshape(shape) * x
        x_t = mean + self.sigma(t).reshape(shape) * z
        return x_t if domain is None else domain.wrap(x_t)

    @property
    def prior_std(self) -> float:
        r"""The standard deviation of the prior: for processes that preserve the mean
        :math:`\sigma(t_{max})`, neglecting the spread of the data; for those that preserve the
        variance 1, as for data of unit variance.

        References:
            Score-based generative modeling through stochastic differential equations (Song et
            al., 2021), appendix C.
        """
        return float(self.sigma(torch.tensor(self.t_max, dtype=torch.float64)))

    def prior(self, domain: Domain) -> Prior:
        r"""The distribution of :math:`x_{t_{max}}` in sampling and likelihood: normal in flat
        space, and uniform on a torus that the noise has filled.

        Raises:
            ValueError: If the process does not run on the torus, or ends before it is filled: where
                the bound on the total variation of :meth:`Torus.nonuniformity()
                <scorefield.domain.Torus.nonuniformity>` exceeds 1 %.
        """
        if not isinstance(domain, Torus):
            return NormalPrior(domain, self.prior_mean, self.prior_std)
        self.check(domain)
        distance = domain.nonuniformity(self.sigma_max)
        if distance > _FILLED:
            enough = self.sigma_max
            while domain.nonuniformity(enough) > _FILLED:
                enough *= 1.01
            raise UserError(
                f"sigma_max={self.sigma_max:g} does not fill a torus of period {domain.period}: a "
                f"uniform prior errs by up to {distance:.2g} in total variation; take "
                f"sigma_max of {math.ceil(1000 * enough) / 1000:g} or more"
            )
        return UniformPrior(domain)

    def check(self, domain: Domain) -> None:
        """Check that the process runs on a domain.

        Raises:
            ValueError: If it is a torus, and the process does not preserve the mean.
        """
        if isinstance(domain, Torus) and not self.keeps_mean:
            raise UserError(
                f"{type(self).__name__} shrinks the data, which is undefined on a torus; use a "
                f"process that preserves their mean, EDM or VE"
            )


def _check_forward(step: Tensor) -> None:
    if bool((step < 0).any()):
        raise UserError("a transition goes forward: every t must be at least its s")


def check_range(owner: object, low: str, high: str) -> None:
    """Raises ``ValueError`` unless two fields of a process are positive, finite and in order."""
    a, b = getattr(owner, low), getattr(owner, high)
    name = type(owner).__name__
    check_finite(f"{name}: {low}", a)
    check_finite(f"{name}: {high}", b)
    if not 0 < a < b:
        raise UserError(f"{name}: 0 < {low} < {high} must hold, got {low}={a} and {high}={b}")


def check_start(owner: SDE) -> None:
    """Raises ``ValueError`` unless a process that may start at time 0 starts before time 1."""
    check_fraction(f"{type(owner).__name__}: t_min", owner.t_min)

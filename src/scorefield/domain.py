r"""The domain of :math:`x`: flat space or a torus.

A domain defines how a displaced point is mapped back (*wrap*), the displacement between two
points, and the density and score of the Gaussian kernel of the forward process. Everything else
is built on these.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scorefield.checks import check_count, check_positive
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.wrapped import WrappedNormal, nonuniformity

Points = Float[Tensor, "*batch"]
Events = Float[Tensor, "batch *event"]
Widths = Float[Tensor, "#batch"]
Loops = Float[Tensor, "batch corners *event"]


@dataclass(frozen=True)
class Domain(ABC):
    """The set of points of one event shape.

    Arguments:
        shape: The event shape: ``()``, ``(D,)``, ``(C, H, W)``, …

    Raises:
        ValueError: If a length is not positive.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        for length in self.shape:
            check_count("a length of an event shape", length)

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return math.prod(self.shape)

    @abstractmethod
    def wrap(self, x: Points) -> Points:
        """Map a displaced point to its representative in the domain."""

    @abstractmethod
    def displacement(self, start: Points, end: Points) -> Points:
        r"""The shortest :math:`\delta` with :math:`\mathrm{wrap}(start + \delta) = end`."""

    @abstractmethod
    def unroll(self, vertices: Loops) -> tuple[Loops, Bool[Tensor, " batch"]]:
        """The corners of loops in flat space, each joined to the next by the shortest edge; and
        which of the loops close there. A loop that does not close winds around the domain.
        """

    @abstractmethod
    def embed(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "n features"]:
        """Coordinates in a flat space that preserve which points are near each other."""

    @abstractmethod
    def kernel_log_prob(self, delta: Events, sigma: Widths) -> Float[Tensor, " batch"]:
        r"""Log-density (nats) of the Gaussian kernel of width :math:`\sigma` at :math:`\delta`."""

    @abstractmethod
    def kernel_score(self, delta: Events, sigma: Widths) -> Events:
        r"""The gradient of :meth:`kernel_log_prob` in :math:`\delta`."""

    @abstractmethod
    def kernel_noise(self, z: Events, sigma: Widths) -> Events:
        r"""The noise implied by the kernel's score at a displacement :math:`\sigma z`:
        :math:`-\sigma` times :meth:`kernel_score`.
        """

    @abstractmethod
    def kernel_growth(self, z: Events, sigma: Widths) -> Float[Tensor, " batch"]:
        r"""The derivative of :meth:`kernel_log_prob` in :math:`\ln\sigma`, at a displacement
        :math:`\delta = \sigma z` that is kept: by the heat equation
        :math:`\sigma^2 (\Delta + |\nabla|^2)` of it.
        """


@dataclass(frozen=True)
class Euclidean(Domain):
    r"""Flat space :math:`\mathbb{R}^{shape}`.

    Nothing wraps, and the kernel is :math:`N(0, \sigma^2 I)` with score
    :math:`-\delta / \sigma^2`.
    """

    def wrap(self, x: Points) -> Points:
        return x

    def displacement(self, start: Points, end: Points) -> Points:
        return end - start

    def unroll(self, vertices: Loops) -> tuple[Loops, Bool[Tensor, " batch"]]:
        return vertices, torch.ones(len(vertices), dtype=torch.bool, device=vertices.device)

    def embed(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "n features"]:
        return x.reshape(len(x), self.dim)

    def kernel_log_prob(self, delta: Events, sigma: Widths) -> Float[Tensor, " batch"]:
        square = delta.reshape(delta.shape[0], self.dim).square().sum(dim=1)
        return -0.5 * square / sigma**2 - self.dim * (torch.log(sigma) + 0.5 * math.log(math.tau))

    def kernel_score(self, delta: Events, sigma: Widths) -> Events:
        return -delta / sigma.reshape(-1, *(1,) * (delta.dim() - 1)) ** 2

    def kernel_noise(self, z: Events, sigma: Widths) -> Events:
        return z

    def kernel_growth(self, z: Events, sigma: Widths) -> Float[Tensor, " batch"]:
        return z.reshape(z.shape[0], self.dim).square().sum(dim=1) - self.dim


@dataclass(frozen=True)
class Torus(Domain):
    r"""The flat torus: coordinates modulo a period.

    A point has its representative in :math:`[0, L)`, the displacement between two points is the
    shortest one, and the kernel is the wrapped normal distribution of each coordinate,

    .. math:: \prod_i \sum_{k \in \mathbb{Z}} N(\delta_i + k L_i;\ 0, \sigma^2),

    exact to rounding at every width. Its covering space is flat space: paths and loops are given by
    points there, which are wrapped where a field is evaluated.

    Arguments:
        shape: The event shape, such as (atoms, dimensions).
        period: The period :math:`L` of all coordinates, or one for each index of the last axis.

    Raises:
        ValueError: If a period is not positive, or their number is not the length of the last axis.
    """

    period: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        period = self.period
        if isinstance(period, tuple | list):
            periods, several = tuple(period), True
        else:
            periods, several = (period,), False
        for length in periods:
            check_positive("the period of a torus", length)
        periods = tuple(map(float, periods))
        if several and len(periods) not in self.shape[-1:]:
            raise UserError(
                f"{len(periods)} periods do not fit points of shape {self.shape}: there is one "
                f"for each index of the last axis"
            )
        # Equal periods are one, so that equal tori are equal.
        object.__setattr__(self, "period", periods if len(set(periods)) > 1 else periods[0])

    def periods(self, like: Tensor) -> Tensor:
        """The periods, in a shape that broadcasts against the last axis of points."""
        return _placed(self.period, like.dtype, like.device)

    def wrap(self, x: Points) -> Points:
        period = self.periods(x)
        inside = torch.remainder(x, period)
        # Just below zero, the remainder rounds to the period.
        return torch.where(inside >= period, inside - period, inside)

    def displacement(self, start: Points, end: Points) -> Points:
        return self._nearest(end - start)

    def unroll(self, vertices: Loops) -> tuple[Loops, Bool[Tensor, " batch"]]:
        edges = self.displacement(vertices, vertices.roll(-1, dims=1))
        later = vertices[:, :1] + edges[:, :-1].cumsum(dim=1)
        # A sum of edges is a whole number of periods, up to rounding.
        turns = torch.round(edges.sum(dim=1) / self.periods(vertices)).reshape(len(vertices), -1)
        return torch.cat((vertices[:, :1], later), dim=1), (turns == 0).all(dim=1)

    def embed(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "n features"]:
        r"""The points of circles, :math:`\frac{L}{2\pi} (\cos, \sin)\frac{2\pi x}{L}`."""
        radius = self.periods(x) / math.tau
        circles = torch.stack((radius * torch.cos(x / radius), radius * torch.sin(x / radius)))
        return circles.movedim(0, -1).reshape(len(x), 2 * self.dim)

    def kernel_log_prob(self, delta: Events, sigma: Widths) -> Float[Tensor, " batch"]:
        each = WrappedNormal(*self._scaled(delta, sigma)).log_prob() - self.periods(delta).log()
        return each.reshape(delta.shape[0], self.dim).sum(dim=1)

    def kernel_score(self, delta: Events, sigma: Widths) -> Events:
        return WrappedNormal(*self._scaled(delta, sigma)).score() / self.periods(delta)

    def kernel_noise(self, z: Events, sigma: Widths) -> Events:
        sigma = sigma.reshape(-1, *(1,) * (z.dim() - 1))
        return -sigma * self.kernel_score(sigma * z, sigma.reshape(-1))

    def kernel_growth(self, z: Events, sigma: Widths) -> Float[Tensor, " batch"]:
        width = sigma.reshape(-1, *(1,) * (z.dim() - 1))
        shift, s = self._scaled(width * z, sigma)
        kernel = WrappedNormal(shift, s)
        each = s**2 * (kernel.curvature() + kernel.score() ** 2)
        return each.reshape(z.shape[0], self.dim).sum(dim=1)

    def uniform(
        self,
        noise: Noise,
        purpose: str,
        index: Int[Tensor, "*address"],
        step: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "..."]:
        """Uniform points on the torus; arguments as of :meth:`scorefield.noise.Noise.uniform`."""
        u = noise.uniform(purpose, self.shape, index, step, dtype=torch.float64)
        return self.wrap((self.periods(u) * u).to(dtype))

    def nonuniformity(self, sigma: float) -> float:
        r"""A bound on the total variation between the kernel of width :math:`\sigma` and the
        uniform distribution; the distance of data diffused by the kernel is no larger.
        """
        periods = self.period if isinstance(self.period, tuple) else (self.period,)
        return nonuniformity(sigma / max(periods), self.dim)

    def _nearest(self, delta: Tensor) -> Tensor:
        period = self.periods(delta)
        return delta - period * torch.round(delta / period)

    def _scaled(self, delta: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Displacements and widths in units of the period, of one shape."""
        period = self.periods(delta)
        sigma = sigma.to(delta.dtype).reshape(-1, *(1,) * (delta.dim() - 1))
        return self._nearest(delta) / period, (sigma / period).expand_as(delta)


@lru_cache(maxsize=64)
def _placed(period: float | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # The first call may be in inference mode, the next may need a gradient.
    with torch.inference_mode(False):
        return torch.tensor(period, dtype=dtype, device=device)

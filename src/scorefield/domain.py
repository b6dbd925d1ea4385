r"""Where :math:`x` lives.

A domain knows how points are compared: how a displaced point is brought back (*wrap*), what
the displacement between two points is, and the density and score of the Gaussian kernel that
the forward process diffuses with. Everything else is written on top of these, so that a
curved or periodic domain changes this file only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


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
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if any(n < 1 for n in self.shape):
            raise ValueError(f"an event shape has positive lengths, got {self.shape}")

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return math.prod(self.shape)

    @abstractmethod
    def wrap(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Brings a displaced point back to its representative in the domain."""

    @abstractmethod
    def displacement(
        self, start: Float[Tensor, "*batch"], end: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        r"""The shortest :math:`\delta` with :math:`\mathrm{wrap}(start + \delta) = end`."""

    @abstractmethod
    def kernel_log_prob(
        self, delta: Float[Tensor, "batch *event"], sigma: Float[Tensor, "#batch"]
    ) -> Float[Tensor, " batch"]:
        r"""Log-density (nats) of the Gaussian kernel of width :math:`\sigma` at :math:`\delta`."""

    @abstractmethod
    def kernel_score(
        self, delta: Float[Tensor, "batch *event"], sigma: Float[Tensor, "#batch"]
    ) -> Float[Tensor, "batch *event"]:
        r"""The gradient of :meth:`kernel_log_prob` in :math:`\delta`."""

    @abstractmethod
    def kernel_noise(
        self, z: Float[Tensor, "batch *event"], sigma: Float[Tensor, "#batch"]
    ) -> Float[Tensor, "batch *event"]:
        r"""The noise that the kernel's score tells of a displacement :math:`\sigma z`: its
        :meth:`kernel_score` there, times :math:`-\sigma`.
        """


@dataclass(frozen=True)
class Euclidean(Domain):
    r"""Flat space :math:`\mathbb{R}^{shape}`.

    Nothing wraps, and the kernel is :math:`N(0, \sigma^2 I)` with score
    :math:`-\delta / \sigma^2`.
    """

    def wrap(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return x

    def displacement(
        self, start: Float[Tensor, "*batch"], end: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        return end - start

    def kernel_log_prob(
        self, delta: Float[Tensor, "batch *event"], sigma: Float[Tensor, "#batch"]
    ) -> Float[Tensor, " batch"]:
        square = delta.reshape(delta.shape[0], self.dim).square().sum(dim=1)
        return -0.5 * square / sigma**2 - self.dim * (torch.log(sigma) + 0.5 * math.log(math.tau))

    def kernel_score(
        self, delta: Float[Tensor, "batch *event"], sigma: Float[Tensor, "#batch"]
    ) -> Float[Tensor, "batch *event"]:
        return -delta / sigma.reshape(-1, *(1,) * (delta.dim() - 1)) ** 2

    def kernel_noise(
        self, z: Float[Tensor, "batch *event"], sigma: Float[Tensor, "#batch"]
    ) -> Float[Tensor, "batch *event"]:
        return z

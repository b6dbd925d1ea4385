r"""The wrapped normal law on a circle of circumference 1, at any width.

.. math:: W(u; s) = \sum_{k \in \mathbb{Z}} \frac{1}{\sqrt{2\pi}\,s} e^{-(u + k)^2 / 2s^2}
    = 1 + 2 \sum_{k \ge 1} q^{k^2} \cos 2\pi k u, \qquad q = e^{-2\pi^2 s^2} .

The first sum, over images, converges fast where the law is narrow; the second, its Poisson
resummation, where it is wide. At :math:`s = 1/\sqrt{2\pi}` both take the same number of terms:
seven images, of which the nearest is factored out so that nothing underflows, and three harmonics
leave out less than :math:`5 \cdot 10^{-17}` of the density. Each sum is evaluated at a width on its
own side of the boundary, so that values and derivatives of any order are finite in both.

Everything is elementwise, in the dtype of the arguments, and differentiable any number of times.
A shift ``u`` is the representative in :math:`[-\frac12, \frac12]`.

References:
    Directional statistics (Mardia and Jupp, 2000), section 3.5.7.

    A course of modern analysis (Whittaker and Watson, 1927), section 21.51, for the resummation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BOUNDARY = 1 / math.sqrt(2 * math.pi)
_IMAGES = 3
_HARMONICS = 3


def wrapped_log_prob(u: Tensor, s: Tensor) -> Tensor:
    r"""The log-density :math:`\ln W(u; s)`, in nats."""
    narrow, wide = s.clamp(max=_BOUNDARY), s.clamp(min=_BOUNDARY)
    _, weight = _images(u, narrow)
    near = -0.5 * (u / narrow) ** 2 - narrow.log() - 0.5 * math.log(math.tau)
    near = near + weight.sum(dim=-1).log()
    far = torch.log1p(_harmonics(u, wide)[0])
    return torch.where(s < _BOUNDARY, near, far)


def wrapped_score(u: Tensor, s: Tensor) -> Tensor:
    r"""The score :math:`\partial_u \ln W(u; s)`."""
    narrow, wide = s.clamp(max=_BOUNDARY), s.clamp(min=_BOUNDARY)
    k, weight = _images(u, narrow)
    shift = (weight * k).sum(dim=-1) / weight.sum(dim=-1)
    excess, slope, _ = _harmonics(u, wide)
    return torch.where(s < _BOUNDARY, -(u + shift) / narrow**2, slope / (1 + excess))


def wrapped_curvature(u: Tensor, s: Tensor) -> Tensor:
    r"""The second derivative :math:`\partial_u^2 \ln W(u; s)`."""
    narrow, wide = s.clamp(max=_BOUNDARY), s.clamp(min=_BOUNDARY)
    k, weight = _images(u, narrow)
    weight = weight / weight.sum(dim=-1, keepdim=True)
    shift = (weight * k).sum(dim=-1, keepdim=True)
    spread = (weight * (k - shift) ** 2).sum(dim=-1)
    excess, slope, bend = _harmonics(u, wide)
    near = spread / narrow**4 - narrow**-2
    return torch.where(s < _BOUNDARY, near, bend / (1 + excess) - (slope / (1 + excess)) ** 2)


def wrapped_cdf(u: Tensor, s: Tensor) -> Tensor:
    r"""The probability :math:`\int_0^u W(v; s)\,\mathrm{d}v`, for any real ``u``; odd in it."""
    narrow, wide = s.clamp(max=_BOUNDARY), s.clamp(min=_BOUNDARY)
    turns = torch.round(u)
    rest = u - turns
    k = torch.arange(-_IMAGES, _IMAGES + 1, dtype=u.dtype, device=u.device)
    scale = math.sqrt(2) * narrow.unsqueeze(-1)
    start = torch.erf(k / scale)
    near = 0.5 * (torch.erf((rest.unsqueeze(-1) + k) / scale) - start).sum(dim=-1)
    far = rest
    for harmonic in range(1, _HARMONICS + 1):
        decay = torch.exp(-2 * (math.pi * harmonic * wide) ** 2)
        far = far + decay * torch.sin(math.tau * harmonic * rest) / (math.pi * harmonic)
    return turns + torch.where(s < _BOUNDARY, near, far)


def nonuniformity(s: float, dim: int) -> float:
    r"""A bound on the total variation between the law of ``dim`` independent wrapped normals and
    the uniform one: :math:`\frac12 \big((1 + 2\sum_k q^{2k^2})^{dim} - 1\big)^{1/2}`.

    References:
        Group representations in probability and statistics (Diaconis, 1988), chapter 3, lemma 1.
    """
    excess = 2 * sum(math.exp(-((2 * math.pi * k * s) ** 2)) for k in range(1, 8))
    exponent = dim * math.log1p(excess)
    return min(1.0, 0.5 * math.sqrt(math.expm1(exponent))) if exponent < 2 else 1.0


def _images(u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The images and their weights relative to the one at the origin, along a new last axis."""
    k = torch.arange(-_IMAGES, _IMAGES + 1, dtype=u.dtype, device=u.device)
    exponent = k * (2 * u.unsqueeze(-1) + k) / (2 * s.unsqueeze(-1) ** 2)
    return k, torch.exp(-exponent)


def _harmonics(u: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The density less 1, and its first and second derivative."""
    excess = slope = bend = torch.zeros_like(u + s)
    for k in range(1, _HARMONICS + 1):
        rate, decay = math.tau * k, 2 * torch.exp(-2 * (math.pi * k * s) ** 2)
        wave = decay * torch.cos(rate * u)
        excess, bend = excess + wave, bend - rate**2 * wave
        slope = slope - rate * decay * torch.sin(rate * u)
    return excess, slope, bend

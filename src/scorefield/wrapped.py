r"""The wrapped normal distribution on a circle of circumference 1, at any width.

.. math:: W(u; s) = \sum_{k \in \mathbb{Z}} \frac{1}{\sqrt{2\pi}\,s} e^{-(u + k)^2 / 2s^2}
    = 1 + 2 \sum_{k \ge 1} q^{k^2} \cos 2\pi k u, \qquad q = e^{-2\pi^2 s^2} .

The first sum, over images, converges fast where the density is narrow; the second, its Poisson
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


class WrappedNormal:
    r"""The distribution :math:`W(u; s)` at given shifts and widths; its sums are evaluated once.

    Arguments:
        u: The shifts.
        s: The widths, of the shape of the shifts.
    """

    def __init__(self, u: Tensor, s: Tensor) -> None:
        self._u, self._near = u, s < _BOUNDARY
        self._narrow, self._wide = s.clamp(max=_BOUNDARY), s.clamp(min=_BOUNDARY)
        k = torch.arange(-_IMAGES, _IMAGES + 1, dtype=u.dtype, device=u.device)
        exponent = k * (2 * u.unsqueeze(-1) + k) / (2 * self._narrow.unsqueeze(-1) ** 2)
        # Relative to the image at the origin.
        weight = torch.exp(-exponent)
        self._total = weight.sum(dim=-1)
        self._k, self._share = k, weight / self._total.unsqueeze(-1)
        self._shift = (self._share * k).sum(dim=-1)
        harmonics = torch.arange(1, _HARMONICS + 1, dtype=u.dtype, device=u.device)
        self._rate, phase = math.tau * harmonics, math.tau * u.unsqueeze(-1) * harmonics
        decay = 2 * torch.exp(-2 * (math.pi * self._wide.unsqueeze(-1) * harmonics) ** 2)
        self._wave = decay * torch.cos(phase)
        self._density = 1 + self._wave.sum(dim=-1)
        self._slope = -(self._rate * decay * torch.sin(phase)).sum(dim=-1) / self._density

    def log_prob(self) -> Tensor:
        r"""The log-density :math:`\ln W`, in nats."""
        near = -0.5 * (self._u / self._narrow) ** 2 - self._narrow.log() + self._total.log()
        far = torch.log1p(self._wave.sum(dim=-1))
        return torch.where(self._near, near - 0.5 * math.log(math.tau), far)

    def score(self) -> Tensor:
        r"""The score :math:`\partial_u \ln W`."""
        near = -(self._u + self._shift) / self._narrow**2
        return torch.where(self._near, near, self._slope)

    def curvature(self) -> Tensor:
        r"""The second derivative :math:`\partial_u^2 \ln W`."""
        spread = (self._share * (self._k - self._shift.unsqueeze(-1)) ** 2).sum(dim=-1)
        bend = -(self._rate**2 * self._wave).sum(dim=-1) / self._density
        near = spread / self._narrow**4 - self._narrow**-2
        return torch.where(self._near, near, bend - self._slope**2)


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
    r"""A bound on the total variation between ``dim`` independent wrapped normals and the uniform
    distribution: :math:`\frac12 \big((1 + 2\sum_k q^{2k^2})^{dim} - 1\big)^{1/2}`.

    References:
        Group representations in probability and statistics (Diaconis, 1988), chapter 3, lemma 1.
    """
    excess = 2 * sum(math.exp(-((2 * math.pi * k * s) ** 2)) for k in range(1, 8))
    exponent = dim * math.log1p(excess)
    return min(1.0, 0.5 * math.sqrt(math.expm1(exponent))) if exponent < 2 else 1.0

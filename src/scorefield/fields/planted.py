r"""Fields with a known error, for the calibration of diagnostics.

An error is planted in units of the noise, :math:`\hat\varepsilon = \hat\varepsilon_{base} +
\delta\,b(\lambda)\,\eta`, that is, :math:`r = -\delta\,b\,\eta / \sigma` in the score. Its effect
on the marginals :math:`p_t` of the probability flow depends on the mass that it transports: the
flow of the exact score plus :math:`r` has the same marginals if and only if

.. math:: \nabla \cdot (p_t\,r) = 0 \quad\text{at all } t.

A *turned* gradient :math:`R \nabla\psi`, with :math:`R` a constant skew matrix, has no divergence:
:math:`\nabla \cdot (R \nabla\psi) = \sum_{ij} R_{ij}\,\partial_i\partial_j\psi = 0`. Turning the
exact score itself gives :math:`p\,R\,\nabla\log p = R\,\nabla p`, so that the field is arbitrarily
far from a gradient, while the distribution of its samples and their likelihood stay the same.
Turning another gradient gives curl that does transport mass: :math:`\nabla \cdot (p\,R\,\nabla\psi)
= \nabla p \cdot R\,\nabla\psi`.

References:
    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    appendix D.1 (the flow of given marginals).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from scorefield.checks import check_count, check_finite, check_floating, check_positive
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Quantity, Times, convert, times
from scorefield.noise import Noise


@dataclass(frozen=True)
class Band:
    r"""A band of noise levels with soft edges.

    .. math:: b(\lambda) = \Phi\Big(\frac{\ln b - \ln\lambda}{w}\Big)
        - \Phi\Big(\frac{\ln a - \ln\lambda}{w}\Big)

    with the normal distribution function :math:`\Phi`. Bands that share an edge add up to the
    band of their union.

    Arguments:
        low: The lower edge :math:`a \ge 0`, in units of the data.
        high: The upper edge :math:`b`, which may be infinite.
        width: The width :math:`w` of the edges, in units of :math:`\ln\lambda`.

    Raises:
        ValueError: Unless ``0 <= low < high`` and ``width > 0``.
    """

    low: float = 0.0
    high: float = math.inf
    width: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise UserError(f"a band has 0 <= low < high, got {self.low} and {self.high}")
        check_positive("the width of a band's edges", self.width)

    def __call__(self, level: Tensor) -> Tensor:
        """The share of the error that is planted at noise levels, between 0 and 1."""
        inside = torch.special.ndtr((math.log(self.high) - level.log()) / self.width)
        if self.low > 0:
            inside = inside - torch.special.ndtr((math.log(self.low) - level.log()) / self.width)
        return inside


class Perturbation(nn.Module, ABC):
    """The shape of an error, in units of the noise; of order one unless stated otherwise."""

    @abstractmethod
    def forward(self, x: Batch, noise: Batch, level: Tensor) -> Batch:
        r"""The error :math:`\eta` at scaled points :math:`\hat x = x / \alpha`, where the base
        field predicts ``noise``; the noise levels :math:`\lambda` broadcast against ``x``.
        """


class PredictedNoise(Perturbation):
    r"""An error along the field itself, :math:`\eta = \hat\varepsilon`: the score is too long.

    It is a gradient if the base field is one. Its size is that of the predicted noise.
    """

    def forward(self, x: Batch, noise: Batch, level: Tensor) -> Batch:
        return noise


class Radial(Perturbation):
    r"""An error along the points, :math:`\eta = \hat x / \sqrt{\lambda^2 + \ell^2}`: a gradient.

    Arguments:
        scale: The length :math:`\ell`, in units of the data.

    Raises:
        ValueError: If the length is not positive.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        check_positive("the scale of a perturbation", scale)
        self.scale = scale

    def forward(self, x: Batch, noise: Batch, level: Tensor) -> Batch:
        return x / _length(level, self.scale)


class Waves(Perturbation):
    r"""The gradient of a random smooth function: a sum of plane waves.

    .. math:: \eta = a \sum_m k_m \sin\Big(\frac{k_m \cdot \hat x}{\sqrt{\lambda^2 + \ell^2}}
        + \varphi_m\Big)

    with directions and phases uniform, wave numbers uniform in [½, 3/2], and :math:`a` such that
    :math:`\eta` has root mean square 1 per coordinate over the phases. It varies on the scale of
    the noise, but not on scales below :math:`\ell`.

    Arguments:
        dim: The number :math:`D` of coordinates.
        scale: The length :math:`\ell`, in units of the data.
        count: The number of waves.
        seed: The seed, of addresses with purposes ``"waves/…"``.

    Raises:
        ValueError: If an argument is not positive.
    """

    k: Tensor
    phase: Tensor

    def __init__(self, dim: int, scale: float, count: int = 16, seed: int = 0) -> None:
        super().__init__()
        check_count("the dimension of waves", dim)
        check_count("the count of waves", count)
        check_positive("the scale of a perturbation", scale)
        self.scale = scale
        noise, index = Noise(seed), torch.arange(count)
        direction = noise.normal("waves/direction", (dim,), index, dtype=torch.float64)
        number = noise.uniform("waves/number", (1,), index, dtype=torch.float64) + 0.5
        k = number * nn.functional.normalize(direction)
        self.register_buffer("k", k)
        self.register_buffer(
            "phase", math.tau * noise.uniform("waves/phase", (), index, dtype=torch.float64)
        )
        self.size = math.sqrt(2 * dim / float(k.square().sum()))

    def forward(self, x: Batch, noise: Batch, level: Tensor) -> Batch:
        k, phase = self.k.to(x.dtype), self.phase.to(x.dtype)
        flat = (x / _length(level, self.scale)).reshape(x.shape[0], -1)
        return (self.size * torch.sin(flat @ k.mT + phase) @ k).reshape(x.shape)


class Turned(Perturbation):
    r"""An error turned by a skew matrix: :math:`R\,\eta`, free of divergence if :math:`\eta` is a
    gradient.

    Arguments:
        perturbation: The error that is turned.
        matrix: The matrix :math:`R`, of shape :math:`(D, D)`, such as :func:`right_angle`.

    Raises:
        ValueError: If the matrix is not square and skew.
    """

    matrix: Tensor

    def __init__(self, perturbation: Perturbation, matrix: Float[Tensor, "d d"]) -> None:
        super().__init__()
        if matrix.dim() != 2 or not torch.equal(matrix, -matrix.mT):
            raise UserError(f"an error is turned by a skew matrix, got {tuple(matrix.shape)}")
        self.perturbation = perturbation
        self.register_buffer("matrix", matrix)

    def forward(self, x: Batch, noise: Batch, level: Tensor) -> Batch:
        value = self.perturbation(x, noise, level)
        return (value.reshape(x.shape[0], -1) @ self.matrix.to(value).mT).reshape(x.shape)


class Mixed(Perturbation):
    r"""A sum of errors, :math:`\eta = \sum_i w_i\,\eta_i`.

    Arguments:
        parts: The errors.
        weights: Their weights.
    """

    weights: Tensor

    def __init__(self, parts: Sequence[Perturbation], weights: Float[Tensor, " parts"]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.register_buffer("weights", weights)

    def forward(self, x: Batch, noise: Batch, level: Tensor) -> Batch:
        values = torch.stack([part(x, noise, level) for part in self.parts])
        return torch.einsum("k,k...->...", self.weights.to(values), values)


class Matched(Perturbation):
    r"""An error scaled to root mean square 1 per coordinate under the noisy distribution, at every
    noise level.

    :math:`\sqrt{\mathbb{E}\,\|\eta\|^2 / D}` is measured on data diffused to noise levels evenly
    spaced in the logarithm; a cubic spline interpolates its logarithm between them.

    Arguments:
        perturbation: The error.
        base: The field that it will be planted in.
        data: Clean points.
        seed: The seed of their noise, one per point, at addresses of purpose ``"planted/noise"``.
        levels: The number of noise levels, at least 4.

    Raises:
        ValueError: If there are too few levels, or the error vanishes at one of them.
    """

    logs: Tensor
    pieces: Tensor

    def __init__(
        self,
        perturbation: Perturbation,
        base: ScoreField,
        data: Float[Tensor, "n *event"],
        seed: int = 0,
        levels: int = 49,
    ) -> None:
        super().__init__()
        check_floating("the data", data)
        if levels < 4:
            raise UserError(f"a size is matched at 4 noise levels at least, got {levels}")
        self.perturbation = perturbation
        sde, index = base.sde, torch.arange(len(data), device=data.device)
        z = Noise(seed).normal("planted/noise", base.domain.shape, index, dtype=data.dtype)
        low, high = map(math.log, sde.level_range)
        logs = torch.linspace(low, high, levels, dtype=torch.float64)
        sizes = []
        with torch.no_grad(), evaluation_mode(base):
            for level in logs.exp().to(data):
                x, t = data + level * z, sde.time(level)
                noise = base.predict_noise(sde.alpha(t) * x, t)
                error = perturbation(x, noise, level.reshape(-1, *(1,) * (x.dim() - 1)))
                sizes.append(float(error.square().mean().sqrt()))
        if not all(math.isfinite(size) and size > 0 for size in sizes):
            raise UserError("an error that vanishes at a noise level cannot be brought to size 1")
        spline = CubicSpline(logs.numpy(), [math.log(size) for size in sizes])
        self.register_buffer("logs", logs.to(data.device))
        self.register_buffer("pieces", torch.as_tensor(spline.c, device=data.device))

    def forward(self, x: Batch, noise: Batch, level: Tensor) -> Batch:
        place = level.to(self.logs).log().clamp(self.logs[0], self.logs[-1])
        piece = torch.bucketize(place, self.logs[1:-1], right=True)
        u = place - self.logs[piece]
        c0, c1, c2, c3 = self.pieces[:, piece]
        log_size = ((c0 * u + c1) * u + c2) * u + c3
        return self.perturbation(x, noise, level) * (-log_size).exp().to(x)


class PlantedField(ScoreField):
    r"""A field plus a known error, :math:`\hat\varepsilon_{base} + \delta\,b(\lambda)\,\eta`.

    Arguments:
        base: The field.
        perturbation: The shape :math:`\eta` of the error.
        dose: Its size :math:`\delta`, in units of the noise: the root mean square error of the
            predicted noise inside the band, if the shape is :class:`Matched`.
        band: The noise levels at which it is planted.

    Raises:
        ValueError: If the dose is not finite.

    Example:
        >>> turned = Turned(PredictedNoise(), right_angle(2))
        >>> harmless = PlantedField(truth, turned, dose=0.3, band=Band(0.1, 1.0))
    """

    def __init__(
        self, base: ScoreField, perturbation: Perturbation, dose: float, band: Band | None = None
    ) -> None:
        check_field(base)
        check_finite("a dose", dose)
        super().__init__(base.sde, base.domain)
        self.base = base
        self.perturbation = perturbation
        self.dose = dose
        self.band = Band() if band is None else band

    @property
    def classes(self) -> int | None:
        return self.base.classes

    @property
    def unlabelled(self) -> bool:
        return self.base.unlabelled

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        time = times(x, t)
        level = self.sde.noise_level(time)
        noise = self.base.predict_noise(x, t, classes)
        eta = self.perturbation(x / self.sde.alpha(time), noise, level)
        planted = noise + self.dose * self.band(level) * eta
        return convert(planted, x, t, self.sde, "noise", quantity)


def right_angle(dim: int) -> Float[Tensor, "dim dim"]:
    """The skew matrix that turns each pair of coordinates by a right angle, float64; the last of an
    odd number is mapped to zero.

    Raises:
        ValueError: For fewer than two dimensions, where nothing can be turned.
    """
    if dim < 2:
        raise UserError(f"a rotation needs two dimensions, got {dim}")
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    matrix = torch.zeros(dim, dim, dtype=torch.float64)
    matrix[: dim // 2 * 2, : dim // 2 * 2] = torch.block_diag(*[quarter] * (dim // 2))
    return matrix


def _length(level: Tensor, scale: float) -> Tensor:
    return (level.square() + scale**2).sqrt()

r"""The empirical distribution of a finite data set, its shifts, and their ideal scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import check_data, check_floating, inspect
from scorefield.domain import Euclidean
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.sde.base import SDE
from scorefield.targets.base import Steps, Target
from scorefield.targets.labelled import Labelled

IdealScoreT = TypeVar("IdealScoreT", bound="IdealScore")

WORKSPACE = 1 << 22
"""The number of float64 entries of a temporary of one block (32 MiB)."""


class Posterior(NamedTuple):
    r"""The log of the sum of the points' weights, and their weighted mean about the centre."""

    log_total: Tensor
    mean: Tensor


class Empirical(Target):
    r"""The empirical distribution of :math:`N` points, all equally likely.

    .. math:: p_t(x) = \frac1N \sum_i N(x;\ \alpha y_i,\ \sigma^2 I), \qquad
        \mathbb{E}[x_0 \mid x] = \sum_i r_i y_i, \qquad
        s = \frac{1}{\sigma^2} \sum_i r_i (\alpha y_i - x),

    with :math:`r = \mathrm{softmax}(-|x - \alpha y_i|^2 / 2\sigma^2)`. The points are visited
    block by block with a running softmax; a graph that autograd records holds the :math:`B \times
    N` weights. The log-weights have an absolute error of about :math:`10^{-16} |x - \alpha\bar y|^2
    / \sigma^2`, with the mean :math:`\bar y` of the data.

    Arguments:
        points: The points :math:`y_i`, of shape :math:`(N, *event)`.
        sde: The forward process; ``EDM()`` if not given.

    Raises:
        ValueError: If there is no point, or they are not finite floating-point numbers.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        equations 55 to 57.
    """

    data: Tensor
    centre: Tensor

    def __init__(self, points: Float[Tensor, "n *event"], sde: SDE | None = None) -> None:
        check_data("the points of an empirical distribution", points)
        super().__init__(Euclidean(tuple(points.shape[1:])), sde)
        flat = points.to(torch.float64).reshape(points.shape[0], self.domain.dim)
        self.register_buffer("data", flat.clone())
        self.register_buffer("centre", flat.mean(dim=0))

    @property
    def points(self) -> Float[Tensor, "n *event"]:
        r"""The points :math:`y_i`, float64."""
        return self.data.reshape(-1, *self.domain.shape)

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self.centre.reshape(self.domain.shape)

    @property
    def std(self) -> float:
        return float((self.data - self.centre).square().mean().sqrt())

    @property
    def count(self) -> int:
        """The number of points of the data set."""
        return self.data.shape[0]

    def draw(
        self, noise: Noise, index: Tensor, step: Steps = 0, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        chosen = noise.integers("data", self.data.shape[0], (), index, step)
        return self.points[chosen].to(dtype)

    def _log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        dim, n = self.domain.dim, self.count
        log_total = torch.cat([p.log_total for _, p in self._posteriors(x, alpha, sigma)])
        return log_total - dim * (sigma[:, 0].log() + 0.5 * math.log(math.tau)) - math.log(n)

    def _denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self.centre + torch.cat([p.mean for _, p in self._posteriors(x, alpha, sigma)])

    def _score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        mean = torch.cat([p.mean for _, p in self._posteriors(x, alpha, sigma)])
        return (alpha * mean - (x - alpha * self.centre)) / sigma**2

    def _jacobian(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        dim = self.domain.dim
        parts = []
        rows = max(1, min(1024, WORKSPACE // dim**2))
        for (u, a, s), posterior in self._posteriors(x, alpha, sigma, rows):
            spread = u.new_zeros(u.shape[0], dim, dim)
            for offsets in self._offsets(u.shape[0] * dim):
                r = (_log_weights(u, a, s, offsets) - posterior.log_total.unsqueeze(1)).exp()
                deviation = offsets - posterior.mean.unsqueeze(1)
                spread = spread + (r.unsqueeze(2) * deviation).mT @ deviation
            a, s = a.unsqueeze(2), s.unsqueeze(2)
            identity = torch.eye(dim, dtype=u.dtype, device=u.device)
            parts.append((a / s**2) ** 2 * spread - identity / s**2)
        return torch.cat(parts)

    def _posteriors(
        self, x: Tensor, alpha: Tensor, sigma: Tensor, rows: int = 1024
    ) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor], Posterior]]:
        """Blocks of rows, centred and with their coefficients, and their posteriors."""
        inspect(sigma, _check_noise)
        alpha, sigma = alpha.expand(x.shape[0], 1), sigma.expand(x.shape[0], 1)
        u = x - alpha * self.centre
        for block in zip(u.split(rows), alpha.split(rows), sigma.split(rows), strict=True):
            yield block, self._posterior(*block)

    def _posterior(self, u: Tensor, alpha: Tensor, sigma: Tensor) -> Posterior:
        top = u.new_full((u.shape[0], 1), -math.inf)
        total, weighted = torch.zeros_like(top), torch.zeros_like(u)
        for offsets in self._offsets(u.shape[0]):
            logits = _log_weights(u, alpha, sigma, offsets)
            # The shift cancels in every result, so that no derivative needs to pass it.
            new_top = torch.maximum(top, logits.detach().amax(dim=1, keepdim=True))
            decay, weights = (top - new_top).exp(), (logits - new_top).exp()
            total = decay * total + weights.sum(dim=1, keepdim=True)
            weighted = decay * weighted + weights @ offsets
            top = new_top
        return Posterior((top + total.log()).squeeze(1), weighted / total)

    def _offsets(self, entries: int) -> Iterator[Tensor]:
        """Blocks of centred points, of which each takes ``entries`` entries of workspace."""
        return self._centred(entries)

    def _centred(self, entries: int) -> Iterator[Tensor]:
        """Blocks of centred data, of which each row takes ``entries`` entries of workspace."""
        for block in self.data.split(max(1, WORKSPACE // max(self.domain.dim, entries))):
            yield block.to(torch.float64) - self.centre


class IdealScore(Labelled, Empirical):
    """The ideal score (IS) of a data set, of all of it or of the points of each class in
    ``labels``.

    It is the score of :class:`Empirical`, the optimum of a network of unlimited capacity; its
    samples are training points. Shapes and ``sde`` are those of :class:`Empirical`.

    Raises:
        ValueError: As :class:`Empirical`; if the labels are not one class from 0 a point.

    References:
        An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli,
        2025), section 2.
    """

    def __init__(
        self,
        points: Float[Tensor, "n *event"],
        sde: SDE | None = None,
        labels: Int[Tensor, " n"] | None = None,
    ) -> None:
        super().__init__(points, sde)
        self._label(labels, points.shape[0])

    def _part(self: IdealScoreT, rows: Int[Tensor, " rows"]) -> IdealScoreT:
        return type(self)(self.points[rows], self.sde)


def _log_weights(u: Tensor, alpha: Tensor, sigma: Tensor, offsets: Tensor) -> Tensor:
    square = u.square().sum(dim=1, keepdim=True) + alpha**2 * offsets.square().sum(dim=1)
    return (alpha * (u @ offsets.mT) - 0.5 * square) / sigma**2


class EquivariantScore(IdealScore):
    r"""The equivariant score (ES): the ideal score of all cyclic shifts of all images.

    It is the optimum of a network that is equivariant to shifts with the whole torus as receptive
    field, and the limit of :class:`~.EquivariantLocalScore` with
    ``circular`` padding for windows as large as the image. As the score of a distribution it is a
    gradient: equivariance alone causes no curl.

    All shifts' inner products with a point are a correlation, and their weighted mean is a
    convolution, both by the fast Fourier transform: :math:`O(N D \log D)` per point. Arguments are
    those of :class:`IdealScore`, for images of shape :math:`(N, C, H, W)`.

    Raises:
        ValueError: If the points are not images, or as :class:`IdealScore`.

    References:
        An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli, 2025),
        section 3.
    """

    def __init__(
        self,
        points: Float[Tensor, "n channels height width"],
        sde: SDE | None = None,
        labels: Int[Tensor, " n"] | None = None,
    ) -> None:
        check_floating("images", points)
        if points.dim() != 4 or 0 in points.shape:
            raise UserError(
                f"shifted images have the shape (images, channels, height, width), got "
                f"{tuple(points.shape)}"
            )
        super().__init__(points, sde, labels)
        level = self.points.mean(dim=(0, 2, 3), keepdim=True)
        self.centre.copy_(level.expand(1, *self.domain.shape).reshape(-1))

    @property
    def count(self) -> int:
        return self.data.shape[0] * self.domain.shape[1] * self.domain.shape[2]

    def draw(
        self, noise: Noise, index: Tensor, step: Steps = 0, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        _, height, width = self.domain.shape
        image = super().draw(noise, index, step, torch.float64)
        down = noise.integers("data/rows", height, (), index, step)[..., None]
        right = noise.integers("data/columns", width, (), index, step)[..., None]
        rows = (torch.arange(height, device=down.device) - down) % height
        columns = (torch.arange(width, device=down.device) - right) % width
        image = image.gather(-2, rows[..., None, :, None].expand(image.shape))
        return image.gather(-1, columns[..., None, None, :].expand(image.shape)).to(dtype)

    def _posterior(self, u: Tensor, alpha: Tensor, sigma: Tensor) -> Posterior:
        channels, height, width = self.domain.shape
        batch, side = u.shape[0], (height, width)
        if not batch:
            return Posterior(u.new_empty(0), u)
        wave = torch.fft.rfft2(u.reshape(batch, channels, *side))
        square = u.square().sum(dim=1, keepdim=True)
        top = u.new_full((batch, 1), -math.inf)
        total, weighted = torch.zeros_like(top), torch.zeros_like(wave)
        for block in self._centred(batch * height * width):
            images = block.reshape(-1, channels, *side)
            waves = torch.fft.rfft2(images)
            product = torch.einsum("bchw,nchw->bnhw", wave, waves.conj())
            norm = images.square().sum(dim=(1, 2, 3))[None, :, None, None]
            inner = torch.fft.irfft2(product, s=side)
            scale = sigma[:, :, None, None] ** 2
            a = alpha[:, :, None, None]
            logits = (a * inner - 0.5 * (square[:, :, None, None] + a**2 * norm)) / scale
            new_top = torch.maximum(top, logits.detach().amax(dim=(1, 2, 3)).unsqueeze(1))
            decay = (top - new_top).exp()
            weights = (logits - new_top[:, :, None, None]).exp()
            total = decay * total + weights.sum(dim=(1, 2, 3)).unsqueeze(1)
            shifted = torch.einsum("bnhw,nchw->bchw", torch.fft.rfft2(weights), waves)
            weighted = decay[:, :, None, None] * weighted + shifted
            top = new_top
        mean = torch.fft.irfft2(weighted, s=side).reshape(batch, -1) / total
        return Posterior((top + total.log()).squeeze(1), mean)

    def _offsets(self, entries: int) -> Iterator[Tensor]:
        channels, height, width = self.domain.shape
        for block in self._centred(entries * height * width):
            image = block.reshape(-1, channels, height, width)
            for down in range(height):
                rolled = torch.stack(
                    [image.roll((down, right), dims=(2, 3)) for right in range(width)]
                )
                yield rolled.reshape(-1, self.domain.dim)


def _check_noise(sigma: Tensor) -> None:
    if not bool((sigma > 0).all()):
        raise UserError(
            "an empirical distribution has no density without noise: t must be positive"
        )

r"""Closed-form scores of models that depend on one patch of an image at a time.

A convolutional network with a small receptive field cannot learn the score of the data: its output
at a pixel :math:`p` depends on the window :math:`x_p` of :math:`k \times k` pixels about it. The
optimum is the posterior mean of the pixel given the window,

.. math:: \hat x(p) = \sum_j w_j(p)\, y_j, \qquad
    w(p) = \mathrm{softmax}_j \Big(-\frac{|x_p - \alpha Y_j|^2}{2\sigma^2}\Big), \qquad
    s = \frac{\alpha \hat x - x}{\sigma^2},

where :math:`Y_j` are windows of the training images about pixels :math:`y_j`: those at the same
place of all images (a *local* score, LS), or, for a network that is equivariant to translations,
those at all places (an *equivariant local* score, ELS). Where its windows reach across the border,
a network that pads with zeros can detect its distance from the border: there, only windows at the
same distance from that border are compared.

Such a score is in general not a gradient: the derivative of the estimate at one pixel by a
neighbour differs from that at the neighbour by the pixel, since the two windows differ.

References:
    An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli, 2025),
    sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from scorefield.checks import check_floating
from scorefield.domain import Euclidean
from scorefield.errors import UserError
from scorefield.fields.forms import Quantity, Times, convert, times
from scorefield.sde.base import SDE
from scorefield.sde.exploding import EDM
from scorefield.targets.attention import Block, precise, weighted_means
from scorefield.targets.band import dense, differentiable_mean
from scorefield.targets.labelled import Labelled, together
from scorefield.targets.windows import (
    Padding,
    PatchSizes,
    Section,
    check_size,
    energies,
    middles,
    padded,
    scatter,
    sections,
    windows,
)

PatchScoreT = TypeVar("PatchScoreT", bound="PatchScore")

_BYTES = 48 << 20
"""So much memory the keys of a block may take, and the queries that they are compared with."""


class PatchScore(Labelled):
    """A score that depends on windows: the posterior mean of each pixel given its window.

    Training images are visited in blocks, with a running softmax. Results have the dtype of the
    points; derivatives, and logits for which float32 has too few digits, are computed in float64.
    Jacobians follow from the second moments of the weighted windows, which take about three
    evaluations; the field can be differentiated once, in either mode.

    Arguments:
        images: The training images, of shape :math:`(N, C, H, W)`.
        sde: The forward process; ``EDM()`` if not given.
        size: The side :math:`k` of the windows, odd; or a table of sides by noise level.
        labels: The class of each image, from 0, where there are classes.
        padding: The padding outside the images.

    Raises:
        ValueError: If there are no images, they are not finite or not images, a size is not odd,
            or too large for a torus, or the labels are not one class an image.
    """

    images: Tensor
    centre: Tensor
    equivariant = False
    paddings: tuple[Padding, ...] = ("zeros", "circular")

    def __init__(
        self,
        images: Float[Tensor, "n channels height width"],
        sde: SDE | None = None,
        size: int | PatchSizes = 3,
        labels: Int[Tensor, " n"] | None = None,
        padding: Padding = "zeros",
    ) -> None:
        check_floating("training images", images)
        if images.dim() != 4 or 0 in images.shape:
            raise UserError(
                f"training images have the shape (images, channels, height, width), got "
                f"{tuple(images.shape)}"
            )
        if images.dtype not in (torch.float32, torch.float64):
            raise UserError(f"training images are float32 or float64, not {images.dtype}")
        # Neither takes memory, as a mask or a difference of all images would.
        lowest, highest = images.amin(dim=(0, 2, 3)), images.amax(dim=(0, 2, 3))
        if not bool((lowest.isfinite() & highest.isfinite()).all()):
            raise UserError("training images must be finite")
        if padding not in self.paddings:
            names = " or ".join(self.paddings)
            raise UserError(f"{type(self).__name__} pads with {names}, not {padding!r}")
        super().__init__(EDM() if sde is None else sde, Euclidean(tuple(images.shape[1:])))
        sizes = size if isinstance(size, PatchSizes) else PatchSizes.same(size)
        for k in sizes.sizes:
            check_size(k, None if padding == "zeros" else min(images.shape[2:]))
        self.padding = padding
        self.sizes = sizes
        images = images.detach()
        self.register_buffer("images", images)
        # Products of numbers that differ by little keep their digits about the mean.
        centre = images.mean(dim=(0, 2, 3))
        self.register_buffer("centre", centre.reshape(-1, 1, 1))
        self._label(labels, images.shape[0])

    def _part(self: PatchScoreT, rows: Int[Tensor, " rows"]) -> PatchScoreT:
        return type(self)(self.images[rows], self.sde, self.sizes, None, self.padding)

    def _predict(self, x: Tensor, t: Times, quantity: Quantity) -> Tensor:
        y, means = x.to(torch.float64), []
        for rows, level in self._levels(y, t):
            moments = partial(self._moments, level, x.dtype)
            means.append((rows, differentiable_mean(moments, y[rows], self.padding)))
        # Little noise is a small difference between the point and the mean.
        return convert(together(means), y, t, self.sde, "denoiser", quantity).to(x.dtype)

    def _jacobians(self, x: Tensor, t: Times) -> Tensor:
        y, parts = x.to(torch.float64), []
        with torch.no_grad():
            for rows, level in self._levels(y, t):
                _, band = self._moments(level, x.dtype, y[rows], True)
                whole = dense(band, self.padding)
                whole *= (level.alpha / level.sigma**2)[:, None, None]
                whole.diagonal(dim1=1, dim2=2).sub_((1 / level.sigma**2)[:, None])
                parts.append((rows, whole.to(x.dtype)))
        return together(parts)

    def _levels(self, x: Tensor, t: Times) -> Iterator[tuple[Tensor, _Level]]:
        """The rows of each window size, and what the noise is there."""
        if x.shape[1:] != self.domain.shape:
            raise UserError(
                f"{type(self).__name__} has points of shape {self.domain.shape}, got "
                f"{tuple(x.shape[1:])}"
            )
        time = times(x, t).reshape(-1).expand(x.shape[0])
        alpha, sigma = self.sde.alpha(time), self.sde.sigma(time)
        if not bool((sigma > 0).all()):
            raise UserError("a score of data has no value without noise: t must be positive")
        sizes = self.sizes.at(sigma / alpha)
        for size in sizes.unique().tolist() or self.sizes.sizes[:1]:
            rows = (sizes == size).nonzero().squeeze(1)
            yield rows, _Level(size, alpha[rows], sigma[rows])

    def _moments(
        self, level: _Level, dtype: torch.dtype, x: Tensor, bands: bool
    ) -> tuple[Tensor, Tensor]:
        """The posterior means at images, and the bands of their Jacobians, float64."""
        u = x.detach() - level.alpha[:, None, None, None] * self.centre
        channels, height, width = self.domain.shape
        dim = channels * level.size**2
        features = (channels + 1) * (dim + 1) if bands else channels + 1
        at_once = max(1, _BYTES // (height * width * (dim + 2 + features) * 8))
        means, covariances = [x.new_empty(0, channels, height, width)], []
        for start in range(0, u.shape[0], at_once):
            rows = slice(start, start + at_once)
            part = level._replace(alpha=level.alpha[rows], sigma=level.sigma[rows])
            moments = u.new_empty(len(u[rows]), height, width, features - 1)
            working = self._precision(part, torch.float64 if bands else dtype, u[rows])
            for section in self._sections(level.size):
                scatter(self._section(part, working, u[rows], section, bands), section, moments)
            if bands:
                whole = F.pad(moments, (1, 0), value=1.0).unflatten(3, (channels + 1, dim + 1))
                mean, window = whole[..., 1:, :1], whole[..., :1, 1:]
                scale = (part.alpha / part.sigma**2)[:, None, None, None, None]
                covariances.append((whole[..., 1:, 1:] - mean * window) * scale)
                moments = mean.squeeze(4)
            means.append(self.centre + moments.permute(0, 3, 1, 2))
        covariances.append(x.new_empty(0, height, width, channels, dim))
        return torch.cat(means), torch.cat(covariances)

    def _sections(self, size: int) -> list[Section]:
        return sections(self.domain.shape, size, self.padding, self.equivariant)

    def _precision(self, level: _Level, dtype: torch.dtype, u: Tensor) -> torch.dtype:
        """The dtype that the logits of points of a dtype need."""
        if dtype == torch.float64:
            return dtype
        some = self.images.split(max(1, _BYTES // (8 * self.domain.dim)))
        longest = max(
            float(energies(images - self.centre, level.size, self._outside).max())
            for images in some
        )
        energy = energies(u, level.size, self.padding).amax(dim=(1, 2, 3))
        length = energy.sqrt() + level.alpha * longest**0.5
        return precise(float((length**2 / (2 * level.sigma**2)).max()), dtype)

    def _section(
        self, level: _Level, dtype: torch.dtype, u: Tensor, section: Section, bands: bool
    ) -> Tensor:
        """The weighted means of the features of windows, at the pixels of a section."""
        queries = windows(padded(u, level.size // 2, self.padding), level.size, section).mT
        return weighted_means(
            queries.to(dtype),
            level.alpha.repeat_interleave(section.places).to(dtype),
            level.sigma.repeat_interleave(section.places).to(dtype),
            self._blocks(level.size, section.keys, dtype, bands),
            len(self.images) * section.keys.places,
        ).mT

    @property
    def _outside(self) -> Padding:
        """The padding outside the training images."""
        return "circular" if self.padding == "circular" else "zeros"

    def _blocks(
        self, size: int, section: Section, dtype: torch.dtype, bands: bool
    ) -> Iterator[Block]:
        """The windows of the training images in a section of them, and their features."""
        channels, dim = self.domain.shape[0], self.domain.shape[0] * size**2
        features = (channels + 1) * (dim + 1) if bands else channels + 1
        image = channels * math.prod(side + size - 1 for side in self.domain.shape[1:])
        one = max(section.groups * section.places * (dim + 2 + features), image)
        keys = self.images.new_empty(0)
        for some in self.images.split(max(1, _BYTES // (one * dtype.itemsize))):
            places = len(some) * section.places
            if keys.shape[-1] != places:
                keys = some.new_empty((section.groups, dim + 2, places), dtype=dtype)
            images = (some.to(torch.float64) - self.centre).to(dtype)
            outer = windows(padded(images, size // 2, self._outside), size, section, keys[:, :dim])
            keys[:, -2] = middles(energies(images, size, self._outside), section).squeeze(1)
            keys[:, -1] = 1.0
            values = F.pad(middles(images, section), (0, 0, 1, 0), value=1.0)
            if bands:
                window = F.pad(outer, (0, 0, 1, 0), value=1.0)
                values = (values.unsqueeze(2) * window.unsqueeze(1)).flatten(1, 2)
            yield Block(keys, values)


class LocalScore(PatchScore):
    """The local score (LS): windows are compared with those at the same place of all images.

    Where windows cover the whole image it is the score of the empirical distribution. Arguments and
    errors are those of :class:`PatchScore`.
    """


class EquivariantLocalScore(PatchScore):
    r"""The equivariant local score (ELS): windows are compared with those at all places of all
    images.

    With ``zeros`` outside, a window that reaches across a border is compared only with those that
    reach as far across the same border: each of the :math:`k // 2` rows and columns next to a
    border is a group of its own, as a network with this receptive field can distinguish them. Where
    every row and column is one of these, it is the local score. With ``circular``, images are
    periodic and all windows are compared; with ``valid``, only the points are periodic, and windows
    of the data are inside the images. Arguments and errors are otherwise those of
    :class:`PatchScore`.
    """

    equivariant = True
    paddings = get_args(Padding)


class _Level(NamedTuple):
    """The window side of some rows, and their coefficients, float64."""

    size: int
    alpha: Tensor
    sigma: Tensor

r"""Statistics of small patches: the distance of samples to their training set patch by patch, and
their power spectrum.

A model that composes images from patches of the training set has patches at distance zero up to
some size, and none beyond it.

References:
    An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli, 2025).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import unfold

from scorefield.checks import check_floating
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean

Place = Literal["any", "same"]
"""The places in a training image that a patch may come from."""

_ENTRIES = 1 << 22
"""The largest number of entries of the patches of one block."""
_KEYS = 1 << 13
"""The number of training patches compared at once, at least those of one image."""
_PRODUCTS = 1 << 19
"""The number of products of patches in memory at once."""
_IMAGES = 1024


class NearestPatches(NamedTuple):
    """The training patch nearest to each patch of the samples: their Euclidean distance over all
    channels, float64, in units of the data; the training image, and row and column of the upper
    left corner in it.
    """

    distance: Float[Tensor, "n rows columns"]
    image: Int[Tensor, "n rows columns"]
    row: Int[Tensor, "n rows columns"]
    column: Int[Tensor, "n rows columns"]


class Spectrum(NamedTuple):
    r"""The mean power of images by the modulus of the frequency: on each ring the mean frequency,
    in cycles per pixel, the number of Fourier modes, and by image the mean of :math:`|\hat x_k|^2`
    over these modes and the channels.
    """

    frequency: Float[Tensor, " rings"]
    modes: Int[Tensor, " rings"]
    power: Float[Tensor, "n rings"]

    def estimates(self) -> tuple[Estimate, ...]:
        """The mean over images on each ring."""
        return tuple(mean(values.cpu().numpy(), "squared data") for values in self.power.T)


def nearest_patches(
    samples: Float[Tensor, "n channels height width"],
    train: Float[Tensor, "m channels height width"],
    size: int,
    place: Place = "any",
) -> NearestPatches:
    r"""The nearest training patch of each patch of the samples.

    .. math:: d(p) = \min_{n,\,q} \|x[p] - y_n[q]\|

    over all training images :math:`n` and, of those, all windows :math:`q` inside the image, or the
    window at the same place :math:`q = p` alone.

    Products of the patches, one matrix product a block, find the nearest one in the dtype of the
    samples; its distance is then computed from the difference, in float64, so that a copied
    patch has distance 0. Memory does not grow with the number of training images.

    Arguments:
        samples: The images whose patches are compared.
        train: The training images.
        size: The side of a patch, in pixels.
        place: ``"any"`` for all windows of a training image, ``"same"`` for the same place.
    """
    _check_images("samples", samples)
    _check_images("training images", train)
    if samples.shape[1:] != train.shape[1:]:
        raise UserError(
            f"patches are compared between images of one shape, got {tuple(samples.shape[1:])} "
            f"and {tuple(train.shape[1:])}"
        )
    height, width = samples.shape[2:]
    if not 1 <= size <= min(height, width):
        raise UserError(f"a patch of side {size} does not fit into images of {height}x{width}")
    if place not in get_args(Place):
        raise UserError(f"place must be 'any' or 'same', not {place!r}")
    train = train.to(samples)
    windows = (height - size + 1) * (width - size + 1)
    entries = windows * samples.shape[1] * size**2
    step = max(1, min(_ENTRIES // entries, _KEYS // windows))
    parts = [
        _nearest(some, train, size, place, step) for some in samples.split(_ENTRIES // entries or 1)
    ]
    return NearestPatches(*(torch.cat(values) for values in zip(*parts, strict=True)))


def radial_power_spectrum(images: Float[Tensor, "n channels height width"]) -> Spectrum:
    r"""The power of images on rings of spatial frequencies.

    With the unitary transform :math:`\hat x_k = \frac{1}{\sqrt{HW}} \sum_p x_p e^{-2\pi i k p}`
    the energy of an image is the sum of its power over all modes,
    :math:`\sum_k |\hat x_k|^2 = \sum_p x_p^2`. Ring :math:`j` holds the modes whose frequency is
    :math:`j` cycles per longer side, rounded to the nearest integer; ring 0 is the mean of the
    image. Every mode is on one ring.
    """
    _check_images("images", images)
    height, width = images.shape[2:]
    rows = torch.fft.fftfreq(height, dtype=torch.float64, device=images.device)
    columns = torch.fft.fftfreq(width, dtype=torch.float64, device=images.device)
    length = torch.hypot(rows[:, None], columns).reshape(-1)
    ring = (length * max(height, width)).round().to(torch.int64)
    modes = torch.bincount(ring)
    frequency = torch.zeros(len(modes), dtype=torch.float64, device=images.device)
    frequency.index_add_(0, ring, length).div_(modes)
    power = torch.zeros(len(images), len(modes), dtype=torch.float64, device=images.device)
    for some, into in zip(images.split(_IMAGES), power.split(_IMAGES), strict=True):
        waves = torch.fft.fft2(some.to(torch.float64), norm="ortho")
        energy = (waves.real.square() + waves.imag.square()).mean(dim=1)
        into.index_add_(1, ring, energy.flatten(1))
    return Spectrum(frequency, modes, power / modes)


def _nearest(samples: Tensor, train: Tensor, size: int, place: Place, step: int) -> NearestPatches:
    """The nearest patches of a few samples, ``step`` training images at a time."""
    centre = train.mean()
    queries = _patches(samples - centre, size, place)
    best = queries.new_full(queries.shape[:2], -math.inf)
    chosen = torch.zeros_like(best, dtype=torch.int64)
    before = 0
    for some in train.split(step):
        keys = _patches(some - centre, size, place)
        at_once = max(1, _PRODUCTS // (keys.shape[0] * keys.shape[1]))
        blocks = (part.split(at_once, dim=1) for part in (queries, best, chosen))
        for query, top, place_of in zip(*blocks, strict=True):
            _improve(query, keys, before, top, place_of)
        before += keys.shape[1]
    columns = samples.shape[3] - size + 1
    windows = (samples.shape[2] - size + 1) * columns
    if place == "any":
        chosen = chosen.reshape(-1, windows)
        image, window = chosen // windows, chosen % windows
    else:
        image = chosen.T
        window = torch.arange(windows, device=image.device).expand_as(image)
    row, column = window // columns, window % columns
    within = torch.arange(size, device=image.device)
    rows, across = row[..., None, None] + within[:, None], column[..., None, None] + within
    # Channels are last: the indices around their slice are not adjacent.
    found = train[image[..., None, None], :, rows, across].movedim(-1, 2).flatten(2)
    own = unfold(samples, size).mT
    distance = torch.linalg.vector_norm(own.double() - found.double(), dim=2)
    shape = (len(samples), -1, columns)
    return NearestPatches(*(v.reshape(shape) for v in (distance, image, row, column)))


def _patches(images: Tensor, size: int, place: Place) -> Tensor:
    """Patches in groups that are compared: one of all, or one per window."""
    patches = unfold(images, size).mT
    return patches.flatten(0, 1).unsqueeze(0) if place == "any" else patches.movedim(1, 0)


def _improve(query: Tensor, keys: Tensor, before: int, top: Tensor, chosen: Tensor) -> None:
    r"""Replace nearest keys by nearer ones, of larger :math:`q \cdot k - \frac12 |k|^2`."""
    half = keys.square().sum(dim=2).unsqueeze(1)
    products = torch.baddbmm(half, query, keys.mT, beta=-0.5)
    largest = products.amax(dim=2)
    better = largest > top
    if bool(better.any()):
        # Finding the index takes longer than finding the value.
        chosen[better] = products[better].argmax(dim=1) + before
        top[better] = largest[better]


def _check_images(what: str, images: Tensor) -> None:
    check_floating(what, images)
    if images.dim() != 4 or not images.numel():
        raise UserError(
            f"{what} have the shape (n, channels, height, width), got {tuple(images.shape)}"
        )
    if not bool(images.isfinite().all()):
        raise UserError(f"a value of the {what} is not finite")

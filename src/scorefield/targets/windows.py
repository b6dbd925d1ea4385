r"""Windows of images, and the sets of windows that are compared.

A window is the square of :math:`k \times k` pixels about a pixel. Bands of rows and of columns
define which windows of the data a window is compared with: along an axis, the pixels of a *shared*
band are compared with all pixels of the band, those of any other band with themselves only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from scorefield.errors import UserError

Padding = Literal["zeros", "circular", "valid"]


class Strip(NamedTuple):
    """Pixels ``start … stop - 1`` along an axis. In the data the band is shorter by ``margin`` at
    either end; the window of a pixel is compared with those of all its pixels if it is ``shared``.
    """

    start: int
    stop: int
    shared: bool
    margin: int = 0

    @property
    def keys(self) -> Strip:
        """The band in the data."""
        return Strip(self.start + self.margin, self.stop - self.margin, self.shared)

    def __len__(self) -> int:
        return self.stop - self.start


class Section(NamedTuple):
    """The pixels in a band of rows and a band of columns."""

    rows: Strip
    columns: Strip

    @property
    def keys(self) -> Section:
        """The section in the data."""
        return Section(self.rows.keys, self.columns.keys)

    @property
    def groups(self) -> int:
        """The number of sets of windows that are compared among themselves."""
        return (1 if self.rows.shared else len(self.rows)) * (
            1 if self.columns.shared else len(self.columns)
        )

    @property
    def places(self) -> int:
        """The number of pixels in each group."""
        return len(self.rows) * len(self.columns) // self.groups


def sections(
    shape: tuple[int, ...], size: int, padding: Padding, equivariant: bool
) -> list[Section]:
    """The sections of an image; windows at other places are compared if ``equivariant``."""
    axes = [_bands(length, size, padding, equivariant) for length in shape[1:]]
    return [Section(rows, columns) for rows, columns in product(*axes)]


def _bands(length: int, size: int, padding: Padding, equivariant: bool) -> list[Strip]:
    if not equivariant:
        return [Strip(0, length, False)]
    if padding == "circular":
        return [Strip(0, length, True)]
    reach = size // 2
    if padding == "valid":
        return [Strip(0, length, True, reach)]
    if length <= 2 * reach:
        return [Strip(0, length, False)]
    bands = [
        Strip(0, reach, False),
        Strip(reach, length - reach, True),
        Strip(length - reach, length, False),
    ]
    return [band for band in bands if len(band)]


def padded(
    images: Float[Tensor, "n channels height width"], reach: int, padding: Padding
) -> Float[Tensor, "n channels _ _"]:
    """Padded images, as far as windows reach."""
    mode = "constant" if padding == "zeros" else "circular"
    return F.pad(images, (reach, reach, reach, reach), mode=mode) if reach else images


def windows(
    images: Float[Tensor, "n channels height width"],
    size: int,
    section: Section,
    out: Float[Tensor, "groups dim places"] | None = None,
) -> Float[Tensor, "groups dim places"]:
    """The windows about the pixels of a section of :func:`padded` images, by groups, one in each
    column.

    Coordinates are channels, rows and columns; places are images, rows and columns. They are put
    into ``out`` where it is given.
    """
    view = images.unfold(2, size, 1).unfold(3, size, 1)
    return _grouped(view, section, out)


def middles(
    images: Float[Tensor, "n channels height width"], section: Section
) -> Float[Tensor, "groups channels places"]:
    """The pixels of a section themselves, in the order of :func:`windows`."""
    return _grouped(images[..., None, None], section, None)


def energies(
    images: Float[Tensor, "n channels height width"], size: int, padding: Padding
) -> Float[Tensor, "n 1 height width"]:
    """The squared norm of the window about each pixel."""
    energy = padded(images.square().sum(dim=1, keepdim=True), size // 2, padding)
    columns = F.avg_pool2d(energy, (size, 1), stride=1, divisor_override=1)
    return F.avg_pool2d(columns, (1, size), stride=1, divisor_override=1)


def _grouped(view: Tensor, section: Section, out: Tensor | None) -> Tensor:
    """From (n, channels, height, width, rows, columns) to (groups, coordinates, places)."""
    rows, columns = section
    view = view[:, :, rows.start : rows.stop, columns.start : columns.stop]
    apart = [axis for axis, band in ((2, rows), (3, columns)) if not band.shared]
    together = [axis for axis, band in ((2, rows), (3, columns)) if band.shared]
    view = view.permute(*apart, 1, 4, 5, 0, *together)
    if out is not None:
        out.view(view.shape).copy_(view)
        return out
    coordinates = view.shape[len(apart) : len(apart) + 3].numel()
    return view.reshape(section.groups, coordinates, -1)


def scatter(
    values: Float[Tensor, "groups places features"],
    section: Section,
    out: Float[Tensor, "n height width features"],
) -> None:
    """Write values at the pixels of a section, in the order of :func:`windows`, into an image."""
    rows, columns = section
    n = out.shape[0]
    apart = [len(band) for band in section if not band.shared]
    together = [len(band) for band in section if band.shared]
    image = values.reshape(*apart, n, *together, values.shape[2])
    order = [len(apart)]
    own, common = 0, len(apart) + 1
    for band in section:
        order.append(common if band.shared else own)
        common, own = common + band.shared, own + (not band.shared)
    image = image.permute(*order, image.dim() - 1)
    out[:, rows.start : rows.stop, columns.start : columns.stop] = image


@dataclass(frozen=True)
class PatchSizes:
    r"""Window sides by noise level: the side of the nearest level of a table, on a logarithmic
    scale.

    Arguments:
        sigmas: The noise levels :math:`\sigma/\alpha`, in units of the data, ascending.
        sizes: The side at each, an odd number of pixels.

    Raises:
        ValueError: If there is no level, the levels are not positive and ascending, a side is not
            odd, or their numbers differ.
    """

    sigmas: Sequence[float]
    sizes: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(float(s) for s in self.sigmas))
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if not self.sigmas or len(self.sigmas) != len(self.sizes):
            raise UserError(
                f"patch sizes are one for each noise level, got {len(self.sizes)} for "
                f"{len(self.sigmas)}"
            )
        if not all(math.isfinite(s) and s > 0 for s in self.sigmas):
            raise UserError(f"noise levels are positive numbers, got {list(self.sigmas)}")
        if any(b <= a for a, b in zip(self.sigmas, self.sigmas[1:], strict=False)):
            raise UserError(f"noise levels are in ascending order, got {list(self.sigmas)}")
        for size in self.sizes:
            check_size(size)

    @classmethod
    def same(cls, size: int) -> PatchSizes:
        """One side at all noise levels."""
        return cls((1.0,), (size,))

    def at(self, level: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        r"""The sides at noise levels :math:`\sigma/\alpha`."""
        known = torch.tensor(self.sigmas, dtype=torch.float64, device=level.device).log()
        between = 0.5 * (known[1:] + known[:-1])
        sizes = torch.tensor(self.sizes, device=level.device)
        return sizes[torch.bucketize(level.to(torch.float64).log(), between)]


def check_size(size: int, most: int | None = None) -> None:
    """Raise ``ValueError`` unless a window size is odd and not too large."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise UserError(f"a patch size is a positive odd number of pixels, got {size!r}")
    if most is not None and size > most:
        raise UserError(
            f"a patch of {size} pixels meets itself on a torus of {most}: the largest is "
            f"{most - 1 + most % 2}"
        )

r"""Pictures of fields and samples, as PNG in data URIs.

A planar field is drawn as arrows of the posterior mean's displacement
:math:`\mathbb{E}[x_0 \mid x_t] - x_t = \sigma^2 s` (at :math:`\alpha = 1`) over a map of the
curl :math:`\partial_1 D_2 - \partial_2 D_1` of the denoiser, a pure number; lines are contours of
the true density. All panels of one noise level share one scale.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scorefield.calculus import jacobian
from scorefield.fields import ScoreField, evaluation_mode
from scorefield.targets import Target

Array = NDArray[np.float64]

_MAP, _ARROWS = 97, 19
_CONTOURS = (0.01, 0.1, 0.4, 0.8)
_SIZE = 3.3
_INK = "#333333"
_COLOURS = 128


class Picture(NamedTuple):
    """A picture of the page: a caption, a text for those who cannot see it, and the image."""

    caption: str
    alt: str
    uri: str


class FieldMap(NamedTuple):
    """A field at one noise level on a grid: its curl on a fine grid, its arrows on a coarse one."""

    curl: Array
    arrows: Array


def field_map(field: ScoreField, sigma: float, reach: float) -> FieldMap:
    """The curl and the displacement of a planar field on the square of half-width ``reach``."""
    fine, coarse = _grid(reach, _MAP), _grid(0.94 * reach, _ARROWS)
    t = float(field.sde.time(torch.tensor(sigma, dtype=torch.float64)))

    def denoiser(x: Tensor, times: Tensor) -> Tensor:
        return field.predict(x, times, "denoiser")

    with evaluation_mode(field), torch.no_grad():
        j = jacobian(denoiser, fine, torch.full((len(fine),), t, dtype=fine.dtype))
        arrows = field.denoise(coarse, t) - coarse
    curl = (j[:, 1, 0] - j[:, 0, 1]).reshape(_MAP, _MAP).numpy()
    return FieldMap(curl, arrows.reshape(_ARROWS, _ARROWS, 2).numpy())


def reach_of(truth: Target, sigma: float) -> float:
    """The half-width of a square that holds nearly all of the noisy data."""
    return 1.9 * truth.std + 1.6 * sigma


def shared_scale(maps: Mapping[str, FieldMap], truth: Target, sigma: float) -> float:
    """The curl at the ends of the colour scale: what 99 % of the map's points with data on them
    stay below, in the model that turns most.
    """
    reach = reach_of(truth, sigma)
    density = _density(truth, sigma, reach)
    inside = density > _CONTOURS[0] * density.max()
    largest = max(float(np.quantile(np.abs(m.curl)[inside], 0.99)) for m in maps.values())
    return max(largest, 1e-6)


def draw_field(
    caption: str, name: str, values: FieldMap, truth: Target, sigma: float, scale: float
) -> Picture:
    """One panel: arrows over the curl, with contours of the true density."""
    reach = reach_of(truth, sigma)
    line = np.linspace(-reach, reach, _MAP)
    ticks = np.linspace(-0.94 * reach, 0.94 * reach, _ARROWS)
    figure = Figure(figsize=(_SIZE, _SIZE))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(
        values.curl,
        cmap="RdBu_r",
        vmin=-scale,
        vmax=scale,
        extent=(-reach, reach, -reach, reach),
        origin="lower",
        interpolation="bilinear",
    )
    _contours(axes, line, _density(truth, sigma, reach))
    length = np.linalg.norm(values.arrows, axis=2, keepdims=True)
    # Lengths grow as a root, so that arrows near the data are seen too.
    arrows = values.arrows / np.sqrt(np.maximum(length, 1e-12) * reach)
    axes.quiver(
        ticks,
        ticks,
        arrows[..., 0],
        arrows[..., 1],
        angles="xy",
        scale_units="xy",
        scale=_ARROWS / (2.5 * reach),
        width=0.0042,
        headwidth=4,
        color=_INK,
    )
    _bare(axes, reach)
    peak = float(np.abs(values.curl).max())
    alt = (
        f"Vector field of {name} at noise level {sigma:g}: arrows towards the data over a map of "
        f"its curl, which is at most {peak:.2g} in size; the colour scale ends at {scale:.2g}."
    )
    return Picture(caption, alt, _uri(figure))


def colour_bar(scale: float) -> Picture:
    """The colour scale that the panels of a noise level share."""
    figure = Figure(figsize=(4.6, 0.52))
    axes = figure.add_axes((0.04, 0.55, 0.92, 0.36))
    norm = matplotlib.colors.Normalize(-scale, scale)
    mappable = matplotlib.cm.ScalarMappable(norm, "RdBu_r")
    bar = figure.colorbar(mappable, cax=axes, orientation="horizontal", extend="both")
    bar.ax.tick_params(labelsize=7, length=2)
    bar.set_ticks([-scale, -scale / 2, 0, scale / 2, scale])
    bar.ax.set_xticklabels([f"{v:.2g}" for v in (-scale, -scale / 2, 0, scale / 2, scale)])
    alt = f"Colour scale of the curl, from {-scale:.2g} (blue) over 0 (white) to {scale:.2g} (red)."
    return Picture("curl of the denoiser (a pure number)", alt, _uri(figure))


def draw_scatter(caption: str, alt: str, samples: Tensor, truth: Target, colour: str) -> Picture:
    """Samples of the plane over contours of the true density; what lies outside is counted."""
    reach = 2.05 * truth.std
    figure = Figure(figsize=(_SIZE, _SIZE))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    _contours(axes, np.linspace(-reach, reach, 161), _density(truth, 0.0, reach, 161))
    x = samples.double().numpy()
    axes.scatter(x[:, 0], x[:, 1], s=3, alpha=0.45, linewidths=0, color=colour)
    _bare(axes, reach)
    outside = int((np.abs(x) > reach).any(axis=1).sum())
    if outside:
        note = f"{outside} of {len(x)} outside"
        axes.text(-0.95 * reach, -0.94 * reach, note, fontsize=8, color=_INK)
    return Picture(caption, alt, _uri(figure))


def draw_images(
    caption: str, alt: str, images: Tensor, columns: int = 8, black: float = -1.0
) -> Picture:
    """Images in grey or colour with values from ``black`` to 1, side by side."""
    n, _, height, width = images.shape
    rows = -(-n // columns)
    sheet = np.ones((rows * (height + 1) + 1, columns * (width + 1) + 1, 3))
    pixels = images.double().sub(black).div(1 - black).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    for k, image in enumerate(pixels):
        top, left = k // columns * (height + 1) + 1, k % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image
    figure = Figure(figsize=(_SIZE, _SIZE * sheet.shape[0] / sheet.shape[1]))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return Picture(caption, alt, _uri(figure, dpi=100))


def _grid(reach: float, side: int) -> Tensor:
    """Points of a square, row by row from the bottom."""
    line = torch.linspace(-reach, reach, side, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), dim=-1).reshape(-1, 2)


def _density(truth: Target, sigma: float, reach: float, side: int = _MAP) -> Array:
    t = 0.0 if sigma == 0 else float(truth.sde.time(torch.tensor(sigma, dtype=torch.float64)))
    values: Array = truth.log_density(_grid(reach, side), t).exp().reshape(side, side).numpy()
    return values


def _contours(axes: matplotlib.axes.Axes, line: Array, density: Array) -> None:
    levels = [share * float(density.max()) for share in _CONTOURS]
    axes.contour(line, line, density, levels, colors="#555555", linewidths=0.6, alpha=0.8)


def _bare(axes: matplotlib.axes.Axes, reach: float) -> None:
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _uri(figure: Figure, dpi: int = 150) -> str:
    """The figure as a data URI, reduced to a palette, which takes a fifth of the room."""
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    image = Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    image.save(reduced, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(reduced.getvalue()).decode()

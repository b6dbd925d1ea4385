r"""Images of fields and samples on the page, as PNG in data URIs.

A planar field is drawn as arrows of the posterior mean's displacement
:math:`\mathbb{E}[x_0 \mid x_t] - x_t = \sigma^2 s` (at :math:`\alpha = 1`) over a map of the
curl :math:`\partial_1 D_2 - \partial_2 D_1` of the denoiser, a pure number; lines are contours of
the true density. All panels of one noise level share one scale.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scorefield import plotting
from scorefield.calculus import jacobian
from scorefield.fields import ScoreField, evaluation_mode
from scorefield.plotting.palette import DIVERGING, INK
from scorefield.targets import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_MAP, _ARROWS = 97, 19
_CONTOURS = (0.01, 0.1, 0.4, 0.8)
_SIZE = 3.3
_COLOURS = 128


class Picture(NamedTuple):
    """An image of the page: a caption, a text for those who cannot see it, and the data URI."""

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
    """The curl at the ends of the colour scale: the 99 % quantile over the map's points with data
    on them, of the model that has most.
    """
    density = _density(truth, sigma, reach_of(truth, sigma))
    inside = density > _CONTOURS[0] * density.max()
    largest = max(float(np.quantile(np.abs(m.curl)[inside], 0.99)) for m in maps.values())
    return max(largest, 1e-6)


def draw_field(
    caption: str, name: str, values: FieldMap, truth: Target, sigma: float, scale: float
) -> Picture:
    """One panel: arrows over the curl, with contours of the true density."""
    reach = reach_of(truth, sigma)
    figure, axes = _panel()
    plotting.curl_map(axes, values.curl, reach, scale)
    _contours(axes, truth, sigma, reach, _MAP)
    ticks = np.linspace(-0.94 * reach, 0.94 * reach, _ARROWS)
    norm = np.linalg.norm(values.arrows, axis=2, keepdims=True)
    # Lengths are roots of the norms, so that arrows near the data are visible too.
    arrows = values.arrows / np.sqrt(np.maximum(norm, 1e-12))
    longest = 2.5 * reach / _ARROWS * float(np.sqrt(norm.max() / reach))
    plotting.quiver(axes, ticks, ticks, arrows, longest)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    peak = float(np.abs(values.curl).max())
    alt = (
        f"Vector field of {name} at noise level {sigma:g}: arrows towards the data over a map of "
        f"its curl, which is at most {peak:.2g} in size; the colour scale ends at {scale:.2g}."
    )
    return Picture(caption, alt, _uri(figure))


def colour_bar(scale: float) -> Picture:
    """The colour scale that the panels of a noise level share."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure = plotting.new_figure(4.6, 0.52, layout=None)
    axes = figure.add_axes((0.04, 0.55, 0.92, 0.36))
    mappable = ScalarMappable(Normalize(-scale, scale), DIVERGING)
    bar = figure.colorbar(mappable, cax=axes, orientation="horizontal", extend="both")
    bar.ax.tick_params(labelsize=7, length=2)
    ticks = [-scale, -scale / 2, 0, scale / 2, scale]
    bar.set_ticks(ticks, labels=[f"{v:.2g}" for v in ticks])
    alt = f"Colour scale of the curl, from {-scale:.2g} (blue) over 0 (white) to {scale:.2g} (red)."
    return Picture("curl of the denoiser (a pure number)", alt, _uri(figure))


def draw_scatter(caption: str, alt: str, samples: Tensor, truth: Target, colour: str) -> Picture:
    """Samples of the plane over contours of the true density; those outside are counted."""
    reach = 2.05 * truth.std
    figure, axes = _panel()
    _contours(axes, truth, 0.0, reach, 161)
    outside = plotting.scatter(axes, samples, reach, colour, size=3)
    if outside:
        note = f"{outside} of {len(samples)} outside"
        axes.text(-0.95 * reach, -0.94 * reach, note, fontsize=8, color=INK)
    return Picture(caption, alt, _uri(figure))


def draw_images(
    caption: str, alt: str, images: Tensor, columns: int = 8, black: float = -1.0
) -> Picture:
    """Images in grey or colour with values from ``black`` to 1, side by side."""
    sheet = plotting.image_grid(images, columns, black)
    figure, axes = _panel(sheet.shape[1] / sheet.shape[2])
    plotting.show_image(axes, sheet, black)
    return Picture(caption, alt, _uri(figure, dpi=100))


def _panel(ratio: float = 1.0) -> tuple[Figure, Axes]:
    """A figure that its axes fill, without frame or ticks."""
    figure = plotting.new_figure(_SIZE, _SIZE * ratio, layout=None)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    return figure, axes


def _grid(reach: float, side: int) -> Tensor:
    """Points of a square, row by row from the bottom."""
    line = torch.linspace(-reach, reach, side, dtype=torch.float64)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), dim=-1).reshape(-1, 2)


def _density(truth: Target, sigma: float, reach: float, side: int = _MAP) -> Array:
    t = 0.0 if sigma == 0 else float(truth.sde.time(torch.tensor(sigma, dtype=torch.float64)))
    values: Array = truth.log_density(_grid(reach, side), t).exp().reshape(side, side).numpy()
    return values


def _contours(axes: Axes, truth: Target, sigma: float, reach: float, side: int) -> None:
    line = np.linspace(-reach, reach, side)
    plotting.contours(axes, line, line, _density(truth, sigma, reach, side), _CONTOURS)


def _uri(figure: Figure, dpi: int = 150) -> str:
    """The figure as a data URI, reduced to a palette, which takes a fifth of the room."""
    content = plotting.png(figure, dpi, _COLOURS)
    return "data:image/png;base64," + base64.b64encode(content).decode()

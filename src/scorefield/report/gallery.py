r"""The pictures of a data set: fields and samples, as PNG in data URIs.

A planar field is drawn as arrows of the posterior mean's displacement
:math:`\mathbb{E}[x_0 \mid x_t] - x_t = \sigma^2 s` (at :math:`\alpha = 1`) over a map of the
curl :math:`\partial_1 D_2 - \partial_2 D_1` of the denoiser, a pure number; lines are contours of
the true density. All panels of one noise level share one scale.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scorefield import plotting
from scorefield.calculus.derivatives import jacobian
from scorefield.comparison.groups import Group
from scorefield.evaluation.measure import (
    Floors,
    measure_levels,
    measure_samples,
    validate,
)
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.plotting.palette import DIVERGING, EXACT, INK, Look
from scorefield.runs.run import Run
from scorefield.targets.base import Target

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
    outside = plotting.scatter(axes, samples, reach, colour, size=3.0)
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


class Strip(NamedTuple):
    """Pictures that belong side by side, and what they share."""

    heading: str
    pictures: list[Picture]
    scale: Picture | None = None


class Gallery(NamedTuple):
    """The pictures of a data set."""

    fields: list[Strip]
    samples: list[Strip]


def gallery(members: Sequence[Group], look: dict[str, Look], trust_code: bool) -> Gallery:
    """The pictures of the first seed of each model; none of data that cannot be seen."""
    runs = {g.label: run_of(g, trust_code) for g in members}
    source = next(iter(runs.values())).source()
    models = {g.label: runs[g.label].field("ema", g.first.step) for g in members}
    benchmark = Benchmark(source, Protocol.read(members[0].first.protocol))
    black = -1.0 if next(iter(runs.values())).config.centered else 0.0
    return Gallery(_fields(models, benchmark), _samples(models, benchmark, look, black))


def exact_group(group: Group, trust_code: bool) -> Group | None:
    """The exact field evaluated by the protocol of a group; ``None`` where it is not known."""
    one = group.first
    source = run_of(group, trust_code).source()
    truth = source.truth
    if truth is None:
        return None
    benchmark = Benchmark(source, Protocol.read(one.protocol))
    floors: Floors = {(d.metric, d.features): d.floor for d in one.distances if d.floor is not None}
    exact = replace(
        one,
        distances=measure_samples(truth, benchmark, floors),
        levels=measure_levels(truth, benchmark),
        validation=validate(truth, benchmark),
        about={"label": "exact field"},
        milestones=(),
    )
    return Group(group.dataset, "exact", (exact,))


def run_of(group: Group, trust_code: bool) -> Run:
    """The run of the first seed of a model."""
    assert group.first.folder is not None
    return Run.open(group.first.folder, trust_code)


def _fields(models: dict[str, ScoreField], benchmark: Benchmark) -> list[Strip]:
    truth = benchmark.truth
    if truth is None or benchmark.source.shape != (2,):
        return []
    # Two noise levels: where the parts of the data melt, and where they have.
    wanted = (0.18 * truth.std, 0.7 * truth.std)
    nearest = [min((abs(s - w), s) for s in benchmark.protocol.sigmas)[1] for w in wanted]
    strips = []
    for sigma in dict.fromkeys(nearest):
        reach = reach_of(truth, sigma)
        shown: dict[str, ScoreField] = {**models, "exact field": truth}
        maps = {label: field_map(f, sigma, reach) for label, f in shown.items()}
        scale = shared_scale({m: maps[m] for m in models}, truth, sigma)
        pictures = [draw_field(m, m, maps[m], truth, sigma, scale) for m in shown]
        strips.append(Strip(f"σ = {sigma:g}", pictures, colour_bar(scale)))
    return strips


def _samples(
    models: dict[str, ScoreField],
    benchmark: Benchmark,
    look: dict[str, Look],
    black: float,
) -> list[Strip]:
    truth, shape, protocol = benchmark.truth, benchmark.source.shape, benchmark.protocol
    if shape == (2,) and truth is not None:
        most = 1500
    elif len(shape) == 3 and shape[0] in (1, 3):
        most = 64
    else:
        return []
    n = min(most, protocol.samples)

    def draw(label: str, alt: str, x: Tensor, colour: str) -> Picture:
        if truth is not None:
            return draw_scatter(label, alt, x, truth, colour)
        return draw_images(label, alt, x, black=black)

    strips = []
    # At the smallest budget, samples of the plane would lie far outside of the picture.
    ascending = sorted(protocol.nfes)
    for budget in dict.fromkeys((ascending[-1], ascending[:2][-1])):
        sampler = protocol.method(budget)
        calls = f"{sampler.nfe} network calls"
        pictures = [draw("real", f"{n} real samples", benchmark.real[:n], EXACT.colour)]
        for label, field in models.items():
            x = sampler.sample(field, n, protocol.seed).cpu()
            pictures.append(
                draw(label, f"{n} samples of {label} at {calls}", x, look[label].colour)
            )
        strips.append(Strip(calls, pictures))
    return strips

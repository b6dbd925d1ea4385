"""The pictures of a data set: fields and samples, as PNG in data URIs.

Lines are contours of the true density. All panels of one noise level share one scale.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from scorefield import plotting
from scorefield.comparison.groups import Group
from scorefield.evaluation.measure import (
    Floors,
    measure_levels,
    measure_samples,
    validate,
)
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.fields.base import ScoreField
from scorefield.plotting.palette import DIVERGING, EXACT, INK, Look
from scorefield.plotting.planar import (
    FieldMap,
    density_contours,
    draw_map,
    field_map,
    reach_of,
    shared_scale,
)
from scorefield.runs.run import Run
from scorefield.targets.base import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = 3.3
_COLOURS = 128


class Picture(NamedTuple):
    """An image of the page: a caption, a text for those who cannot see it, and the data URI."""

    caption: str
    alt: str
    uri: str


def draw_field(
    caption: str, name: str, values: FieldMap, truth: Target, sigma: float, scale: float
) -> Picture:
    """One panel: arrows over the curl, with contours of the true density."""
    reach = reach_of(truth.std, sigma)
    figure, axes = _panel()
    draw_map(axes, values, reach, scale)
    density_contours(axes, truth, sigma, reach)
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
    density_contours(axes, truth, 0.0, reach, 161)
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
        reach = reach_of(truth.std, sigma)
        shown: dict[str, ScoreField] = {**models, "exact field": truth}
        maps = {label: field_map(f, sigma, reach) for label, f in shown.items()}
        scale = shared_scale([maps[m] for m in models], reach, truth, sigma)
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

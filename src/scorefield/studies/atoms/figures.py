"""Numbers and samples of atoms as figures: against the noise level, and in space."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield import plotting
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue.samples import TOTAL_VARIATION
from scorefield.evaluation.records import Level
from scorefield.metrics.radial import radial_distances
from scorefield.plotting.palette import EXACT, GUIDE, INK, PALE, Look
from scorefield.sde.exploding import EDM
from scorefield.studies.atoms.compute import AtomsAnalysis, ModelResult, by_metric
from scorefield.studies.atoms.numbers import title
from scorefield.studies.atoms.plane import Floats, Plane, draw_frame, draw_regions, format_masses
from scorefield.targets.atoms import PseudoAtoms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PER_ROW = 4
_WIDEST = 40  # letters of a title
_DECADES = 7
_FACTOR = 10.0
_MARGIN = 1.3


def comparison(analysis: AtomsAnalysis, looks: Mapping[str, Look]) -> bytes:
    """Every number of every model, over its seeds, with 95 % intervals."""
    curves = {name: by_metric(analysis.pooled_levels(name)) for name in analysis.names}
    distances = {name: analysis.pooled_distances(name) for name in analysis.names}
    seeds = {name: len(analysis.members(name)) for name in analysis.names}
    first = analysis.names[0]
    rows = math.ceil((len(curves[first]) + len(distances[first])) / _PER_ROW)
    sheet = plotting.new_figure(3.9 * _PER_ROW, 3.4 * rows + 0.8)
    panels = list(sheet.subplots(rows, _PER_ROW, squeeze=False).flat)
    for metric in curves[first]:
        single = [
            (r.model.name, by_metric(r.levels)[metric])
            for r in analysis.results
            if seeds[r.model.name] > 1
        ]
        pooled = {name: c[metric] for name, c in curves.items()}
        against_noise(panels.pop(0), metric, pooled, single, looks)
    for metric in distances[first]:
        values = {name: d[metric] for name, d in distances.items()}
        _side_by_side(panels.pop(0), metric, values, looks)
    for axes in panels:
        axes.set_axis_off()
    entries = {k if n == 1 else f"{k} ({n} seeds)": looks[k] for k, n in seeds.items()}
    hollow = "within its own errors"
    plotting.legend(sheet, entries, hollow, loc="outside upper center", ncols=3, fontsize=10)
    return plotting.png(sheet)


def against_noise(
    axes: Axes,
    metric: str,
    curves: Mapping[str, Sequence[Level]],
    single: Sequence[tuple[str, Sequence[Level]]],
    looks: Mapping[str, Look],
) -> None:
    """A diagnostic against the noise level, on logarithmic axes, with 95 % intervals."""
    shown = [v.estimate for levels in curves.values() for v in levels if _clear(v.estimate)]
    top = max((_bounded(e)[1] for e in shown), default=1.0)
    # Rounding may be ever so small, and is of no interest.
    low = max(min((e.value for e in shown), default=0.1) / 2, top * 10.0**-_DECADES)
    # Of a single level, axes that find their own limits find none.
    sigmas = [v.sigma for levels in curves.values() for v in levels]
    axes.set(ylim=(low, 2 * top), xlim=(min(sigmas) / _MARGIN, max(sigmas) * _MARGIN))
    for name, levels in single:
        clear = [(v.sigma, v.estimate.value) for v in levels if _clear(v.estimate)]
        axes.plot(*np.reshape(clear, (-1, 2)).T, color=looks[name].colour, linewidth=0.7, alpha=0.5)
    for name, levels in curves.items():
        estimates = [v.estimate for v in levels]
        plotting.noise_profile(
            axes,
            [v.sigma for v in levels],
            estimates,
            looks[name],
            clear=[_clear(e) and e.value >= low for e in estimates],
            errors=[_bounded(e) for e in estimates],
        )
    heading = textwrap.fill(title(metric), _WIDEST)
    plotting.label_axes(axes, "noise level σ  [units of length]", title=heading)


def _clear(estimate: Estimate) -> bool:
    """Whether a number is more than its own errors may have made."""
    return estimate.value > estimate.numerical_error + estimate.standard_error


def _bounded(estimate: Estimate) -> tuple[float, float]:
    """The interval, of which an end far above the number would hide all others."""
    low, high = estimate.interval()
    return low, max(min(high, _FACTOR * estimate.value), estimate.value)


def _side_by_side(
    axes: Axes, metric: str, values: Mapping[str, Estimate], looks: Mapping[str, Look]
) -> None:
    """A distance of samples, model by model, with that of samples of the exact distribution."""
    widest = 2 * max(e.value for e in values.values())
    for place, (name, estimate) in enumerate(values.items()):
        low, high = estimate.interval()
        error = [[estimate.value - max(low, 0)], [high - estimate.value]]
        axes.errorbar([estimate.value], [place], xerr=error, capsize=3, **looks[name].line(6))
    null = next(iter(values.values())).settings.get("null")
    if null is not None:
        axes.axvline(null, color=GUIDE, linestyle=":", linewidth=1.4)
    note = "" if null is None else "dotted: the mean of samples of the exact distribution"
    plotting.label_axes(axes, note, title=textwrap.fill(title(metric), _WIDEST), grid="x")
    # The legend says which is which, in this order.
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.margins(y=0.15)
    # Intervals over two seeds are wide, and may leave the figure.
    axes.set_xlim(0, min(widest, axes.get_xlim()[1]))


_COLUMNS = 6
_ZOOM = 5.0
_FAR = 6.0
_FINE = 400
_DOTS = 10_000
_LETTERS = 13.0  # an inch of small print
_DISTANCE = "distance from the nearest configuration  [units of length]"


def scatter(plane: Plane, members: Sequence[ModelResult], looks: Mapping[str, Look]) -> bytes:
    """Samples over the regions of the exact distribution, and about each of its wells, where they
    are narrow: a column a model.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(len(members), _COLUMNS)
    bands = math.ceil(len(members) / columns)
    wide, high = plane.periods
    reach = _ZOOM * plane.truth.width
    # A window longer than the box would show the same points several times.
    wells = plane.wells if 4 * reach < min(wide, high) else []
    rows = 1 + len(wells)
    width = 3.1 * columns + 0.6
    height = bands * (3.0 * min(max(high / wide, 0.4), 2.5) + 2.9 * (rows - 1)) + 1
    layout = ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.06)
    sheet = plotting.new_figure(width, height, layout=layout)
    grid = sheet.subplots(bands * rows, columns, squeeze=False)
    windows = [((x - reach, x + reach), (y - reach, y + reach)) for x, y in wells]
    reliefs = [plane.relief(0.0), *(plane.relief(0.0, window) for window in windows)]
    for axes in grid.flat:
        axes.tick_params(labelsize=8)
    for place in range(bands * columns):
        band, column = divmod(place, columns)
        panels = grid[band * rows : (band + 1) * rows, column]
        if place >= len(members):
            for axes in panels:
                axes.set_axis_off()
            continue
        found = members[place]
        points = found.samples[:_DOTS].double().reshape(-1, 2).numpy()
        colour = looks[found.model.name].colour
        for row, axes in enumerate(panels):
            draw_regions(axes, reliefs[row])
            draw_frame(axes, plane)
            axes.xaxis.label.set_size(8)
            axes.yaxis.label.set_size(8)
            if row == 0:
                axes.plot(*points.T, ".", color=colour, markersize=2, alpha=0.5)
                tv = found.distances[TOTAL_VARIATION.name]
                axes.set_title(f"{found.model.label}\n{TOTAL_VARIATION.label} {tv}", fontsize=9)
            else:
                _zoom(axes, plane, wells[row - 1], points, colour)
            if column > 0:
                axes.set_ylabel("")
    # Below the panels, for which there are too many to say it in each.
    shown = f"; the first {_DOTS} samples" if len(members[0].samples) > _DOTS else ""
    text = textwrap.fill(f"shaded: {format_masses()}{shown}", int(_LETTERS * width))
    sheet.supxlabel(text, fontsize=9, color=INK)
    return plotting.png(sheet)


def _zoom(axes: Axes, plane: Plane, well: tuple[float, float], points: Floats, colour: str) -> None:
    """The surroundings of a well, by shortest displacements."""
    period = np.array(plane.periods)
    near = points - np.array(well)
    near -= period * np.round(near / period)
    reach = _ZOOM * plane.truth.width
    inside = (np.abs(near) <= reach).all(axis=1)
    axes.plot(*(near[inside] + well).T, ".", color=colour, markersize=2, alpha=0.35)
    (x, y) = well
    axes.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))
    axes.locator_params(nbins=5)
    axes.set_title(f"{100 * inside.mean():.1f} % of the samples are here", fontsize=8)


def radial(
    analysis: AtomsAnalysis, groups: Mapping[str, Sequence[ModelResult]], looks: Mapping[str, Look]
) -> bytes:
    """The distance of samples from the nearest configuration, against its exact distribution."""
    from matplotlib.patches import Patch

    law = analysis.radial
    assert law is not None
    sheet = plotting.new_figure(12.5, 4.8)
    near, far = sheet.subplots(1, 2)
    place = torch.linspace(0, _FAR * law.width, _FINE, dtype=torch.float64)
    density = law.density(place).numpy()
    near.fill_between(place.numpy(), density, color=PALE, linewidth=0)
    near.plot(place.numpy(), density, color=EXACT.colour, linewidth=1.2)
    edges = np.linspace(0, _FAR * law.width, 61)
    low, high, least = law.width / 20, _FAR * law.width, 1.0
    for label, members in groups.items():
        r = torch.cat([radial_distances(m.samples, analysis.truth) for m in members]).cpu().numpy()
        density = np.histogram(r, edges)[0] / (len(r) * np.diff(edges))
        line: dict[str, Any] = {"color": looks[label].colour, "linewidth": 1.6}
        beyond = 100 * float((r > edges[-1]).mean())
        near.stairs(density, edges, label=f"{label}  ({beyond:.2g} % farther)", **line)
        r.sort()
        above = 1 - np.arange(len(r)) / len(r)
        far.step(r, above, where="post", **line)
        low, high = min(low, float(r[len(r) // 200])), max(high, float(r[-1]))
        least = min(least, float(above[-1]))
    place = torch.from_numpy(np.geomspace(low, high, _FINE))
    # Far out the distribution function is 1 but for rounding, and the curve leaves the figure.
    exact = np.clip(1 - law.cdf(place).numpy(), least / 100, None)
    far.plot(place.numpy(), exact, color=EXACT.colour, linewidth=1.2, zorder=3, linestyle="--")
    title = "the tail; dashed: the exact distribution"
    logarithmic = {"xscale": "log", "yscale": "log", "xlim": (low, high), "ylim": (least / 2, 1.3)}
    plotting.label_axes(far, _DISTANCE, "share of samples beyond", title, **logarithmic)
    chi = rf"exact: $\sigma_d\,\chi_{{{law.dim}}}$, $\sigma_d$ = {law.width:g}"
    limits = {"xlim": (0, _FAR * law.width), "ylim": (0, None)}
    plotting.label_axes(near, _DISTANCE, "density  [1/length]", chi, **limits)
    handle = Patch(color=PALE, label="exact distribution")
    near.legend(handles=[handle, *near.get_legend_handles_labels()[0]], fontsize=9, frameon=False)
    return plotting.png(sheet)


def marginals(
    analysis: AtomsAnalysis, groups: Mapping[str, Sequence[ModelResult]], looks: Mapping[str, Look]
) -> bytes:
    """One coordinate of an atom at several noise levels on the way to samples, against its exact
    distribution: a column a level, and for each dimension a row of the whole box and one of what is
    about the first site, where that is narrow.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    truth = analysis.truth
    dims = truth.domain.shape[1]
    stages = [
        _Stage(truth, s.t, f"t = {s.t:.2f},  σ = {s.sigma:.3g}") for s in analysis.results[0].states
    ]
    stages.append(_Stage(truth.under(EDM()), 0.0, "samples (σ = 0)"))
    sheet = plotting.new_figure(3.1 * len(stages), 5.6 * dims + 1.0)
    grid = sheet.subplots(2 * dims, len(stages), squeeze=False)
    periods = truth.domain.periods(truth.positions).expand(dims).tolist()
    for column, stage in enumerate(stages):
        for axis, period in enumerate(periods):
            points = {
                label: torch.cat([_points(m, column)[..., axis] for m in members])
                for label, members in groups.items()
            }
            whole, near = grid[2 * axis : 2 * axis + 2, column]
            site = float(truth.positions[0, axis])
            _marginal(whole, stage, axis, period, (0.0, period), points, looks)
            whole.set_title(stage.title, fontsize=10)
            reach = _ZOOM * float(stage.truth.effective_width(stage.t))
            if 4 * reach < period:
                window = (site - reach, site + reach)
                _marginal(near, stage, axis, period, window, points, looks)
                near.set_title("about the first site", fontsize=9)
            else:
                near.set_axis_off()
    for axes in grid[::2, 0]:
        axes.set_ylabel("density  [1/length]", fontsize=9)
    handles: list[Any] = [Patch(color=PALE, label="exact distribution")]
    handles += [Line2D([], [], color=looks[k].colour, linewidth=1.6, label=k) for k in groups]
    sheet.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return plotting.png(sheet)


class _Stage(NamedTuple):
    """A time of the trajectories: the exact distribution, the time of its process, a title."""

    truth: PseudoAtoms
    t: float
    title: str


def _points(found: ModelResult, stage: int) -> Tensor:
    return found.states[stage].x if stage < len(found.states) else found.samples


def _marginal(
    axes: Axes,
    stage: _Stage,
    axis: int,
    period: float,
    window: tuple[float, float],
    points: Mapping[str, Tensor],
    looks: Mapping[str, Look],
) -> None:
    """The exact density in a window of a coordinate, and histograms of all atoms' values."""
    start, end = window
    width = float(stage.truth.effective_width(stage.t))
    bins = int(np.clip(4 * (end - start) / width, 30, 400))
    edges, u = np.linspace(start, end, bins + 1), np.linspace(start, end, 4 * bins + 1)
    inside = torch.from_numpy(np.mod(u, period))
    exact = stage.truth.marginal_density(inside, stage.t, axis).numpy()
    axes.fill_between(u, exact, color=PALE, linewidth=0)
    axes.plot(u, exact, color=EXACT.colour, linewidth=1.1)
    for label, values in points.items():
        x = start + np.mod(values.double().numpy().ravel() - start, period)
        density = np.histogram(x, edges)[0] / (x.size * np.diff(edges))
        axes.stairs(density, edges, color=looks[label].colour, linewidth=1.3)
    axes.set(xlim=(start, end), ylim=(0, None))
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(labelsize=8)
    name = "position" if stage.truth.domain.shape[1] == 1 else f"coordinate {axis + 1}"
    axes.set_xlabel(f"{name} of an atom  [period {period:g}]", fontsize=9)

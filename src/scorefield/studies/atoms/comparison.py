"""The numbers of all models in one figure: against the noise level, and of their samples."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scorefield import plotting
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Level
from scorefield.plotting.palette import GUIDE, Look
from scorefield.studies.atoms.compute import AtomsAnalysis, by_metric
from scorefield.studies.atoms.numbers import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4
_WIDEST = 40  # letters of a title
_DECADES = 7
_FACTOR = 10.0
_MARGIN = 1.3


def comparison(analysis: AtomsAnalysis, looks: Mapping[str, Look]) -> bytes:
    """Every number of every model, over its seeds, with 95 % intervals.

    Arguments:
        analysis: The analysis.
        looks: How each model is drawn, by its name.
    """
    from matplotlib.lines import Line2D

    curves = {name: by_metric(analysis.pooled_levels(name)) for name in analysis.names}
    distances = {name: analysis.pooled_distances(name) for name in analysis.names}
    seeds = {name: len(analysis.members(name)) for name in analysis.names}
    first = analysis.names[0]
    rows = math.ceil((len(curves[first]) + len(distances[first])) / _COLUMNS)
    sheet = plotting.new_figure(3.9 * _COLUMNS, 3.4 * rows + 0.8)
    panels = list(sheet.subplots(rows, _COLUMNS, squeeze=False).flat)
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
    handles = []
    for name, n in seeds.items():
        style = {"color": looks[name].colour, "marker": looks[name].marker}
        label = name if n == 1 else f"{name} ({n} seeds)"
        handles.append(Line2D([], [], label=label, **style))  # type: ignore[arg-type]
    hollow: dict[str, Any] = {"markerfacecolor": "white", "linestyle": "none", "marker": "v"}
    handles.append(Line2D([], [], color=GUIDE, label="no more than its own errors", **hollow))
    sheet.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=10, frameon=False)
    return plotting.png(sheet)


def against_noise(
    axes: Axes,
    metric: str,
    curves: Mapping[str, Sequence[Level]],
    single: Sequence[tuple[str, Sequence[Level]]],
    looks: Mapping[str, Look],
) -> None:
    """A diagnostic against the noise level, on logarithmic axes, with 95 % intervals.

    What does not exceed its errors is at the bottom, hollow.

    Arguments:
        axes: The axes.
        metric: The diagnostic.
        curves: Its levels of each model.
        single: Its levels of single seeds, drawn thin.
        looks: How each model is drawn, by its name.
    """
    shown = [v.estimate for levels in curves.values() for v in levels if _clear(v.estimate)]
    top = max((_bounded(e)[1] for e in shown), default=1.0)
    # Rounding may be ever so small, and is of no interest.
    low = max(min((e.value for e in shown), default=0.1) / 2, top * 10.0**-_DECADES)
    axes.set_ylim(low, 2 * top)
    # Of a single level, axes that find their own limits find none.
    sigmas = [v.sigma for levels in curves.values() for v in levels]
    axes.set_xlim(min(sigmas) / _MARGIN, max(sigmas) * _MARGIN)
    for name, levels in single:
        clear = [v for v in levels if _clear(v.estimate)]
        values = [v.estimate.value for v in clear]
        thin = {"color": looks[name].colour, "linewidth": 0.7, "alpha": 0.5}
        axes.plot([v.sigma for v in clear], values, **thin)  # type: ignore[arg-type]
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
    axes.set_xlabel("noise level σ  [units of length]", fontsize=9)
    axes.set_title(textwrap.fill(title(metric), _WIDEST), fontsize=10)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(alpha=0.3)


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
        style = {"color": looks[name].colour, "marker": looks[name].marker, "markersize": 6}
        axes.errorbar([estimate.value], [place], xerr=error, capsize=3, **style)  # type: ignore[arg-type]
    null = next(iter(values.values())).settings.get("null")
    if null is not None:
        axes.axvline(null, color=GUIDE, linestyle=":", linewidth=1.4)
        axes.set_xlabel("dotted: the mean of samples of the exact distribution", fontsize=9)
    # The legend says which is which, in this order.
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.margins(y=0.15)
    # Intervals over two seeds are wide, and may leave the figure.
    axes.set_xlim(0, min(widest, axes.get_xlim()[1]))
    axes.set_title(textwrap.fill(title(metric), _WIDEST), fontsize=10)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)

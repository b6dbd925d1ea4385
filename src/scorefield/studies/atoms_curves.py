"""The numbers of all models in one picture: against the noise level, and of their samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scorefield.estimate import Estimate
from scorefield.evaluation.records import Level
from scorefield.studies.atoms import AtomsAnalysis, by_metric
from scorefield.studies.atoms_look import Look, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAID = {
    "score_error": "error of the score\nσ|Δs|, root mean square",
    "fokker_planck": "Fokker–Planck residual\ngradient form, root mean square",
    "fokker_planck_component": "Fokker–Planck residual\ncomponent form, root mean square",
    "fokker_planck_gap": "gap of both forms\npure curl, root mean square",
    "consistency": "consistency error\nmean square, in units of the noise",
    "exterior_derivative": "curl of the denoiser\n‖J − Jᵀ‖, root mean square",
    "relative_asymmetry": "relative asymmetry\n‖J − Jᵀ‖ / 2‖J‖ of the score",
    "winding": "winding  [nats]\ncirculation of the score around the box",
    "harmonic_part": "harmonic part  [nats]\nmean of the circulation",
    "total_variation": "total variation of samples\nover cells of the exact law",
    "marginal_ks": "Kolmogorov–Smirnov\none coordinate of an atom",
    "radial_ks": "Kolmogorov–Smirnov\ndistance from the nearest configuration",
}
"""What each number is called in pictures."""

_COLUMNS = 4
_DECADES = 7
_FACTOR = 10.0
_MARGIN = 1.3


def comparison(analysis: AtomsAnalysis, look: Mapping[str, Look]) -> bytes:
    """Every number of every model, over its seeds, with 95 % intervals.

    Arguments:
        analysis: The analysis.
        look: How each model is drawn, by its name.
    """
    curves = {name: by_metric(analysis.pooled_levels(name)) for name in analysis.names}
    distances = {name: analysis.pooled_distances(name) for name in analysis.names}
    first = analysis.names[0]
    rows = math.ceil((len(curves[first]) + len(distances[first])) / _COLUMNS)
    sheet = Figure(figsize=(3.9 * _COLUMNS, 3.4 * rows + 0.8), layout="constrained")
    panels = list(sheet.subplots(rows, _COLUMNS, squeeze=False).flat)
    for metric in curves[first]:
        single = [
            (f.model.name, by_metric(f.levels)[metric])
            for f in analysis.found
            if len(analysis.members(f.model.name)) > 1
        ]
        pooled = {name: c[metric] for name, c in curves.items()}
        against_noise(panels.pop(0), metric, pooled, single, look)
    for metric in distances[first]:
        _side_by_side(
            panels.pop(0), metric, {name: d[metric] for name, d in distances.items()}, look
        )
    for axes in panels:
        axes.set_axis_off()
    seeds = {name: len(analysis.members(name)) for name in analysis.names}
    handles = [
        Line2D(
            [],
            [],
            color=look[name].colour,
            marker=look[name].marker,
            label=name if n == 1 else f"{name} ({n} seeds)",
        )
        for name, n in seeds.items()
    ]
    hollow = {"color": "0.3", "markerfacecolor": "white", "linestyle": "none", "marker": "v"}
    handles.append(Line2D([], [], label="no more than its own errors", **hollow))  # type: ignore[arg-type]
    sheet.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=10, frameon=False)
    return png(sheet)


def against_noise(
    axes: Axes,
    metric: str,
    curves: Mapping[str, Sequence[Level]],
    single: Sequence[tuple[str, Sequence[Level]]],
    look: Mapping[str, Look],
) -> None:
    """A diagnostic against the noise level, on logarithmic axes, with 95 % intervals.

    What does not exceed its errors stands at the foot, hollow.

    Arguments:
        axes: Where.
        metric: The diagnostic.
        curves: Its levels of each model.
        single: Its levels of single seeds, drawn thin.
        look: How each model is drawn, by its name.
    """
    shown = [v.estimate for levels in curves.values() for v in levels if _told(v.estimate)]
    top = max((max(e.value, _bounded(e)[1]) for e in shown), default=1.0)
    # Rounding may be ever so small, and is of no interest.
    low = max(min((e.value for e in shown), default=0.1) / 2, top * 10.0**-_DECADES)
    axes.set_yscale("log")
    axes.set_xscale("log")
    axes.set_ylim(low, 2 * top)
    # Of a single level, axes that find their own limits find none.
    sigmas = [v.sigma for levels in curves.values() for v in levels]
    axes.set_xlim(min(sigmas) / _MARGIN, max(sigmas) * _MARGIN)
    foot = low * (2 * top / low) ** 0.025
    for name, levels in single:
        told = [v for v in levels if _told(v.estimate)]
        values = [v.estimate.value for v in told]
        axes.plot(
            [v.sigma for v in told], values, color=look[name].colour, linewidth=0.7, alpha=0.5
        )
    for name, levels in curves.items():
        style = {"color": look[name].colour, "marker": look[name].marker, "markersize": 5}
        told = [v for v in levels if _told(v.estimate) and v.estimate.value >= low]
        ends = [_bounded(v.estimate) for v in told]
        bars = [
            [
                max(v.estimate.value - max(e[0], low / 10), 0)
                for v, e in zip(told, ends, strict=True)
            ],
            [e[1] - v.estimate.value for v, e in zip(told, ends, strict=True)],
        ]
        axes.errorbar(
            [v.sigma for v in told],
            [v.estimate.value for v in told],
            bars,
            linewidth=1.5,
            elinewidth=1,
            capsize=2,
            **style,  # type: ignore[arg-type]
        )
        rest = [v.sigma for v in levels if v not in told]
        if rest:  # nothing, unclipped, would lie at the corner of the sheet
            foot_style = {"color": look[name].colour, "markerfacecolor": "white", "markersize": 6}
            axes.plot(rest, [foot] * len(rest), "v", clip_on=False, **foot_style)  # type: ignore[arg-type]
    axes.set_xlabel("noise level σ  [units of length]", fontsize=9)
    axes.set_title(SAID.get(metric, metric), fontsize=10)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(alpha=0.3)


def _told(estimate: Estimate) -> bool:
    """Whether a number is more than its own errors may have made."""
    return estimate.value > estimate.numerical_error + estimate.standard_error


def _bounded(estimate: Estimate) -> tuple[float, float]:
    """The interval, of which an end far above the number would hide all others."""
    low, high = estimate.interval()
    return low, min(high, _FACTOR * estimate.value)


def _side_by_side(
    axes: Axes, metric: str, values: Mapping[str, Estimate], look: Mapping[str, Look]
) -> None:
    """A distance of samples, model by model, with what samples of the law itself have."""
    widest = 2 * max(e.value for e in values.values())
    for place, (name, estimate) in enumerate(values.items()):
        low, high = estimate.interval()
        axes.errorbar(
            [estimate.value],
            [place],
            xerr=[[estimate.value - max(low, 0)], [high - estimate.value]],
            color=look[name].colour,
            marker=look[name].marker,
            markersize=6,
            capsize=3,
        )
    null = next(iter(values.values())).settings.get("null")
    if null is not None:
        axes.axvline(null, color="0.45", linestyle=":", linewidth=1.4)
        axes.set_xlabel("dotted: the mean of samples of the law", fontsize=9)
    # The legend tells which is which, in this order.
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.margins(y=0.15)
    # Intervals over two seeds are wide, and may leave the picture.
    axes.set_xlim(0, min(widest, axes.get_xlim()[1]))
    axes.set_title(SAID.get(metric, metric), fontsize=10)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)

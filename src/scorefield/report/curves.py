"""Interactive curves with error bars, as plotly specifications."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from scorefield.comparison.groups import Group, common, over_seeds
from scorefield.comparison.timing import Costs
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import CATALOGUE, OF_LEVELS, OF_SAMPLES
from scorefield.evaluation.catalogue.metric import Metric, OfLevel, OfSamples
from scorefield.evaluation.records import Distance
from scorefield.plotting.palette import EXACT, Look

Drawn = tuple[Group, Look]
"""A model and how it is drawn."""
Interval = tuple[float, float]
_BAND = " The band is that of two real sets of the same size."


class Curve(NamedTuple):
    """A named line: places on the axis, and the estimates there."""

    label: str
    look: Look
    x: Sequence[float]
    y: Sequence[Estimate]


class Plot(NamedTuple):
    """A figure of the page, with its alternative text and plotly's specification."""

    key: str
    title: str
    caption: str
    alt: str
    spec: str


def plots(
    members: Sequence[Group], exact: Group | None, looks: dict[str, Look], costs: Costs
) -> list[Plot]:
    """The curves of a data set: against noise level, network calls, and training time."""
    drawn = [(g, looks[g.label]) for g in members]
    with_exact = drawn if exact is None else [*drawn, (exact, EXACT)]
    found = [
        *(_against_noise(m, with_exact) for m in OF_LEVELS if "curve" in m.shown),
        *(_against_calls(m, with_exact) for m in OF_SAMPLES if "curve" in m.shown),
        *(_against_time(m, drawn, costs) for m in CATALOGUE if "training" in m.shown),
    ]
    return [plot for plot in found if plot is not None]


def _against_noise(metric: OfLevel, drawn: Sequence[Drawn]) -> Plot | None:
    """A metric against the noise level; none of an exact field that has none of it."""
    curves = []
    for g, look in drawn:
        levels = g.profile(metric.name, metric.radius)
        if levels and (look is not EXACT or any(v.estimate.value for v in levels)):
            curves.append(
                Curve(g.label, look, [v.sigma for v in levels], [v.estimate for v in levels])
            )
    caption, least = metric.caption, metric.rounding
    if least is not None:
        caption += f" Values below {least:g} are noise or rounding, drawn as triangles."
    x_title = "noise level σ (units of the data)"
    return _plot(_key(drawn, metric), metric.title, caption, x_title, curves, least=least)


def _against_calls(metric: OfSamples, drawn: Sequence[Drawn]) -> Plot | None:
    """A distance against the true number of network calls, with the band of the noise floor."""
    curves, band = [], None
    for g, look in drawn:
        found = [d for b in g.first.budgets if (d := g.distance(metric.name, b)) is not None]
        if found:
            curves.append(Curve(g.label, look, [d.nfe for d in found], [d.estimate for d in found]))
            band = _band(found[0]) or band
    x_title = "network calls per sample"
    caption = metric.caption + _BAND
    return _plot(_key(drawn, metric), metric.title, caption, x_title, curves, band)


def _against_time(metric: Metric, drawn: Sequence[Drawn], costs: Costs) -> Plot | None:
    """A metric at the checkpoints against their training time, where both are known."""
    curves, band = [], None
    for g, look in drawn:
        step_time = costs.seconds.get(g.model)
        shared = common([{m.step: m for m in e.milestones} for e in g.members])
        if step_time is None or not shared:
            continue
        x, y = [], []
        for alike in shared:
            found = [d for m in alike for d in m.distances if d.metric == metric.name]
            x.append(alike[0].step * step_time.value)
            y.append(over_seeds([d.estimate for d in found]))
            band = _band(found[0]) or band
        curves.append(Curve(g.label, look, x, y))
    title, key = f"{metric.title} during training", f"{_key(drawn, metric)}-training"
    caption = f"{metric.caption} At the checkpoints, against the time of the steps up to each."
    return _plot(key, title, caption, "training time (s)", curves, band, ticks=False)


def _key(drawn: Sequence[Drawn], metric: Metric) -> str:
    return f"{drawn[0][0].dataset}-{metric.name}"


def _band(d: Distance) -> Interval | None:
    """Where the distances of real sets are."""
    if d.floor is None:
        return None
    return d.floor.mean - 2 * d.floor.sd, d.floor.mean + 2 * d.floor.sd


def _plot(
    key: str,
    title: str,
    caption: str,
    x_title: str,
    curves: Sequence[Curve],
    band: Interval | None = None,
    least: float | None = None,
    ticks: bool = True,
) -> Plot | None:
    """The plot of curves; ``None`` where there is none of a trained model."""
    if all(c.look is EXACT for c in curves):
        return None
    figure = go.Figure()
    places = sorted({x for curve in curves for x in curve.x})
    values = [e.value for c in curves for e in c.y]
    foot = least if least is not None else 0.8 * min((v for v in values if v > 0), default=1.0)
    # Of few pairs, all of a band may lie below a log axis.
    low, high = band if band is not None and band[1] > 0 else (foot, foot)
    if low <= 0:
        # An unbiased distance: well inside the floor's noise there is no place on a log axis.
        foot = high / 5
    if high > low:
        left, right, edge = places[0] / 1.15, places[-1] * 1.15, low if low > 0 else foot / 3
        figure.add_scatter(
            x=[left, right, right, left],
            y=[high, high, edge, edge],
            fill="toself",
            fillcolor="rgba(128,128,128,0.22)",
            line={"width": 0},
            mode="lines",
            name="two real sets (mean ± 2 sd)",
            hoverinfo="skip",
        )
    for curve in curves:
        for trace in _traces(curve, foot):
            figure.add_scatter(**trace)
    few = {"dtick": "D2", "tickformat": "~g"}
    figure.update_xaxes(
        type="log",
        title={"text": x_title, "font": {"size": 13}, "standoff": 6},
        # Levels and budgets are few and of interest; times are neither.
        **({"tickvals": places, "ticktext": [f"{x:g}" for x in places]} if ticks else few),
        tickfont={"size": 12},
        range=[math.log10(places[0] / 1.2), math.log10(places[-1] * 1.2)],
    )
    tops = [e.interval()[1] for c in curves for e in c.y]
    bottom = math.log10(min(foot, low) if low > 0 else foot)
    top = max(math.log10(max([*tops, high, 2 * foot])), bottom + 0.3)
    margin = 0.05 * (top - bottom)
    few["dtick"] = "D2" if top - bottom > 0.7 else "D1"
    figure.update_yaxes(
        type="log",
        range=[bottom - margin, top + margin],
        automargin=True,
        tickfont={"size": 12},
        # Powers of ten where there are many, else some numbers between them.
        **({"dtick": 1, "exponentformat": "power"} if top - bottom > 2.2 else few),
    )
    figure.update_layout(
        height=380,
        margin={"l": 62, "r": 12, "t": 8, "b": 54},
        legend={"orientation": "h", "y": -0.17, "x": 0, "font": {"size": 12}},
        hovermode="closest",
        showlegend=True,
    )
    names = ", ".join(c.label for c in curves)
    alt = f"{title} against {x_title}, one line each for {names}, with 95 % intervals."
    plain = json.loads(figure.to_json())
    plain["layout"].pop("template", None)
    # As it may stand in a script element.
    text = json.dumps(plain, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Plot(key, title, caption, alt, text)


def _traces(curve: Curve, foot: float) -> list[dict[str, Any]]:
    """The line with its error bars, and the points below the axis at its foot."""
    below = [(x, e) for x, e in zip(curve.x, curve.y, strict=True) if e.value < foot]
    bars = [e.interval() if e.value >= foot else (e.value, e.value) for e in curve.y]
    named = {"name": curve.label, "legendgroup": curve.label, "hovertemplate": "%{x:g}: %{text}"}
    line = {
        **named,
        "x": list(curve.x),
        "y": [e.value if e.value >= foot else None for e in curve.y],
        "mode": "lines+markers",
        "line": {"color": curve.look.colour, "width": 2, "dash": curve.look.dash},
        "marker": {"size": 7, "symbol": curve.look.symbol},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - e.value for e, (_, high) in zip(curve.y, bars, strict=True)],
            # On a logarithmic axis a bar that would pass zero ends just above it.
            "arrayminus": [
                min(e.value - low, 0.999 * abs(e.value))
                for e, (low, _) in zip(curve.y, bars, strict=True)
            ],
            "thickness": 1.3,
            "width": 3,
        },
        "text": [str(e) for e in curve.y],
    }
    at_the_foot = {
        **named,
        "x": [x for x, _ in below],
        "y": [foot] * len(below),
        "showlegend": False,
        "mode": "markers",
        "marker": {"size": 8, "symbol": "triangle-down", "color": curve.look.colour},
        "text": [f"{e} (below the axis)" for _, e in below],
    }
    return [line, at_the_foot] if below else [line]

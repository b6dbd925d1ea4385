"""Interactive curves with error bars, as plotly specifications."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from scorefield.comparison.costs import Costs
from scorefield.comparison.groups import Group, common, over_seeds
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import CATALOGUE, OF_LEVELS, OF_SAMPLES
from scorefield.evaluation.catalogue.metric import Metric, OfLevel, OfSamples
from scorefield.evaluation.records import Distance
from scorefield.plotting.palette import EXACT, Look

Drawn = tuple[Group, Look]
"""A model and how it is drawn."""
_BAND = " The band is that of two real sets of the same size."


class Curve(NamedTuple):
    """A named line: places on the axis, and the estimates there."""

    label: str
    look: Look
    x: Sequence[float]
    y: Sequence[Estimate]


class Band(NamedTuple):
    """A horizontal band with a name: where the sampling noise of real sets lies."""

    label: str
    low: float
    high: float


class Plot(NamedTuple):
    """A figure of the page: an identifier, a caption, a text for those who cannot see it, and
    the specification that plotly draws.
    """

    key: str
    title: str
    caption: str
    alt: str
    spec: str


def plots(
    members: Sequence[Group], exact: Group | None, looks: dict[str, Look], costs: Costs
) -> list[Plot]:
    """The curves of a data set, of every metric that the catalogue shows as one: by noise level,
    against network calls, and at the checkpoints against training time.
    """
    drawn = [(g, looks[g.label]) for g in members]
    with_exact = drawn if exact is None else [*drawn, (exact, EXACT)]
    found = [
        *(_against_noise(m, with_exact) for m in OF_LEVELS if "curve" in m.shown),
        *(_against_calls(m, with_exact) for m in OF_SAMPLES if "curve" in m.shown),
        *(_against_time(m, drawn, costs) for m in CATALOGUE if "training" in m.shown),
    ]
    return [plot for plot in found if plot is not None]


def _against_noise(metric: OfLevel, drawn: Sequence[Drawn]) -> Plot | None:
    """A metric against the noise level; ``None`` where it was measured of no model. Of an exact
    field that has none of it at any level there is no curve.
    """
    curves = []
    for g, look in drawn:
        levels = g.profile(metric.name, metric.radius)
        if levels and (look is not EXACT or any(v.estimate.value for v in levels)):
            curves.append(
                Curve(g.label, look, [v.sigma for v in levels], [v.estimate for v in levels])
            )
    if all(c.look is EXACT for c in curves):
        return None
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
    if not curves:
        return None
    x_title = "network calls a sample"
    caption = metric.caption + _BAND
    return _plot(_key(drawn, metric), metric.title, caption, x_title, curves, band)


def _against_time(metric: Metric, drawn: Sequence[Drawn], costs: Costs) -> Plot | None:
    """A metric at the checkpoints of the trainings against their time; ``None`` where none was
    measured or steps have no known time.
    """
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
    if not curves:
        return None
    title, key = f"{metric.title} along the training", f"{_key(drawn, metric)}-training"
    caption = f"{metric.caption} At the checkpoints, against the time of the steps up to each."
    return _plot(key, title, caption, "training time (s)", curves, band, ticks=False)


def _key(drawn: Sequence[Drawn], metric: Metric) -> str:
    return f"{drawn[0][0].dataset}-{metric.name}"


def _band(d: Distance) -> Band | None:
    """Where the distances of real sets are."""
    if d.floor is None:
        return None
    low, high = d.floor.mean - 2 * d.floor.sd, d.floor.mean + 2 * d.floor.sd
    return Band("two real sets (mean ± 2 sd)", low, high)


def _plot(
    key: str,
    title: str,
    caption: str,
    x_title: str,
    curves: Sequence[Curve],
    band: Band | None = None,
    least: float | None = None,
    ticks: bool = True,
) -> Plot:
    figure = go.Figure()
    places = sorted({x for curve in curves for x in curve.x})
    positive = [e.value for c in curves for e in c.y if e.value > 0]
    foot = least if least is not None else 0.8 * min(positive, default=1.0)
    if band is not None and band.high <= 0:
        # Of few pairs: all of it lies below a log axis.
        band = None
    if band is not None and band.low <= 0:
        # An unbiased distance: well inside the floor's noise there is no place on a log axis.
        foot = band.high / 5
    if band is not None:
        ends = [places[0] / 1.15, places[-1] * 1.15]
        low = band.low if band.low > 0 else foot / 3
        figure.add_scatter(
            x=[*ends, *ends[::-1]],
            y=[band.high, band.high, low, low],
            fill="toself",
            fillcolor="rgba(128,128,128,0.22)",
            line={"width": 0},
            mode="lines",
            name=band.label,
            hoverinfo="skip",
        )
    for curve in curves:
        for trace in _traces(curve, foot):
            figure.add_scatter(**trace)
    figure.update_xaxes(
        type="log",
        title={"text": x_title, "font": {"size": 13}, "standoff": 6},
        # Levels and budgets are few and of interest; times are neither.
        **(
            {"tickvals": places, "ticktext": [f"{x:g}" for x in places]}
            if ticks
            else {"dtick": "D2", "tickformat": "~g"}
        ),
        tickfont={"size": 12},
        range=[math.log10(places[0] / 1.2), math.log10(places[-1] * 1.2)],
    )
    tops = [e.interval()[1] for c in curves for e in c.y] + ([] if band is None else [band.high])
    bottom = math.log10(min([foot, *([band.low] if band is not None and band.low > 0 else [])]))
    top = max(math.log10(max([*tops, 2 * foot])), bottom + 0.3)
    margin = 0.05 * (top - bottom)
    figure.update_yaxes(
        type="log",
        range=[bottom - margin, top + margin],
        automargin=True,
        tickfont={"size": 12},
        # Powers of ten where there are many, else some numbers between them.
        **(
            {"dtick": 1, "exponentformat": "power"}
            if top - bottom > 2.2
            else {"dtick": "D2" if top - bottom > 0.7 else "D1", "tickformat": "~g"}
        ),
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
    return Plot(key, title, caption, alt, _specification(figure))


def _traces(curve: Curve, foot: float) -> list[dict[str, Any]]:
    """The line with its error bars, and the points below the axis at its foot."""
    shown = [e if e.value >= foot else None for e in curve.y]
    bars = [e.interval() if e is not None else (0.0, 0.0) for e in shown]
    line = {
        "x": list(curve.x),
        "y": [None if e is None else e.value for e in shown],
        "name": curve.label,
        "legendgroup": curve.label,
        "mode": "lines+markers",
        "line": {"color": curve.look.colour, "width": 2, "dash": curve.look.dash},
        "marker": {"size": 7, "symbol": curve.look.symbol},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [
                0.0 if e is None else b[1] - e.value for e, b in zip(shown, bars, strict=True)
            ],
            # On a logarithmic axis a bar that would pass zero ends just above it.
            "arrayminus": [
                0.0 if e is None else min(e.value - b[0], 0.999 * e.value)
                for e, b in zip(shown, bars, strict=True)
            ],
            "thickness": 1.3,
            "width": 3,
        },
        "text": [str(e) for e in curve.y],
        "hovertemplate": "%{x:g}: %{text}",
    }
    below = [(x, e) for x, e in zip(curve.x, curve.y, strict=True) if e.value < foot]
    if not below:
        return [line]
    foot_points = {
        "x": [x for x, _ in below],
        "y": [foot] * len(below),
        "name": curve.label,
        "legendgroup": curve.label,
        "showlegend": False,
        "mode": "markers",
        "marker": {"size": 8, "symbol": "triangle-down", "color": curve.look.colour},
        "text": [f"{e} (below the axis)" for _, e in below],
        "hovertemplate": "%{x:g}: %{text}",
    }
    return [line, foot_points]


def _specification(figure: go.Figure) -> str:
    """The figure as JSON that may stand in a script element."""
    plain = json.loads(figure.to_json())
    plain["layout"].pop("template", None)
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")

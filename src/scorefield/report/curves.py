"""Interactive curves with error bars, as plotly specifications."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from scorefield.estimate import Estimate
from scorefield.experiments.tables import Group
from scorefield.report.style import EXACT, Look

LEAST = 1e-5
"""Below this a relative curl is rounding: such points are drawn at the foot of the axis."""


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


def against_noise(
    key: str,
    title: str,
    caption: str,
    metric: str,
    members: Sequence[Group],
    looks: dict[str, Look],
    exact: Group | None = None,
    least: float | None = None,
) -> Plot | None:
    """A diagnostic against the noise level; ``None`` where it was not measured."""
    curves = []
    for g in (*members, *([exact] if exact is not None else [])):
        levels = g.profile(metric)
        look = EXACT if g is exact else looks[g.label]
        if levels:
            curves.append(
                Curve(g.label, look, [v.sigma for v in levels], [v.estimate for v in levels])
            )
    if not curves:
        return None
    return _plot(key, title, caption, "noise level σ (units of the data)", curves, least=least)


def against_calls(
    key: str,
    title: str,
    caption: str,
    metric: str,
    members: Sequence[Group],
    looks: dict[str, Look],
    exact: Group | None = None,
) -> Plot | None:
    """A distance against the true number of network calls, with the band of the noise floor."""
    curves, band = [], None
    for g in (*members, *([exact] if exact is not None else [])):
        found = [d for b in g.first.budgets if (d := g.distance(metric, b)) is not None]
        look = EXACT if g is exact else looks[g.label]
        if found:
            curves.append(Curve(g.label, look, [d.nfe for d in found], [d.estimate for d in found]))
            floor = found[0].floor
            if floor is not None:
                low, high = floor.mean - 2 * floor.sd, floor.mean + 2 * floor.sd
                band = Band("two real sets (mean ± 2 sd)", low, high)
    if not curves:
        return None
    return _plot(key, title, caption, "network calls a sample", curves, band)


def _plot(
    key: str,
    title: str,
    caption: str,
    x_title: str,
    curves: Sequence[Curve],
    band: Band | None = None,
    least: float | None = None,
) -> Plot:
    figure = go.Figure()
    places = sorted({x for curve in curves for x in curve.x})
    positive = [e.value for c in curves for e in c.y if e.value > 0]
    foot = least if least is not None else 0.5 * min(positive, default=1.0)
    if band is not None and band.low <= 0:
        # An unbiased distance: what lies well inside the floor's noise has no place on a log axis.
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
        figure.add_scatter(**_trace(curve, foot))
    figure.update_xaxes(
        type="log",
        title=x_title,
        tickvals=places,
        ticktext=[f"{x:g}" for x in places],
        range=[math.log10(places[0] / 1.2), math.log10(places[-1] * 1.2)],
    )
    figure.update_yaxes(type="log", exponentformat="power", tickformat="~g", automargin=True)
    if least is not None:
        top = max([e.value for c in curves for e in c.y] + [10 * least])
        figure.update_yaxes(range=[math.log10(least / 1.6), math.log10(2 * top)], tickformat="~e")
    else:
        tops = [e.interval()[1] for c in curves for e in c.y]
        high = max([*tops, band.high if band is not None else 0.0])
        low = foot if band is not None and band.low <= 0 else min(positive, default=foot)
        if band is not None and band.low > 0:
            low = min(low, band.low)
        figure.update_yaxes(range=[math.log10(low / 1.5), math.log10(1.5 * high)])
    figure.update_layout(
        height=380,
        margin={"l": 62, "r": 12, "t": 8, "b": 54},
        legend={"orientation": "h", "y": -0.24, "x": 0, "font": {"size": 12}},
        hovermode="closest",
        showlegend=True,
    )
    names = ", ".join(c.label for c in curves)
    alt = f"{title} against {x_title}, one line each for {names}, with 95 % intervals."
    return Plot(key, title, caption, alt, _specification(figure))


def _trace(curve: Curve, foot: float) -> dict[str, Any]:
    y, plus, minus, text, symbols = [], [], [], [], []
    for e in curve.y:
        low, high = e.interval()
        below = e.value < foot
        y.append(foot if below else e.value)
        plus.append(0.0 if below else high - e.value)
        # A bar that would pass zero ends at the foot of a logarithmic axis.
        reach = min(e.value - low, e.value * (1 - 1e-3))
        minus.append(0.0 if below else reach)
        text.append(f"{e}" + (" (below the axis)" if below else ""))
        symbols.append("triangle-down" if below else curve.look.symbol)
    return {
        "x": list(curve.x),
        "y": y,
        "name": curve.label,
        "mode": "lines+markers",
        "line": {"color": curve.look.colour, "width": 2, "dash": curve.look.dash},
        "marker": {"size": 7, "symbol": symbols},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": plus,
            "arrayminus": minus,
            "thickness": 1.3,
            "width": 3,
        },
        "text": text,
        "hovertemplate": "%{x:g}: %{text}",
    }


def _specification(figure: go.Figure) -> str:
    """The figure as JSON that may stand in a script element."""
    plain = json.loads(figure.to_json())
    plain["layout"].pop("template", None)
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")

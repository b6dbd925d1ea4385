"""Interactive curves with error bars, as specifications for plotly.js."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from scorefield.comparison.groups import Group, common, over_seeds
from scorefield.comparison.timing import Costs
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import CATALOGUE, OF_LEVELS, OF_SAMPLES, TARGET
from scorefield.evaluation.catalogue.metric import Metric, OfLevel, OfSamples
from scorefield.evaluation.records import Distance
from scorefield.plotting.palette import EXACT, Look
from scorefield.report.words import in_words
from scorefield.training.record import read_rows

Drawn = tuple[Group, Look]
"""A model and how it is drawn."""
Interval = tuple[float, float]
_BAND = " The band is that of two real sets of the same size (mean ± 2 standard deviations)."
_NOISE, _CALLS, _TIME = "noise level σ (units of the data)", "network calls per sample", "(s)"
_LONGEST = 200  # points of a line without error bars


class Curve(NamedTuple):
    """A named line: places on the axis, and the estimates there."""

    label: str
    look: Look
    x: Sequence[float]
    y: Sequence[Estimate]


class Plot(NamedTuple):
    """A figure of the page, with its alternative text and the specification of plotly.js."""

    key: str
    title: str
    caption: str
    alt: str
    spec: str


class Axis(NamedTuple):
    """The horizontal axis: its title, whether it is logarithmic, and whether it has a tick at each
    of its few places.
    """

    title: str
    log: bool = True
    ticks: bool = True


class Plots(NamedTuple):
    """The curves of a data set, by what they are drawn against."""

    calls: list[Plot]
    levels: list[Plot]
    training: list[Plot]
    cost: list[Plot]


def plots(
    members: Sequence[Group],
    exact: Group | None,
    looks: dict[str, Look],
    costs: Costs,
    losses: Mapping[str, str],
) -> Plots:
    """The curves of a data set: against network calls, noise level, training and sampling time;
    ``losses`` has the name of the base loss of each model.
    """
    drawn = [(g, looks[g.label]) for g in members]
    with_exact = drawn if exact is None else [*drawn, (exact, EXACT)]
    return Plots(
        _some(_against_calls(m, with_exact) for m in OF_SAMPLES if "curve" in m.shown),
        _some(_against_noise(m, with_exact) for m in OF_LEVELS if "curve" in m.shown),
        _some(
            (
                *(
                    _losses(name, [(g, look) for g, look in drawn if losses[g.label] == name])
                    for name in dict.fromkeys(losses.values())
                ),
                *(_against_time(m, drawn, costs) for m in CATALOGUE if "training" in m.shown),
            )
        ),
        _some([_against_latency(TARGET, drawn)]),
    )


def _some(found: Iterable[Plot | None]) -> list[Plot]:
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
    return _plot(_key(drawn, metric), metric, caption, Axis(_NOISE), curves, least=least)


def _against_calls(metric: OfSamples, drawn: Sequence[Drawn]) -> Plot | None:
    """A distance against the true number of network calls, with the band of the noise floor."""
    curves, band = [], None
    for g, look in drawn:
        found = [d for b in g.first.budgets if (d := g.distance(metric.name, b)) is not None]
        if found:
            curves.append(Curve(g.label, look, [d.nfe for d in found], [d.estimate for d in found]))
            band = _band(found[0]) or band
    return _plot(_key(drawn, metric), metric, metric.caption + _BAND, Axis(_CALLS), curves, band)


def _against_latency(metric: OfSamples, drawn: Sequence[Drawn]) -> Plot | None:
    """A distance against the time in which the samples were drawn."""
    curves, band = [], None
    for g, look in drawn:
        by_budget = (g.distance(metric.name, b) for b in g.first.budgets)
        found = [(d, d.latency.value) for d in by_budget if d is not None and d.latency is not None]
        if found:
            y = [d.estimate for d, _ in found]
            curves.append(Curve(g.label, look, [seconds for _, seconds in found], y))
            band = _band(found[0][0]) or band
    n = drawn[0][0].first.protocol["samples"]
    axis = Axis(f"time to draw {n} samples {_TIME}", ticks=False)
    caption = "The same distances, against the time that the samples took." + _BAND
    return _plot(f"{_key(drawn, metric)}-latency", metric, caption, axis, curves, band)


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
    caption = f"{metric.caption} At the checkpoints, against the time of the steps up to each."
    axis, when = Axis(f"training time {_TIME}", ticks=False), " during training"
    return _plot(f"{_key(drawn, metric)}-training", metric, caption, axis, curves, band, when=when)


def _losses(name: str, drawn: Sequence[Drawn]) -> Plot | None:
    """The base loss of a name on the training's own batches, a line a run."""
    traces, loss = [], f"{name} loss"
    for g, look in drawn:
        for e in g.members:
            if e.folder is None or not (e.folder / "metrics.csv").is_file():
                continue
            rows = read_rows(e.folder / "metrics.csv")
            found = [(r["step"], r[name]) for r in rows if r.get(name) is not None]
            found = found[:: math.ceil(len(found) / _LONGEST) or 1]
            if not found:
                continue
            x, y = zip(*found, strict=True)
            traces.append(
                {
                    **_named(g.label, f"seed {e.seed}, step", loss),
                    "x": x,
                    "y": y,
                    "text": [f"{v:.4g}" for v in y],
                    "mode": "lines",
                    "line": {"color": look.colour, "width": 1.5, "dash": look.dash},
                }
            )
    if not traces:
        return None
    layout = _layout(
        {"title": {"text": "training step"}, "rangemode": "tozero"},
        {"title": {"text": loss}, "type": "log"},
    )
    alt = f"The {loss} of the training batches against the step, one line a run."
    caption = (
        f"The {loss} of the training's own batches, each a mean over the steps since the last one; "
        "a line is a run, and the colour its model. Its height depends on the weighting and on the "
        "distribution of the noise levels."
    )
    key, title = f"{drawn[0][0].dataset}-{name}-loss", f"{loss.capitalize()} of the training"
    return Plot(key, title, caption, alt, _json(traces, layout))


def _key(drawn: Sequence[Drawn], metric: Metric) -> str:
    return f"{drawn[0][0].dataset}-{metric.name}"


def _band(d: Distance) -> Interval | None:
    """Where the distances of real sets are."""
    if d.floor is None:
        return None
    return d.floor.mean - 2 * d.floor.sd, d.floor.mean + 2 * d.floor.sd


def _plot(
    key: str,
    metric: Metric,
    caption: str,
    axis: Axis,
    curves: Sequence[Curve],
    band: Interval | None = None,
    least: float | None = None,
    when: str = "",
) -> Plot | None:
    """The plot of curves; ``None`` where there is none of a trained model."""
    if all(c.look is EXACT for c in curves):
        return None
    traces: list[dict[str, Any]] = []
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
        traces.append(
            {
                "x": [left, right, right, left],
                "y": [high, high, edge, edge],
                "fill": "toself",
                "fillcolor": "rgba(128,128,128,0.22)",
                "line": {"width": 0},
                "mode": "lines",
                "name": "two real sets",
                "hoverinfo": "skip",
            }
        )
    for curve in curves:
        traces += _traces(curve, foot, axis.title, metric.label)
    few = {"dtick": "D2", "tickformat": "~g"}
    x: dict[str, Any] = {
        "type": "log",
        "title": {"text": axis.title},
        # Levels and budgets are few and of interest; times are neither.
        **({"tickvals": places, "ticktext": [f"{v:g}" for v in places]} if axis.ticks else few),
        "range": [math.log10(places[0] / 1.2), math.log10(places[-1] * 1.2)],
    }
    tops = [e.interval()[1] for c in curves for e in c.y]
    bottom = math.log10(min(foot, low) if low > 0 else foot)
    top = max(math.log10(max([*tops, high, 2 * foot])), bottom + 0.3)
    margin = 0.05 * (top - bottom)
    few["dtick"] = "D2" if top - bottom > 0.7 else "D1"
    y: dict[str, Any] = {
        "type": "log",
        "title": {"text": f"{metric.label} ({metric.unit})" if metric.unit else metric.label},
        "range": [bottom - margin, top + margin],
        # Powers of ten where there are many, else some numbers between them.
        **({"dtick": 1, "exponentformat": "power"} if top - bottom > 2.2 else few),
    }
    names = ", ".join(c.label for c in curves)
    alt = f"{metric.title} against {axis.title}, one line each for {names}, with 95 % intervals."
    return Plot(key, metric.title + when, caption, alt, _json(traces, _layout(x, y)))


def _traces(curve: Curve, foot: float, where: str, what: str) -> list[dict[str, Any]]:
    """The line with its error bars, and the points below the axis at its foot."""
    below = [(x, e) for x, e in zip(curve.x, curve.y, strict=True) if e.value < foot]
    bars = [e.interval() if e.value >= foot else (e.value, e.value) for e in curve.y]
    named = _named(curve.label, where, what)
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
        "text": [in_words(e) for e in curve.y],
    }
    at_the_foot = {
        **named,
        "x": [x for x, _ in below],
        "y": [foot] * len(below),
        "mode": "markers",
        "marker": {"size": 8, "symbol": "triangle-down", "color": curve.look.colour},
        "text": [f"{in_words(e)}, below the axis" for _, e in below],
    }
    return [line, at_the_foot] if below else [line]


def _named(label: str, where: str, what: str) -> dict[str, Any]:
    """Whose a trace is, and what appears where the pointer is: every quantity with its name."""
    hover = f"<b>{label}</b><br>{where}: %{{x:.4~g}}<br>{what}: %{{text}}<extra></extra>"
    return {"name": label, "legendgroup": label, "hovertemplate": hover}


def _layout(x: dict[str, Any], y: dict[str, Any]) -> dict[str, Any]:
    return {
        "height": 340,
        "margin": {"l": 64, "r": 12, "t": 8, "b": 48},
        "xaxis": {"automargin": True, "tickfont": {"size": 11}, **x},
        "yaxis": {"automargin": True, "tickfont": {"size": 11}, **y},
        "hovermode": "closest",
        # The page has one legend for all figures.
        "showlegend": False,
    }


def _json(traces: Sequence[dict[str, Any]], layout: dict[str, Any]) -> str:
    """The specification, as it may stand in a script element."""
    text = json.dumps({"data": traces, "layout": layout}, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")

"""The picture of measures of an error against the harm that it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scorefield import plotting
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue.metric import OfLevel
from scorefield.plotting.palette import GUIDE
from scorefield.studies.dose.cases import KINDS, MIXTURE
from scorefield.studies.dose.compute import DoseResponse, Response
from scorefield.studies.dose.errors import MEASURES, over_all
from scorefield.studies.dose.ranks import OUTCOMES, Correlation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAD = 1.6


def harm_figure(result: DoseResponse, found: Sequence[Correlation]) -> bytes:
    """A panel for each measure and outcome, with a point for each field; what is not
    distinguishable from zero is at the edge.
    """
    groups = dict.fromkeys(f"{c.group} ({c.fields})" for c in found)
    sheet = plotting.new_figure(12.5, 8.5)
    panels = sheet.subplots(len(OUTCOMES), len(MEASURES), sharex="col", sharey="row")
    fields = {
        label: [r for r in result.responses if r.case.kind == label] for label in (*KINDS, MIXTURE)
    }
    fields |= result.trained_by_data
    looks = plotting.looks(tuple(fields))
    for row, outcome in zip(panels, OUTCOMES, strict=True):
        for axes, metric in zip(row, MEASURES, strict=True):
            _draw(axes, fields, looks, metric, outcome.of)
            here = {
                f"{c.group} ({c.fields})": f"{c.value:.2f}"
                for c in found
                if (c.measure, c.outcome.name) == (metric, outcome.name)
            }
            axes.set_title("ρ = " + ", ".join(here.get(g, "–") for g in groups), fontsize=9)
        row[0].set_ylabel(outcome.title, fontsize=9)
    for axes, metric in zip(panels[-1], MEASURES, strict=True):
        axes.set_xlabel(metric.label, fontsize=9)
    sheet.supxlabel(f"ρ: rank correlations over fields: {', '.join(groups)}", fontsize=9)
    handles, labels = panels[0][0].get_legend_handles_labels()
    place: Any = {"loc": "outside upper center", "fontsize": 9, "frameon": False}
    sheet.legend(handles, labels, ncols=len(labels), **place)
    return plotting.png(sheet)


def _draw(
    axes: Axes,
    fields: dict[str, list[Response]],
    looks: Mapping[str, plotting.Look],
    metric: OfLevel,
    outcome: Callable[[Response], Estimate],
) -> None:
    every = [r for some in fields.values() for r in some]
    foot = [
        _foot([over_all(r.levels, metric) for r in every]),
        _foot([outcome(r) for r in every]),
    ]
    for label, some in fields.items():
        x = [max(_sure(over_all(r.levels, metric)), foot[0]) for r in some]
        y = [max(_sure(outcome(r)), foot[1]) for r in some]
        axes.plot(x, y, label=label, alpha=0.8, linestyle="none", **looks[label].line(4))
    for line, end in zip((axes.axvline, axes.axhline), foot, strict=True):
        line(end, color=GUIDE, linestyle=":", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")


def _sure(estimate: Estimate) -> float:
    """The value, or 0 where the number is not distinguishable from zero."""
    return estimate.value if estimate.interval()[0] > 0 else 0.0


def _foot(numbers: Sequence[Estimate]) -> float:
    """Where zero is on a logarithmic axis."""
    sure = [value for value in map(_sure, numbers) if value > 0]
    return min(sure) / _PAD**2 if sure else 1.0

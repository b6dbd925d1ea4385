"""The first table of a data set: what matters most of each model, and how it compares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from scorefield.comparison.groups import Group
from scorefield.comparison.marks import (
    BASE,
    BETTER,
    NONE,
    SAME,
    WORSE,
    Mark,
    explained,
    mark_of,
    of_model,
)
from scorefield.comparison.tables import Comparison
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import OF_IMAGES, OF_LEVELS, OF_SAMPLES, VALIDATION
from scorefield.evaluation.catalogue.metric import Metric, OfLevel
from scorefield.plotting.palette import Look
from scorefield.report.likelihood import UNIT, Likelihoods
from scorefield.report.tables import anchor

MOST = 5
"""The number of metrics; with the model and its cost, seven columns."""
_WIDE = 20.0  # the ratio of the numbers of a column from which their scale is logarithmic


class Placed(NamedTuple):
    """A number, the places of its interval on the column's scale in percent, and its mark."""

    estimate: Estimate
    low: float
    at: float
    high: float
    mark: Mark


class Heading(NamedTuple):
    """A column: its name, its unit or condition, and what it is."""

    name: str
    unit: str
    meaning: str


class Line(NamedTuple):
    """A model and its readings, ``None`` where it has none."""

    label: str
    look: Look
    anchor: str
    readings: list[Placed | None]


class Overview(NamedTuple):
    """The table, with what one must know below it."""

    headings: list[Heading]
    lines: list[Line]
    note: str


class _Column(NamedTuple):
    heading: Heading
    value: Callable[[Group], Estimate | None]
    mark: Callable[[Group], Mark]


def overview(comparison: Comparison, likelihoods: Likelihoods, look: dict[str, Look]) -> Overview:
    """The table of a data set; the first model is what the others are compared with."""
    base, *others = comparison.members
    columns = [*islice(_metrics(comparison, likelihoods), MOST), _cost(comparison)]
    columns = [c for c in columns if any(c.value(g) is not None for g in comparison.members)]
    readings = [_readings(c, comparison.members) for c in columns]
    lines = [
        Line(g.label, look[g.label], anchor(g), [column[k] for column in readings])
        for k, g in enumerate(comparison.members)
    ]
    note = "Values ± standard errors over 95\u00a0% intervals; less is better in every column."
    if not others:
        note += " With a single model there is nothing to compare it with."
    elif comparison.pairs:
        note += " " + explained(base.label).replace(" %", "\u00a0%")
    else:
        but = " but in the time, which was measured side by side" if comparison.costs.apart else ""
        note += (
            " Differences between single trainings have no interval, so that no model is marked "
            f"as better or worse{but}: train each with several seeds."
        )
    return Overview([c.heading for c in columns], lines, note)


def _metrics(comparison: Comparison, likelihoods: Likelihoods) -> Iterator[_Column]:
    """The metrics in the order of their importance, with what the first model has of them."""
    base = comparison.members[0]
    budget = base.first.budgets[-1]
    samples = [m for m in OF_SAMPLES if m.finding and m.floor]
    for metric in (*(m for m in OF_IMAGES if "table" in m.shown), *samples):
        found = base.distance(metric.name, budget)
        if found is not None:
            relative = found.ratio is not None
            unit = f"{found.nfe} calls" + (", in noise floors" if relative else "")
            yield _Column(
                Heading(metric.label, unit, metric.caption),
                partial(_distance, metric, budget, relative),
                partial(_mark, comparison, metric),
            )
    if likelihoods:
        meaning = "The mean negative log-density of held-out points."
        yield _Column(
            Heading("− log-likelihood", UNIT, meaning),
            likelihoods.negative,
            partial(_mark_of_likelihood, comparison, likelihoods),
        )
    levels = [m for m in OF_LEVELS if m.finding and base.profile(m.name, m.radius)]
    first = [m for m in levels if m.zero]
    yield from (_of_levels(comparison, m) for m in first)
    yield _Column(
        Heading(VALIDATION.label, VALIDATION.unit, VALIDATION.caption),
        lambda g: g.validation,
        partial(_mark, comparison, VALIDATION),
    )
    yield from (_of_levels(comparison, m) for m in levels if m not in first)


def _of_levels(comparison: Comparison, metric: OfLevel) -> _Column:
    unit = metric.unit or "over all noise levels"
    return _Column(
        Heading(metric.label, unit, f"{metric.caption} Over all noise levels."),
        lambda g: g.over_levels(metric.name, metric.radius),
        partial(_mark, comparison, metric),
    )


def _cost(comparison: Comparison) -> _Column:
    base, costs = comparison.members[0], comparison.costs

    def mark(g: Group) -> Mark:
        ratio = costs.ratios.get(g.model)
        if ratio is None or not costs.apart:
            return BASE if g is base and costs.apart else NONE
        low, high = ratio.interval()
        return BETTER if high < 1 else WORSE if low > 1 else SAME

    return _Column(
        Heading("time per step", "ms", costs.summary),
        lambda g: None if (s := costs.seconds.get(g.model)) is None else s.scaled(1e3, "ms"),
        mark,
    )


def _distance(metric: Metric, budget: int, relative: bool, g: Group) -> Estimate | None:
    found = g.distance(metric.name, budget)
    return None if found is None else found.ratio if relative else found.estimate


def _mark(comparison: Comparison, metric: Metric, g: Group) -> Mark:
    return of_model(metric, g, comparison.members[0], comparison.pairs)


def _mark_of_likelihood(comparison: Comparison, likelihoods: Likelihoods, g: Group) -> Mark:
    if g is comparison.members[0]:
        return BASE if likelihoods.pairs else NONE
    found = likelihoods.pairs.get(g.model)
    return mark_of(None if found is None else found.difference)


def _readings(column: _Column, members: Sequence[Group]) -> list[Placed | None]:
    """The numbers of a column on one scale."""
    found = [column.value(g) for g in members]
    some = [e for e in found if e is not None]
    positive = [e.value for e in some if e.value > 0]
    wide = len(positive) == len(some) and max(positive) > _WIDE * min(positive)
    ends = [end for e in some for end in e.interval()]
    # On a logarithmic scale an interval that passes zero begins at the left end.
    least = min(positive) / 2 if wide else min(ends)

    def place(v: float) -> float:
        return math.log(max(v, least)) if wide else v

    left, right = place(max(min(ends), least)), place(max(ends))
    width = right - left or 1.0

    def at(v: float) -> float:
        return round(100 * (place(v) - left) / width, 1)

    readings: list[Placed | None] = []
    for g, e in zip(members, found, strict=True):
        if e is None:
            readings.append(None)
        else:
            low, high = e.interval()
            readings.append(Placed(e, at(low), at(e.value), at(high), column.mark(g)))
    return readings

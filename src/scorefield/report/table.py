"""The table: models down, what was measured across."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from scorefield.comparison.costs import Costs
from scorefield.comparison.groups import Group
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import OF_LEVELS, OF_SAMPLES, VALIDATION
from scorefield.evaluation.catalogue.metric import OfLevel, OfSamples
from scorefield.plotting.palette import EXACT, Look
from scorefield.report.words import distinguishable, number

_FAR = 100.0


class Cell(NamedTuple):
    """A cell of the table: a number with its error or a text, and a note below it; ``good`` is a
    distance that real sets have between them too, ``strong`` what is to be seen first.
    """

    estimate: Estimate | None
    note: str = ""
    good: bool = False
    text: str = ""
    strong: bool = False


class Column(NamedTuple):
    """A column: its group, its heading, and what it means."""

    group: str
    heading: str
    meaning: str


class Span(NamedTuple):
    """The number of neighbouring columns of one group."""

    name: str
    columns: int


class Row(NamedTuple):
    """A row: a model and its cells, one a column."""

    label: str
    colour: str
    anchor: str
    cells: list[Cell]


class Table(NamedTuple):
    """The table of a data set; ``floor`` is its last row."""

    columns: list[Column]
    rows: list[Row]
    floor: list[Cell]

    @property
    def spans(self) -> list[Span]:
        """The groups of columns, in order."""
        return spans(self.columns)


class _Shown(NamedTuple):
    """A column with the cell that it makes of a model, and that of the noise floor."""

    column: Column
    cell: Callable[[Group], Cell]
    floor: Cell = Cell(None)


def spans(columns: Sequence[Column]) -> list[Span]:
    """The groups of neighbouring columns."""
    return [Span(name, len(list(members))) for name, members in groupby(columns, lambda c: c.group)]


def table(
    members: Sequence[Group], exact: Group | None, look: dict[str, Look], costs: Costs
) -> Table:
    """The table of the models of a data set: every metric that the catalogue shows in it.

    Arguments:
        members: The models; the first is what costs are relative to.
        exact: The exact field, where it is known: one row more.
        look: The models' colours.
        costs: The time of a training step.
    """
    shown = [*_of_fields(members[0]), *_of_samples(members[0])]
    cost = Column("cost", "time per step", f"in multiples of {members[0].label}'s")
    shown.append(_Shown(cost, lambda g: _cost(g, members[0], costs)))
    rows = [
        Row(g.label, look[g.label].colour, anchor(g), [s.cell(g) for s in shown]) for g in members
    ]
    if exact is not None:
        rows.append(Row("exact field", EXACT.colour, "", [s.cell(exact) for s in shown]))
    return Table([s.column for s in shown], rows, [s.floor for s in shown])


def _of_fields(base: Group) -> list[_Shown]:
    """The validation loss, and the metrics over all noise levels that the first model has."""
    loss = Column("field", VALIDATION.label, VALIDATION.caption)
    shown = [_Shown(loss, lambda g: Cell(g.validation))]
    for m in OF_LEVELS:
        if "table" in m.shown and base.profile(m.name, m.radius):
            meaning = f"{m.caption} Over all noise levels."
            column = Column("field", m.label, meaning)
            shown.append(_Shown(column, partial(_over_levels, m)))
    return shown


def _of_samples(base: Group) -> list[_Shown]:
    """The distances that the first model has: of whatever data at every budget, of data of known
    distribution at the largest.
    """
    budgets = base.first.budgets
    shown = []
    for m in OF_SAMPLES:
        for budget in budgets if m.every_budget else budgets[-1:]:
            found = base.distance(m.name, budget)
            if "table" not in m.shown or found is None:
                continue
            floor = Cell(None)
            if found.floor is not None:
                mean = Estimate(found.floor.mean, found.floor.mean_error, found.floor.pairs)
                floor = Cell(mean, f"sd\u00a0{found.floor.sd:.2g}")
            column = Column(m.label, f"{found.nfe} calls", f"budget {budget}")
            shown.append(_Shown(column, partial(_distance, m, budget), floor))
    return shown


def _over_levels(metric: OfLevel, g: Group) -> Cell:
    return Cell(g.over_levels(metric.name, metric.radius))


def _distance(metric: OfSamples, budget: int, g: Group) -> Cell:
    found = g.distance(metric.name, budget)
    if found is None:
        return Cell(None)
    if metric.total:
        value, total = found.estimate.value, int(found.estimate.settings.get(metric.total, 0))
        return Cell(None, "", value == total, f"{value:g} of {total}")
    good = not distinguishable(found)
    if found.ratio is not None:
        ratio = number(found.ratio)
        error = f"\u00a0±\u00a0{ratio.error}" if ratio.exponent is None else ""
        value_text = ratio.value if ratio.exponent is None else f"{found.ratio.value:.2g}"
        return Cell(found.estimate, f"×\u00a0{value_text}{error}", good)
    if found.excess is None:
        return Cell(found.estimate)
    note = (
        ">\u00a0100\u00a0sd"
        if found.excess > _FAR
        else f"{round(found.excess, 1) + 0.0:+.1f}\u00a0sd".replace("-", "−")
    )
    return Cell(found.estimate, note, good)


def _cost(g: Group, base: Group, costs: Costs) -> Cell:
    if g.model != base.model:
        return Cell(costs.ratios.get(g.model))
    seconds = costs.seconds.get(g.model)
    if seconds is None:
        return Cell(None, text="1")
    ms = number(seconds.scaled(1e3))
    return Cell(None, f"{ms.value} ±\u00a0{ms.error}\u00a0ms", text="1")


def anchor(g: Group) -> str:
    """The name of the place on the page that shows how a model's numbers are made."""
    return "".join(c if c.isalnum() else "-" for c in f"how-{g.dataset}-{g.label}".lower())

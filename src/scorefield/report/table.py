"""The table: models down, what was measured across."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from scorefield.comparison.costs import Costs
from scorefield.comparison.groups import Group
from scorefield.estimate import Estimate
from scorefield.report.style import EXACT, Look
from scorefield.report.words import number, told_apart

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


_MORE = {
    "fokker_planck": Column(
        "field",
        "Fokker–Planck",
        "residual of the equation of the diffusion, in units of the noise, rms",
    ),
    "consistency": Column(
        "field",
        "consistency",
        "mean square distance from the mean over trajectories, in units of the noise, mean",
    ),
}
"""Diagnostics that not every evaluation has, by metric."""
_LAWS = {
    "total_variation": Column("total variation", "", "from the exact law, over a grid of cells"),
    "marginal_ks": Column("KS", "", "largest gap of distribution functions of one coordinate"),
}
"""Distances from a law that is known, by metric."""


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


def spans(columns: Sequence[Column]) -> list[Span]:
    """The groups of neighbouring columns."""
    return [Span(name, len(list(members))) for name, members in groupby(columns, lambda c: c.group)]


def table(
    members: Sequence[Group], exact: Group | None, look: dict[str, Look], costs: Costs
) -> Table:
    """The table of the models of a data set.

    Arguments:
        members: The models; the first is what costs are relative to.
        exact: The exact field, where it is known: one row more.
        look: The models' colours.
        costs: The time of a training step.
    """
    budgets = members[0].first.budgets
    calls = {b: d.nfe for b in budgets for d in members[0].first.distances if d.budget == b}
    modes = members[0].distance("mode_coverage", budgets[-1])
    columns = [Column("field", "validation loss", "denoising loss on held-out data, EDM weighting")]
    if members[0].profile("score_error"):
        columns.append(
            Column("field", "score error", "rms error of the predicted noise, over noise levels")
        )
    columns += [
        Column("field", "relative asymmetry", "|J − Jᵀ| / 2|J|, rms over noise levels"),
        Column("field", "circulation", "curl of the denoiser that loops of radius σ/2 see, rms"),
    ]
    more = {metric: c for metric, c in _MORE.items() if members[0].profile(metric)}
    columns += more.values()
    laws = {metric: c for metric, c in _LAWS.items() if members[0].distance(metric, budgets[-1])}
    for name in ("sliced Wasserstein", "MMD²"):
        columns += [Column(name, f"{calls[b]} calls", f"budget {b}") for b in budgets]
    columns += [Column(c.group, f"{calls[budgets[-1]]} calls", c.meaning) for c in laws.values()]
    if modes is not None:
        columns.append(Column("modes", f"{calls[budgets[-1]]} calls", "covered, of all"))
    columns.append(Column("cost", "time per step", f"in multiples of {members[0].label}'s"))

    def cells(g: Group) -> list[Cell]:
        row = [Cell(g.validation)]
        if members[0].profile("score_error"):
            row.append(Cell(g.over_levels("score_error")))
        row.append(Cell(g.over_levels("relative_asymmetry")))
        row.append(Cell(g.over_levels("loop_circulation", 0.5)))
        row += [Cell(g.over_levels(metric)) for metric in more]
        row += [_distance(g, "sliced_wasserstein", b) for b in budgets]
        row += [_distance(g, "mmd", b) for b in budgets]
        row += [_distance(g, metric, budgets[-1]) for metric in laws]
        if modes is not None:
            row.append(_coverage(g, budgets[-1]))
        row.append(_cost(g, members[0], costs))
        return row

    rows = [Row(g.label, look[g.label].colour, anchor(g), cells(g)) for g in members]
    if exact is not None:
        rows.append(Row("exact field", EXACT.colour, "", cells(exact)))
    return Table(columns, rows, _floor_row(members[0], columns, tuple(laws)))


def _distance(g: Group, metric: str, budget: int) -> Cell:
    found = g.distance(metric, budget)
    if found is None:
        return Cell(None)
    good = not told_apart(found)
    if found.ratio is not None:
        ratio = number(found.ratio)
        error = f"\u00a0±\u00a0{ratio.error}" if ratio.exponent is None else ""
        value = ratio.value if ratio.exponent is None else f"{found.ratio.value:.2g}"
        return Cell(found.estimate, f"×\u00a0{value}{error}", good)
    if found.excess is None:
        return Cell(found.estimate)
    note = (
        ">\u00a0100\u00a0sd"
        if found.excess > _FAR
        else f"{round(found.excess, 1) + 0.0:+.1f}\u00a0sd".replace("-", "−")
    )
    return Cell(found.estimate, note, good)


def _coverage(g: Group, budget: int) -> Cell:
    covered, weights = g.distance("mode_coverage", budget), g.distance("mode_weight_tv", budget)
    if covered is None:
        return Cell(None)
    total = int(covered.estimate.settings.get("modes", 0))
    note = ""
    if weights is not None:
        tv = number(weights.estimate)
        note = f"TV\u00a0{tv.value} ±\u00a0{tv.error}"
    value = f"{covered.estimate.value:g} of {total}"
    return Cell(None, note, covered.estimate.value == total, value)


def _cost(g: Group, base: Group, costs: Costs) -> Cell:
    if g.model != base.model:
        return Cell(costs.ratios.get(g.model))
    seconds = costs.seconds.get(g.model)
    if seconds is None:
        return Cell(None, text="1")
    ms = number(seconds.scaled(1e3))
    return Cell(None, f"{ms.value} ±\u00a0{ms.error}\u00a0ms", text="1")


def _floor_row(g: Group, columns: Sequence[Column], laws: Sequence[str]) -> list[Cell]:
    """The row of the noise floor: a cell a column, empty where there is none."""
    budgets = g.first.budgets
    row = [Cell(None) for c in columns if c.group == "field"]
    places = [(metric, b) for metric in ("sliced_wasserstein", "mmd") for b in budgets]
    for metric, budget in (*places, *((metric, budgets[-1]) for metric in laws)):
        found = g.distance(metric, budget)
        if found is None or found.floor is None:
            row.append(Cell(None))
            continue
        floor = found.floor
        mean = Estimate(floor.mean, floor.mean_error, floor.pairs)
        row.append(Cell(mean, f"sd\u00a0{floor.sd:.2g}"))
    return [*row, *([Cell(None)] * (len(columns) - len(row)))]


def anchor(g: Group) -> str:
    """The name of the place on the page that tells how a model's numbers are made."""
    return "".join(c if c.isalnum() else "-" for c in f"how-{g.dataset}-{g.label}".lower())

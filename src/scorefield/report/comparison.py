"""The comparison over seeds, in tables of the page: differences, targets, equal training time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scorefield.comparison.groups import RMS, Group
from scorefield.comparison.matched import Selection
from scorefield.comparison.paired import Pair
from scorefield.comparison.tables import Comparison
from scorefield.comparison.to_target import mean_calls
from scorefield.evaluation.catalogue import CATALOGUE, TARGET, find
from scorefield.evaluation.catalogue.metric import OfLevel, OfSamples
from scorefield.evaluation.protocol import PLAIN
from scorefield.report.table import Cell, Column, Span, spans

_SHOWN = [m for m in CATALOGUE if "differences" in m.shown]
_TRAINING = [m for m in CATALOGUE if "training" in m.shown]


class PlainRow(NamedTuple):
    """A row: a model or a metric, and its cells."""

    label: str
    cells: list[Cell]


class PlainTable(NamedTuple):
    """A table of the page, with what it shows above and what one must know below."""

    heading: str
    columns: list[Column]
    rows: list[PlainRow]
    note: str
    corner: str = "model"

    @property
    def spans(self) -> list[Span]:
        """The groups of columns, in order."""
        return spans(self.columns)


def tables(comparison: Comparison) -> list[PlainTable]:
    """The tables of a data set; those that would be empty are left out."""
    found = [
        differences_table(comparison),
        targets_table(comparison),
        matched_table(comparison),
        matched_differences_table(comparison),
    ]
    return [table for table in found if table is not None]


def differences_table(comparison: Comparison) -> PlainTable | None:
    """Each model's differences from the first, over common seeds."""
    shown = [p for p in comparison.pairs if _in_table(p, comparison.members[0])]
    if not shown:
        return None
    places = sorted(dict.fromkeys(map(_column, shown)), key=_order_of)
    base, others = comparison.members[0].label, comparison.members[1:]
    outside = sum(p.excludes_zero for p in shown)
    return PlainTable(
        f"Differences from {base}, seed by seed",
        [Column("", g.label, f"{g.label} minus {base}") for g in others],
        [
            PlainRow(
                f"{place.group}, {place.heading}" if place.heading else place.group,
                [_difference(shown, g, place) for g in others],
            )
            for place in places
        ],
        f"The mean over common seeds of the model's number minus {base}'s, with its 95 % interval "
        "by Student's law; bold where the interval leaves zero out. Less is better everywhere. "
        f"Diagnostics are root mean squares over the noise levels. Of {len(shown)} intervals "
        f"{outside} leave zero out; were all models equal, one in twenty would by chance.",
        "minus " + base,
    )


def targets_table(comparison: Comparison) -> PlainTable | None:
    """The network calls that each model needs to come within multiples of the noise floor."""
    if not comparison.reached:
        return None
    targets = list(dict.fromkeys(r.target for r in comparison.reached))
    rows = []
    for g in comparison.members:
        cells = []
        for target in targets:
            runs = [
                r
                for r in comparison.reached
                if r.evaluation.model == g.model and r.target == target
            ]
            reaching = [r for r in runs if r.distance is not None]
            certain = sum(r.beyond_doubt for r in runs)
            calls = mean_calls(runs)
            note = f"{len(reaching)} of {len(runs)} seeds, {certain} beyond doubt"
            if calls is None:
                cells.append(Cell(None, note, text="not reached" if not reaching else "not all"))
            elif calls.exact or calls.standard_error == 0:
                cells.append(Cell(None, note, text=f"{calls.value:g}"))
            else:
                cells.append(Cell(calls, note))
        rows.append(PlainRow(g.label, cells))
    columns = [
        Column("", f"{t:g} × floor", f"{t:g} times the distance between two real sets")
        for t in targets
    ]
    first = comparison.members[0]
    ladder = [first.distance(TARGET.name, budget) for budget in first.first.budgets]
    budgets = ", ".join(str(d.nfe) for d in ladder if d is not None)
    return PlainTable(
        "Network calls to a target",
        columns,
        rows,
        f"The fewest network calls at which the {TARGET.label} distance is at most so many "
        f"times the noise floor, of those that were measured ({budgets}); beyond doubt where the "
        "upper end of the 95 % interval is below the target too. A mean is over all seeds, and "
        "given only where all of them reach the target.",
    )


def matched_table(comparison: Comparison) -> PlainTable | None:
    """The quality of each model at equal training time."""
    selections = comparison.selections
    if not any(s.milestones for s in selections):
        return None
    fractions = list(dict.fromkeys(s.fraction for s in selections))
    columns = []
    for f in fractions:
        name = "the whole budget" if f == 1 else f"{f:g} of the budget"
        columns += [
            Column(name, "steps", "the newest checkpoint within the budget, mean over seeds"),
            *(Column(name, m.label, m.caption) for m in _TRAINING),
        ]
    rows = []
    for g in comparison.members:
        cells: list[Cell] = []
        for f in fractions:
            (s,) = [s for s in selections if s.group.model == g.model and s.fraction == f]
            cells += _matched_cells(s)
        rows.append(PlainRow(g.label, cells))
    budget = next((s.budget / s.fraction for s in selections if s.budget is not None), 0.0)
    calls = max((d.nfe for s in selections for d in s.distances()), default=0)
    return PlainTable(
        "At equal training time",
        columns,
        rows,
        f"The budget is the {budget:.0f} s that the cheapest training takes, steps only, and "
        "fractions of it. Each model is evaluated as it was at its newest checkpoint within the "
        f"budget, at {calls} network calls; below the steps stands the share of the budget that "
        "this checkpoint used. A checkpoint in the middle of a training has a learning rate that "
        "has not decayed yet, the last one of the cheapest model has: what is dearer is at a "
        "disadvantage here that a training planned for the budget would not have. "
        f"{comparison.timing.told}",
    )


def matched_differences_table(comparison: Comparison) -> PlainTable | None:
    """Each model's differences from the first at equal training time."""
    wanted = {m.name: m.label for m in _TRAINING}
    shown = [p for p in comparison.matched_pairs if p.key.metric_name in wanted]
    if not shown:
        return None
    fractions = dict.fromkeys(p.budget_fraction for p in shown if p.budget_fraction is not None)
    places = [(metric, f) for metric in wanted for f in fractions]
    columns = [
        Column(
            wanted[metric],
            "the whole budget" if f == 1 else f"{f:g} of it",
            "difference at equal training time",
        )
        for metric, f in places
    ]
    rows = []
    for g in comparison.members[1:]:
        own = {(p.key.metric_name, p.budget_fraction): p for p in shown if p.model.model == g.model}
        rows.append(PlainRow(g.label, [_pair_cell(own.get(place)) for place in places]))
    return PlainTable(
        f"Differences from {comparison.members[0].label} at equal training time",
        columns,
        rows,
        "As above, between the checkpoints of the table before; an empty cell where the times "
        "behind the two checkpoints differ by more than a tenth.",
    )


def _in_table(p: Pair, base: Group) -> bool:
    """Whether a difference has a place: over all levels, or at the smallest or largest budget; of
    what is taken on several features, on a learned one.
    """
    k, metric = p.key, find(p.key.metric_name)
    if metric not in _SHOWN:
        return False
    if isinstance(metric, OfLevel):
        return k.sigma_bin == RMS and k.scale_delta in (None, metric.radius)
    if isinstance(metric, OfSamples) and metric.learned and k.features in PLAIN:
        return False
    return k.nfe_budget in (None, base.first.budgets[0], base.first.budgets[-1])


def _column(p: Pair) -> Column:
    k, metric = p.key, find(p.key.metric_name)
    assert metric is not None  # it is in the table
    if k.nfe is not None:
        on = f" on {k.features}" if isinstance(metric, OfSamples) and metric.learned else ""
        return Column(metric.label, f"{k.nfe} calls{on}", f"budget {k.nfe_budget}")
    scale = f"radius {k.scale_delta:g} σ" if k.scale_delta is not None else ""
    length = f"{k.cycle_len} edges" if k.cycle_len is not None else ""
    return Column(metric.label, scale or length, p.difference.unit)


def _order_of(column: Column) -> int:
    return [m.label for m in _SHOWN].index(column.group)


def _difference(shown: Sequence[Pair], g: Group, column: Column) -> Cell:
    found = (p for p in shown if p.model.model == g.model and _column(p) == column)
    return _pair_cell(next(found, None))


def _pair_cell(p: Pair | None) -> Cell:
    if p is None:
        return Cell(None)
    low, high = p.difference.interval()
    value, low_text, high_text = signed(p.difference.value, low, high)
    return Cell(None, f"{low_text} to {high_text}", text=value, strong=p.excludes_zero)


def signed(value: float, low: float, high: float) -> tuple[str, str, str]:
    """A difference and its interval, to three digits of the interval's half-width."""
    width = max((high - low) / 2, abs(value) * 1e-3, 1e-300)
    texts = []
    for v in (value, low, high):
        if 1e-3 <= width < 1e4:
            digits = max(0, 2 - _order(width))
            text = f"{v:+.{digits}f}"
        else:
            text = f"{v:+.1e}".replace("e-0", "e-").replace("e+0", "e+")
        texts.append(text.replace("-", "−"))
    return texts[0], texts[1], texts[2]


def _order(x: float) -> int:
    """The power of ten of a positive number."""
    return int(f"{x:.0e}".partition("e")[2])


def _matched_cells(s: Selection) -> list[Cell]:
    if s.steps is None or s.used is None:
        why = "none so early" if s.budget is not None else "not known"
        return [Cell(None, text=why), *(Cell(None) for _ in _TRAINING)]
    cells = [Cell(None, f"{100 * s.used:.0f}\u00a0%", text=f"{s.steps:g}")]
    found = {d.metric: d for d in s.distances()}
    for metric in _TRAINING:
        d = found[metric.name]
        cells.append(Cell(d.estimate, "" if d.ratio is None else f"×\u00a0{d.ratio.value:.2f}"))
    return cells

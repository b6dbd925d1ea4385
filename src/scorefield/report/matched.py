"""Tables of the models at equal cost of training: equal time, images, multiply-adds and calls."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.comparison.matched import Selection
from scorefield.comparison.resources import RESOURCES, TIME, Resource
from scorefield.comparison.tables import Comparison
from scorefield.evaluation.catalogue import CATALOGUE
from scorefield.report.tables import Cell, Column, Row, Table, pair_cell

_TRAINING = [m for m in CATALOGUE if "training" in m.shown]


def matched_tables(comparison: Comparison) -> list[Table]:
    """The models at equal cost, and their differences, for each resource in turn; what would be
    empty is left out, and what all tables have in common stands below the first.
    """
    found: list[Table] = []
    for resource in RESOURCES:
        selections = [s for s in comparison.selections if s.resource is resource]
        if any(s.milestones for s in selections):
            note = _method(selections) if not found else f"Otherwise as {_lower(found[0].heading)}."
            found.append(_quality(comparison, selections, resource, note))
            differences = _differences(comparison, resource)
            found += [] if differences is None else [differences]
    return found


def _quality(
    comparison: Comparison, selections: Sequence[Selection], resource: Resource, note: str
) -> Table:
    """The quality of each model within a budget of a resource and within fractions of it."""
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
            cells += _cells(s)
        rows.append(Row(g.label, cells))
    budget = next(s.budget / s.fraction for s in selections if s.budget is not None)
    steps, how = (", steps only,", comparison.costs.summary) if resource is TIME else ("", "")
    return Table(
        columns,
        rows,
        f"At equal {resource.heading}",
        f"The budget is the {_amount(budget, resource.unit)} that the cheapest training takes"
        f"{steps} and fractions of it. {note} {how}".strip(),
    )


def _method(selections: Sequence[Selection]) -> str:
    """How checkpoints are chosen and measured, and what is unfair in it."""
    calls = max((d.nfe for s in selections for d in s.distances()), default=0)
    return (
        "Each model is evaluated as it was at its newest checkpoint within the "
        f"budget, at {calls} network calls; below the steps is the share of the budget that "
        "this checkpoint used. The learning rate of a checkpoint in the middle of a training has "
        "not decayed yet, that of the cheapest model's last checkpoint has: this puts more "
        "expensive models at a disadvantage that a training planned for the budget would not have."
    )


def _differences(comparison: Comparison, resource: Resource) -> Table | None:
    """Each model's differences from the first at an equal amount of a resource."""
    wanted = {m.name: m.label for m in _TRAINING}
    pairs = (p for p in comparison.matched_pairs if p.matched_by == resource.name)
    shown = [p for p in pairs if p.key.metric_name in wanted]
    if not shown:
        return None
    fractions = dict.fromkeys(p.budget_fraction for p in shown)
    places = [(metric, f) for metric in wanted for f in fractions]
    columns = [
        Column(
            wanted[metric],
            "the whole budget" if f == 1 else f"{f:g} of it",
            f"difference at equal {resource.heading}",
        )
        for metric, f in places
    ]
    rows = []
    for g in comparison.members[1:]:
        own = {(p.key.metric_name, p.budget_fraction): p for p in shown if p.model.model == g.model}
        rows.append(Row(g.label, [pair_cell(own.get(place)) for place in places]))
    return Table(
        columns,
        rows,
        f"Differences from {comparison.members[0].label} at equal {resource.heading}",
        "Seed by seed, between the checkpoints of the previous table; a cell is empty where the "
        f"{resource.heading} of the two checkpoints differ by more than a tenth.",
    )


def _cells(s: Selection) -> list[Cell]:
    """The steps of a checkpoint, and what was measured there."""
    if s.steps is None or s.used is None:
        why = "none so early" if s.budget is not None else "not known"
        return [Cell(None, text=why), *(Cell(None) for _ in _TRAINING)]
    cells = [Cell(None, f"{100 * s.used:.0f}\u00a0%", text=f"{s.steps:g}")]
    found = {d.metric: d for d in s.distances()}
    for metric in _TRAINING:
        d = found.get(metric.name)
        note = "" if d is None or d.ratio is None else f"×\u00a0{d.ratio.value:.2f}"
        cells.append(Cell(None if d is None else d.estimate, note))
    return cells


def _amount(budget: float, unit: str) -> str:
    """A budget with its unit, in thousands of millions where it is that many."""
    scaled, prefix = (budget, "") if budget < 1e9 else (budget / 1e9, "G ")
    return f"{scaled:,.0f} {prefix}{unit}" if scaled >= 100 else f"{scaled:.3g} {prefix}{unit}"


def _lower(heading: str) -> str:
    return heading[:1].lower() + heading[1:]

"""The table of costs: parameters, training and sampling."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.comparison.groups import Group
from scorefield.comparison.timing import Costs
from scorefield.evaluation.catalogue import TARGET
from scorefield.report.tables import Cell, Column, Row, Table, anchor


def cost_table(members: Sequence[Group], costs: Costs) -> Table:
    """What each model costs: to store, to train and to sample."""
    base = members[0]
    ladder = [d for b in base.first.budgets if (d := base.distance(TARGET.name, b)) is not None]
    n = base.first.protocol["samples"]
    columns = [
        Column("training", "parameters", "the number of weights"),
        Column("training", "ms per step", "the time of a training step"),
        Column("training", f"steps of {base.label}", f"in multiples of {base.label}'s step"),
        Column("training", "s in all", "the time of all steps"),
        *(Column(f"s to draw {n} samples", f"{d.nfe} calls", "wall time") for d in ladder),
    ]
    rows = []
    for g in members:
        step, whole = costs.seconds.get(g.model), costs.training(g)
        drawn = [g.distance(TARGET.name, d.budget) for d in ladder]
        cells = [
            Cell(None, text=f"{g.first.compute['parameters']:,}"),
            Cell(None if step is None else step.scaled(1e3, "ms")),
            Cell(None, text="1") if g is base else Cell(costs.ratios.get(g.model)),
            Cell(whole),
            *(Cell(None if d is None else d.latency) for d in drawn),
        ]
        rows.append(Row(g.label, cells, anchor=anchor(g)))
    return Table(columns, rows, "", costs.summary)

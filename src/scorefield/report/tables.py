"""Tables of the page: what was measured of each model, and how the models compare."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import NamedTuple

from scorefield.comparison.groups import RMS, Group, over_seeds
from scorefield.comparison.paired import Pair
from scorefield.comparison.tables import Comparison
from scorefield.comparison.timing import Costs
from scorefield.comparison.to_target import calls
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import (
    CATALOGUE,
    OF_IMAGES,
    OF_LEVELS,
    OF_SAMPLES,
    TARGET,
    VALIDATION,
    find,
)
from scorefield.evaluation.catalogue.metric import Metric, OfLevel, OfSamples
from scorefield.evaluation.protocol import PLAIN
from scorefield.report.words import distinguishable, number, slug


class Cell(NamedTuple):
    """A cell: a number or text with a note; ``good`` like real sets, ``strong`` standing out."""

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


class Row(NamedTuple):
    """A row: a model or a metric and its cells, one a column."""

    label: str
    cells: list[Cell]
    anchor: str = ""


class Table(NamedTuple):
    """A table of the page, with what it shows above and what one must know below."""

    columns: list[Column]
    rows: list[Row]
    heading: str = ""
    note: str = ""
    corner: str = "model"

    @property
    def spans(self) -> list[tuple[str, int]]:
        """The groups of neighbouring columns, and how many each has."""
        return [(name, len([*g])) for name, g in groupby(self.columns, lambda c: c.group)]


class _Shown(NamedTuple):
    """A column with the cell that it makes of a model, and that of the noise floor."""

    column: Column
    cell: Callable[[Group], Cell]
    floor: Cell = Cell(None)


def table(members: list[Group], exact: Group | None, costs: Costs) -> Table:
    """The table of the models of a data set: every metric that the catalogue shows in it."""
    shown = [*_of_fields(members[0]), *_of_samples(members[0])]
    cost = Column("cost", "time per step", f"in multiples of {members[0].label}'s")
    shown.append(_Shown(cost, lambda g: _cost(g, members[0], costs)))
    rows = [Row(g.label, [s.cell(g) for s in shown], anchor(g)) for g in members]
    if exact is not None:
        rows.append(Row("exact field", [s.cell(exact) for s in shown]))
    rows.append(Row("noise floor", [s.floor for s in shown]))
    return Table([s.column for s in shown], rows)


def _of_fields(base: Group) -> list[_Shown]:
    """The validation loss, and the metrics over all noise levels that the first model has."""
    loss = Column("field", VALIDATION.label, VALIDATION.caption)
    shown = [_Shown(loss, lambda g: Cell(g.validation))]
    for m in OF_LEVELS:
        if "table" in m.shown and base.profile(m.name, m.radius):
            column = Column("field", m.label, f"{m.caption} Over all noise levels.")
            shown.append(_Shown(column, partial(_over_levels, m)))
    return shown


def _over_levels(metric: OfLevel, g: Group) -> Cell:
    return Cell(g.over_levels(metric.name, metric.radius))


def _of_samples(base: Group) -> list[_Shown]:
    """The distances of the first model: some at every budget, others at the largest."""
    budgets = base.first.budgets
    shown = []
    for m in (*OF_SAMPLES, *OF_IMAGES):
        for budget in budgets if isinstance(m, OfSamples) and m.every_budget else budgets[-1:]:
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


def _distance(metric: Metric, budget: int, g: Group) -> Cell:
    found = g.distance(metric.name, budget)
    if found is None:
        return Cell(None)
    if isinstance(metric, OfSamples) and metric.total:
        value, total = found.estimate.value, int(found.estimate.settings.get(metric.total, 0))
        return Cell(None, "", value == total, f"{value:g} of {total}")
    if found.ratio is not None:
        ratio = number(found.ratio)
        note = f"×\u00a0{ratio.value}\u00a0±\u00a0{ratio.error}"
        if ratio.exponent is not None:
            note = f"×\u00a0{found.ratio.value:.2g}"
    elif found.excess is None:
        return Cell(found.estimate)
    elif found.excess > 100:
        note = ">\u00a0100\u00a0sd"
    else:
        note = f"{round(found.excess, 1) + 0.0:+.1f}\u00a0sd".replace("-", "−")
    return Cell(found.estimate, note, not distinguishable(found))


def _cost(g: Group, base: Group, costs: Costs) -> Cell:
    if g.model != base.model:
        return Cell(costs.ratios.get(g.model))
    seconds = costs.seconds.get(g.model)
    ms = None if seconds is None else number(seconds.scaled(1e3))
    return Cell(None, f"{ms.value} ±\u00a0{ms.error}\u00a0ms" if ms else "", text="1")


def anchor(g: Group) -> str:
    """The name of the place on the page that shows how a model's numbers are made."""
    return slug(f"how-{g.dataset}-{g.label}")


_SHOWN = [m for m in CATALOGUE if "differences" in m.shown]


def tables(comparison: Comparison) -> list[Table]:
    """The tables of a data set; those that would be empty are left out."""
    kinds = (_differences, _targets)
    return [table for kind in kinds if (table := kind(comparison)) is not None]


def _differences(comparison: Comparison) -> Table | None:
    """Each model's differences from the first, over common seeds."""
    shown = [p for p in comparison.pairs if _in_table(p, comparison.members[0])]
    if not shown:
        return None
    order = [m.label for m in _SHOWN]
    places = sorted(dict.fromkeys(map(_column, shown)), key=lambda c: order.index(c.group))
    found = {(p.model.label, _column(p)): p for p in reversed(shown)}
    base, others = comparison.members[0].label, comparison.members[1:]
    outside = sum(p.excludes_zero for p in shown)
    return Table(
        [Column("", g.label, f"{g.label} minus {base}") for g in others],
        [
            Row(
                f"{place.group}, {place.heading}" if place.heading else place.group,
                [pair_cell(found.get((g.label, place))) for g in others],
            )
            for place in places
        ],
        f"Differences from {base}, seed by seed",
        f"The mean over common seeds of the model's number minus {base}'s, with its 95 % interval "
        "by Student's distribution; bold where it excludes zero. Less is better everywhere. "
        f"Diagnostics are root mean squares over the noise levels. Of {len(shown)} intervals "
        f"{outside} exclude zero; if all models were equal, one in twenty would by chance.",
        "minus " + base,
    )


_OVER_SEEDS = " A mean is over all seeds, and given only where all of them reach the target."


def _targets(comparison: Comparison) -> Table | None:
    """The network calls that each model needs to come within multiples of the noise floor."""
    if not comparison.reached:
        return None
    every = {(runs[0].evaluation.model, runs[0].target): runs for runs in comparison.reached}
    targets = list(dict.fromkeys(target for _, target in every))
    rows = []
    for g in comparison.members:
        cells = []
        for target in targets:
            runs = every.get((g.model, target), [])
            reaching = sum(r.distance is not None for r in runs)
            certain = sum(r.beyond_doubt for r in runs)
            note = f"{reaching} of {len(runs)} seeds, {certain} beyond doubt"
            if len(runs) == 1:
                note = "beyond doubt" if certain else ""
            found = calls(runs)
            mean = over_seeds(found) if found else None
            if mean is None:
                cells.append(Cell(None, note, text="not all" if reaching else "not reached"))
            elif mean.standard_error == 0:
                cells.append(Cell(None, note, text=f"{mean.value:g}"))
            else:
                cells.append(Cell(mean, note))
        rows.append(Row(g.label, cells))
    means = "times the distance between two real sets"
    columns = [Column("", f"{t:g} × floor", f"{t:g} {means}") for t in targets]
    first = comparison.members[0]
    ladder = [first.distance(TARGET.name, budget) for budget in first.first.budgets]
    budgets = ", ".join(str(d.nfe) for d in ladder if d is not None)
    return Table(
        columns,
        rows,
        "Network calls to a target",
        f"The smallest of the measured numbers of network calls ({budgets}) at which the "
        f"{TARGET.label} distance is at most the given multiple of the noise floor; beyond doubt "
        "where the upper end of the 95 % interval is below the target too."
        + (_OVER_SEEDS if any(len(runs) > 1 for runs in every.values()) else ""),
    )


def _in_table(p: Pair, base: Group) -> bool:
    """Whether a difference has a place: over all levels, or at the smallest or largest budget."""
    k, metric = p.key, find(p.key.metric_name)
    if metric not in _SHOWN:
        return False
    if isinstance(metric, OfLevel):
        return k.sigma_bin == RMS and k.scale_delta in (None, metric.radius)
    if isinstance(metric, OfSamples) and metric.learned and k.features in PLAIN:
        return False
    if k.sampler not in ("", base.first.protocol["sampler"]):
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


def pair_cell(p: Pair | None) -> Cell:
    """A difference and its interval, to three digits of the interval's half-width."""
    if p is None:
        return Cell(None)
    value, (low, high) = p.difference.value, p.difference.interval()
    if value == low == high == 0:
        return Cell(None, "0 to 0", text="0")
    width = max((high - low) / 2, abs(value) * 1e-3, 1e-300)
    digits = max(0, 2 - int(f"{width:.0e}".partition("e")[2]))
    form = f"+.{digits}f" if 1e-3 <= width < 1e4 else "+.1e"
    texts = [format(v, form) for v in (value, low, high)]
    text, *ends = [t.replace("e-0", "e-").replace("e+0", "e+").replace("-", "−") for t in texts]
    return Cell(None, " to ".join(ends), text=text, strong=p.excludes_zero)

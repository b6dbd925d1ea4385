"""Runs into tables: what was measured, over seeds.

Every mean comes with its standard deviation over seeds (empty for one seed), its standard error and
its 95 % interval; ``error_from`` says whether that is of the scatter over seeds, or of one seed's
samples and points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from scorefield.comparison.groups import (
    Group,
    Key,
    by_dataset,
    common,
    distance_key,
    groups,
    level_key,
    over_seeds,
    spread,
)
from scorefield.comparison.matched import (
    BUDGET_COLUMNS,
    MATCHED_COLUMNS,
    Selection,
    budget_records,
    matched_pairs,
    matched_records,
    select,
)
from scorefield.comparison.paired import PAIR_COLUMNS, Pair, pairs
from scorefield.comparison.timing import Costs, read_costs
from scorefield.comparison.to_target import (
    SUMMARY_COLUMNS,
    TARGET_COLUMNS,
    TARGETS,
    Reached,
    reached,
)
from scorefield.errors import RunError
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue import VALIDATION
from scorefield.evaluation.columns import Schema, attributes, derived
from scorefield.evaluation.records import DISTANCES, Distance, Evaluation
from scorefield.runs.cells import csv_text, settings_text


@dataclass(frozen=True)
class Comparison:
    """The models of one data set, and all that is compared between the first and the others."""

    members: list[Group]
    costs: Costs
    reached: list[list[Reached]]
    selections: list[Selection]
    pairs: list[Pair]
    matched_pairs: list[Pair]


def compare_models(
    evaluations: Sequence[Evaluation], root: Path, targets: Sequence[float] = TARGETS
) -> list[Comparison]:
    """The models of each data set, compared."""
    comparisons = []
    for dataset, members in by_dataset(groups(evaluations)).items():
        costs = read_costs(root / dataset, members)
        chosen, found = select(members, costs), reached(members, targets)
        both = pairs(members), matched_pairs(chosen)
        comparisons.append(Comparison(members, costs, found, chosen, *both))
    return comparisons


class Measured(NamedTuple):
    """A number of a model: what it is of, its values one a seed, and the distance that it is."""

    group: Group
    key: Key
    estimates: list[Estimate]
    distance: Distance | None = None

    @property
    def estimate(self) -> Estimate:
        """The number over seeds."""
        return over_seeds(self.estimates)


_WHO = (
    derived("dataset", get=lambda m: m.group.dataset),
    derived("model_id", get=lambda m: m.group.model),
)
_VALUE = (
    spread("value", lambda m: m.estimates),
    *attributes("numerical_error", "unit", of="estimate"),
)
_SEEDS = derived(
    "num_seeds",
    "error_from",
    get=lambda m: (len(m.group.seeds), "seeds" if len(m.group.seeds) > 1 else "samples"),
)
_OF_DISTANCE = [
    name
    for name in DISTANCES.names[DISTANCES.names.index("latency_sec") :]
    if name not in ("latency_n", "floor_mean_error", "floor_pairs")
]
QUALITY_COLUMNS = Schema(
    *_WHO,
    *attributes("sampler", "nfe_budget", "nfe", "metric_name", "features", of="key"),
    *_VALUE,
    _SEEDS,
    derived(*_OF_DISTANCE, get=lambda m: [DISTANCES.row(m.distance)[c] for c in _OF_DISTANCE]),
)
"""The table of distances: a row a model, budget and distance; the validation loss has no budget."""
INTEGRABILITY_COLUMNS = Schema(
    *_WHO,
    *attributes("sigma_bin", "sigma", "metric_name", "scale_delta", "cycle_len", of="key"),
    *_VALUE,
    derived("num_points", get=lambda m: min(e.n for e in m.estimates)),
    _SEEDS,
    derived("settings", get=lambda m: settings_text(m.estimates[0].settings)),
)
"""The table of diagnostics: a row a model, diagnostic and noise level; ``num_points`` are the
points of one evaluation that the number is a mean over.
"""


def qualities(members: Sequence[Group]) -> Iterator[Measured]:
    """The distances of the models, and their validation losses."""
    for g in members:
        loss = Distance("", 0, 0, VALIDATION.name, "", g.validation)
        yield Measured(g, distance_key(loss), [e.validation for e in g.members], loss)
        found = [{distance_key(d): d for d in e.distances} for e in g.members]
        for alike in common(found):
            one = alike[0]
            whole = g.distance(one.metric, one.budget, one.features, one.sampler)
            yield Measured(g, distance_key(alike[0]), [d.estimate for d in alike], whole)


def diagnostics(members: Sequence[Group]) -> Iterator[Measured]:
    """The diagnostics of the models at each noise level."""
    for g in members:
        sigmas = sorted({v.sigma for e in g.members for v in e.levels})
        found = [{level_key(v, sigmas): v for v in e.levels} for e in g.members]
        for alike in common(found):
            yield Measured(g, level_key(alike[0], sigmas), [v.estimate for v in alike])


TABLES: dict[str, tuple[Schema, Callable[[Comparison], Iterable[Any]]]] = {
    "fid_summary.csv": (QUALITY_COLUMNS, lambda c: qualities(c.members)),
    "integrability_summary.csv": (INTEGRABILITY_COLUMNS, lambda c: diagnostics(c.members)),
    "steps_to_target_fid.csv": (TARGET_COLUMNS, lambda c: chain.from_iterable(c.reached)),
    "steps_to_target_fid_summary.csv": (SUMMARY_COLUMNS, lambda c: c.reached),
    "compute_budget_by_dataset.csv": (
        BUDGET_COLUMNS,
        lambda c: budget_records(c.members, c.costs),
    ),
    "compute_matched_fid.csv": (MATCHED_COLUMNS, lambda c: matched_records(c.selections)),
    "paired_differences.csv": (PAIR_COLUMNS, lambda c: [*c.pairs, *c.matched_pairs]),
}
"""The tables of a benchmark, by file: their columns, and the records of one data set."""


def table_rows(comparisons: Sequence[Comparison]) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table, by the name of its file."""
    return {
        file: [columns.row(record) for c in comparisons for record in records(c)]
        for file, (columns, records) in TABLES.items()
    }


def table_files(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """The content of every table, by the name of its file."""
    rows = table_rows(comparisons)
    return {file: csv_text(some, TABLES[file][0].names) for file, some in rows.items()}


def refuse(comparisons: Sequence[Comparison]) -> None:
    """Refuses numbers without an interval, and models that are not measured alike."""
    for comparison in comparisons:
        for g in comparison.members:
            for flaw in _flaws(g, comparison):
                raise RunError(flaw)


def _flaws(g: Group, comparison: Comparison) -> Iterator[str]:
    """What is wrong with a model's seeds or times."""
    name, base = f"{g.dataset}/{g.model}", comparison.members[0]
    if len(g.seeds) < 2:
        yield (
            f"{name} has the single seed {g.seeds[0]}, and what varies between trainings has no "
            "interval: train and evaluate a second seed, or report without --strict"
        )
    if g.seeds != base.seeds:
        yield (
            f"{name} has the seeds {_list(g.seeds)} and {base.model} the seeds "
            f"{_list(base.seeds)}: differences are taken over the same seeds, train and evaluate "
            "those that are missing"
        )
    steps = {e.step for e in g.members}
    if len(steps) > 1:
        yield (
            f"the seeds of {name} were evaluated after different numbers of steps, {_list(steps)}: "
            "finish the trainings and evaluate them again"
        )
    if g.model not in comparison.costs.seconds:
        yield (
            f"the time of a training step of {name} has no error: sweep the models of the data set "
            "together with --eval, which times them side by side"
        )
    for e in g.members:
        for d in e.distances:
            if d.latency is None:
                yield (
                    f"{e.folder}: the time of sampling at {d.nfe} network calls has no error, "
                    "since it takes too few steps: leave that budget out"
                )


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))

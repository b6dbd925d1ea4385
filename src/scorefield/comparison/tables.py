"""Runs into tables: what was measured, over seeds.

The six tables of a benchmark, and the differences between its models. Every mean comes with its
standard deviation over seeds (empty for one seed), its standard error and its 95 % interval; the
column ``error_from`` says whether the error is that of the scatter over seeds, which are all judged
on the same samples and points, or, of a single seed, that of the one evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorefield.comparison import paired, to_target
from scorefield.comparison.costs import Costs, read_costs
from scorefield.comparison.groups import (
    Group,
    Key,
    by_dataset,
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
    budget_rows,
    matched_pairs,
    matched_rows,
    select,
)
from scorefield.comparison.paired import Pair, pairs
from scorefield.comparison.to_target import TARGETS, Reached, reached
from scorefield.evaluation.catalogue import VALIDATION
from scorefield.evaluation.records import DISTANCES, Distance, Evaluation
from scorefield.files import write_file
from scorefield.runs.cells import csv_text, settings_text

QUALITY_TABLE = "fid_summary.csv"
INTEGRABILITY_TABLE = "integrability_summary.csv"
TARGET_TABLE = "steps_to_target_fid.csv"
TARGET_SUMMARY_TABLE = "steps_to_target_fid_summary.csv"
BUDGET_TABLE = "compute_budget_by_dataset.csv"
MATCHED_TABLE = "compute_matched_fid.csv"
PAIRED_TABLE = "paired_differences.csv"

_QUALITY_COLUMNS = (
    "dataset",
    "model_id",
    "sampler",
    "nfe_budget",
    "nfe",
    "metric_name",
    "features",
    "value_mean",
    "value_std",
    "value_standard_error",
    "value_low",
    "value_high",
    "numerical_error",
    "unit",
    "num_seeds",
    "error_from",
    "latency_sec",
    "latency_standard_error",
    "floor_mean",
    "floor_sd",
    "ratio_to_floor",
    "ratio_standard_error",
    "excess_in_floor_sd",
    "settings",
)
_OF_DISTANCE = (
    "numerical_error",
    "unit",
    "latency_sec",
    "latency_standard_error",
    "floor_mean",
    "floor_sd",
    "ratio_to_floor",
    "ratio_standard_error",
    "excess_in_floor_sd",
    "settings",
)
_INTEGRABILITY_COLUMNS = (
    "dataset",
    "model_id",
    "sigma_bin",
    "sigma",
    "metric_name",
    "scale_delta",
    "cycle_len",
    "value_mean",
    "value_std",
    "value_standard_error",
    "value_low",
    "value_high",
    "numerical_error",
    "unit",
    "num_points",
    "num_seeds",
    "error_from",
    "settings",
)


@dataclass(frozen=True)
class Comparison:
    """The models of one data set, and all that is said of them together.

    Attributes:
        members: The models; the first is what the others are compared with.
        costs: The time of their training steps.
        reached: Where their runs come within the targets.
        selections: What they have to show at equal training time.
        pairs: Their differences from the first, each trained to its end.
        matched_pairs: The same at equal training time.
    """

    members: list[Group]
    costs: Costs
    reached: list[Reached]
    selections: list[Selection]
    pairs: list[Pair]
    matched_pairs: list[Pair]


def compare_models(
    evaluations: Sequence[Evaluation], root: Path, targets: Sequence[float] = TARGETS
) -> list[Comparison]:
    """The models of each data set, compared.

    Arguments:
        evaluations: The evaluations, ordered by data set, model and seed.
        root: The folder of all runs, with the times of steps.
        targets: The targets, in multiples of the noise floor.

    Raises:
        RunError: If a file of step times is not what it should be.
    """
    comparisons = []
    for dataset, members in by_dataset(groups(evaluations)).items():
        costs = read_costs(root / dataset, members)
        selections = select(members, costs)
        comparisons.append(
            Comparison(
                members,
                costs,
                reached(members, targets),
                selections,
                pairs(members),
                matched_pairs(selections),
            )
        )
    return comparisons


def quality_rows(members: Sequence[Group]) -> list[dict[str, Any]]:
    """One record a model, budget and distance; the validation loss has no budget."""
    rows = []
    for g in members:
        loss = Distance("", 0, 0, VALIDATION.name, "", g.validation)
        rows.append(_quality(g, loss, [e.validation for e in g.members]))
        for one in g.first.distances:
            found = g.distance(one.metric, one.budget, one.features)
            if found is None:
                continue
            alike = [e.distance(one.metric, one.budget, one.features) for e in g.members]
            rows.append(_quality(g, found, [d.estimate for d in alike if d is not None]))
    return rows


def integrability_rows(members: Sequence[Group]) -> list[dict[str, Any]]:
    """One record a model, diagnostic and noise level; ``num_points`` are the points of one
    evaluation that the number is a mean over.
    """
    rows = []
    for g in members:
        sigmas = sorted({v.sigma for e in g.members for v in e.levels})
        own = [{level_key(v, sigmas): v for v in e.levels} for e in g.members]
        for key, level in own[0].items():
            if not all(key in other for other in own):
                continue
            estimates = [other[key].estimate for other in own]
            rows.append(
                {
                    **_who(g, key),
                    **spread(estimates),
                    "numerical_error": over_seeds(estimates).numerical_error,
                    "unit": level.estimate.unit,
                    "num_points": min(e.n for e in estimates),
                    **_seeds(g),
                    "settings": settings_text(level.estimate.settings),
                }
            )
    return rows


def table_rows(comparisons: Sequence[Comparison]) -> Mapping[str, tuple[list[Any], Sequence[str]]]:
    """The records and columns of every table, by the name of its file."""
    members = [g for c in comparisons for g in c.members]
    found = [r for c in comparisons for r in c.reached]
    budgets = [row for c in comparisons for row in budget_rows(c.members, c.costs)]
    matched = [s for c in comparisons for s in c.selections]
    differences = [p.row() for c in comparisons for p in (*c.pairs, *c.matched_pairs)]
    return {
        QUALITY_TABLE: (quality_rows(members), _QUALITY_COLUMNS),
        INTEGRABILITY_TABLE: (integrability_rows(members), _INTEGRABILITY_COLUMNS),
        TARGET_TABLE: (to_target.rows(found), to_target.COLUMNS),
        TARGET_SUMMARY_TABLE: (to_target.summary_rows(found), to_target.SUMMARY_COLUMNS),
        BUDGET_TABLE: (budgets, BUDGET_COLUMNS),
        MATCHED_TABLE: (matched_rows(matched), MATCHED_COLUMNS),
        PAIRED_TABLE: (differences, paired.COLUMNS),
    }


def write_tables(comparisons: Sequence[Comparison], out: Path) -> list[Path]:
    """Writes the tables into a folder.

    Raises:
        OSError: If that fails.
    """
    written = []
    for name, (rows, columns) in table_rows(comparisons).items():
        write_file(out / name, csv_text(rows, columns))
        written.append(out / name)
    return written


def _quality(g: Group, d: Distance, estimates: Sequence[Any]) -> dict[str, Any]:
    row = DISTANCES.row(d)
    return {
        **_who(g, distance_key(d)),
        **spread(estimates),
        **_seeds(g),
        **{name: row[name] for name in _OF_DISTANCE},
    }


def _who(g: Group, key: Key) -> dict[str, Any]:
    """The model, and what of its key says something."""
    filled = {name: value for name, value in key._asdict().items() if value not in (None, "")}
    return {"dataset": g.dataset, "model_id": g.model, **filled}


def _seeds(g: Group) -> dict[str, Any]:
    return {"num_seeds": len(g.seeds), "error_from": "seeds" if len(g.seeds) > 1 else "samples"}

"""Runs into tables: what was measured, over seeds.

Where a model has several seeds, a number is their mean and its standard error comes from their
scatter, which holds everything that varies between trainings; where it has one, the error is that
of the one evaluation, and the column ``error_from`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from scorefield.estimate import Estimate, mean, pool
from scorefield.experiments.errors import RunError
from scorefield.experiments.records import (
    SUMMARY,
    Distance,
    Evaluation,
    Level,
    csv_text,
    replace_text,
)

QUALITY_TABLE = "fid_summary.csv"
INTEGRABILITY_TABLE = "integrability_summary.csv"
COMPUTE_TABLE = "compute_budget_by_dataset.csv"

_COMPUTE_COLUMNS = (
    "parameters",
    "steps",
    "images",
    "wall_seconds",
    "seconds_per_step",
    "images_per_second",
)


@dataclass(frozen=True)
class Group:
    """The evaluations of one model on one data set, one a seed."""

    dataset: str
    model: str
    members: tuple[Evaluation, ...]

    @property
    def first(self) -> Evaluation:
        """The evaluation of the lowest seed."""
        return self.members[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the training runs, ascending."""
        return tuple(e.seed for e in self.members)

    @property
    def label(self) -> str:
        """The model's short name."""
        return str(self.first.about.get("label", self.model))

    def distance(self, metric: str, budget: int) -> Distance | None:
        """A distance over seeds, if every member has it."""
        found = [e.distance(metric, budget) for e in self.members]
        some = [d for d in found if d is not None]
        if not some or len(some) < len(found):
            return None
        one = some[0]
        return Distance(
            one.sampler,
            one.budget,
            one.nfe,
            one.metric,
            one.features,
            over_seeds([d.estimate for d in some]),
            one.floor,
        )

    def profile(self, metric: str) -> list[Level]:
        """A diagnostic over seeds, by noise level; empty where it was not measured."""
        profiles = [e.profile(metric) for e in self.members]
        return [
            Level(metric, levels[0].sigma, over_seeds([v.estimate for v in levels]))
            for levels in zip(*profiles, strict=True)
        ]

    @property
    def validation(self) -> Estimate:
        """The validation loss over seeds."""
        return over_seeds([e.validation for e in self.members])


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over seeds with the error of their scatter; of one seed, its own."""
    return estimates[0] if len(estimates) == 1 else pool(estimates)


def collect(root: Path) -> list[Evaluation]:
    """Every evaluation in ``root/dataset/model/seed``, in the order of data set, model and seed.

    Raises:
        RunError: If there is none, one cannot be read, or the models of a data set were judged on
            different terms.
    """
    folders = sorted(path.parent.parent for path in root.glob(f"*/*/seed*/eval/{SUMMARY}"))
    if not folders:
        raise RunError(f"{root} holds no evaluated run: run `scorefield eval RUN` on each first")
    evaluations = sorted(
        (Evaluation.read(folder) for folder in folders),
        key=lambda e: (e.dataset, e.model, e.seed),
    )
    for dataset, members in groupby(evaluations, lambda e: e.dataset):
        _check_terms(dataset, list(members))
    return evaluations


def groups(evaluations: Iterable[Evaluation]) -> list[Group]:
    """The evaluations by data set and model."""
    return [
        Group(dataset, model, tuple(members))
        for (dataset, model), members in groupby(evaluations, lambda e: (e.dataset, e.model))
    ]


def quality_rows(members: Sequence[Group]) -> list[dict[str, Any]]:
    """One record a model, budget and distance."""
    return [
        {
            "dataset": g.dataset,
            "model": g.model,
            "seeds": len(g.seeds),
            "error_from": _error_from(g),
            **distance.row(),
        }
        for g in members
        for one in g.first.distances
        if (distance := g.distance(one.metric, one.budget)) is not None
    ]


def integrability_rows(members: Sequence[Group]) -> list[dict[str, Any]]:
    """One record a model, diagnostic and noise level."""
    metrics = {g.model: dict.fromkeys(v.metric for v in g.first.levels) for g in members}
    return [
        {
            "dataset": g.dataset,
            "model": g.model,
            "seeds": len(g.seeds),
            "error_from": _error_from(g),
            **level.row(),
        }
        for g in members
        for metric in metrics[g.model]
        for level in g.profile(metric)
    ]


def compute_rows(members: Sequence[Group]) -> list[dict[str, Any]]:
    """One record a model: what its training took, as a mean over seeds.

    The error of the time of a step is that over seeds, or that within the run where there is one
    seed only; the other columns are counts and clock readings of the runs themselves.
    """
    rows = []
    for g in members:
        row: dict[str, Any] = {"dataset": g.dataset, "model": g.model, "seeds": len(g.seeds)}
        for column in _COMPUTE_COLUMNS:
            values = [e.compute[column] for e in g.members if e.compute.get(column) is not None]
            row[column] = sum(values) / len(values) if len(values) == len(g.members) else ""
            if column == "seconds_per_step":
                within = g.first.compute.get("seconds_per_step_error")
                error = mean(values).standard_error if len(values) > 1 else within
                row["seconds_per_step_standard_error"] = "" if error is None else error
        rows.append(row)
    return rows


def write_tables(evaluations: Sequence[Evaluation], out: Path) -> list[Path]:
    """Writes the tables into a folder.

    Raises:
        OSError: If that fails.
    """
    members = groups(evaluations)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, rows in (
        (QUALITY_TABLE, quality_rows(members)),
        (INTEGRABILITY_TABLE, integrability_rows(members)),
        (COMPUTE_TABLE, compute_rows(members)),
    ):
        replace_text(out / name, csv_text(rows))
        written.append(out / name)
    return written


def _error_from(group: Group) -> str:
    return "seeds" if len(group.seeds) > 1 else "samples"


def _check_terms(dataset: str, members: list[Evaluation]) -> None:
    first = members[0]
    for other in members[1:]:
        keys = sorted(first.protocol.keys() | other.protocol.keys())
        for key in keys:
            a, b = first.protocol.get(key), other.protocol.get(key)
            if a != b:
                raise RunError(
                    f"{first.folder} and {other.folder} were judged on different terms, so that "
                    f"no table of {dataset} can hold both: {key} is {a} and {b}; evaluate both "
                    "again with the same settings"
                )

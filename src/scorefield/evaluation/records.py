"""What an evaluation leaves in a run's folder ``eval``: rows of numbers with their errors.

``fid_vs_nfe.csv`` has a row a distance, or a property of the sampler's paths, at one number of
network calls; ``integrability_vs_sigma.csv`` a row a diagnostic at one noise level;
``quality_vs_step.csv`` a row a distance, or the validation loss, at one checkpoint of the training;
and ``compute_summary.json`` what the training took, the validation loss, and the protocol.

Records of earlier versions are read with today's names of metrics, and with the sampler that all of
them used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate, add_errors
from scorefield.evaluation.catalogue import VALIDATION, current_name
from scorefield.evaluation.columns import (
    ESTIMATE,
    VARYING,
    Schema,
    derived,
    duration,
    parts,
    stored,
    uncertain,
)
from scorefield.evaluation.summary import read_summary
from scorefield.files import clean, write_files
from scorefield.runs.cells import csv_text, numbers, read_csv

QUALITY = "fid_vs_nfe.csv"
PROFILES = "integrability_vs_sigma.csv"
ALONG = "quality_vs_step.csv"
SUMMARY = "compute_summary.json"


class Floor(NamedTuple):
    """The distance between two real sets, over pairs: their mean, its error, and their scatter."""

    mean: float
    mean_error: float
    sd: float
    pairs: int


@dataclass(frozen=True)
class Distance:
    """A distance between generated and real samples, or another number that takes no noise level.

    Arguments:
        sampler: The sampler's name; empty where nothing was sampled.
        budget: The number of network calls that was allowed; 0 where nothing was sampled.
        nfe: The number of network calls that a sample took.
        features: What it was measured on: ``coordinates``, ``pixels``, or a classifier with the
            first digits of the SHA-256 of its file.
        floor: The same distance between two real sets of the same size, where it has one.
        latency: The wall time of the generation of all samples.
    """

    sampler: str
    budget: int
    nfe: int
    metric: str
    features: str
    estimate: Estimate
    floor: Floor | None = None
    latency: Estimate | None = None

    @property
    def ratio(self) -> Estimate | None:
        """The distance in multiples of the floor's mean, with the errors of both; ``None`` where
        the floor is not positive beyond three standard errors, as that of an unbiased distance.
        """
        if self.floor is None or self.floor.mean <= 3 * self.floor.mean_error:
            return None
        floor = Estimate(self.floor.mean, self.floor.mean_error, self.floor.pairs)
        return replace(quotient(self.estimate, floor), unit="floors")

    @property
    def excess(self) -> float | None:
        """The distance above the floor's mean, in standard deviations of single real pairs."""
        if self.floor is None or self.floor.sd == 0:
            return None
        return (self.estimate.value - self.floor.mean) / self.floor.sd


def quotient(a: Estimate, b: Estimate) -> Estimate:
    """The quotient of two independent numbers, with the errors of both by the delta method."""
    value = a.value / b.value
    error, n = add_errors([(a.standard_error, a.draws), (value * b.standard_error, b.draws)])
    numerical = a.numerical_error + abs(value) * b.numerical_error
    return Estimate(value, error / abs(b.value), n, numerical_error=numerical / abs(b.value))


@dataclass(frozen=True)
class Level:
    r"""A diagnostic at one noise level :math:`\sigma/\alpha` in units of the data, and where there
    are loops or cycles their radius in noise levels and length in edges.
    """

    metric: str
    sigma: float
    estimate: Estimate
    scale_delta: float | None = None
    cycle_len: int | None = None


@dataclass(frozen=True)
class Milestone:
    """A checkpoint after ``step`` steps in so many seconds, and the quality at one budget there."""

    step: int
    seconds: Estimate | None
    distances: tuple[Distance, ...]


METRIC = stored("metric", current_name)
NUMBER, SETTINGS = ESTIMATE
DISTANCES = Schema(
    stored("sampler"),
    stored("budget", int, "nfe_budget"),
    stored("nfe", int),
    METRIC,
    stored("features"),
    VARYING,
    duration("latency", "latency_sec", "latency_standard_error", "latency_n"),
    parts(
        "floor",
        ("floor_mean", "floor_mean_error", "floor_sd", "floor_pairs"),
        Floor._fields,
        Floor,
        (float, float, float, int),
    ),
    uncertain("ratio_to_floor", "ratio_standard_error", get=lambda d: d.ratio),
    derived("excess_in_floor_sd", get=lambda d: d.excess),
    SETTINGS,
)
"""The columns of a :class:`Distance`."""
LEVELS = Schema(
    METRIC,
    stored("sigma", float),
    stored("scale_delta", float),
    stored("cycle_len", int),
    NUMBER,
    SETTINGS,
)
"""The columns of a :class:`Level`."""
MILESTONES = Schema(
    stored("step", int),
    duration("seconds", "train_seconds", "train_seconds_standard_error", "train_seconds_n"),
)
"""The columns of a :class:`Milestone`, to the left of those of its distances."""
_WHO = Schema(stored("dataset"), stored("model"), stored("seed", int), stored("step", int))


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one run.

    Arguments:
        model: The name of the model, unique among the runs of the data.
        step: The number of training steps behind the weights.
        distances: The quality of samples.
        levels: The diagnostics.
        compute: What the training took: ``parameters``, ``steps``, ``seconds_per_step``, …
        protocol: On what terms all of it was measured.
        about: What the run is: preset, description, overrides, versions.
        milestones: The checkpoints along the training, oldest first.
    """

    dataset: str
    model: str
    seed: int
    step: int
    distances: tuple[Distance, ...]
    levels: tuple[Level, ...]
    validation: Estimate
    compute: Mapping[str, Any]
    protocol: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    milestones: tuple[Milestone, ...] = ()

    def by(self, sampler: str | None = None) -> list[Distance]:
        """The distances of samples by one method, by default the protocol's sampler."""
        wanted = self.protocol["sampler"] if sampler is None else sampler
        return [d for d in self.distances if d.sampler == wanted]

    def distance(
        self,
        metric: str,
        budget: int,
        features: str | None = None,
        sampler: str | None = None,
    ) -> Distance | None:
        """The distance of a name at a budget, of samples by the protocol's sampler unless another
        method is named, on the first features unless others are.
        """
        found = (d for d in self.by(sampler) if d.metric == metric and d.budget == budget)
        return next((d for d in found if features in (None, d.features)), None)

    def profile(self, metric: str) -> list[Level]:
        """The levels of a diagnostic, by radius or length, and then by noise level."""
        found = [v for v in self.levels if v.metric == metric]
        return sorted(found, key=lambda v: (v.scale_delta or 0, v.cycle_len or 0, v.sigma))

    @property
    def budgets(self) -> list[int]:
        """The budgets of network calls of the protocol's sampler, ascending."""
        return sorted({d.budget for d in self.by()})

    def __str__(self) -> str:
        rows = [f"{self.dataset}/{self.model} seed {self.seed}, step {self.step}"]
        rows.append(f"validation loss {self.validation}")
        for d in self.distances:
            ratio = f", {d.ratio}" if d.ratio is not None else ""
            name = d.metric.replace("_", " ")
            rows.append(f"{d.nfe:>4} network calls  {name:<19} {d.estimate}{ratio}")
        for v in self.levels:
            rows.append(f"sigma {v.sigma:<8g} {v.metric.replace('_', ' '):<25} {v.estimate}")
        return "\n".join(rows)

    def write(self, run: Path) -> None:
        """Replaces the evaluation under ``run/eval`` as a whole; other files there are kept.

        Raises:
            OSError: If that fails; the earlier evaluation, if any, is as it was.
        """
        who = _WHO.row(self)
        distances = [{**who, **DISTANCES.row(d)} for d in self.distances]
        levels = [{**who, **LEVELS.row(v)} for v in self.levels]
        along = [
            {**who, **MILESTONES.row(m), **DISTANCES.row(d)}
            for m in self.milestones
            for d in m.distances
        ]
        columns = dict.fromkeys((*_WHO.names, *MILESTONES.names, *DISTANCES.names))
        loss = {**numbers(self.validation), "settings": dict(self.validation.settings)}
        summary = {
            **who,
            VALIDATION.name: loss,
            "compute": dict(self.compute),
            "protocol": dict(self.protocol),
            "about": dict(self.about),
        }
        written = {
            QUALITY: csv_text(distances),
            PROFILES: csv_text(levels),
            ALONG: csv_text(along, columns),
            SUMMARY: json.dumps(summary, indent=2, allow_nan=False) + "\n",
        }
        write_files(run / "eval", written)

    @classmethod
    def find(cls, run: Path) -> Evaluation | None:
        """Reads the evaluation of a run; ``None`` if there is none.

        Raises:
            RunError: If a file is not what :meth:`write` makes.
        """
        clean(run / "eval")
        return cls.read(run) if (run / "eval" / SUMMARY).exists() else None

    @classmethod
    def read(cls, run: Path) -> Evaluation:
        """Reads the evaluation of a run.

        Raises:
            RunError: If there is none, or a file is not what :meth:`write` makes.
        """
        folder = run / "eval"
        # The first for folders that earlier versions replaced as a whole.
        clean(run)
        clean(folder)
        try:
            summary = read_summary(folder / SUMMARY)
            quality, profiles, along = (
                _rows(folder / file, summary) for file in (QUALITY, PROFILES, ALONG)
            )
            return cls(
                summary["dataset"],
                summary["model"],
                summary["seed"],
                summary["step"],
                tuple(Distance(**DISTANCES.read(row)) for row in quality),
                tuple(Level(**LEVELS.read(row)) for row in profiles),
                Estimate(**summary[VALIDATION.name]),
                summary["compute"],
                {"sampler": "heun", **summary["protocol"]},
                summary["about"],
                run,
                tuple(_milestones(along)),
            )
        except OSError as error:
            raise RunError(f"{run} has no evaluation: run `scorefield eval {run}`") from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise RunError(
                f"{folder} does not hold an evaluation of this version "
                f"({type(error).__name__}: {error}): run `scorefield eval {run} --overwrite`"
            ) from error


def _rows(path: Path, summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of a table that is part of the same evaluation as a summary."""
    rows = read_csv(path, least=0 if path.name == ALONG else 1)
    who = {name: str(summary[name]) for name in ("dataset", "model", "seed")}
    for row in rows:
        for name, value in who.items():
            if row[name] != value:
                raise UserError(f"{path.name} is of the {name} {row[name]}, {SUMMARY} of {value}")
    return rows


def _milestones(rows: Sequence[Mapping[str, str]]) -> Iterator[Milestone]:
    for _, members in groupby(rows, lambda row: row["step"]):
        first, *others = members
        distances = tuple(Distance(**DISTANCES.read(row)) for row in (first, *others))
        yield Milestone(**MILESTONES.read(first), distances=distances)

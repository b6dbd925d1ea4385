"""What an evaluation leaves in a run's folder: rows of numbers with their errors.

An :class:`Evaluation` is written as three files under ``eval/``, and read back from them without
the model:

``fid_vs_nfe.csv``
    One row a distance between generated and real samples, at one number of network calls.

``integrability_vs_sigma.csv``
    One row a diagnostic at one noise level.

``compute_summary.json``
    What the training took, the validation loss, and the protocol of the evaluation.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scorefield.estimate import Estimate
from scorefield.experiments.errors import RunError
from scorefield.training.files import replace_file

QUALITY = "fid_vs_nfe.csv"
PROFILES = "integrability_vs_sigma.csv"
SUMMARY = "compute_summary.json"


class Floor(NamedTuple):
    """The law of a distance between two real sets of the size at which a model is measured.

    ``mean_error`` is the standard error of the mean over ``pairs`` pairs, ``sd`` the scatter of
    single pairs.
    """

    mean: float
    mean_error: float
    sd: float
    pairs: int


@dataclass(frozen=True)
class Distance:
    r"""A distance between generated and real samples.

    Arguments:
        sampler: The sampler's name.
        budget: The number of network calls that was allowed.
        nfe: The number of network calls that a sample took.
        metric: What was measured.
        features: What it was measured on: ``coordinates`` or ``pixels``.
        estimate: The distance.
        floor: The same distance between two real sets of the same size; none where it has none.
    """

    sampler: str
    budget: int
    nfe: int
    metric: str
    features: str
    estimate: Estimate
    floor: Floor | None = None

    @property
    def ratio(self) -> Estimate | None:
        """The distance in multiples of the floor's mean; 1 on average for a perfect model.

        The standard error covers both. ``None`` where the floor is not positive beyond doubt
        (three standard errors), as that of an unbiased distance.
        """
        if self.floor is None or self.floor.mean <= 3 * self.floor.mean_error:
            return None
        value = self.estimate.value / self.floor.mean
        error = math.hypot(self.estimate.standard_error, value * self.floor.mean_error)
        return Estimate(value, error / self.floor.mean, self.estimate.n, "floors")

    @property
    def excess(self) -> float | None:
        """The distance above the floor's mean, in standard deviations of single real pairs."""
        if self.floor is None or self.floor.sd == 0:
            return None
        return (self.estimate.value - self.floor.mean) / self.floor.sd

    def row(self) -> dict[str, Any]:
        """The plain record; an empty cell where there is nothing to say."""
        ratio, floor = self.ratio, self.floor
        return {
            "sampler": self.sampler,
            "nfe_budget": self.budget,
            "nfe": self.nfe,
            "metric": self.metric,
            "features": self.features,
            **_numbers(self.estimate),
            "floor_mean": "" if floor is None else floor.mean,
            "floor_mean_error": "" if floor is None else floor.mean_error,
            "floor_sd": "" if floor is None else floor.sd,
            "floor_pairs": "" if floor is None else floor.pairs,
            "ratio_to_floor": "" if ratio is None else ratio.value,
            "ratio_standard_error": "" if ratio is None else ratio.standard_error,
            "excess_in_floor_sd": "" if self.excess is None else self.excess,
            "settings": settings_text(self.estimate.settings),
        }

    @classmethod
    def read(cls, row: Mapping[str, str]) -> Distance:
        """The distance that a record holds."""
        floor = None
        if row["floor_mean"]:
            floor = Floor(
                float(row["floor_mean"]),
                float(row["floor_mean_error"]),
                float(row["floor_sd"]),
                int(row["floor_pairs"]),
            )
        return cls(
            row["sampler"],
            int(row["nfe_budget"]),
            int(row["nfe"]),
            row["metric"],
            row["features"],
            _estimate(row),
            floor,
        )


@dataclass(frozen=True)
class Level:
    r"""A diagnostic at one noise level.

    Arguments:
        metric: What was measured.
        sigma: The noise level :math:`\sigma/\alpha`, in units of the data.
        estimate: The answer.
    """

    metric: str
    sigma: float
    estimate: Estimate

    def row(self) -> dict[str, Any]:
        """The plain record."""
        return {
            "metric": self.metric,
            "sigma": self.sigma,
            **_numbers(self.estimate),
            "settings": settings_text(self.estimate.settings),
        }

    @classmethod
    def read(cls, row: Mapping[str, str]) -> Level:
        """The level that a record holds."""
        return cls(row["metric"], float(row["sigma"]), _estimate(row))


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one run.

    Arguments:
        dataset: The name of the data.
        model: The name of the model, unique among the runs of the data.
        seed: The seed of the training run.
        step: The number of training steps behind the weights.
        distances: The quality of samples.
        levels: The diagnostics.
        validation: The validation loss.
        compute: What the training took: ``parameters``, ``steps``, ``seconds_per_step``, …
        protocol: On what terms all of it was measured.
        about: What the run is: preset, description, overrides, versions.
        folder: Where the run is.
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

    def distance(self, metric: str, budget: int) -> Distance | None:
        """The distance of a name at a budget, if it was measured."""
        found = (d for d in self.distances if d.metric == metric and d.budget == budget)
        return next(found, None)

    def profile(self, metric: str) -> list[Level]:
        """The levels of a diagnostic, by noise level."""
        return sorted((v for v in self.levels if v.metric == metric), key=lambda v: v.sigma)

    @property
    def budgets(self) -> list[int]:
        """The budgets of network calls, ascending."""
        return sorted({d.budget for d in self.distances})

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
        """Writes the three files under ``run/eval``, each whole or not at all.

        The summary, without which there is no evaluation, goes first and comes last: what is
        read is never a mixture of two.

        Raises:
            OSError: If that fails.
        """
        folder = run / "eval"
        folder.mkdir(parents=True, exist_ok=True)
        who = {"dataset": self.dataset, "model": self.model, "seed": self.seed, "step": self.step}
        (folder / SUMMARY).unlink(missing_ok=True)
        replace_text(folder / QUALITY, csv_text([{**who, **d.row()} for d in self.distances]))
        replace_text(folder / PROFILES, csv_text([{**who, **v.row()} for v in self.levels]))
        summary = {
            **who,
            "validation_loss": {
                **_numbers(self.validation),
                "settings": dict(self.validation.settings),
            },
            "compute": dict(self.compute),
            "protocol": dict(self.protocol),
            "about": dict(self.about),
        }
        replace_text(folder / SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, run: Path) -> Evaluation:
        """Reads the evaluation of a run.

        Raises:
            RunError: If there is none, or a file is not what :meth:`write` makes.
        """
        folder = run / "eval"
        try:
            summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
            loss = summary["validation_loss"]
            return cls(
                summary["dataset"],
                summary["model"],
                int(summary["seed"]),
                int(summary["step"]),
                tuple(Distance.read(row) for row in read_csv(folder / QUALITY)),
                tuple(Level.read(row) for row in read_csv(folder / PROFILES)),
                Estimate(
                    loss["value"], loss["standard_error"], loss["n"], loss["unit"], loss["settings"]
                ),
                summary["compute"],
                summary["protocol"],
                summary["about"],
                run,
            )
        except OSError as error:
            raise RunError(f"{run} has no evaluation: run `scorefield eval {run}`") from error
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{folder} does not hold an evaluation of this version "
                f"({type(error).__name__}: {error}): run `scorefield eval {run}`"
            ) from error


def replace_text(path: Path, text: str) -> None:
    """Replaces a file by a text, whole or not at all."""
    replace_file(path, text.encode())


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Iterable[str] | None = None) -> str:
    """Records as CSV with a header; numbers so that they read back as they are.

    Arguments:
        rows: The records; all have the keys of the first.
        columns: The header where there may be no record.
    """
    names = list(columns) if columns is not None else list(rows[0])
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The records of a CSV file.

    Raises:
        ValueError: If there is none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path.name} holds no record")
    return rows


def settings_text(settings: Mapping[str, Any]) -> str:
    """What a number depends on, in one cell."""
    return " ".join(f"{key}={_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        return ",".join(_short(v) for v in value)
    return str(value).replace(" ", "_")


def _numbers(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "standard_error": estimate.standard_error,
        "n": estimate.n,
        "unit": estimate.unit,
    }


def _estimate(row: Mapping[str, str]) -> Estimate:
    settings = dict(part.partition("=")[::2] for part in row["settings"].split())
    return Estimate(
        float(row["value"]), float(row["standard_error"]), int(row["n"]), row["unit"], settings
    )

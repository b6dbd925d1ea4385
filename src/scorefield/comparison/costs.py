"""What a training step costs: measured side by side, or read off the trainings."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scorefield.comparison.groups import Group
from scorefield.comparison.timing import STEP_TIMES, ratio
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate, mean
from scorefield.evaluation.records import quotient


@dataclass(frozen=True)
class Costs:
    """The time of a training step.

    Attributes:
        ratios: In multiples of the first model's, by model.
        seconds: In seconds, by model.
        told: How that was measured.
        apart: Whether steps were timed by themselves, and not in the trainings.
    """

    ratios: dict[str, Estimate]
    seconds: dict[str, Estimate]
    told: str
    apart: bool

    def training(self, group: Group) -> Estimate | None:
        """The time that a whole training takes, in seconds; ``None`` where it is not known."""
        step = self.seconds.get(group.model)
        return None if step is None else step.scaled(float(group.first.step), "s")


def read_costs(folder: Path, members: Sequence[Group]) -> Costs:
    """The costs of the models of a data set.

    They are read from ``step_times.json``, where steps of all models were timed side by side; for
    want of it, from the trainings, which ran at different times, beside whatever else ran.

    Raises:
        RunError: If the file is not what it should be.
    """
    path, base, missing = folder / STEP_TIMES, members[0].model, ""
    if path.is_file():
        rounds, told = _read(path)
        lacking = [g.label for g in members if g.model not in rounds]
        if not lacking:
            seconds = {g.model: mean(rounds[g.model], "s") for g in members}
            ratios = {g.model: ratio(rounds[g.model], rounds[base]) for g in members[1:]}
            return Costs(ratios, seconds, told, True)
        missing = f" ({STEP_TIMES} lacks {', '.join(lacking)}.)"
    seconds = {g.model: taken for g in members if (taken := _seconds(g)) is not None}
    told = (
        "Medians over the trainings, which ran at different times: with other work on the machine, "
        f"ratios are off by more than their errors.{missing}"
    )
    ratios = {}
    if base in seconds:
        ratios = {m: quotient(s, seconds[base]) for m, s in seconds.items() if m != base}
    return Costs(ratios, seconds, told, False)


def timed_models(folder: Path) -> set[str]:
    """The models of a data set whose steps were timed side by side.

    Raises:
        RunError: If the file is not what it should be.
    """
    path = folder / STEP_TIMES
    return set(_read(path)[0]) if path.is_file() else set()


def _read(path: Path) -> tuple[dict[str, list[float]], str]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        rounds = {str(m): [float(s) for s in values] for m, values in record["rounds"].items()}
        if len({len(values) for values in rounds.values()}) != 1 or any(
            len(values) < 2 or min(values) <= 0 for values in rounds.values()
        ):
            raise UserError("the rounds are not two or more positive times a model")
        return rounds, str(record["told"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunError(f"{path} does not hold step times: remove it ({error!r})") from error


def _seconds(group: Group) -> Estimate | None:
    """The time of a step: each seed's median, in the median over seeds; its error is that of the
    seeds' scatter, or within the run where there is one seed.
    """
    medians = [e.compute.get("seconds_per_step") for e in group.members]
    known = [float(m) for m in medians if m is not None]
    if not known or len(known) < len(medians):
        return None
    if len(known) > 1:
        return Estimate(statistics.median(known), mean(known).standard_error, len(known), "s")
    compute = group.first.compute
    error = compute.get("seconds_per_step_error")
    return None if error is None else Estimate(known[0], error, compute["rows"], "s")

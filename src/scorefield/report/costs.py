"""What a training step costs: measured side by side, or read off the trainings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scorefield.estimate import Estimate
from scorefield.experiments.errors import RunError
from scorefield.experiments.tables import Group
from scorefield.experiments.timing import STEP_TIMES
from scorefield.report.words import quotient


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


def read_costs(folder: Path, members: Sequence[Group]) -> Costs:
    """The costs of the models of a data set.

    They are read from ``step_times.json``, where steps of all models were timed side by side; for
    want of it, from the trainings, which ran at different times, beside whatever else ran.

    Raises:
        RunError: If the file is not what it should be.
    """
    path = folder / STEP_TIMES
    if path.is_file():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            ratios = {m: Estimate(**e) for m, e in record["ratios"].items()}
            seconds = {m: Estimate(**e) for m, e in record["seconds"].items()}
            told = str(record["told"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} does not hold step times: remove it ({error!r})") from error
        return Costs(ratios, seconds, told, True)
    seconds = {g.model: taken for g in members if (taken := _seconds(g)) is not None}
    told = (
        "Medians over the trainings, which ran at different times: with other work on the machine, "
        "ratios are off by more than their errors."
    )
    base = seconds.get(members[0].model)
    if base is None:
        return Costs({}, seconds, told, False)
    ratios = {m: quotient(s, base) for m, s in seconds.items() if m != members[0].model}
    return Costs(ratios, seconds, told, False)


def _seconds(group: Group) -> Estimate | None:
    """The median time of a step of the first seed, where its error is known."""
    compute = group.first.compute
    median, error = compute.get("seconds_per_step"), compute.get("seconds_per_step_error")
    if median is None or error is None:
        return None
    return Estimate(median, error, compute["rows"], "s")

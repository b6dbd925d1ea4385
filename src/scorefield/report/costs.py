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


@dataclass(frozen=True)
class Costs:
    """The time of a training step.

    Attributes:
        ratios: In multiples of the first model's, by model.
        seconds: In seconds, by model.
        told: How that was measured.
    """

    ratios: dict[str, Estimate]
    seconds: dict[str, Estimate]
    told: str


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
        return Costs(ratios, seconds, told)
    seconds = {}
    for g in members:
        median = g.first.compute.get("seconds_per_step")
        error = g.first.compute.get("seconds_per_step_error")
        if median is not None and error is not None:
            seconds[g.model] = Estimate(median, error, g.first.compute["rows"], "s")
    told = (
        "Medians over the trainings, which ran at different times: with other work on the machine, "
        "ratios are off by more than their errors."
    )
    base = seconds.get(members[0].model)
    if base is None:
        return Costs({}, seconds, told)
    ratios = {
        m: Estimate(
            s.value / base.value,
            (s.value / base.value)
            * ((s.standard_error / s.value) ** 2 + (base.standard_error / base.value) ** 2) ** 0.5,
            s.n,
        )
        for m, s in seconds.items()
        if m != members[0].model
    }
    return Costs(ratios, seconds, told)

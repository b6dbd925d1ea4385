"""What trainings of models are matched in: time, images, multiply-adds and network calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scorefield.comparison.groups import Group
from scorefield.comparison.timing import Costs
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Evaluation


@dataclass(frozen=True)
class Resource:
    """Something that a training uses up step by step.

    Attributes:
        name: Its name in tables.
        heading: Its name on the page.
        words: What a step uses of it, in words.
        unit: Its unit.
        of_step: What a step of a model uses; ``None`` where it is not known.
    """

    name: str
    heading: str
    words: str
    unit: str
    of_step: Callable[[Group, Costs], Estimate | None]

    def training(self, group: Group, costs: Costs) -> Estimate | None:
        """What a whole training of a model uses; ``None`` where it is not known."""
        step = self.of_step(group, costs)
        return None if step is None else step.scaled(float(group.first.step), self.unit)


def per_step(e: Evaluation, key: str) -> float | None:
    """What a step of the training of a run uses by its record, if that is stated."""
    value: Any = e.compute.get(key)
    return None if value is None else float(value)


def _recorded(name: str, heading: str, words: str, unit: str, key: str) -> Resource:
    """A resource of which every step of a configuration uses as much."""

    def of_step(group: Group, costs: Costs) -> Estimate | None:
        value = per_step(group.first, key)
        return None if value is None else Estimate(value, 0.0, 0, unit)

    return Resource(name, heading, words, unit, of_step)


TIME = Resource(
    "time",
    "training time",
    "the time of a training step",
    "s",
    lambda group, costs: costs.seconds.get(group.model),
)
RESOURCES = (
    TIME,
    _recorded("images", "training images", "the batch size", "images", "batch_size"),
    _recorded(
        "multiply_adds",
        "multiply-adds",
        "the number of multiply-adds of a training step",
        "multiply-adds",
        "multiply_adds_per_step",
    ),
    _recorded(
        "network_calls",
        "network calls",
        "the number of network calls of a training step",
        "calls",
        "calls_per_step",
    ),
)
"""Whatever models are matched in."""

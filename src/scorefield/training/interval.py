"""How far apart checkpoints are: in steps, in images, or in seconds of training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from scorefield.checks import check_count, check_positive
from scorefield.errors import UserError
from scorefield.progress import SECONDS

Unit = Literal["steps", "images", "seconds"]

_UNITS: dict[str, tuple[Unit, float]] = {
    "steps": ("steps", 1.0),
    "images": ("images", 1.0),
    **{name: ("seconds", scale) for name, scale in SECONDS.items()},
}


@dataclass(frozen=True)
class Interval:
    """So many steps, images or seconds.

    Arguments:
        count: The number: whole, but for seconds.
        unit: What is counted.
    """

    count: int | float
    unit: Unit = "steps"

    @classmethod
    def of(cls, name: str, value: int | str) -> Interval:
        """The interval that a number of steps, or words such as ``50000 images`` and ``10min``,
        stand for.

        Arguments:
            name: What the value is called in an error.

        Raises:
            ValueError: If it is neither.
        """
        if not isinstance(value, str):
            check_count(name, value)
            return cls(value)
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)", value)
        if found is None or found[2] not in _UNITS:
            raise UserError(
                f"{name} must be a number of steps, or as in '50000 images' and '10min', got "
                f"{value!r}"
            )
        unit, scale = _UNITS[found[2]]
        count = float(found[1]) * scale
        check_positive(name, count)
        if unit != "seconds":
            if not count.is_integer():
                raise UserError(f"{name}: {unit} are whole numbers, got {value!r}")
            count = int(count)
        return cls(count, unit)

    def due(self, step: int, batch_size: int, seconds: float) -> bool:
        """Whether one ends with a step, counted from 1, so many seconds after the last one."""
        match self.unit:
            case "steps":
                return step % int(self.count) == 0
            case "images":
                return step * batch_size // self.count > (step - 1) * batch_size // self.count
            case "seconds":
                return seconds >= self.count

    def steps(self, batch_size: int, seconds_per_step: float) -> float:
        """The interval in steps."""
        length = {"steps": 1.0, "images": batch_size, "seconds": seconds_per_step}
        return self.count / length[self.unit]

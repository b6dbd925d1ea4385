"""What a training gives."""

from __future__ import annotations

from dataclasses import dataclass

from scorefield.fields.base import ScoreField
from scorefield.html import table
from scorefield.progress import clock
from scorefield.training.ema import Average
from scorefield.training.record import Row


@dataclass(frozen=True, repr=False)
class Fit:
    """A finished training.

    Attributes:
        field: The field, with the averaged weights, in evaluation mode.
        ema: The average.
        history: The rows of the metrics.
        seconds: The time that the training took, in this process.
    """

    field: ScoreField
    ema: Average
    history: tuple[Row, ...]
    seconds: float

    def __repr__(self) -> str:
        return f"Fit({self.field!r}, {', '.join(f'{k} {v}' for k, v in self._facts())})"

    def _repr_html_(self) -> str:
        return table(f"Training of {type(self.field).__name__}", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        last = self.history[-1] if self.history else {}
        loss = last.get("loss")
        return [
            ("steps", f"{last.get('step', 0):,}"),
            ("last loss", "unknown" if loss is None else f"{loss:.4g}"),
            ("time", clock(self.seconds)),
        ]

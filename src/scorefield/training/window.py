"""The numbers of the steps since the last row of the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

_CONSEQUENCES = {"loss": 1, "grad_norm": 2}


class Failure(NamedTuple):
    """The first number that is not finite: what it is called, its value, and its step."""

    name: str
    value: float
    step: int


class Window:
    """Scalars by name and step, kept on their device until they are read.

    Nothing waits for the device between two rows. A name need not have a value at each step.
    """

    def __init__(self) -> None:
        self._steps: dict[str, list[int]] = {}
        self._values: dict[str, list[Tensor]] = {}

    def add(self, step: int, scalars: Mapping[str, Tensor]) -> None:
        """Takes in the scalars of a step."""
        for name, value in scalars.items():
            self._steps.setdefault(name, []).append(step)
            self._values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """The mean of each name over the steps at which it has a value."""
        return {name: float(values.mean()) for name, values in self._stacked().items()}

    def failure(self) -> Failure | None:
        """The earliest number that is not finite; of one step, a cause before what follows."""
        found: list[Failure] = []
        for name, values in self._stacked().items():
            bad = (~values.isfinite()).nonzero()
            if bad.numel():
                k = int(bad[0])
                found.append(Failure(name, float(values[k]), self._steps[name][k]))
        return min(found, key=lambda f: (f.step, _CONSEQUENCES.get(f.name, 0)), default=None)

    def clear(self) -> None:
        """Begins anew."""
        self._steps.clear()
        self._values.clear()

    def state_dict(self) -> dict[str, Any]:
        """The numbers, for a checkpoint between two rows."""
        values = self._stacked()
        return {name: (list(self._steps[name]), values[name]) for name in values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self._steps = {name: list(steps) for name, (steps, _) in state.items()}
        self._values = {name: list(values.unbind()) for name, (_, values) in state.items()}

    def _stacked(self) -> dict[str, Tensor]:
        return {k: torch.stack(v).to("cpu", torch.float64) for k, v in self._values.items()}

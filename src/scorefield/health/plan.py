"""What is measured in which order, until the time is up.

Every measurement has sizes 0, 1, 2, ..., each of twice as many points as the one before. First each
is made once at its smallest size, in the order given; then the one that still lacks most precision
for a second of work is made again at the next size, as long as there is time for it. Numbers are
those of the largest size that was done; each has an interval of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.progress import Stages


@dataclass(frozen=True)
class Number:
    """A measured number: what it is, and at which noise level, if at one.

    Attributes:
        name: Its name in records.
        title: What it is, in words.
        estimate: The number with its errors.
        sigma: The noise level, in units of the data.
        least: The least that it can be, if there is such a bound.
        most: The most that it can be.
    """

    name: str
    title: str
    estimate: Estimate
    sigma: float | None = None
    least: float = -math.inf
    most: float = math.inf

    def interval(self) -> tuple[float, float]:
        """The 95 % interval, as far as the number can be there."""
        low, high = (min(max(end, self.least), self.most) for end in self.estimate.interval())
        return low, high


class Found(NamedTuple):
    """What a measurement of one size gave: numbers, and what else is to be kept of it."""

    numbers: tuple[Number, ...]
    kept: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Measurement:
    """Something that can be measured at sizes from 0 to ``most``."""

    name: str
    title: str
    measure: Callable[[int], Found]
    most: int


@dataclass
class Done:
    """The largest size at which something was measured, in so many seconds, and what it gave."""

    size: int
    seconds: float
    found: Found

    @property
    def lack(self) -> float:
        """How much precision the numbers lack: half their intervals in units of themselves, at
        most one, in the mean.
        """
        shares = [_share(number.estimate) for number in self.found.numbers]
        return sum(shares) / len(shares) if shares else 0.0


@dataclass
class Plan:
    """Measurements, and what has been done of them.

    Arguments:
        measurements: What is to be measured, in the order of the first round.
        done: What has been done before.
        failed: What could not be measured, by name, and why, as where samples diverge.
    """

    measurements: Sequence[Measurement]
    done: dict[str, Done] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, seconds: float, stages: Stages, after: Callable[[], None] | None = None) -> None:
        """Measures until the time is up; ``after`` is called after each measurement.

        The first is made in any case. How long a measurement takes that was not made before is not
        known: the last one begun may end after the time.
        """
        begin = time.monotonic()
        while (chosen := self._next(seconds - (time.monotonic() - begin))) is not None:
            one = chosen.name
            size = self.done[one].size + 1 if one in self.done else 0
            start = time.monotonic()
            try:
                found = chosen.measure(size)
            except UserError as error:
                self.failed[one] = str(error)
                continue
            now = time.monotonic()
            self.done[one] = Done(size, now - start, found)
            if after is not None:
                after()
            spent = min(now - begin, seconds)
            stages.advance("check", round(spent), max(1, round(seconds)), chosen.title)

    @property
    def left_out(self) -> list[str]:
        """What there was no time for, in words."""
        return [one.title for one in self._open() if one.name not in self.done]

    def _open(self) -> list[Measurement]:
        """All measurements but those that failed."""
        return [one for one in self.measurements if one.name not in self.failed]

    def _next(self, left: float) -> Measurement | None:
        """What is to be measured next with so many seconds left."""
        new = next((one for one in self._open() if one.name not in self.done), None)
        if new is not None:
            return new if left > 0 or not self.done else None
        due = [
            one
            for one in self._open()
            if self.done[one.name].size < one.most
            and self.done[one.name].lack > 0
            and 2 * self.done[one.name].seconds <= left
        ]
        return max(due, key=self._worth, default=None)

    def _worth(self, one: Measurement) -> float:
        done = self.done[one.name]
        return done.lack / max(done.seconds, 1e-3)


def _share(estimate: Estimate) -> float:
    low, high = estimate.interval()
    half = (high - low) / 2
    return min(1.0, half / abs(estimate.value)) if estimate.value else float(half > 0)

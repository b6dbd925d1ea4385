"""What is measured in which order, until the time is up.

Every measurement has sizes 0, 1, 2, ..., each of twice as many points as the one before. First each
is made once at its smallest size, in the order given; then the one that still lacks most precision
for a second of work is made again at the next size, as long as there is time for it. Numbers are
those of the largest size that was done; each has an interval of its own.

A measurement is made in parts, such as one noise level after another. Where the time is up, the
parts that were made are kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, NamedTuple

from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.health.limit import OutOfTimeError
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
    """What a measurement gave: numbers, and what else is to be kept of it."""

    numbers: tuple[Number, ...] = ()
    kept: Mapping[str, Any] = {}

    def updated(self, part: Found) -> Found:
        """With the numbers of a part in place of those at the same noise level, and what it keeps
        in place of what was kept, if it keeps anything.
        """
        numbers = {(n.name, n.sigma): n for n in (*self.numbers, *part.numbers)}
        return Found(tuple(numbers.values()), part.kept or self.kept)


Part = Callable[[], Found]
"""A part of a measurement, such as one noise level, to be called after those before it."""


@dataclass(frozen=True)
class Measurement:
    """Something that can be measured at sizes from 0 to ``most``.

    Attributes:
        name: Its name in records.
        title: What it is, in words.
        parts: Its parts at a size.
        most: The largest size.
        like: The name of another one, and how many times as long as that this takes at size 0,
            where that is known.
    """

    name: str
    title: str
    parts: Callable[[int], Sequence[Part]]
    most: int
    like: tuple[str, float] | None = None

    def measure(self, size: int) -> Found:
        """What all its parts give at a size."""
        return reduce(lambda found, part: found.updated(part()), self.parts(size), Found())


@dataclass
class Done:
    """The largest size at which the whole of something was measured, -1 if only parts of it were;
    in so many seconds, and what it gave.
    """

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


Limit = Callable[[float], AbstractContextManager[None]]
"""What stops a measurement, by an ``OutOfTimeError``, at a time of the monotonic clock."""


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

    def run(
        self,
        seconds: float,
        stages: Stages,
        after: Callable[[], None] | None = None,
        limit: Limit = lambda end: nullcontext(),
    ) -> None:
        """Measures until the time is up; ``after`` is called after each measurement.

        What is known to take longer than the time that is left is not begun; anything else is
        stopped between two of its parts, and inside of them by ``limit``.
        """
        begin = time.monotonic()
        end = begin + seconds
        while (chosen := self._next(end - time.monotonic())) is not None:
            try:
                with limit(end):
                    self._measure(chosen, end)
            except OutOfTimeError:
                pass
            except UserError as error:
                self.failed[chosen.name] = str(error)
                continue
            if after is not None:
                after()
            spent = min(time.monotonic() - begin, seconds)
            stages.advance("check", round(spent), max(1, round(seconds)), chosen.title)

    def _measure(self, chosen: Measurement, end: float) -> None:
        """Measures at the next size, part by part until a time; numbers of all parts are kept."""
        before = self.done.get(chosen.name, Done(-1, 0.0, Found()))
        size, found = before.size + 1, before.found
        start = time.monotonic()
        for part in chosen.parts(size):
            if time.monotonic() >= end:
                raise OutOfTimeError
            found = found.updated(part())
            # What else is kept belongs to one size.
            kept = found.kept if size == 0 else before.found.kept
            self.done[chosen.name] = replace(before, found=Found(found.numbers, kept))
        self.done[chosen.name] = Done(size, time.monotonic() - start, found)

    @property
    def left_out(self) -> list[str]:
        """What there was no time for, in words."""
        return [
            f"{one.title} (in part)" if one.name in self.done else one.title
            for one in self._open()
            if self._size(one) < 0
        ]

    def _open(self) -> list[Measurement]:
        """All measurements but those that failed."""
        return [one for one in self.measurements if one.name not in self.failed]

    def _size(self, one: Measurement) -> int:
        return self.done[one.name].size if one.name in self.done else -1

    def _next(self, left: float) -> Measurement | None:
        """What is to be measured next with so many seconds left."""
        if left <= 0:
            return None
        for one in self._open():
            if self._size(one) < 0 and self._predicted(one) <= left:
                return one
        due = [
            one
            for one in self._open()
            if 0 <= self._size(one) < one.most
            and self.done[one.name].lack > 0
            and self._predicted(one) <= left
        ]
        return max(due, key=self._worth, default=None)

    def _predicted(self, one: Measurement) -> float:
        """The most seconds that the next size of a measurement takes; 0 where nothing is known."""
        if self._size(one) >= 0:
            return 2 * self.done[one.name].seconds
        name, times = one.like or (one.name, 0.0)
        known = self.done.get(name)
        return 0.0 if known is None else times * known.seconds / 2**known.size

    def _worth(self, one: Measurement) -> float:
        done = self.done[one.name]
        return done.lack / max(done.seconds, 1e-3)


def _share(estimate: Estimate) -> float:
    low, high = estimate.interval()
    half = (high - low) / 2
    return min(1.0, half / abs(estimate.value)) if estimate.value else float(half > 0)

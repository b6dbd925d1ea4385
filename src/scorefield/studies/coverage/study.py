r"""The coverage of every interval at default settings.

Each measurement is repeated with fresh numbers; the fraction of its 95 % intervals that contain the
true value is reported with its own interval, and whether it is within 93 to 97 %. A distance that
is biased for finite sets has an interval for its mean over sets of these sizes, and is compared
with the mean over all repetitions.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from scorefield.estimate import Estimate, mean, share
from scorefield.studies.coverage.intervals import Measured, intervals
from scorefield.studies.frame import Cell, Study, Table, Work, csv_bytes, prepare_process
from scorefield.studies.settings import Coverage

BLOCK = 50
"""The number of repetitions that are kept at once."""
COLUMNS = ("interval", "data", "of", "coverage", "too low", "too high", "remark")


class Covered(NamedTuple):
    """The intervals of one kind: how many contain the true value, lie below it, and above it."""

    name: str
    data: str
    of: str
    note: str
    repeats: int
    covered: int
    below: int
    above: int

    @property
    def coverage(self) -> Estimate:
        """The share of intervals that contain the true value."""
        return share(self.covered, self.repeats)

    def row(self) -> dict[str, Any]:
        """The record of a table."""
        found = self.coverage
        low, high = found.interval()
        numbers = {"coverage": found.value, "coverage_low": low, "coverage_high": high}
        return {**self._asdict(), **numbers}


class CoverageStudy(Study[Coverage, list[Covered]]):
    """The coverage of all intervals."""

    kinds = (Measured,)

    @classmethod
    def open(cls, settings: Coverage) -> CoverageStudy:
        return cls(settings)

    def compute(self, work: Work) -> list[Covered]:
        kinds, repeats = intervals(), self.settings.repeats
        blocks = [
            (number, first, min(first + BLOCK, repeats))
            for first in range(0, repeats, BLOCK)
            for number in range(len(kinds))
        ]
        found = {b: kept for b in blocks if (kept := work.kept(_name(b))) is not None}
        rest = [block for block in blocks if block not in found]
        context = multiprocessing.get_context("spawn")
        with context.Pool(self.settings.jobs, prepare_process) as pool:
            for block, values in pool.imap_unordered(measure, rest):
                found[block] = work.keep(_name(block), values)
                name = kinds[block[0]].name
                work.show("coverage", len(found), len(blocks), name)
                work.report(f"{len(found)} of {len(blocks)}  {name}")
        return [
            count(number, [Measured(*v) for b in blocks if b[0] == number for v in found[b]])
            for number in range(len(kinds))
        ]

    def files(self, result: list[Covered], work: Work) -> Mapping[str, Callable[[], bytes]]:
        return {"coverage.csv": lambda: csv_bytes(c.row() for c in result)}

    def table(self, result: list[Covered]) -> Table:
        return Table(COLUMNS, [_line(c) for c in result])


STUDY = CoverageStudy


def measure(block: tuple[int, int, int]) -> tuple[tuple[int, int, int], list[list[float | None]]]:
    """The repetitions of a block, as plain numbers that can go to another process."""
    number, first, end = block
    kind = intervals()[number]
    return block, [list(kind.measure(seed)) for seed in range(first, end)]


def count(number: int, measured: Sequence[Measured]) -> Covered:
    """The intervals that contain the true value or, of biased distances, their mean."""
    kind = intervals()[number]
    average = mean([m.value for m in measured]).value
    # An interval without width, of an exact number, may miss it by rounding.
    truths = [average if m.truth is None else m.truth for m in measured]
    below = sum(m.high < t for m, t in zip(measured, truths, strict=True))
    above = sum(m.low > t for m, t in zip(measured, truths, strict=True))
    n = len(measured)
    return Covered(kind.name, kind.data, kind.of, kind.note, n, n - below - above, below, above)


def _name(block: tuple[int, int, int]) -> str:
    kind = intervals()[block[0]]
    return f"{kind.name}/{kind.data}/{block[1]}-{block[2]}"


def _line(c: Covered) -> list[Cell]:
    low, high = c.coverage.interval()
    remark = c.note or ("" if low <= 0.97 and high >= 0.93 else "outside 93 to 97 %")
    return [c.name, c.data, c.of, c.coverage, c.below, c.above, remark]

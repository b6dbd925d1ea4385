"""Rows of the same work by several libraries, timed in turns, and their table."""

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import pages

OURS = "scorefield"


@dataclass
class Row:
    """One library's way to a section's work: what it does, in which words, and how many of the
    section's units a call has.
    """

    library: str
    action: Callable[[], object] | None
    words: str = ""
    units: int = 1
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """Rows of the same work, of which the first is ours; ``loads`` are the machine's in the last
    minute, at the end of each round.
    """

    title: str
    words: str
    unit: str
    rows: list[Row]
    rounds: int = 15
    loads: list[float] = field(default_factory=list)


def version_of(library: str) -> str | None:
    """The installed version of a library; ``None`` of one that is absent."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def rows_of(*builders: tuple[str, Callable[[], Row]]) -> list[Row]:
    """The rows of those libraries that are installed, and empty ones of the others."""
    return [make() if version_of(name) else Row(name, None) for name, make in builders]


def measure(section: Section, rounds: int | None) -> None:
    """Times the rows of a section in turns, each as often in a row as takes a tenth of a second."""
    timed = [(row, row.action) for row in section.rows if row.action is not None]
    often = []
    for _, action in timed:
        action()
        start = time.process_time()
        action()
        often.append(max(1, round(0.1 / (time.process_time() - start))))
    order = random.Random(0)
    for _ in range(rounds or section.rounds):
        for k in order.sample(range(len(timed)), len(timed)):
            row, action = timed[k]
            start = time.process_time()
            for _ in range(often[k]):
                action()
            spent = time.process_time() - start
            row.seconds.append(spent / often[k] / row.units)
        section.loads.append(os.getloadavg()[0])


def quartiles(row: Row, base: Row) -> tuple[float, float, float]:
    """The quartiles of the rounds' ratios of a row to another."""
    ratios = [a / b for a, b in zip(row.seconds, base.seconds, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return low, median, high


def spread(section: Section) -> str:
    """How long the others took as multiples of ours: the least and largest of their medians, and of
    their quartiles.
    """
    base = section.rows[0]
    others = [row for row in section.rows if row.seconds and row.library != OURS]
    if not others:
        return "not measured"
    found = [quartiles(row, base) for row in others]
    least, most = min(f[1] for f in found), max(f[1] for f in found)
    medians = dict.fromkeys((f"{least:.2f}", f"{most:.2f}"))
    ends = f"{min(f[0] for f in found):.2f} to {max(f[2] for f in found):.2f}"
    return f"{' to '.join(medians)} ({ends})"


def table(section: Section) -> Iterator[str]:
    """The section of the page."""
    yield from ("", f"## {section.title}", "", section.words, "")
    rows = []
    for row in section.rows:
        if row.action is None:
            rows.append([row.library, "not installed", "–", "–"])
            continue
        low, ratio, high = quartiles(row, section.rows[0])
        times = "1" if row is section.rows[0] else f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        median = f"{1e3 * statistics.median(row.seconds):.3g}"
        rows.append([row.library, row.words, median, times])
    heads = ["library", "", section.unit, f"times as long as {OURS} (quartiles)"]
    yield pages.table(heads, rows)

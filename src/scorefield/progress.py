"""The progress of long work in stages: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from scorefield.errors import plain

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY = 5.0  # seconds


class Stages:
    """Shows several stages of work at once on the standard output.

    On a terminal each stage has a bar; elsewhere reports are plain lines.

    Arguments:
        quiet: Whether to show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet, self._terminal = quiet, sys.stdout.isatty()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begins: dict[str, float] = {}
        self._latest = 0.0
        self._start = time.monotonic()
        self._next = 0.0

    def __enter__(self) -> Stages:
        self._start = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Sets how much of a stage is done."""
        if self._quiet or not self._terminal:
            return
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, note="")
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)

    def advance(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Sets how much of a stage is done, and shows the time that is left at its mean rate; where
        there are no bars, in a line every few seconds of a longer one.

        A stage begins where the one before it was seen last.
        """
        now = self.seconds()
        begin = self._begins.setdefault(stage, self._latest)
        self._latest = now
        left = f"{clock((now - begin) * (total - done) / done)} left" if done else ""
        words = "  ".join(filter(None, (note, left)))
        self.show(stage, done, total, words)
        if now - begin >= _LINE_EVERY:
            self.follow(f"{stage}: {done} of {total}  {words}")

    def report(self, line: str) -> None:
        """Prints, where there are no bars, what is done, after the seconds since the start."""
        if not (self._quiet or self._terminal):
            print(f"{self.seconds():6.1f} s  {line}", flush=True)

    def follow(self, line: str, last: bool = False) -> None:
        """Prints, where there are no bars, the last line of many and one every few seconds."""
        if not (self._quiet or self._terminal) and (last or self.seconds() >= self._next):
            self._next = self.seconds() + _LINE_EVERY
            print(line, flush=True)

    def note(self, line: str) -> None:
        """Prints a line once, above the bars on a terminal."""
        if self._bars is not None:
            self._bars.console.print(line, highlight=False)
        elif not self._quiet:
            print(line, flush=True)

    def seconds(self) -> float:
        """The time since the start."""
        return time.monotonic() - self._start


def warn(sentence: str) -> None:
    """Prints on the standard error what must not be missed."""
    print(f"warning: {plain(sentence)}", file=sys.stderr, flush=True)


SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
"""Units of time that a user may write, in seconds."""


def clock(seconds: float) -> str:
    """A duration, as in ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _bars() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )

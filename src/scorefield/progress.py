"""The progress of long work in stages: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY = 5.0  # seconds


class Stages:
    """Shows several stages of work at once on the standard output.

    On a terminal each stage has a bar; elsewhere what is said comes out line by line.

    Arguments:
        quiet: Whether to show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        terminal = sys.stdout.isatty()
        self._bars: Progress | None = _bars() if terminal and not quiet else None
        self._lines = not (terminal or quiet)
        self._tasks: dict[str, TaskID] = {}
        self._start = time.monotonic()
        self._shown = -_LINE_EVERY

    def __enter__(self) -> Stages:
        self._start = time.monotonic()
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Sets how much of a stage is done."""
        if self._bars is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, note="")
        self._bars.update(self._tasks[stage], completed=done, total=total, note=note)

    def say(self, line: str) -> None:
        """Prints, where there are no bars, what is done, after the seconds since the start."""
        if self._lines:
            print(f"{time.monotonic() - self._start:6.1f} s  {line}", flush=True)

    def follow(self, line: str, last: bool = False) -> None:
        """Prints, where there are no bars, the last line of many and one every few seconds."""
        if self._lines and (last or time.monotonic() - self._shown >= _LINE_EVERY):
            self._shown = time.monotonic()
            print(line, flush=True)


def warn(sentence: str) -> None:
    """Prints on the standard error what must not be missed."""
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A duration, as in ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _bars() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=36),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )

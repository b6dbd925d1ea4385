"""The progress of long work in stages: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Stages:
    """Shows several stages of work at once on the standard output.

    On a terminal each stage has a bar; elsewhere what is said comes out line by line, with the
    seconds since the start.
    """

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._start = time.monotonic()

    def __enter__(self) -> Stages:
        self._start = time.monotonic()
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bars = Progress(
                TextColumn("{task.description:<28}"),
                BarColumn(bar_width=36),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}", style="dim"),
            )
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
        """Says that something is done, where there are no bars to show it."""
        if self._bars is None:
            print(f"{time.monotonic() - self._start:6.1f} s  {line}", flush=True)

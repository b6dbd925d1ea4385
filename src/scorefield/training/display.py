"""What a person sees of a training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

_LINE_EVERY = 5.0  # seconds


class Display:
    """Shows progress on the standard output.

    Arguments:
        steps: The number of steps of the training.
        done: The number of steps done.
        quiet: Whether to show nothing.
    """

    def __init__(self, steps: int, done: int, quiet: bool) -> None:
        self._steps = steps
        self._quiet = quiet
        self._shown = -_LINE_EVERY
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if not quiet and sys.stdout.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task("", total=steps, completed=done, loss="", ms="")

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def progress(self, step: int, loss: float, seconds: float) -> None:
        """Shows the loss and the seconds a step after ``step`` steps."""
        if self._quiet:
            return
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=step, loss=f"{loss:.4g}", ms=f"{1e3 * seconds:.1f}"
            )
        elif time.monotonic() - self._shown >= _LINE_EVERY or step == self._steps:
            self._shown = time.monotonic()
            left = (self._steps - step) * seconds
            print(
                f"step {step}/{self._steps}  loss {loss:.4g}  "
                f"{1e3 * seconds:.1f} ms/step  {_clock(left)} left",
                flush=True,
            )


def warn(sentence: str) -> None:
    """Says on the standard error what must not be missed."""
    print(f"warning: {sentence}", file=sys.stderr, flush=True)


def _bar() -> Progress:
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[ms]} ms/step"),
        TimeRemainingColumn(),
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

"""What a training costs: images, steps, time and disk space, from its own first steps."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from scorefield.progress import clock

_MEASURED = 10
_WORTH = 60.0  # seconds
_UNITS = ("B", "kB", "MB", "GB", "TB")


class Forecast:
    """Measures ten steps of a training, and predicts the cost of those that are left.

    The first step is left out, in which networks are compiled and memory is taken. They are steps
    like all others: nothing is done twice.

    Arguments:
        step: The number of steps done before.
        steps: The number of the last step.
        batch_size: The number of points a step.
        wait: Waits until the device has done all steps.
        disk: The number of bytes that the training will add to a folder.
        folder: The folder; ``None`` if nothing is written.
    """

    def __init__(
        self,
        step: int,
        steps: int,
        batch_size: int,
        wait: Callable[[], None],
        disk: int = 0,
        folder: Path | None = None,
    ) -> None:
        self._first, self._last = step + 1, step + 1 + _MEASURED
        self._steps, self._batch_size = steps, batch_size
        self._wait, self._disk, self._folder = wait, disk, folder
        self._start = 0.0

    def after(self, step: int) -> str | None:
        """What the steps after this one cost, once ten are measured and if they take a minute."""
        if step == self._first:
            self._wait()
            self._start = time.perf_counter()
        if step != self._last:
            return None
        self._wait()
        seconds = (time.perf_counter() - self._start) / _MEASURED
        left = self._steps - step
        if left * seconds < _WORTH:
            return None
        images = left * self._batch_size
        words = f"{left:,} steps of {self._batch_size:,} points are left, {images:,} in all"
        words += f": {clock(left * seconds)} at {1e3 * seconds:.1f} ms a step"
        if self._folder is None:
            return words
        free = shutil.disk_usage(self._folder).free
        return f"{words}, and up to {size(self._disk)} on disk, which has {size(free)} free"


def size(count: float) -> str:
    """A number of bytes, as in ``1.3 GB``."""
    power = 0
    while count >= 1000 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {_UNITS[power]}"

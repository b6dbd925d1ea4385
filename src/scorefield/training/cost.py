"""What a training costs: images, steps, time and disk space, from its own first steps."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from scorefield.progress import clock
from scorefield.training import checkpoint
from scorefield.training.settings import TrainSettings

_MEASURED = 10
_WORTH = 60.0  # seconds
_UNITS = ("B", "kB", "MB", "GB", "TB")


class Forecast:
    """Measures ten steps of a training, and predicts the cost of those that are left.

    The first step is left out, in which networks are compiled and memory is taken. They are steps
    like all others: nothing is done twice. Pauses, in which files are written, are no part of them.

    Arguments:
        step: The number of steps done before.
        settings: Those of the training.
        weights: The number of bytes of the weights.
        wait: Waits until the device has done all steps.
        folder: Where checkpoints are written; ``None`` if nothing is.
    """

    def __init__(
        self,
        step: int,
        settings: TrainSettings,
        weights: int,
        wait: Callable[[], None],
        folder: Path | None = None,
    ) -> None:
        self._first, self._last = step + 1, step + 1 + _MEASURED
        self._settings, self._weights = settings, weights
        self._wait, self._folder = wait, folder
        self._start = 0.0

    def after(self, step: int, paused: float = 0.0) -> str | None:
        """What the steps after this one cost, once ten are measured and if they take a minute; so
        many seconds were pauses until now.
        """
        if step == self._first:
            self._wait()
            self._start = time.perf_counter() - paused
        if step != self._last:
            return None
        self._wait()
        seconds = (time.perf_counter() - paused - self._start) / _MEASURED
        left, points = self._settings.steps - step, self._settings.batch_size
        if left * seconds < _WORTH:
            return None
        words = f"{left:,} steps of {points:,} points are left, {left * points:,} in all"
        words += f": {clock(left * seconds)} at {1e3 * seconds:.1f} ms a step"
        if self._folder is None:
            return words
        free, taken = shutil.disk_usage(self._folder).free, self._disk(self._folder, seconds)
        return f"{words}, and {size(taken)} on disk, which has {size(free)} free"

    def _disk(self, folder: Path, seconds: float) -> int:
        """The number of bytes that the steps left add to what is there, at the most, where a step
        takes so many seconds.
        """
        settings = self._settings
        every = settings.checkpoints.steps(settings.batch_size, seconds)
        checkpoints = self._times(max(1.0, every))
        if settings.keep is not None:
            # The oldest is deleted once the newest is whole.
            more = settings.keep + 1 - len(checkpoint.paths(folder / "checkpoints"))
            checkpoints = min(checkpoints, max(1, more))
        # The weights, their average, and two moments of the optimiser.
        copies = 4 * checkpoints
        if settings.snapshot_every is not None:
            # Two more averages, in each checkpoint too.
            copies += 2 * (checkpoints + self._times(settings.snapshot_every))
        return copies * self._weights

    def _times(self, every: float) -> int:
        """How often something is written from now on that is due at every so many steps, and at
        the end.
        """
        return math.ceil(self._settings.steps / every) - int((self._last - 1) // every)


def size(count: float) -> str:
    """A number of bytes, as in ``1.3 GB``."""
    power = 0
    while count >= 1000 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.3g} {_UNITS[power]}"

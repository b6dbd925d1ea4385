"""A training among processes: alone in its folder, and stopped between two steps."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from scorefield.errors import LostProcessError, TrainingError
from scorefield.files import reason

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
_ONE_INTERRUPT = 1.0  # seconds


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other training out of a folder, which is made where there is none.

    The lock is the operating system's, on the file ``.lock``: it goes with the process, however
    that ends, and the file that stays behind means nothing. On a file system without locks, the
    file ``.owner`` names the process that trains, as long as it does.

    Raises:
        TrainingError: If another training has the folder, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquired(folder)
    except Timeout:
        raise TrainingError(
            f"{folder} is being trained by another process: wait for its end or stop it"
        ) from None
    except OSError as error:
        raise TrainingError(f"cannot write {folder / '.lock'}: {reason(error)}") from error
    try:
        yield
    finally:
        lock.release()


def _acquired(folder: Path) -> BaseFileLock:
    lock: BaseFileLock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        lock = SoftFileLock(folder / ".owner", blocking=False)
        lock.acquire()
    return lock


@contextmanager
def among_others(last_good: Callable[[], str]) -> Iterator[None]:
    """Adds the last good checkpoint to what is known of a process that was lost.

    Raises:
        LostProcessError: In place of one without it.
    """
    try:
        yield
    except LostProcessError as error:
        words, last = str(error), last_good()
        words = words if last in words else f"{words}; {last}"
        raise LostProcessError(words, error.speaks) from error


class StopSignal:
    """Notes SIGINT and SIGTERM instead of dying of them.

    Of one interrupt several signals may come, from the terminal and from a parent process; a
    signal more than a second after the first has its usual effect. Outside the main thread,
    where Python handles no signals, nothing is noted.

    Attributes:
        received: Whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.received = False
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._first = True, now
        elif now - self._first > _ONE_INTERRUPT:
            before = self._before[number]
            self._restore()
            if before is not signal.SIG_IGN:
                os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

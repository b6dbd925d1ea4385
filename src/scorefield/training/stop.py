"""Stopping between two steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

_ONE_INTERRUPT = 1.0  # seconds


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

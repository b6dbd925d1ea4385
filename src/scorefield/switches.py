"""Settings of torch that hold for the whole process, shared by its threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock

State = tuple[bool, bool]


class ProcessWide:
    """A context that holds for the whole process, until the last of its threads has left it.

    Arguments:
        make: Makes the context that is entered by the first.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._holders = 0
        self._lock = Lock()
        self._inner: AbstractContextManager[None] = nullcontext()

    def __enter__(self) -> None:
        with self._lock:
            if not self._holders:
                self._inner = self._make()
                self._inner.__enter__()
            self._holders += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._inner.__exit__(None, None, None)


class Switch:
    """A setting of the whole process that several threads may hold in states of their own: it is in
    the strictest of them, and once the last has left it as it was before the first.

    Arguments:
        read: Returns the state.
        write: Sets it.
        strictest: Returns the strictest of several states.
    """

    def __init__(
        self,
        read: Callable[[], State],
        write: Callable[[State], None],
        strictest: Callable[[Sequence[State]], State],
    ) -> None:
        self._read, self._write, self._strictest = read, write, strictest
        self._held: list[State] = []
        self._lock = Lock()

    @contextmanager
    def __call__(self, state: State) -> Iterator[None]:
        """Holds a state."""
        with self._lock:
            if not self._held:
                self._before = self._read()
            self._held.append(state)
            self._write(self._strictest(self._held))
        try:
            yield
        finally:
            with self._lock:
                self._held.remove(state)
                self._write(self._strictest(self._held) if self._held else self._before)

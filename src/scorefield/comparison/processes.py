"""Many tasks on a few processes, in the order of what they need of each other.

A task that fails takes only those with it that need its result. After an interrupt, tasks under
way are stopped and waited for, and no other is started. Processes outlive their
tasks, since importing the libraries takes longer than many of them. They end with the one that
started them, however that ends: the pipe between them is then at its end. A training that is
interrupted in this way writes its checkpoint, as after any other interrupt.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, Literal, Protocol, runtime_checkable

from scorefield.errors import Interrupted, RunError, sentence
from scorefield.memory import keep_freed

Status = Literal["done", "failed", "interrupted", "not started"]
_POLL = 0.5  # seconds


@dataclass(frozen=True, eq=False)
class Task:
    """A call that is made in a process of its own: of a function of a module, with the results of
    the tasks that it needs as its last arguments; ``summary`` is reported when it is done.
    """

    name: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    needs: tuple[Task, ...] = ()
    summary: str = ""


@dataclass(frozen=True)
class TaskResult:
    """How a task ended: what it returned, or one sentence about its failure."""

    status: Status
    result: Any = None
    reason: str = ""
    seconds: float = 0.0


@runtime_checkable
class Executor(Protocol):
    """What runs tasks: ``width`` at most are started that have not ended, of which there are
    ``busy``, and ``together`` at most work at the same time.
    """

    width: int

    @property
    def busy(self) -> int: ...

    @property
    def together(self) -> int: ...

    def start(self, task: Task, arguments: tuple[Any, ...]) -> None:
        """Starts a task with these arguments."""

    def wait(self, seconds: float) -> list[tuple[Task, TaskResult]]:
        """Waits until a task ends, for so long at most, and returns those that have."""

    def stop(self) -> None:
        """Interrupts all tasks under way; :meth:`wait` returns them when they have ended."""


def run(
    tasks: Sequence[Task],
    executor: Executor,
    ended: Callable[[Task, TaskResult], object] | None = None,
    watch: Callable[[], object] | None = None,
) -> dict[Task, TaskResult]:
    """Runs tasks; those that are ready start in order. An interrupt shows in the outcomes.

    ``ended`` is called with each started task when it ends, and ``watch`` now and then.
    """
    outcomes: dict[Task, TaskResult] = {}
    waiting, started = list(tasks), set[Task]()
    while waiting or executor.busy:
        try:
            for task in _startable(waiting, outcomes):
                if executor.busy == executor.width:
                    break
                waiting.remove(task)
                started.add(task)
                inputs = tuple(outcomes[need].result for need in task.needs)
                executor.start(task, task.arguments + inputs)
            for task, outcome in executor.wait(_POLL):
                outcomes[task] = outcome
                if ended is not None:
                    ended(task, outcome)
            if watch is not None:
                watch()
            if interrupted(outcomes):
                waiting.clear()
        except KeyboardInterrupt:
            waiting.clear()
            executor.stop()
    # An interrupt may have come between the end of a task and its record.
    lost, idle = TaskResult("interrupted"), TaskResult("not started")
    return {task: outcomes.get(task, lost if task in started else idle) for task in tasks}


def demand(outcomes: Mapping[Task, TaskResult]) -> None:
    """Passes on what kept tasks from being done: an interrupt, or as RunError the first failure."""
    if interrupted(outcomes):
        raise KeyboardInterrupt
    for task, outcome in outcomes.items():
        if outcome.status == "failed":
            raise RunError(f"{task.name}: {outcome.reason}")


def interrupted(outcomes: Mapping[Task, TaskResult]) -> bool:
    """Whether an interrupt ended the tasks."""
    return any(outcome.status == "interrupted" for outcome in outcomes.values())


def _startable(waiting: list[Task], outcomes: dict[Task, TaskResult]) -> Iterator[Task]:
    """The tasks whose needs are done; one whose need has failed ends without having started."""
    for task in list(waiting):
        ended = [outcomes[need].status for need in task.needs if need in outcomes]
        if any(status != "done" for status in ended):
            waiting.remove(task)
            outcomes[task] = TaskResult("not started")
        elif len(ended) == len(task.needs):
            yield task


_GRACE = 30.0  # seconds


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    task: Task | None = None
    started: float = 0.0


class LocalProcesses:
    """An :class:`Executor` of processes on this machine.

    Each has ``threads`` threads, where the environment sets none. ``on_line`` is called with each
    line that a task prints; by default the processes have the standard streams of this one.
    ``stopped`` is whether :meth:`stop` was called.
    """

    def __init__(
        self,
        width: int,
        threads: int | None = None,
        on_line: Callable[[Task, str], object] | None = None,
    ) -> None:
        self.width = width
        self._threads = threads
        self._on_line = on_line
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self.stopped = False

    def __enter__(self) -> LocalProcesses:
        return self

    def __exit__(self, *exception: object) -> None:
        if any(exception):
            self.stop()
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join()

    @property
    def busy(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    @property
    def together(self) -> int:
        return self.width

    def start(self, task: Task, arguments: tuple[Any, ...]) -> None:
        content = pickle.dumps((task.call, arguments))
        idle = [worker for worker in self._workers if worker.task is None]
        worker = idle[0] if idle else self._hire()
        worker.task, worker.started = task, time.monotonic()
        with suppress(OSError):  # it has died meanwhile: its end is found by waiting for it
            worker.connection.send_bytes(content)

    def wait(self, seconds: float) -> list[tuple[Task, TaskResult]]:
        busy = {w.connection: w for w in self._workers if w.task is not None}
        ended = []
        for connection in wait_for(list(busy), seconds):
            worker = busy[connection]  # type: ignore[index]
            task, outcome = worker.task, self._receive(worker)
            if task is not None and outcome is not None:
                worker.task = None
                ended.append((task, outcome))
        return ended

    def stop(self) -> None:
        self.stopped = True
        for worker in self._workers:
            worker.process.terminate()

    def _hire(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._threads, self._on_line is not None)
        )
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _receive(self, worker: _Worker) -> TaskResult | None:
        """How the worker's task ended; ``None`` if it has only printed a line."""
        seconds = time.monotonic() - worker.started
        try:
            found = worker.connection.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.connection.close()
            worker.process.join()
            if self.stopped:
                return TaskResult("interrupted", seconds=seconds)
            code = worker.process.exitcode or 0
            reason = f"its process ended with the status {code}"
            if code < 0:
                reason = f"its process was ended by the signal {signal.Signals(-code).name}"
            return TaskResult("failed", reason=reason, seconds=seconds)
        if isinstance(found, TaskResult):
            return replace(found, seconds=seconds)
        if self._on_line is not None and worker.task is not None:
            self._on_line(worker.task, found)
        return None


def _serve(connection: Connection, threads: int | None, relayed: bool) -> None:
    """The life of a process: one task after the other, until there is no one to give them."""
    keep_freed()
    if threads is not None:
        # Of each library, before its import.
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # SLURM sends it to every process of a job; what is above this one tells it to stop.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if relayed:
        sys.stdout = sys.stderr = _Lines(connection)
    tasks: queue.Queue[bytes | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(connection, tasks, busy), daemon=True).start()
    outcome = TaskResult("done")
    with suppress(KeyboardInterrupt, OSError):
        while outcome.status != "interrupted" and (content := tasks.get()) is not None:
            busy.set()
            outcome = _outcome(content)
            sys.stdout.flush()
            connection.send(outcome)
            busy.clear()
    _ignore_signals()


def _listen(
    connection: Connection, tasks: queue.Queue[bytes | None], busy: threading.Event
) -> None:
    """Receives tasks; at the end of the pipe, interrupts the one under way."""
    with suppress(EOFError, OSError):
        while True:
            tasks.put(connection.recv_bytes())
    tasks.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)


def _outcome(content: bytes) -> TaskResult:
    try:
        call, arguments = pickle.loads(content)
        return TaskResult("done", call(*arguments))
    except (KeyboardInterrupt, Interrupted):
        return TaskResult("interrupted")
    except Exception as error:
        summary = sentence(error)
        if summary is None:
            traceback.print_exc()
            summary = f"{type(error).__name__}: {error}"
        return TaskResult("failed", reason=summary)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # Of one interrupt, several signals may come.
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Lines(io.TextIOBase):
    """A stream that sends what is printed, a line at a time, as long as someone receives it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._text = ""

    def write(self, text: str, /) -> int:
        *lines, self._text = (self._text + text).split("\n")
        with suppress(OSError):
            for line in lines:
                self._connection.send(line)
        return len(text)

    def flush(self) -> None:
        if self._text:
            self.write("\n")

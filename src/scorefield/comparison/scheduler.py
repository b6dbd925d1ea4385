"""Many tasks on a few processes, in the order of what they need of each other.

A task that fails takes only those with it that need its result. After an interrupt, tasks under
way are stopped and waited for, and no other is started. Where tasks run is the business of an
:class:`Executor`: processes on this machine (:mod:`~scorefield.comparison.processes`), or a
cluster's queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from scorefield.errors import RunError

Status = Literal["done", "failed", "interrupted", "not started"]
_POLL = 0.5  # seconds


@dataclass(frozen=True, eq=False)
class Task:
    """A call that is made in a process of its own: of a function of a module, with the results of
    the tasks that it needs as its last arguments.
    """

    name: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    needs: tuple[Task, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a task ended: what it returned, or one sentence about its failure."""

    status: Status
    result: Any = None
    reason: str = ""
    seconds: float = 0.0


@runtime_checkable
class Executor(Protocol):
    """What runs tasks, ``width`` at the same time; ``busy`` have not ended."""

    width: int

    @property
    def busy(self) -> int: ...

    def start(self, task: Task, arguments: tuple[Any, ...]) -> None:
        """Starts a task with these arguments."""

    def wait(self, seconds: float) -> list[tuple[Task, Outcome]]:
        """Waits until a task ends, for so long at most, and returns those that have."""

    def stop(self) -> None:
        """Interrupts all tasks under way; :meth:`wait` returns them when they have ended."""


def run(
    tasks: Sequence[Task],
    executor: Executor,
    ended: Callable[[Task, Outcome], object] | None = None,
    watch: Callable[[], object] | None = None,
) -> dict[Task, Outcome]:
    """Runs tasks; those that are ready start in the order in which they are given.

    ``ended`` is called with each started task when it ends, and ``watch`` now and then. A
    :exc:`KeyboardInterrupt` is not passed on, but shows in the outcomes.
    """
    outcomes: dict[Task, Outcome] = {}
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
    lost, idle = Outcome("interrupted"), Outcome("not started")
    return {task: outcomes.get(task, lost if task in started else idle) for task in tasks}


def demand(outcomes: Mapping[Task, Outcome]) -> None:
    """Passes on what kept tasks from being done: an interrupt, or as RunError the first failure."""
    if interrupted(outcomes):
        raise KeyboardInterrupt
    for task, outcome in outcomes.items():
        if outcome.status == "failed":
            raise RunError(f"{task.name}: {outcome.reason}")


def interrupted(outcomes: Mapping[Task, Outcome]) -> bool:
    """Whether an interrupt ended the tasks."""
    return any(outcome.status == "interrupted" for outcome in outcomes.values())


def _startable(waiting: list[Task], outcomes: dict[Task, Outcome]) -> Iterator[Task]:
    """The tasks whose needs are done; one whose need has failed ends without having started."""
    for task in list(waiting):
        ended = [outcomes[need].status for need in task.needs if need in outcomes]
        if any(status != "done" for status in ended):
            waiting.remove(task)
            outcomes[task] = Outcome("not started")
        elif len(ended) == len(task.needs):
            yield task

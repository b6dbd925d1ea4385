"""Tasks as jobs of a SLURM cluster.

Tasks that can start together are one array of jobs, submitted by submitit. A job whose time is
nearly over (SIGUSR1) stops at its next checkpoint and goes back into the queue, as SLURM puts back
one whose node has failed or is wanted by another. Jobs outlive the process that has submitted them;
when the same tasks are started again, it waits for those that are still in the queue.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scorefield.checks import check_count
from scorefield.comparison.processes import LocalProcesses, Task, TaskResult, run
from scorefield.errors import RunError, UserError, hint
from scorefield.files import DOCUMENT, read_file, reason, write_file
from scorefield.progress import warn

JOBS = ".jobs"
"""The folder of jobs in that of all runs."""

_POLL, _LATE, _SILENT, _DAY = 5.0, 60.0, 3600.0, 24 * 60  # three times seconds, minutes
_RESTARTS = 100
# Those of submitit that describe what a job needs.
_COUNTS = (
    "time",
    "nodes",
    "ntasks_per_node",
    "cpus_per_task",
    "gpus_per_node",
    "gpus_per_task",
    "array_parallelism",
)
_OPTIONS = (
    *_COUNTS,
    *("partition", "account", "qos", "constraint", "gres", "exclusive", "nodelist", "exclude"),
    *("mem", "mem_per_cpu", "mem_per_gpu", "comment", "dependency", "job_name"),
    *("mail_type", "mail_user"),
)
# What a job that is no longer there was stopped by, rather than failed of.
_STOPPED = ("CANCELLED", "PREEMPTED")


@dataclass
class _Job:
    task: Task
    number: str
    begun: float
    state: str = ""
    gone: float | None = None


@dataclass
class SlurmJobs:
    """An :class:`~scorefield.comparison.processes.Executor` of jobs on a SLURM cluster.

    Arguments:
        folder: The folder of jobs, which all nodes see: their numbers, results and output.
        options: What jobs need, as submitit names it: ``partition``, ``time`` in
            minutes, ``nodes``, ``ntasks_per_node``, ``gpus_per_node``, ``cpus_per_task``, ...

    Raises:
        UserError: If submitit or SLURM is not installed, or an option is not known.
    """

    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    width: int = 1000
    poll: float = _POLL

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self._due: list[tuple[Task, tuple[Any, ...]]] = []
        self._jobs: list[_Job] = []
        self._looked, self._shown = -self.poll, ""
        self._queued: Mapping[str, str] | None = None
        self._silent: float | None = None
        self._stopped = False
        # The most jobs that were seen running at the same time.
        self.together = 1
        for name, value in self.options.items():
            if name not in _OPTIONS:
                raise UserError(f"a job has no option {name!r}; {hint(name, _OPTIONS, 'they')}")
            if name in _COUNTS:
                check_count(f"the option {name} of a job", value)
        try:
            import submitit
        except ImportError:
            raise UserError(
                "a sweep on a cluster needs submitit: install scorefield with its extra 'cluster'"
            ) from None
        try:
            self._executor = submitit.SlurmExecutor(self.folder / "output")
        except RuntimeError:
            raise UserError("SLURM is not on this machine: it has no command srun") from None
        self._executor.update_parameters(
            **{"job_name": "scorefield", "time": _DAY, **self.options},
            setup=["export SUBMITIT_PREEMPT_SIGNAL=USR1"],
            additional_parameters={"signal": "USR1@90", "requeue": True},
        )

    @property
    def busy(self) -> int:
        return len(self._due) + len(self._jobs)

    def start(self, task: Task, arguments: tuple[Any, ...]) -> None:
        number = job_of(self.folder, task.name)
        if number is not None and self._queued is None:
            # Once for all tasks that start together.
            self._queued = queue()
        if number is not None and self._queued is not None and number in self._queued:
            self._jobs.append(_Job(task, number, time.time()))
        else:
            self._due.append((task, arguments))

    def wait(self, seconds: float) -> list[tuple[Task, TaskResult]]:
        self._submit()
        time.sleep(min(seconds, self.poll))
        if time.monotonic() < self._looked + self.poll:
            return []
        self._looked = time.monotonic()
        if (waiting := self._look()) is None:
            return []
        self._show(waiting)
        ended = []
        for job in list(self._jobs):
            if job.number in waiting:
                job.state, job.gone = waiting[job.number], None
            elif (outcome := self._outcome(job)) is not None:
                self._jobs.remove(job)
                ended.append((job.task, outcome))
        return ended

    def stop(self) -> None:
        self._due.clear()
        self._stopped = True
        if self._jobs:
            _command("scancel", *(job.number for job in self._jobs))

    def _look(self) -> Mapping[str, str] | None:
        """The queue; nothing while SLURM does not answer, an hour at most."""
        try:
            found = queue()
        except RunError as error:
            if self._silent is None:
                self._silent = self._looked
                warn(f"it is not known which jobs are in the queue: {error}")
            if time.monotonic() > self._silent + _SILENT:
                raise
            return None
        self._silent = None
        return found

    def _show(self, waiting: Mapping[str, str]) -> None:
        counts = Counter(waiting.get(job.number, "ended") for job in self._jobs)
        self.together = max(self.together, counts["running"])
        line = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
        if line != self._shown:
            self._shown = line
            print(f"jobs: {line}", flush=True)

    def _submit(self) -> None:
        self._queued = None
        if not self._due:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        due, self._due = self._due, []
        try:
            # submitit would print the errors of SLURM as they come.
            with redirect_stderr(io.StringIO()), self._executor.batch():
                made = [
                    self._executor.submit(in_job, task, given, _result(self.folder, task.name))
                    for task, given in due
                ]
        except RuntimeError as error:
            # submitit repeats the script of the job before what SLURM said.
            told = [line for line in str(error).splitlines() if line.startswith("sbatch: ")]
            raise RunError(" ".join(told) or str(error)) from error
        for (task, _), job in zip(due, made, strict=True):
            write_file(
                _record(self.folder, task.name), json.dumps({"job": job.job_id, "task": task.name})
            )
            self._jobs.append(_Job(task, job.job_id, time.time()))

    def _outcome(self, job: _Job) -> TaskResult | None:
        """How a job that has left the queue ended; nothing as long as its result may come."""
        found = result_of(self.folder, job.task.name)
        if found is not None and found["job"] == job.number:
            # Those of earlier versions have no result.
            return TaskResult(
                found["status"], found.get("result"), found["reason"], found["seconds"]
            )
        seconds, state = time.time() - job.begun, _state(job.number)
        # Of a cancelled job SLURM keeps no record before it begins, and any while it ends.
        if state.startswith(_STOPPED) or self._stopped:
            return TaskResult("interrupted", seconds=seconds)
        # A folder that nodes share may show files late.
        job.gone = job.gone or time.monotonic()
        if time.monotonic() < job.gone + _LATE:
            return None
        if job.state.startswith("pending") and not state:
            return TaskResult("interrupted", seconds=seconds)
        told = f"its job {job.number} ended{f' as {state}' if state else ''} without a result"
        told += f"; what it wrote is in {self.folder / 'output'}"
        return TaskResult("failed", reason=told, seconds=seconds)


def queue() -> dict[str, str]:
    """The user's jobs in the queue: the state of each and, of one that waits, SLURM's reason."""
    lines = _command("squeue", "--me", "--array", "--noheader", "--format=%i %T %r").splitlines()
    found = {}
    for number, state, why in (line.split(maxsplit=2) for line in lines):
        told = f" ({why})" if state == "PENDING" and why != "None" else ""
        found[number] = f"{state.lower()}{told}"
    return found


def tasks_of(folder: Path) -> list[str]:
    """The names of the tasks that jobs were submitted for, of records that can be read."""
    found = []
    for path in sorted(folder.glob("*.job.json")):
        with suppress(RunError):
            if record := _read(path, task=str):
                found.append(record["task"])
    return found


def job_of(folder: Path, name: str) -> str | None:
    """The number of the last job that was submitted for a task."""
    found = _read(_record(folder, name), job=str)
    return None if found is None else found["job"]


def result_of(folder: Path, name: str) -> dict[str, Any] | None:
    """How the last job of a task that has ended did so: ``job``, ``status``, ``reason``,
    ``seconds``, and the ``result`` of the task where it is a plain value.
    """
    return _read(_result(folder, name), job=str, status=str, reason=str, seconds=float)


def in_job(task: Task, arguments: tuple[Any, ...], result: Path) -> None:
    """Runs a task in a process below that of the job, which writes down how that one ended."""
    import submitit

    job = submitit.JobEnvironment()
    if job.num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    received: list[int] = []
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(each, lambda number, frame: received.append(number))
    with LocalProcesses(1) as here:

        def stop() -> None:
            if received and not here.stopped:
                here.stop()

        task = replace(task, arguments=arguments, needs=())
        outcome = run([task], here, watch=stop)[task]
    if job.global_rank:
        if outcome.status == "failed":
            # The first task does not hear of it where this one has not met that.
            print(f"{task.name}: process {job.global_rank}: {outcome.reason}", flush=True)
        return
    if signal.SIGUSR1 in received and outcome.status != "done":
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if restarts < _RESTARTS:
            print(f"{task.name}: back into the queue", flush=True)
            _command("scontrol", "requeue", job.job_id)
            return
        outcome = TaskResult("failed", reason=f"its time was over {restarts + 1} times")
    content: dict[str, Any] = {"job": job.job_id, "status": outcome.status}
    content |= {"reason": outcome.reason, "seconds": outcome.seconds}
    if isinstance(outcome.result, str | int | float):
        content["result"] = outcome.result
    write_file(result, json.dumps(content))


def _read(path: Path, **kinds: type) -> dict[str, Any] | None:
    try:
        found = json.loads(read_file(path, DOCUMENT))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise RunError(f"{path} is no record of a job: it is not JSON") from error
    for name, kind in kinds.items():
        if not isinstance(found, dict) or not isinstance(found.get(name), kind):
            raise RunError(f"{path} is no record of a job: it has no {name}")
    return found


def _record(folder: Path, name: str) -> Path:
    return folder / f"{_plain(name)}.job.json"


def _result(folder: Path, name: str) -> Path:
    return folder / f"{_plain(name)}.result.json"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.=,+-]+", "_", name)


def _state(number: str) -> str:
    """What SLURM still knows of a job that has left the queue."""
    with suppress(RunError):
        found = re.search(r"JobState=(\w+)", _command("scontrol", "show", "job", number))
        if found:
            return found[1]
    return ""


def _command(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise RunError(f"SLURM is not on this machine: it has no command {words[0]}") from None
    except subprocess.TimeoutExpired:
        raise RunError(f"{words[0]} does not answer") from None
    if done.returncode:
        told = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise RunError(f"{' '.join(words[:2])}: {told}")
    return done.stdout

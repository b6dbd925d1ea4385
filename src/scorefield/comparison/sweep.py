"""Many runs, one process each.

A run that fails does not take the others with it. An interrupt, from the terminal or of the
sweep alone, is passed on: each run keeps its checkpoint, and the sweep ends with a table of what
was done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Literal

from scorefield.config import presets
from scorefield.config.config import Config
from scorefield.config.resolve import ENDINGS, load
from scorefield.errors import PREFIX, ConfigError

Status = Literal["done", "failed", "interrupted", "not started"]
_INTERRUPTED = 130


@dataclass(frozen=True)
class Job:
    """A run of a sweep.

    Attributes:
        name: The preset or file.
        overrides: What is changed.
        config: Both, resolved.
        folder: The run's folder.
    """

    name: str
    overrides: tuple[str, ...]
    config: Config
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its status, the last line of its errors, and how long it took."""

    job: Job
    status: Status
    reason: str
    seconds: float


def plan(
    names: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], root: Path
) -> list[Job]:
    """The jobs of a sweep: each name with each seed, seeds outermost.

    Arguments:
        names: Presets, patterns of their names such as ``toy/m1*``, and files.
        seeds: The seeds.
        overrides: What is changed in each.
        root: The folder of all runs.

    Raises:
        ConfigError: If a configuration is wrong, no preset matches a pattern, or two jobs would
            share a folder.
    """
    jobs: list[Job] = []
    expanded = [name for pattern in names for name in _named(pattern)]
    for seed in seeds:
        for name in expanded:
            changes = (*overrides, f"seed={seed}")
            config = load(name, changes)
            folder = root / config.folder
            if folder in [job.folder for job in jobs]:
                raise ConfigError(f"{name} with seed {seed} is in the sweep twice")
            jobs.append(Job(name, changes, config, folder))
    return jobs


def _named(pattern: str) -> list[str]:
    """What a pattern stands for; the name of a file is no pattern."""
    return [pattern] if pattern.endswith(ENDINGS) else presets.matching(pattern)


def run(
    jobs: Sequence[Job],
    root: Path,
    parallel: int = 1,
    evaluate: bool = False,
    say: Callable[[str], object] = print,
) -> list[Outcome]:
    """Runs the jobs in processes of their own.

    Arguments:
        jobs: The jobs.
        root: The folder of all runs.
        parallel: How many run at the same time.
        evaluate: Whether each is evaluated after its training.
        say: Is told each line of progress.

    Raises:
        ConfigError: If ``parallel`` is not positive.

    Returns:
        One outcome a job, in order. After an interrupt, jobs under way are stopped and waited
        for, and the rest is not started.
    """
    if parallel < 1:
        raise ConfigError(f"a sweep takes at least 1 job at a time, got {parallel}")
    children = _Children()
    alone = parallel == 1
    with ThreadPoolExecutor(parallel) as pool:
        futures: list[Future[Outcome]] = [
            pool.submit(_work, job, root, parallel, evaluate, say, children, alone) for job in jobs
        ]
        while True:
            try:
                wait(futures)
                break
            except KeyboardInterrupt:
                children.stop()
    return [future.result() for future in futures]


def time_models(
    outcomes: Sequence[Outcome],
    root: Path,
    parallel: int = 1,
    say: Callable[[str], object] = print,
) -> list[Path]:
    """Times the training steps of all evaluated models of a sweep's data sets side by side.

    Nothing is timed where a data set has one model only, or the times of all are known.

    Arguments:
        outcomes: What became of the sweep.
        root: The folder of all runs.
        parallel: How many runs were trained at the same time, which says how many threads each had.
        say: Is told of the progress.

    Returns:
        The files that were written.

    Raises:
        ConfigError: If the configuration of a run in the folder cannot be read.
        OSError: If a file cannot be written.
    """
    import torch

    from scorefield.comparison.costs import timed_models
    from scorefield.evaluation.timing import STEP_TIMES, time_steps
    from scorefield.runs.run import Run

    written = []
    for folder in dict.fromkeys(root / o.job.config.folder.parts[0] for o in outcomes):
        first: dict[str, Path] = {}
        for summary_file in sorted(folder.glob("*/seed*/eval/compute_summary.json")):
            run = summary_file.parent.parent
            first.setdefault(run.parent.name, run)
        if len(first) < 2 or first.keys() <= timed_models(folder):
            continue
        if parallel > 1:
            torch.set_num_threads(_threads(parallel))
        # Sorted by name: the first is what a report compares the others with.
        given = {root / o.job.config.folder: o.job.config for o in outcomes}
        configs = [given.get(run) or Run.open(run).config for run in first.values()]
        say(f"{folder.name}: timing the steps of {len(configs)} models side by side")
        time_steps(configs, folder)
        written.append(folder / STEP_TIMES)
    return written


def summary(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a table of outcomes."""
    rows = [
        [o.job.config.name, str(o.job.config.seed), o.status, f"{o.seconds:.1f}", o.reason]
        for o in outcomes
    ]
    return ["run", "seed", "status", "seconds", "reason"], rows


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0 if all is done, 130 after an interrupt, 1 if a run failed."""
    statuses = {o.status for o in outcomes}
    if statuses <= {"done"}:
        return 0
    return 1 if statuses <= {"done", "failed"} else _INTERRUPTED


class _Children:
    """The processes of a sweep.

    Attributes:
        stopped: Whether the sweep has been interrupted; then no other is started.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._lock = Lock()
        self._running: list[subprocess.Popen[str]] = []

    @contextmanager
    def process(
        self, command: Sequence[str], stdout: int | None, environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str] | None]:
        """Starts a process, unless the sweep has been interrupted, and waits for it."""
        with self._lock:
            if self.stopped:
                started = None
            else:
                started = subprocess.Popen(
                    command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment
                )
                self._running.append(started)
        try:
            yield started
        finally:
            if started is not None:
                started.wait()
                with self._lock:
                    self._running.remove(started)

    def stop(self) -> None:
        """Tells all processes to stop."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                process.terminate()


def _work(
    job: Job,
    root: Path,
    parallel: int,
    evaluate: bool,
    say: Callable[[str], object],
    children: _Children,
    alone: bool,
) -> Outcome:
    if children.stopped:
        return Outcome(job, "not started", "", 0.0)
    start = time.monotonic()
    label = f"{job.config.name} seed{job.config.seed}"
    commands = [["train", job.name, *job.overrides, "--root", str(root)]]
    if evaluate:
        # What the user has given for training may be imported again.
        commands.append(["eval", str(job.folder), "--trust-code"])
    status: Status = "done"
    reason = ""
    for command in commands:
        say(f"{label}: {command[0]}")
        code, reason = _call(command, label, parallel, say, children, alone)
        if code == _INTERRUPTED or (code and children.stopped):
            children.stopped = True
            status = "interrupted"
            break
        if code:
            status = "failed"
            say(f"{label}: failed: {reason}")
            break
    return Outcome(job, status, reason if status == "failed" else "", time.monotonic() - start)


def _call(
    command: Sequence[str],
    label: str,
    parallel: int,
    say: Callable[[str], object],
    children: _Children,
    alone: bool,
) -> tuple[int, str]:
    """The exit status of a command, and the last line of what it said on the standard error.

    Alone, a job has the terminal for its progress bar; of several, each line is labelled.
    """
    environment = dict(os.environ)
    if parallel > 1:
        environment.setdefault("OMP_NUM_THREADS", str(_threads(parallel)))
    last = ""
    line = [sys.executable, "-m", "scorefield", *command]
    stdout = None if alone else subprocess.PIPE
    with children.process(line, stdout, environment) as process, ThreadPoolExecutor(1) as pool:
        if process is None:
            return _INTERRUPTED, ""
        if process.stdout is not None:
            pool.submit(_relay, process.stdout, label, say)
        assert process.stderr is not None
        for told in process.stderr:
            last = told.strip() or last
            if not told.startswith(PREFIX):
                say(f"{label}: {told.rstrip()}")
    return process.wait(), last.removeprefix(PREFIX)


def _threads(parallel: int) -> int:
    """The threads of each of so many processes."""
    return max(1, (os.cpu_count() or 1) // parallel)


def _relay(stream: IO[str], label: str, say: Callable[[str], object]) -> None:
    for line in stream:
        say(f"{label}: {line.rstrip()}")

"""Many runs, one process each.

A run that fails does not take the others with it. An interrupt is passed on: each run keeps its
checkpoint, and the sweep ends with a table of what was done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorefield.comparison.processes import Executor, LocalProcesses, Task, TaskResult, demand
from scorefield.comparison.processes import run as run_tasks
from scorefield.config import presets
from scorefield.config.config import Config
from scorefield.config.resolve import ENDINGS, load_config
from scorefield.errors import ConfigError
from scorefield.progress import Stages, clock, warn

if TYPE_CHECKING:
    from scorefield.training.trainer import DrawFor


def drawing_of(source: Any) -> Any:
    """What draws a training on the data; for the processes of runs, which alone import torch."""
    from scorefield.plotting import training_figures

    return training_figures(source.truth)


SEED = " seed"
"""What is between the name of a configuration and its seed in the name of a task."""


@dataclass(frozen=True)
class Job:
    """A run of a sweep: a preset or file with what is changed, resolved."""

    name: str
    config: Config
    folder: Path


def plan(
    names: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], root: Path
) -> list[Job]:
    """The jobs of a sweep: each name, pattern of names or file with each seed, seeds outermost.

    A preset that distills a teacher, of which none is given, is left out of a pattern that matches
    others too, with a warning.

    Raises:
        ConfigError: If a configuration is wrong, no preset matches a pattern, two jobs would
            share a folder, or a teacher is missing.
    """
    jobs: list[Job] = []
    expanded: list[tuple[str, str]] = []
    left_out: dict[str, str] = {}
    for pattern in names:
        # The name of a file is no pattern.
        found = [pattern] if pattern.endswith(ENDINGS) else presets.matching(pattern)
        expanded += [(name, pattern if len(found) > 1 else "") for name in found]
    for seed in seeds:
        for name, pattern in expanded:
            config = load_config(name, (*overrides, f"seed={seed}"))
            teacher = config.objective.teacher
            if teacher is not None and teacher.run is None:
                if not pattern:
                    raise ConfigError(f"{name}: {teacher.MISSING}")
                left_out[name] = f"{name} is left out of {pattern!r}: {teacher.MISSING}"
                continue
            folder = root / config.folder
            if folder in [job.folder for job in jobs]:
                raise ConfigError(f"{name} with seed {seed} is in the sweep twice")
            jobs.append(Job(name, config, folder))
    for sentence in left_out.values():
        warn(sentence)
    return jobs


def run(
    jobs: Sequence[Job],
    root: Path,
    parallel: int = 1,
    evaluate: bool = False,
    draw: DrawFor | None = None,
    engine: Mapping[str, Any] | None = None,
    cluster: Executor | None = None,
) -> list[TaskResult]:
    """Runs the jobs in processes of their own, ``parallel`` at a time, or on a cluster; one outcome
    a job, in order.

    With ``evaluate`` each is evaluated after its training, and the models are timed; ``draw`` is
    that of :meth:`~.train`; the values ``engine`` take the place of those of the configurations.

    Raises:
        UserError: If this machine does not have the device of an engine.
        ConfigError: If ``parallel`` is not positive.
        RunError: If the models cannot be timed.
    """
    if parallel < 1:
        raise ConfigError(f"a sweep takes at least 1 job at a time, got {parallel}")
    chosen = dict(engine or {})
    if chosen and cluster is None:
        # It imports torch, which nothing else here needs.
        from scorefield.config.build import build_engine

        for job in jobs:
            build_engine(job.config, **chosen).check()
    how = (root, evaluate, draw, chosen)
    tasks = [Task(task_name(j.config), _work, (j.config, *how)) for j in jobs]
    # A job alone has the terminal for its progress bar; of several, each line is labelled.
    # Its process writes to the standard output, wherever this one's progress is led.
    alone = parallel == 1 and sys.stdout.isatty() and sys.stdout.fileno() == 1
    threads = None if parallel == 1 else max(1, (os.cpu_count() or 1) // parallel)
    local = LocalProcesses(parallel, threads, None if alone else _label)
    ended: list[TaskResult] = []

    def report(task: Task, outcome: TaskResult) -> None:
        _report_failure(task, outcome)
        ended.append(outcome)
        if len(tasks) > 1:
            print(remaining(ended, len(tasks), executor.together), flush=True)

    with local if cluster is None else nullcontext(cluster) as executor:
        outcomes = list(run_tasks(tasks, executor, report).values())
        if evaluate and exit_status(outcomes) == 0:
            folders = dict.fromkeys(root / job.config.folder.parts[0] for job in jobs)
            given = {root / job.config.folder: job.config for job in jobs}
            timings = [Task(f.name, time_models, (f, given, chosen)) for f in folders]
            demand(run_tasks(timings, executor))
    return outcomes


def on_cluster(root: Path, parallel: int | None, options: Mapping[str, Any]) -> Executor:
    """Jobs of a SLURM cluster, ``parallel`` at a time, with what they ask for.

    Raises:
        UserError: As of :class:`~scorefield.comparison.cluster.SlurmJobs`.
    """
    from scorefield.comparison.cluster import JOBS, SlurmJobs

    limit = {} if parallel is None else {"array_parallelism": parallel}
    return SlurmJobs(root / JOBS, {**limit, **options})


def task_name(config: Config) -> str:
    """The name of the task that trains and evaluates a run."""
    return f"{config.name}{SEED}{config.seed}"


def remaining(ended: Sequence[TaskResult], runs: int, together: int) -> str:
    """How many runs of a sweep have ended, and how long those that are left take, so many at a
    time, if they take as long as those did on average that were trained here.
    """
    left, seconds = runs - len(ended), [o.seconds for o in ended if o.status == "done" and o.result]
    words = f"{len(ended)} of {runs} runs ended"
    if not left or not seconds:
        return words
    # The last ones take as long as one does, however many run at a time.
    rounds = max(1.0, left / together)
    return f"{words}, about {clock(rounds * sum(seconds) / len(seconds))} left"


def _report_failure(task: Task, outcome: TaskResult) -> None:
    if outcome.status == "failed":
        print(f"{task.name}: failed: {outcome.reason}")


def _label(task: Task, line: str) -> None:
    print(f"{task.name}: {line.rstrip()}")


def _work(
    config: Config, root: Path, evaluate: bool, draw: DrawFor | None, chosen: Mapping[str, Any]
) -> bool:
    """Trains and evaluates a run; returns whether it was not trained before."""
    from scorefield.config.build import build_engine
    from scorefield.evaluation.evaluate import evaluate as evaluate_run
    from scorefield.runs.run import Run

    engine = build_engine(config, **chosen)
    engine.check()
    with engine.joined() as together:
        world = together.world
        run = Run.create(config, root, world=world)
        trained = world.broadcast(lambda: run.finished)
        if not trained:
            if world.first:
                print(f"training in {run.folder}", flush=True)
            run.train(draw=draw, engine=together)
    if evaluate and world.first:
        print("evaluating", flush=True)
        with Stages() as stages:
            evaluate_run(run, stages=stages, engine=engine)
    return not trained


def time_models(
    folder: Path, given: Mapping[Path, Config], engine: Mapping[str, Any] | None = None
) -> None:
    """Times the steps of all evaluated models of a data set side by side, unless that is done.

    The values ``engine`` take the place of those of the configurations. Of ``given``, by the
    folders of the runs, custom classes may be imported; of other runs not.
    """
    if os.environ.get("RANK", "0") != "0":
        return  # of several tasks of a job, the first is enough
    from scorefield.comparison.timing import time_steps, timed_models
    from scorefield.runs.run import Run

    files = sorted(folder.glob("*/seed*/eval/compute_summary.json"), reverse=True)
    first = {file.parents[2].name: file.parents[1] for file in files}
    if len(first) < 2 or first.keys() <= timed_models(folder):
        return
    # Sorted by name: the first is what a report compares the others with.
    configs = [given.get(run) or Run.open(run).config for _, run in sorted(first.items())]
    print(f"timing the steps of {len(configs)} models side by side", flush=True)
    time_steps(configs, folder, engine)


def summary(
    jobs: Sequence[Job], outcomes: Sequence[TaskResult]
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row a run: how it ended, and where it is evaluated its sample quality at the largest number
    of calls, with the mark of its model; and what marks mean, where there are any.
    """
    quality, notes = _qualities([job.folder for job in jobs])
    rows = []
    for job, outcome in zip(jobs, outcomes, strict=True):
        row = {
            "run": job.config.name,
            "seed": job.config.seed,
            "status": outcome.status,
            "seconds": outcome.seconds,
            **quality.get(job.folder, {}),
            "reason": outcome.reason or None,
            "folder": str(job.folder),
        }
        rows.append(row)
    columns = dict.fromkeys(name for row in rows for name in row if name not in _LAST)
    return [{name: row.get(name) for name in (*columns, *_LAST)} for row in rows], notes


_LAST = ("reason", "folder")
"""The last columns of the summary."""


def _qualities(folders: Sequence[Path]) -> tuple[dict[Path, dict[str, Any]], list[str]]:
    """The sample quality of runs that are evaluated, by folder, and what their marks mean."""
    evaluated = [folder for folder in folders if any((folder / "eval").glob("*"))]
    if not evaluated:
        return {}, []
    # They import torch, which is not needed before.
    from scorefield.comparison.marks import NONE, explained, marks_of
    from scorefield.evaluation.catalogue import TARGET
    from scorefield.evaluation.records import Evaluation
    from scorefield.runs.cells import Marked

    evaluations = {folder: Evaluation.read(folder) for folder in evaluated}
    marks = marks_of(TARGET, list(evaluations.values()))
    quality = {}
    for folder, e in evaluations.items():
        distance = e.distance(TARGET.name, e.budgets[-1])
        if distance is not None:
            column = f"{TARGET.label}, {distance.nfe} calls"
            mark = marks.get((e.dataset, e.model), NONE)
            quality[folder] = {column: Marked(distance.estimate, mark.words)}
    notes = [explained("the reference")] if any(m != NONE for m in marks.values()) else []
    return quality, notes


def exit_status(outcomes: Sequence[TaskResult]) -> int:
    """0 if all is done, 130 after an interrupt, 1 if a run failed."""
    statuses = {o.status for o in outcomes}
    if statuses <= {"done"}:
        return 0
    return 1 if statuses <= {"done", "failed"} else 130

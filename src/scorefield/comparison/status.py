"""How far all runs of a folder are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorefield.comparison.cluster import JOBS, job_of, queue, result_of, tasks_of
from scorefield.comparison.sweep import SEED, task_name
from scorefield.errors import ConfigError, RunError
from scorefield.evaluation.records import SUMMARY
from scorefield.files import absence
from scorefield.progress import clock, warn
from scorefield.runs.find import folders, written
from scorefield.runs.run import Run
from scorefield.training.record import read_rows

COLUMNS = ("run", "seed", "steps", "of", "state", "evaluated", "job", "written", "folder")


def progress(root: Path) -> list[dict[str, Any]]:
    """A row a run: the last step that is written down, of how many; the state, that of its job for
    a run that is not finished; whether it is evaluated; the number of its last job; how long ago it
    was written to, in hours, minutes and seconds. Runs of jobs that have not begun are the last.

    Raises:
        RunError: If the folder has no run.
    """
    known = folders(root)
    jobs, waiting = root / JOBS, dict[str, str]()
    tasks = tasks_of(jobs)
    if not known and not tasks:
        raise RunError(f"{root} holds no run{absence(root)}")
    if jobs.is_dir():
        try:
            waiting = queue()
        except RunError as error:
            warn(f"it is not known which jobs are in the queue: {error}")
    rows = [_row(folder, jobs, waiting) for folder in known]
    begun = {f"{row['run']}{SEED}{row['seed']}" for row in rows}
    for task in tasks:
        name, _, seed = task.rpartition(SEED)
        # Not all tasks are runs.
        if name and seed.isdecimal() and task not in begun:
            number, state = _job(jobs, task, waiting)
            rows.append(_cells(name, int(seed), 0, None, state, "no", number, None, None))
    return rows


def _cells(*cells: Any) -> dict[str, Any]:
    return dict(zip(COLUMNS, cells, strict=True))


def _job(jobs: Path, name: str, waiting: Mapping[str, str]) -> tuple[str | None, str]:
    """The number of the last job of a task, and its state."""
    try:
        number, result = job_of(jobs, name), result_of(jobs, name)
    except RunError as error:
        return str(error), "unfinished"
    if number is None:
        return None, "unfinished"
    if number in waiting:
        return number, waiting[number]
    if result is None or result["job"] != number:
        return number, "unfinished"
    why = f": {result['reason']}" if result["reason"] else ""
    return number, f"{result['status']}{why}"


def _row(folder: Path, jobs: Path, waiting: Mapping[str, str]) -> dict[str, Any]:
    place = str(folder)
    try:
        run = Run.open(folder)
    except (ConfigError, RunError) as error:
        name = f"{folder.parent.parent.name}/{folder.parent.name}"
        state = f"cannot be read: {error}"
        return _cells(name, None, None, None, state, None, None, None, place)
    config, name = run.config, task_name(run.config)
    stored = run.steps()
    done = max([0, *stored, *_logged(folder)])
    number, state = _job(jobs, name, waiting)
    if config.train.steps in stored:
        state = "finished"
    evaluated = "yes" if (folder / "eval" / SUMMARY).is_file() else "no"
    age = f"{clock(time.time() - written(folder))} ago"
    steps = (done, config.train.steps)
    return _cells(config.name, config.seed, *steps, state, evaluated, number, age, place)


def _logged(folder: Path) -> list[int]:
    file = folder / "metrics.csv"
    return [int(row["step"] or 0) for row in read_rows(file)[-1:]] if file.is_file() else []

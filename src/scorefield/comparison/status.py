"""How far all runs of a folder are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from scorefield.comparison.cluster import JOBS, job_of, queue, result_of, tasks_of
from scorefield.comparison.sweep import SEED, task_name
from scorefield.errors import ConfigError, RunError
from scorefield.evaluation.records import SUMMARY
from scorefield.files import absence
from scorefield.progress import clock, warn
from scorefield.runs.run import CONFIG, Run
from scorefield.training.record import read_rows

COLUMNS = ("run", "seed", "steps", "of", "state", "evaluated", "job", "written")


def progress(root: Path) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a table of runs: the last step that is written down, of how many; the
    state, that of its job for a run that is not finished; whether it is evaluated; the number of
    its last job; how long ago it was written to, in hours, minutes and seconds. Runs of jobs that
    have not begun are the last.

    Raises:
        RunError: If the folder has no run.
    """
    folders = sorted(path.parent for path in root.glob(f"*/*/seed*/{CONFIG}"))
    jobs, waiting = root / JOBS, dict[str, str]()
    tasks = tasks_of(jobs)
    if not folders and not tasks:
        raise RunError(f"{root} holds no run{absence(root)}")
    if jobs.is_dir():
        try:
            waiting = queue()
        except RunError as error:
            warn(f"it is not known which jobs are in the queue: {error}")
    rows = [_row(folder, jobs, waiting) for folder in folders]
    begun = {SEED.join(row[:2]) for row in rows}
    for task in tasks:
        name, _, seed = task.rpartition(SEED)
        # Not all tasks are runs.
        if name and task not in begun:
            number, state = _job(jobs, task, waiting)
            rows.append([name, seed, "0", "", state, "no", number, ""])
    return list(COLUMNS), rows


def _job(jobs: Path, name: str, waiting: Mapping[str, str]) -> tuple[str, str]:
    """The number of the last job of a task, and its state."""
    try:
        number, result = job_of(jobs, name), result_of(jobs, name)
    except RunError as error:
        return str(error), "unfinished"
    if number is None:
        return "", "unfinished"
    if number in waiting:
        return number, waiting[number]
    if result is None or result["job"] != number:
        return number, "unfinished"
    why = f": {result['reason']}" if result["reason"] else ""
    return number, f"{result['status']}{why}"


def _row(folder: Path, jobs: Path, waiting: Mapping[str, str]) -> list[str]:
    try:
        run = Run.open(folder)
    except (ConfigError, RunError) as error:
        return [str(folder), "", "", "", f"cannot be read: {error}", "", "", ""]
    config, name = run.config, task_name(run.config)
    stored = run.steps()
    done = max([0, *stored, *_logged(folder)])
    number, state = _job(jobs, name, waiting)
    if config.train.steps in stored:
        state = "finished"
    evaluated = "yes" if (folder / "eval" / SUMMARY).is_file() else "no"
    files = (folder / "metrics.csv", run.checkpoints)
    times = [path.stat().st_mtime for path in files if path.exists()]
    written = clock(time.time() - max(times)) + " ago" if times else ""
    steps = (str(done), str(config.train.steps))
    return [config.name, str(config.seed), *steps, state, evaluated, number, written]


def _logged(folder: Path) -> list[int]:
    file = folder / "metrics.csv"
    return [int(row["step"] or 0) for row in read_rows(file)[-1:]] if file.is_file() else []

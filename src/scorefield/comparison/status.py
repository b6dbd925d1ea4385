"""How far all runs of a folder are."""

from __future__ import annotations

import time
from pathlib import Path

from scorefield.comparison.cluster import JOBS, job_of, queue, result_of
from scorefield.comparison.sweep import task_name
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
    its last job; how long ago it was written to, in hours, minutes and seconds.

    Raises:
        RunError: If the folder has no run.
    """
    folders = sorted(path.parent for path in root.glob(f"*/*/seed*/{CONFIG}"))
    if not folders:
        raise RunError(f"{root} holds no run{absence(root)}")
    jobs, waiting = root / JOBS, dict[str, str]()
    if jobs.is_dir():
        try:
            waiting = queue()
        except RunError as error:
            warn(f"it is not known which jobs are in the queue: {error}")
    return list(COLUMNS), [_row(folder, jobs, waiting) for folder in folders]


def _row(folder: Path, jobs: Path, waiting: dict[str, str]) -> list[str]:
    try:
        run = Run.open(folder)
    except (ConfigError, RunError) as error:
        return [str(folder), "", "", "", f"cannot be read: {error}", "", "", ""]
    config, name = run.config, task_name(run.config)
    stored = run.steps()
    done = max([0, *stored, *_logged(folder)])
    try:
        number, result = job_of(jobs, name), result_of(jobs, name)
    except RunError as error:
        number, result = str(error), None
    if config.train.steps in stored:
        state = "finished"
    elif number in waiting:
        state = waiting[number]
    elif result is not None and result["job"] == number:
        state = result["status"] + (f": {result['reason']}" if result["reason"] else "")
    else:
        state = "unfinished"
    evaluated = "yes" if (folder / "eval" / SUMMARY).is_file() else "no"
    files = (folder / "metrics.csv", run.checkpoints)
    times = [path.stat().st_mtime for path in files if path.exists()]
    written = clock(time.time() - max(times)) + " ago" if times else ""
    steps = (str(done), str(config.train.steps))
    return [config.name, str(config.seed), *steps, state, evaluated, number or "", written]


def _logged(folder: Path) -> list[int]:
    file = folder / "metrics.csv"
    return [int(row["step"] or 0) for row in read_rows(file)[-1:]] if file.is_file() else []

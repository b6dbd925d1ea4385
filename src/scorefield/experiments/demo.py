"""The demonstration: five models on two data sets, trained, judged and timed within minutes.

It is a sweep over presets with shorter trainings, two at a time in processes of one thread each.
What is finished stays: started again, the demonstration goes on where it was.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scorefield.experiments.config import Config
from scorefield.experiments.errors import RunError
from scorefield.experiments.evaluate import evaluate
from scorefield.experiments.judge import Floors, Terms, measure_floors, terms_of
from scorefield.experiments.progress import Stages
from scorefield.experiments.records import Evaluation, read_csv
from scorefield.experiments.resolve import load
from scorefield.experiments.run import Run
from scorefield.experiments.timing import STEP_TIMES, time_steps
from scorefield.training import Interrupted

MODELS = ("m0", "m1", "m2", "m3", "m4")

SHORTER: dict[str, tuple[str, ...]] = {
    "toy": ("train.steps=3000", "optim.warmup=150"),
    "digits": ("train.steps=300", "optim.warmup=30", "train.log_every=10", "eval.points=16"),
}
"""What the demonstration changes in the presets of a family: the models train for less long, and
on ``digits`` their Jacobians are computed at fewer points."""

_POLL = 0.5  # seconds
_ROUNDS = 4


@dataclass
class Family:
    """The runs of one data set."""

    name: str
    configs: list[Config]
    runs: list[Run]

    @property
    def terms(self) -> Terms:
        """The terms that all are judged on."""
        return terms_of(self.configs[0])


def demo(
    root: Path,
    families: Sequence[str] = tuple(SHORTER),
    overrides: Sequence[str] = (),
    jobs: int = 2,
) -> list[Path]:
    """Trains, evaluates and times the five models on each data set.

    Arguments:
        root: The folder of the runs.
        families: The data sets, of ``toy`` and ``digits``.
        overrides: Changes to every configuration, in place of the demonstration's own.
        jobs: How many processes work at the same time.

    Returns:
        The folders of the runs.

    Raises:
        ConfigError: If an override is wrong.
        RunError: If a folder belongs to another configuration.
        TrainingError: If a training fails; what was finished before stays.
        Interrupted: If SIGINT or SIGTERM arrived; likewise.
    """
    plans = [_family(name, root, overrides) for name in families]
    context = multiprocessing.get_context("spawn")
    with (
        Stages() as stages,
        ProcessPoolExecutor(
            jobs, context, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool,
    ):
        try:
            _train_and_evaluate(plans, pool, stages)
            # Nothing else runs meanwhile, so that the times are those of the steps.
            _time(plans, root, pool, stages)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [run.folder for plan in plans for run in plan.runs]


def _family(name: str, root: Path, overrides: Sequence[str]) -> Family:
    configs = [load(f"{name}/{model}", overrides or SHORTER[name]) for model in MODELS]
    return Family(name, configs, [Run.create(config, root) for config in configs])


def _train_and_evaluate(plans: Sequence[Family], pool: Executor, stages: Stages) -> None:
    floors: dict[str, Future[Floors]] = {}
    # What is under way, and what is done with each result.
    jobs: dict[Future[Any], Callable[[Any], None]] = {}
    left = {p.name: [run for run in p.runs if not _evaluated(run, p.terms)] for p in plans}

    def measured(plan: Family, _: Floors) -> None:
        stages.say(f"noise floor of {plan.name} measured")

    def trained(plan: Family, run: Run, stopped: tuple[int, Path | None] | None) -> None:
        if stopped is not None:
            raise Interrupted(*stopped)
        stages.say(f"{_name(run)} trained, {run.config.train.steps} steps")
        future = pool.submit(_evaluate, run.folder, plan.terms, floors[plan.name].result())
        jobs[future] = partial(judged, plan, run)

    def judged(plan: Family, run: Run, _: None) -> None:
        left[plan.name].remove(run)
        stages.say(f"{_name(run)} evaluated")

    for plan in plans:
        if left[plan.name]:
            floors[plan.name] = pool.submit(_floors, plan.runs[0].folder, plan.terms)
            jobs[floors[plan.name]] = partial(measured, plan)
    for plan in plans:
        for run in left[plan.name]:
            jobs[pool.submit(_train, run.folder)] = partial(trained, plan, run)
    while jobs:
        done, _ = wait(jobs, timeout=_POLL, return_when=FIRST_COMPLETED)
        for future in done:
            jobs.pop(future)(future.result())
        for plan in plans:
            steps = [min(_steps_done(run), run.config.train.steps) for run in plan.runs]
            total = sum(run.config.train.steps for run in plan.runs)
            stages.show(f"{plan.name}: training", sum(steps), total)
            judged_runs = len(plan.runs) - len(left[plan.name])
            stages.show(f"{plan.name}: evaluation", judged_runs, len(plan.runs))


def _time(plans: Sequence[Family], root: Path, pool: Executor, stages: Stages) -> None:
    waiting: dict[Future[Any], Family] = {}
    for plan in plans:
        if not (root / plan.name / STEP_TIMES).is_file():
            steps = max(2, min(64, plan.configs[0].train.steps // 40))
            job = pool.submit(time_steps, plan.configs, root / plan.name, _ROUNDS, steps)
            waiting[job] = plan
    total = len(plans)
    while waiting:
        done, _ = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            stages.say(f"steps of {waiting.pop(future).name} timed side by side")
        stages.show("timing of steps", total - len(waiting), total)
    stages.show("timing of steps", total, total)


def _train(folder: Path) -> tuple[int, Path | None] | None:
    """Trains a run to its end; where it was interrupted, the step and the checkpoint.

    They come back as a result: this exception does not survive the way between processes.
    """
    run = Run.open(folder)
    try:
        if not run.finished:
            run.train(quiet=True)
    except Interrupted as stopped:
        return stopped.step, stopped.checkpoint
    return None


def _floors(folder: Path, terms: Terms) -> Floors:
    return measure_floors(Run.open(folder).source(), terms)


def _evaluate(folder: Path, terms: Terms, floors: Floors) -> None:
    evaluate(Run.open(folder), terms=terms, floors=floors)


def _evaluated(run: Run, terms: Terms) -> bool:
    """Whether the finished run has been judged on these terms."""
    try:
        found = Evaluation.read(run.folder)
    except RunError:
        return False
    known = {key: found.protocol.get(key) for key in terms.record()}
    return found.step == run.config.train.steps and known == terms.record()


def _steps_done(run: Run) -> int:
    """The steps that the metrics tell of; 0 where there are none yet."""
    try:
        rows = read_csv(run.folder / "metrics.csv")
    except OSError:
        return 0
    return int(rows[-1]["step"]) if rows else 0


def _name(run: Run) -> str:
    return f"{run.dataset}/{run.model_id.partition('_')[0]}"

"""The demonstration: five models on two data sets, trained, judged and timed within minutes.

It is a sweep over presets with shorter trainings, two at a time in processes of one thread each.
What is finished stays: started again, the demonstration goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scorefield.config.config import Config
from scorefield.config.resolve import load
from scorefield.errors import Interrupted, RunError, sentence
from scorefield.evaluation.evaluate import evaluate, floors_of
from scorefield.evaluation.judge import Floors, Terms, terms_of
from scorefield.evaluation.records import Evaluation
from scorefield.evaluation.timing import STEP_TIMES, time_steps
from scorefield.runs.progress import Stages
from scorefield.runs.run import Run
from scorefield.training.record import read_rows

MODELS = ("m0", "m1", "m2", "m3", "m4")

SHORTER: dict[str, tuple[str, ...]] = {
    "toy": (
        "train.steps=3000",
        "optim.warmup=150",
        "train.checkpoint_every=2000",
        "train.keep=2",
        "eval.along=false",
    ),
    "digits": (
        "train.steps=300",
        "optim.warmup=30",
        "train.log_every=10",
        "train.keep=2",
        "eval.along=false",
        "eval.points=8",
    ),
}
"""What the demonstration changes in the presets of a family: the models train for less long and
keep fewer checkpoints, and on ``digits`` their Jacobians are computed at fewer points."""

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
    # On a busy machine, threads that wait for each other take ten times as long as one alone.
    torch.set_num_threads(1)
    plans = [_family(name, root, overrides) for name in families]
    context = multiprocessing.get_context("spawn")
    with (
        Stages() as stages,
        ProcessPoolExecutor(jobs, context, initializer=_begin) as pool,
    ):
        try:
            _train_and_evaluate(plans, _Workers(pool, jobs), stages)
            # Nothing else runs meanwhile, so that the times are those of the steps.
            _time(plans, root, _Workers(pool, jobs), stages)
        except (KeyboardInterrupt, Interrupted):
            stages.say(
                f"stopped; what is done stays in {root}, the same command goes on from there"
            )
            raise
    return [run.folder for plan in plans for run in plan.runs]


class _Workers:
    """Jobs for the processes of a pool.

    A process is given its next job when it is free and not before, so that after an interrupt,
    which the jobs under way heed, none is started.

    Arguments:
        pool: The processes.
        width: Their number.
    """

    def __init__(self, pool: Executor, width: int) -> None:
        self._pool = pool
        self._width = width
        self._waiting: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._busy: dict[Future[Any], Callable[[Any], None]] = {}

    def add(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Queues a job, and what is done with its result here."""
        self._waiting.append((job, then))

    def run(self, look: Callable[[], None]) -> None:
        """Works until nothing is left; ``look`` is called now and then."""
        while self._waiting or self._busy:
            while self._waiting and len(self._busy) < self._width:
                job, then = self._waiting.popleft()
                self._busy[self._pool.submit(job)] = then
            done, _ = wait(self._busy, timeout=_POLL, return_when=FIRST_COMPLETED)
            for future in done:
                self._busy.pop(future)(future.result())
            look()


def _family(name: str, root: Path, overrides: Sequence[str]) -> Family:
    configs = [load(f"{name}/{model}", overrides or SHORTER[name]) for model in MODELS]
    return Family(name, configs, [Run.create(config, root) for config in configs])


def _train_and_evaluate(plans: Sequence[Family], workers: _Workers, stages: Stages) -> None:
    floors: dict[str, Floors] = {}
    ready: list[tuple[Family, Run]] = []
    left = {p.name: [run for run in p.runs if not _evaluated(run, p.terms)] for p in plans}

    def release() -> None:
        """Queues the evaluation of what is trained, where the floor is known."""
        for plan, run in [pair for pair in ready if pair[0].name in floors]:
            ready.remove((plan, run))
            job = partial(_evaluate, run.folder, plan.terms, floors[plan.name])
            workers.add(job, partial(judged, plan, run))

    def measured(plan: Family, found: Floors) -> None:
        floors[plan.name] = found
        stages.say(f"noise floor of {plan.name} measured")
        release()

    def trained(plan: Family, run: Run, _: None) -> None:
        stages.say(f"{_name(run)} trained, {run.config.train.steps} steps")
        ready.append((plan, run))
        release()

    def judged(plan: Family, run: Run, _: None) -> None:
        left[plan.name].remove(run)
        stages.say(f"{_name(run)} evaluated")

    def look() -> None:
        for plan in plans:
            steps = [min(_steps_done(run), run.config.train.steps) for run in plan.runs]
            total = sum(run.config.train.steps for run in plan.runs)
            stages.show(f"{plan.name}: training", sum(steps), total)
            done = len(plan.runs) - len(left[plan.name])
            stages.show(f"{plan.name}: evaluation", done, len(plan.runs))

    for plan in plans:
        if left[plan.name]:
            workers.add(partial(_floors, plan.runs[0].folder, plan.terms), partial(measured, plan))
    for plan in plans:
        for run in left[plan.name]:
            workers.add(partial(_train, run.folder), partial(trained, plan, run))
    workers.run(look)


def _time(plans: Sequence[Family], root: Path, workers: _Workers, stages: Stages) -> None:
    wanted = [plan for plan in plans if not (root / plan.name / STEP_TIMES).is_file()]
    left = [plan.name for plan in wanted]

    def timed(plan: Family, _: object) -> None:
        left.remove(plan.name)
        stages.say(f"steps of {plan.name} timed side by side")

    for plan in wanted:
        job = partial(time_steps, plan.configs, root / plan.name, _ROUNDS)
        workers.add(job, partial(timed, plan))
    workers.run(lambda: stages.show("timing of steps", len(plans) - len(left), len(plans)))


def _begin() -> None:
    """Readies a process: one thread, and an interrupt ends it without a word."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


@contextmanager
def _told() -> Iterator[None]:
    """Turns a mistake into its sentence, since a traceback does not leave the process."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        told = sentence(error)
        if told is None:
            raise
        raise RunError(told) from None


@_told()
def _train(folder: Path) -> None:
    run = Run.open(folder)
    if not run.finished:
        run.train(quiet=True)


@_told()
def _floors(folder: Path, terms: Terms) -> Floors:
    return floors_of(Run.open(folder), terms)


@_told()
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
        rows = read_rows(run.folder / "metrics.csv")
    except FileNotFoundError:
        return 0
    return int(rows[-1]["step"]) if rows else 0


def _name(run: Run) -> str:
    return f"{run.dataset}/{run.model_id.partition('_')[0]}"

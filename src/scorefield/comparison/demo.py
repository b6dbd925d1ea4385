"""The demonstration: five models on two data sets, trained, evaluated and timed within minutes.

It is a sweep with shorter trainings. Started again, it resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scorefield.comparison.processes import LocalProcesses, Task, TaskResult, demand
from scorefield.comparison.processes import run as run_tasks
from scorefield.comparison.timing import STEP_TIMES, time_steps
from scorefield.config.build import build_engine
from scorefield.config.resolve import load_config
from scorefield.errors import RunError
from scorefield.evaluation.evaluate import benchmark_of, evaluate
from scorefield.evaluation.measure import Floors, measure_floors
from scorefield.evaluation.protocol import Protocol, protocol_of
from scorefield.evaluation.records import Evaluation
from scorefield.progress import Stages
from scorefield.runs.run import Run
from scorefield.training.record import read_rows

Chosen = Mapping[str, Any]
"""The values of an engine in place of those of a configuration."""

MODELS = ("m0", "m1", "m2", "m3", "m4")

SHORTER: dict[str, tuple[str, ...]] = {
    "toy": (
        "train.steps=2000",
        "optim.warmup=100",
        "train.checkpoint_every=1000",
        "train.keep=2",
        "eval.along=false",
        "eval.sigmas=[0.02,0.05,0.1,0.5,2,10]",
    ),
    "digits": (
        "train.steps=300",
        "optim.warmup=30",
        "train.log_every=10",
        "train.keep=2",
        "eval.along=false",
        "eval.points=8",
        "eval.sigmas=[0.05,0.2,1,5]",
    ),
}
"""What the demonstration changes in the presets of a family: the models train for less long, keep
fewer checkpoints and are measured at fewer noise levels, and on ``digits`` at fewer points."""


@dataclass
class Family:
    """The runs of one data set, and the evaluations that are left to be made."""

    name: str
    protocol: Protocol
    runs: list[Run]
    left: list[Task] = field(default_factory=list)


def demo(
    root: Path,
    families: Sequence[str] = tuple(SHORTER),
    overrides: Sequence[str] = (),
    jobs: int = 2,
    engine: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Trains, evaluates and times the five models on each data set, and returns the runs' folders.

    The overrides take the place of the demonstration's own, the values ``engine`` those of the
    presets; ``jobs`` processes work at a time.

    Raises:
        UserError: If this machine does not have the device of the engine.
        ConfigError: If an override is wrong.
        RunError: If a folder belongs to another configuration, or a run failed; the others are
            finished none the less.
    """
    # On a busy machine, threads that wait for each other take ten times as long as one alone.
    torch.set_num_threads(1)
    plans, chosen = [], dict(engine or {})
    for name in families:
        configs = [load_config(f"{name}/{model}", overrides or SHORTER[name]) for model in MODELS]
        for config in configs:
            build_engine(config, **chosen).check()
        plans.append(Family(name, protocol_of(configs[0]), [Run.create(c, root) for c in configs]))
    with Stages() as stages, LocalProcesses(jobs, threads=1) as processes:
        try:
            _train_and_evaluate(plans, processes, stages, chosen)
            # Nothing else runs meanwhile, so that the times are those of the steps.
            _time(plans, root, processes, stages, chosen)
        except KeyboardInterrupt:
            stages.report(
                f"stopped; what is done stays in {root}, the same command goes on from there"
            )
            raise
    return [run.folder for plan in plans for run in plan.runs]


def _train_and_evaluate(
    plans: Sequence[Family], processes: LocalProcesses, stages: Stages, engine: Chosen
) -> None:
    floors, trainings = [], []
    for plan in plans:
        source = (plan.runs[0].folder, plan.protocol)
        name = f"noise floor of {plan.name}"
        floor = Task(name, _floors, source, summary=f"{name} measured")
        for run in plan.runs:
            if _evaluated(run, plan.protocol):
                continue
            name = f"{run.dataset}/{run.model_id.partition('_')[0]}"
            summary = f"{name} trained, {run.config.train.steps} steps"
            training = Task(f"training of {name}", _train, (run.folder, engine), summary=summary)
            arguments, needs = (run.folder, plan.protocol, engine), (floor, training)
            summary = f"{name} evaluated"
            plan.left.append(Task(f"evaluation of {name}", _evaluate, arguments, needs, summary))
            trainings.append(training)
        floors += [floor] if plan.left else []

    def ended(task: Task, outcome: TaskResult) -> None:
        _report(stages, task, outcome)
        for plan in plans:
            if task in plan.left and outcome.status == "done":
                plan.left.remove(task)

    def watch() -> None:
        for plan in plans:
            total = [run.config.train.steps for run in plan.runs]
            steps = [min(_steps_done(run), run.config.train.steps) for run in plan.runs]
            stages.show(f"{plan.name}: training", sum(steps), sum(total))
            done = len(plan.runs) - len(plan.left)
            stages.show(f"{plan.name}: evaluation", done, len(plan.runs))

    evaluations = [task for plan in plans for task in plan.left]
    demand(run_tasks([*floors, *trainings, *evaluations], processes, ended, watch))


def _time(
    plans: Sequence[Family], root: Path, processes: LocalProcesses, stages: Stages, engine: Chosen
) -> None:
    tasks, done = [], []
    for plan in plans:
        if not (root / plan.name / STEP_TIMES).is_file():
            configs = [run.config for run in plan.runs]
            arguments = (configs, root / plan.name, engine)
            summary = f"steps of {plan.name} timed side by side"
            tasks.append(Task(f"timing of {plan.name}", time_steps, arguments, summary=summary))

    def ended(task: Task, outcome: TaskResult) -> None:
        _report(stages, task, outcome)
        done.append(task)
        stages.show("timing of steps", len(done), len(tasks))

    demand(run_tasks(tasks, processes, ended))


def _report(stages: Stages, task: Task, outcome: TaskResult) -> None:
    if outcome.status == "done":
        stages.report(task.summary)
    elif outcome.status == "failed":
        stages.report(f"{task.name} failed: {outcome.reason}")


def _train(folder: Path, engine: Chosen) -> None:
    run = Run.open(folder)
    if not run.finished:
        run.train(quiet=True, engine=build_engine(run.config, **engine))


def _floors(folder: Path, protocol: Protocol) -> Floors:
    return measure_floors(benchmark_of(Run.open(folder), protocol))


def _evaluate(
    folder: Path, protocol: Protocol, engine: Chosen, floors: Floors, _trained: None
) -> None:
    run = Run.open(folder)
    chosen = build_engine(run.config, **engine)
    evaluate(run, protocol=protocol, floors=floors, engine=chosen)


def _evaluated(run: Run, protocol: Protocol) -> bool:
    """Whether the finished run has been evaluated by this protocol."""
    try:
        found = Evaluation.read(run.folder)
    except RunError:
        return False
    known = {key: found.protocol.get(key) for key in protocol.record()}
    return found.step == run.config.train.steps and known == protocol.record()


def _steps_done(run: Run) -> int:
    """The steps that the metrics tell of; 0 where there are none yet."""
    try:
        rows = read_rows(run.folder / "metrics.csv")
    except FileNotFoundError:
        return 0
    return int(rows[-1]["step"]) if rows else 0

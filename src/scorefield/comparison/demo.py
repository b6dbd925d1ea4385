"""The demonstration: five models on two data sets, trained, judged and timed within minutes.

It is a sweep over presets with shorter trainings, two at a time in processes of one thread each.
What is finished stays: started again, the demonstration goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scorefield.comparison.processes import LocalProcesses
from scorefield.comparison.scheduler import Outcome, Task, demand
from scorefield.comparison.scheduler import run as run_tasks
from scorefield.comparison.timing import STEP_TIMES, time_steps
from scorefield.config.resolve import load
from scorefield.errors import RunError
from scorefield.evaluation.evaluate import evaluate, floors_of
from scorefield.evaluation.measure import Floors
from scorefield.evaluation.protocol import Protocol, protocol_of
from scorefield.evaluation.records import Evaluation
from scorefield.progress import Stages
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

_ROUNDS = 4


@dataclass
class Family:
    """The runs of one data set.

    Attributes:
        name: The data set.
        protocol: The protocol that all are evaluated by.
        runs: The runs.
        left: The evaluations that have not been made, as tasks.
    """

    name: str
    protocol: Protocol
    runs: list[Run]
    left: list[Task]

    def show(self, stages: Stages) -> None:
        """Shows how far the trainings and evaluations are."""
        steps = [min(_steps_done(run), run.config.train.steps) for run in self.runs]
        total = sum(run.config.train.steps for run in self.runs)
        stages.show(f"{self.name}: training", sum(steps), total)
        done = len(self.runs) - len(self.left)
        stages.show(f"{self.name}: evaluation", done, len(self.runs))


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
        RunError: If a folder belongs to another configuration, or a run failed; the others are
            finished none the less.
        KeyboardInterrupt: If SIGINT or SIGTERM arrived; what was finished before stays.
    """
    # On a busy machine, threads that wait for each other take ten times as long as one alone.
    torch.set_num_threads(1)
    plans = [_family(name, root, overrides) for name in families]
    with Stages() as stages, LocalProcesses(jobs, threads=1) as processes:
        try:
            _train_and_evaluate(plans, processes, stages)
            # Nothing else runs meanwhile, so that the times are those of the steps.
            _time(plans, root, processes, stages)
        except KeyboardInterrupt:
            stages.say(
                f"stopped; what is done stays in {root}, the same command goes on from there"
            )
            raise
    return [run.folder for plan in plans for run in plan.runs]


def _family(name: str, root: Path, overrides: Sequence[str]) -> Family:
    configs = [load(f"{name}/{model}", overrides or SHORTER[name]) for model in MODELS]
    return Family(name, protocol_of(configs[0]), [Run.create(c, root) for c in configs], [])


def _train_and_evaluate(plans: Sequence[Family], processes: LocalProcesses, stages: Stages) -> None:
    said: dict[Task, str] = {}
    floors, trainings = [], []
    for plan in plans:
        floor = Task(f"noise floor of {plan.name}", _floors, (plan.runs[0].folder, plan.protocol))
        said[floor] = f"noise floor of {plan.name} measured"
        for run in plan.runs:
            if _evaluated(run, plan.protocol):
                continue
            name = _name(run)
            training = Task(f"training of {name}", _train, (run.folder,))
            said[training] = f"{name} trained, {run.config.train.steps} steps"
            arguments, needs = (run.folder, plan.protocol), (floor, training)
            evaluation = Task(f"evaluation of {name}", _evaluate, arguments, needs)
            said[evaluation] = f"{name} evaluated"
            trainings.append(training)
            plan.left.append(evaluation)
        floors += [floor] if plan.left else []

    def ended(task: Task, outcome: Outcome) -> None:
        _say(stages, said, task, outcome)
        for plan in plans:
            if task in plan.left and outcome.status == "done":
                plan.left.remove(task)

    def watch() -> None:
        for plan in plans:
            plan.show(stages)

    evaluations = [task for plan in plans for task in plan.left]
    demand(run_tasks([*floors, *trainings, *evaluations], processes, ended, watch))


def _time(plans: Sequence[Family], root: Path, processes: LocalProcesses, stages: Stages) -> None:
    said: dict[Task, str] = {}
    for plan in plans:
        if not (root / plan.name / STEP_TIMES).is_file():
            configs = [run.config for run in plan.runs]
            arguments = (configs, root / plan.name, _ROUNDS)
            said[Task(f"timing of {plan.name}", time_steps, arguments)] = (
                f"steps of {plan.name} timed side by side"
            )

    def ended(task: Task, outcome: Outcome) -> None:
        _say(stages, said, task, outcome)
        done.append(task)
        stages.show("timing of steps", len(done), len(said))

    done: list[Task] = []
    demand(run_tasks(list(said), processes, ended))


def _say(stages: Stages, said: Mapping[Task, str], task: Task, outcome: Outcome) -> None:
    if outcome.status == "done":
        stages.say(said[task])
    elif outcome.status == "failed":
        stages.say(f"{task.name} failed: {outcome.reason}")


def _train(folder: Path) -> None:
    run = Run.open(folder)
    if not run.finished:
        run.train(quiet=True)


def _floors(folder: Path, protocol: Protocol) -> Floors:
    return floors_of(Run.open(folder), protocol)


def _evaluate(folder: Path, protocol: Protocol, floors: Floors, _trained: None) -> None:
    evaluate(Run.open(folder), protocol=protocol, floors=floors)


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


def _name(run: Run) -> str:
    return f"{run.dataset}/{run.model_id.partition('_')[0]}"

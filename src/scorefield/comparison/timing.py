"""What a training step costs: models timed side by side, or read off the trainings."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from scorefield.comparison.groups import Group
from scorefield.config.base import build
from scorefield.config.build import build_engine, build_field, build_objective, build_source
from scorefield.config.config import Config
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate, mean
from scorefield.evaluation.records import quotient
from scorefield.files import DOCUMENT, read_file, write_file
from scorefield.training.settings import Optim, TrainSettings
from scorefield.training.trainer import Trainer

STEP_TIMES = "step_times.json"

_ROUND = 0.5
"""How long a model is trained in a round, in seconds, as far as its period allows."""


def time_steps(
    configs: Sequence[Config],
    folder: Path,
    engine: Mapping[str, Any] | None = None,
    rounds: int = 4,
    steps: int | None = None,
) -> dict[str, Estimate]:
    """Times whole training steps of several models in turns, and writes the result.

    In every round each model is trained anew, data, average of the weights and logging included;
    the ratio to the first model is taken within the round, so that what slows the machine for a
    while slows both. A first round that warms up is not counted.

    Arguments:
        configs: The models, at least two; the first is what the others are compared with.
        folder: Where ``step_times.json`` is written.
        engine: The values of the engine that are chosen in place of those of the configurations.
        rounds: The number of rounds that count, at least 2.
        steps: The number of steps in each; by default as many as take the first model half a
            second, and no more than its training, in whole periods of the regularisers.

    Returns:
        The geometric mean of the ratio over rounds, with its standard error, by model.
    """
    names = [config.folder.parts[-2] for config in configs]
    # After so many steps the regularisers of all models repeat.
    terms = [term for config in configs for term in config.objective.terms.values()]
    period = math.lcm(*(getattr(term, "every", 1) for term in terms))
    length = period if steps is None else steps
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, config in zip(names, configs, strict=True):
            taken = short_training(config, length, engine=engine).run().seconds / length
            if turn:
                seconds[name].append(taken)
            elif steps is None and name == names[0]:
                most = math.ceil(config.train.steps / period)
                length = period * min(most, max(1, round(_ROUND / (taken * period))))
    ratios = {name: ratio(seconds[name], seconds[names[0]]) for name in names[1:]}
    record: dict[str, Any] = {
        "ratios": {name: _plain(e) for name, e in ratios.items()},
        "seconds": {name: _plain(mean(values, "s")) for name, values in seconds.items()},
        "rounds": seconds,
        "told": (
            f"Whole training steps, {rounds} rounds of {length} steps a model, in turns within one "
            f"process of {torch.get_num_threads()} thread(s); ratios are taken within a round."
        ),
    }
    write_file(folder / STEP_TIMES, json.dumps(record, indent=2) + "\n")
    return ratios


def ratio(seconds: Sequence[float], base: Sequence[float]) -> Estimate:
    """The geometric mean over rounds of the ratio of two models' times."""
    logs = mean([math.log(a / b) for a, b in zip(seconds, base, strict=True)])
    value = math.exp(logs.value)
    return replace(logs, value=value, standard_error=value * logs.standard_error)


def short_training(
    config: Config,
    steps: int,
    folder: Path | None = None,
    engine: Mapping[str, Any] | None = None,
) -> Trainer:
    """A fresh training of a few steps, good for its time only; written to a folder if given."""
    source = build_source(config)
    settings = replace(
        build(config.train, "train", TrainSettings),
        steps=steps,
        checkpoint_every=steps,
        log_every=min(steps, config.train.log_every),
        snapshot_every=None,
    )
    return Trainer(
        build_field(config, source),
        source,
        build_objective(config, source),
        replace(build(config.optim, "optim", Optim), warmup=0, warmup_images=None),
        settings,
        config.seed,
        folder,
        quiet=True,
        engine=build_engine(config, **engine or {}),
    )


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "settings": {}}


@dataclass(frozen=True)
class Costs:
    """The time of a training step by model; ``apart`` if it was not taken from the trainings."""

    ratios: dict[str, Estimate]
    seconds: dict[str, Estimate]
    summary: str
    apart: bool

    def training(self, group: Group) -> Estimate | None:
        """The time that a whole training takes, in seconds; ``None`` where it is not known."""
        step = self.seconds.get(group.model)
        return None if step is None else step.scaled(float(group.first.step), "s")


def read_costs(folder: Path, members: Sequence[Group]) -> Costs:
    """The costs of the models of a data set, timed side by side or read off their trainings.

    Raises:
        RunError: If ``step_times.json`` is not what it should be.
    """
    path, base, missing = folder / STEP_TIMES, members[0].model, ""
    if path.is_file():
        rounds, summary = _read(path)
        lacking = [g.label for g in members if g.model not in rounds]
        if not lacking:
            seconds = {g.model: mean(rounds[g.model], "s") for g in members}
            ratios = {g.model: ratio(rounds[g.model], rounds[base]) for g in members[1:]}
            return Costs(ratios, seconds, summary, True)
        missing = f" ({STEP_TIMES} lacks {', '.join(lacking)}.)"
    seconds = {g.model: taken for g in members if (taken := _seconds(g)) is not None}
    summary = (
        "Medians over the trainings, which ran at different times: with other work on the machine, "
        f"ratios are off by more than their errors.{missing}"
    )
    ratios = {}
    if base in seconds:
        ratios = {m: quotient(s, seconds[base]) for m, s in seconds.items() if m != base}
    return Costs(ratios, seconds, summary, False)


def timed_models(folder: Path) -> set[str]:
    """The models of a data set whose steps were timed side by side."""
    path = folder / STEP_TIMES
    return set(_read(path)[0]) if path.is_file() else set()


def _read(path: Path) -> tuple[dict[str, list[float]], str]:
    try:
        record = json.loads(read_file(path, DOCUMENT))
        rounds = {str(m): [float(s) for s in values] for m, values in record["rounds"].items()}
        if len({len(values) for values in rounds.values()}) != 1 or any(
            len(values) < 2 or min(values) <= 0 for values in rounds.values()
        ):
            raise UserError("the rounds are not two or more positive times a model")
        return rounds, str(record["told"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunError(f"{path} does not hold step times: remove it ({error!r})") from error


def _seconds(group: Group) -> Estimate | None:
    """The median time of a step, over seeds, with the error of their scatter or that of the run."""
    medians = [e.compute.get("seconds_per_step") for e in group.members]
    known = [float(m) for m in medians if m is not None]
    if not known or len(known) < len(medians):
        return None
    if len(known) > 1:
        return Estimate(statistics.median(known), mean(known).standard_error, len(known), "s")
    compute = group.first.compute
    error = compute.get("seconds_per_step_error")
    return None if error is None else Estimate(known[0], error, compute["rows"], "s")

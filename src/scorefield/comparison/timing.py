"""How long a training step takes: models timed side by side, in turns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from scorefield.config.build import build_field, build_objective, build_source
from scorefield.config.config import Config
from scorefield.estimate import Estimate, mean
from scorefield.files import write_file
from scorefield.training import Optim, Trainer, TrainSettings

STEP_TIMES = "step_times.json"

_ROUND = 0.5
"""How long a model is trained in a round, in seconds, as far as its period allows."""


def time_steps(
    configs: Sequence[Config],
    folder: Path,
    rounds: int = 4,
    steps: int | None = None,
) -> dict[str, Estimate]:
    """Times whole training steps of several models in turns, and writes the result.

    In every round each model is trained anew for ``steps`` steps, data, average of the weights
    and logging included; the ratio to the first model is taken within the round, so that what
    slows the machine for a while slows both. A first round that warms up is not counted.

    Arguments:
        configs: The models, at least two; the first is what the others are compared with.
        folder: Where ``step_times.json`` is written.
        rounds: The number of rounds that count, at least 2.
        steps: The number of steps in each; by default as many as take the first model half a
            second, and no more than its training, in a multiple of the period of all
            regularisers, so that one that is evaluated at every 16th step counts as a 16th.

    Returns:
        The mean over rounds of the logarithmic ratio, as a ratio, with its standard error, by
        model id.
    """
    names = [config.folder.parts[-2] for config in configs]
    period = math.lcm(*(_period(config) for config in configs))
    length = period if steps is None else steps
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, config in zip(names, configs, strict=True):
            taken = short_training(config, length).run().seconds / length
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
    return Estimate(value, value * logs.standard_error, logs.n)


def short_training(config: Config, steps: int, folder: Path | None = None) -> Trainer:
    """A fresh training of a configuration, of so few steps that it is good for its time only.

    Arguments:
        config: The configuration.
        steps: The number of steps.
        folder: Where metrics and the last checkpoint are written; nothing is written without one.
    """
    source = build_source(config)
    settings = TrainSettings(
        steps=steps,
        batch_size=config.train.batch_size,
        checkpoint_every=steps,
        log_every=min(steps, config.train.log_every),
        ema_decay=config.train.ema_decay,
    )
    return Trainer(
        build_field(config, source),
        source,
        build_objective(config, source),
        Optim(**{**config.optim.model_dump(), "warmup": 0}),
        settings,
        config.seed,
        folder,
        quiet=True,
    )


def _period(config: Config) -> int:
    """The number of steps after which the regularisers repeat."""
    return math.lcm(*(getattr(term, "every", 1) for term in config.objective.terms.values()))


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "settings": {}}

"""How long a training step takes: models timed side by side, in turns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from scorefield.estimate import Estimate, mean
from scorefield.experiments.build import build_field, build_objective, build_source
from scorefield.experiments.config import Config
from scorefield.training import Optim, Trainer, TrainSettings
from scorefield.training.files import replace_file

STEP_TIMES = "step_times.json"


def time_steps(
    configs: Sequence[Config],
    folder: Path,
    rounds: int = 5,
    steps: int = 32,
    say: Callable[[str], object] | None = None,
) -> dict[str, Estimate]:
    """Times whole training steps of several models in turns, and writes the result.

    In every round each model is trained anew for ``steps`` steps, data, average of the weights
    and logging included; the ratio to the first model is taken within the round, so that what
    slows the machine for a while slows both. A first round that warms up is not counted.

    Arguments:
        configs: The models, at least two; the first is what the others are compared with.
        folder: Where ``step_times.json`` is written.
        rounds: The number of rounds that count, at least 2.
        steps: The number of steps in each.
        say: Is told of the progress.

    Returns:
        The mean over rounds of the logarithmic ratio, as a ratio, with its standard error, by
        model id.
    """
    names = [config.folder.parts[-2] for config in configs]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        if say is not None:
            say(f"timing, round {turn} of {rounds}")
        for name, config in zip(names, configs, strict=True):
            taken = _seconds(config, steps)
            if turn:
                seconds[name].append(taken)
    base = seconds[names[0]]
    ratios = {}
    for name in names[1:]:
        logs = mean([math.log(a / b) for a, b in zip(seconds[name], base, strict=True)])
        ratio = math.exp(logs.value)
        ratios[name] = Estimate(ratio, ratio * logs.standard_error, rounds)
    times = {name: mean(values, "s") for name, values in seconds.items()}
    record: dict[str, Any] = {
        "ratios": {name: _plain(e) for name, e in ratios.items()},
        "seconds": {name: _plain(e) for name, e in times.items()},
        "told": (
            f"Whole training steps, {rounds} rounds of {steps} steps a model, in turns within one "
            f"process of {torch.get_num_threads()} thread(s); ratios are taken within a round."
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / STEP_TIMES, (json.dumps(record, indent=2) + "\n").encode())
    return ratios


def _seconds(config: Config, steps: int) -> float:
    """The seconds a step of a fresh training."""
    source = build_source(config)
    optim = Optim(**{**config.optim.model_dump(), "warmup": 0})
    settings = TrainSettings(
        steps=steps,
        batch_size=config.train.batch_size,
        log_every=min(steps, config.train.log_every),
        ema_decay=config.train.ema_decay,
    )
    trainer = Trainer(
        build_field(config, source),
        source,
        build_objective(config, source),
        optim,
        settings,
        config.seed,
        quiet=True,
    )
    return trainer.run().seconds / steps


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "settings": {}}

"""The optimiser, the length of a training, and the evaluation protocol."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, Strict

from scorefield.config.base import (
    Count,
    Counts,
    Fraction,
    NonNegative,
    Positive,
    Positives,
    Section,
    Seed,
)
from scorefield.config.document import shown
from scorefield.errors import UserError


def _interval(value: Any) -> int | str:
    """How far apart checkpoints are; what a text says is looked at with the other settings."""
    if isinstance(value, str) or (type(value) is int and value > 0):
        return value
    raise UserError(
        f"train.checkpoint_every is {shown(value)}, it must be a number of steps, or as in "
        "'50000 images' and '10min'"
    )


class OptimSection(Section):
    """:class:`~.Optim`: ``lr`` rises over ``warmup`` steps or ``warmup_images`` images, then decays
    to zero by the last step or stays; the gradient's norm is cut at ``clip``.
    """

    builds = "scorefield.training.settings:Optim"
    internal = ()
    kind: Literal["adam", "adamw"]
    lr: Positive
    betas: Annotated[tuple[Fraction, Fraction], Strict(False)]
    eps: Positive
    weight_decay: NonNegative
    warmup: Annotated[int, Field(ge=0)]
    warmup_images: Count | None
    decay: Literal["constant", "linear", "cosine", "inverse_sqrt"]
    clip: Positive | None


class TrainSection(Section):
    """:class:`~.TrainSettings`: how long a training is, how its steps are taken, what it keeps.

    The average of the weights has ``ema_decay``, or ``ema_halflife`` in images: one is null.
    """

    builds = "scorefield.training.settings:TrainSettings"
    steps: Count
    batch_size: Count
    checkpoint_every: Annotated[int | str, PlainValidator(_interval)]
    log_every: Count
    ema_decay: Fraction | None
    keep: Count | None
    ema_halflife: Positive | None
    snapshot_every: Count | None
    accumulate: Count
    max_skipped: Count


class EvalSection(Section):
    """The protocol of an evaluation.

    ``samples`` samples for each number ``nfes`` of network calls, against as many real points;
    the noise floor over ``pairs`` pairs of real sets; diagnostics on ``points`` noisy points at
    each noise level of ``sigmas``; ``along`` says whether the checkpoints along the training are
    measured too.
    """

    nfes: Counts = (8, 18, 32, 64)
    along: bool = True
    samples: Annotated[int, Field(ge=4)] = 2048
    pairs: Annotated[int, Field(ge=2)] = 8
    sigmas: Positives = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    points: Annotated[int, Field(ge=2)] = 256
    seed: Seed = 0

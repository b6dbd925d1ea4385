"""Settings of a training, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from scorefield.checks import check_count, check_fraction, check_not_negative, check_positive
from scorefield.errors import UserError
from scorefield.training.ema import EMA, Average, HalfLife
from scorefield.training.interval import Interval

Kind = Literal["adam", "adamw"]
Decay = Literal["constant", "cosine", "linear", "inverse_sqrt"]


@dataclass(frozen=True)
class Optim:
    """The optimiser and its schedule.

    Arguments:
        kind: ``adam``, or ``adamw`` with decoupled weight decay.
        lr: The base learning rate.
        betas: The decays of the two moment averages.
        eps: What is added to the root of the second moment.
        weight_decay: The weight decay: an :math:`L^2` gradient for ``adam``, relative
            shrinkage a step in units of the learning rate for ``adamw``.
        warmup: The number of steps over which the learning rate rises linearly.
        warmup_images: The number of images over which it does, in place of ``warmup``.
        decay: What the learning rate does afterwards; see :func:`multiplier`.
        clip: The largest norm of the gradient; longer ones are scaled down to it.

    Raises:
        ValueError: If a value is out of range, or both kinds of warm-up are given.

    References:
        Adam: a method for stochastic optimization (Kingma and Ba, 2015), algorithm 1.

        Decoupled weight decay regularization (Loshchilov and Hutter, 2019), algorithm 2.
    """

    kind: Kind = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 0
    warmup_images: int | None = None
    decay: Decay = "constant"
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"an optimiser is adam or adamw, not {self.kind!r}")
        check_positive("lr", self.lr)
        for beta in self.betas:
            check_fraction("betas", beta)
        check_positive("eps", self.eps)
        check_not_negative("weight_decay", self.weight_decay)
        if self.clip is not None:
            check_positive("clip", self.clip)
        multiplier(0, 1, self.warmup, self.decay)
        if self.warmup_images is not None:
            check_count("warmup_images", self.warmup_images)
            if self.warmup:
                raise UserError(
                    f"warmup={self.warmup} steps and warmup_images={self.warmup_images} are two "
                    "warm-ups: give one, and 0 or nothing for the other"
                )

    def multiplier(self, step: int, settings: TrainSettings) -> float:
        """The learning rate of a step, from 0, in units of the base rate; see
        :func:`multiplier`. A warm-up in images takes the steps that see so many.
        """
        warmup = self.warmup
        if self.warmup_images is not None:
            warmup = -(-self.warmup_images // settings.batch_size)
        return multiplier(step, settings.steps, warmup, self.decay)


@dataclass(frozen=True)
class TrainSettings:
    """How long a training is, how its steps are taken, and what it leaves behind.

    The average of the weights has a decay, or a half-life in images: one of the two.

    Arguments:
        steps: The number of steps.
        batch_size: The number of points a step.
        checkpoint_every: How far apart checkpoints are: a number of steps, or as in ``"50000
            images"`` and ``"10min"`` of training; there is one at the end in any case.
        log_every: The number of steps that a row of the metrics averages over.
        ema_decay: The decay of the moving average of the weights, in [0, 1), or ``None``; see
            :class:`~.EMA`.
        keep: The number of newest checkpoints to keep; ``None`` for all.
        ema_halflife: Its half-life in images; see :class:`~.HalfLife`.
        snapshot_every: The number of steps between snapshots of two more averages, from which
            averages of any length are made afterwards, :mod:`~scorefield.training.lengths`; there
            is one at the end in any case. ``None`` for none: they cost the time and memory of two
            more averages, and each snapshot twice the disk space of the weights.
        accumulate: The number of parts of a batch that are computed one after the other, for their
            memory. The gradient is that of the undivided batch to rounding; regularisers see the
            batch as a whole, and layers that average over it the parts.
        max_skipped: The number of steps in a row, skipped because their loss or gradient is not
            finite, that ends the training.

    Raises:
        ValueError: If a value is out of range, or not one of ``ema_decay`` and ``ema_halflife`` is
            given.
    """

    steps: int = 10_000
    batch_size: int = 512
    checkpoint_every: int | str = 1_000
    log_every: int = 100
    ema_decay: float | None = 0.999
    keep: int | None = 2
    ema_halflife: float | None = None
    snapshot_every: int | None = None
    accumulate: int = 1
    max_skipped: int = 20

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_size",
            "log_every",
            "accumulate",
            "max_skipped",
        ):
            check_count(name, getattr(self, name))
        Interval.of("checkpoint_every", self.checkpoint_every)
        for name in ("keep", "snapshot_every"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.ema_decay is not None:
            check_fraction("ema_decay", self.ema_decay)
        if self.ema_halflife is not None:
            check_positive("ema_halflife", self.ema_halflife)
        if (self.ema_decay is None) == (self.ema_halflife is None):
            raise UserError(
                f"the average of the weights has either a decay or a half-life, got ema_decay="
                f"{self.ema_decay} and ema_halflife={self.ema_halflife}: give one, and null for "
                "the other"
            )
        if self.accumulate > self.batch_size:
            raise UserError(
                f"accumulate={self.accumulate} parts need as many points, and batch_size is "
                f"{self.batch_size}"
            )

    @property
    def checkpoints(self) -> Interval:
        """How far apart checkpoints are."""
        return Interval.of("checkpoint_every", self.checkpoint_every)

    def average(self, field: nn.Module) -> Average:
        """The moving average of a field's weights."""
        if self.ema_halflife is not None:
            return HalfLife(field, self.ema_halflife, self.batch_size)
        assert self.ema_decay is not None
        return EMA(field, self.ema_decay)


def multiplier(step: int, steps: int, warmup: int = 0, decay: Decay = "constant") -> float:
    r"""The learning rate of a step in units of the base rate.

    With :math:`n = step + 1` the rate rises linearly, :math:`n / w`, up to :math:`n = w`; then,
    with :math:`p = (step - w) / (N - w) \in [0, 1)`, it is

    .. math::
        \text{constant: } 1, \qquad
        \text{cosine: } \tfrac12 (1 + \cos \pi p), \qquad
        \text{linear: } 1 - p, \qquad
        \text{inverse\_sqrt: } \sqrt{\max(w, 1) / n}.

    Arguments:
        step: The step, from 0.
        steps: The number :math:`N` of steps of the whole training.
        warmup: The number :math:`w` of steps of the warm-up.
        decay: What happens after it.

    Raises:
        ValueError: If ``decay`` is unknown, ``step`` or ``warmup`` is negative, or the step
            is not one of the training.

    References:
        SGDR: stochastic gradient descent with warm restarts (Loshchilov and Hutter, 2017),
        equation 5.

        Attention is all you need (Vaswani et al., 2017), equation 3.
    """
    if decay not in get_args(Decay):
        raise UserError(f"decay is one of {', '.join(get_args(Decay))}, not {decay!r}")
    check_count("warmup", warmup, 0)
    check_count("step", step, 0)
    if step >= steps:
        raise UserError(f"a step lies in [0, steps), got step={step}, steps={steps}")
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    match decay:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return 1 - progress
        case "inverse_sqrt":
            return math.sqrt(max(warmup, 1) / (step + 1))
        case _:
            return 1.0

"""Settings of a training, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from scorefield.checks import check_count, check_fraction, check_not_negative, check_positive
from scorefield.errors import UserError

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
        decay: What the learning rate does afterwards; see :func:`multiplier`.
        clip: The largest norm of the gradient; longer ones are scaled down to it.

    Raises:
        ValueError: If a value is out of range.

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


@dataclass(frozen=True)
class TrainSettings:
    """How long a training is, and what it leaves behind.

    Arguments:
        steps: The number of steps.
        batch_size: The number of points a step.
        checkpoint_every: The number of steps between checkpoints; there is one at the end in
            any case.
        log_every: The number of steps that a row of the metrics averages over.
        ema_decay: The decay of the moving average of the weights, in [0, 1).
        keep: The number of newest checkpoints to keep; ``None`` for all.

    Raises:
        ValueError: If a value is out of range.
    """

    steps: int = 10_000
    batch_size: int = 512
    checkpoint_every: int = 1_000
    log_every: int = 100
    ema_decay: float = 0.999
    keep: int | None = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "log_every"):
            check_count(name, getattr(self, name))
        check_fraction("ema_decay", self.ema_decay)
        if self.keep is not None:
            check_count("keep", self.keep)


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

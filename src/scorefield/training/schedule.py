"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Literal, get_args

from scorefield.errors import UserError

Decay = Literal["constant", "cosine", "linear", "inverse_sqrt"]


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
    if warmup < 0 or not 0 <= step < steps:
        raise UserError(
            f"a step lies in [0, steps) and a warm-up is not negative, got step={step}, "
            f"steps={steps}, warmup={warmup}"
        )
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

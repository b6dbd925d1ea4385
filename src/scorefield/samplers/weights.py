r"""What is known of importance weights by their logarithms."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.estimate import Estimate, mean

Logs = Float[Tensor, " n"]


def log_mean(logs: Logs, solver_error: Logs | None = None) -> Estimate:
    r"""The logarithm of the mean weight in nats, with the error of the mean weight by the delta
    method; a solver error of each logarithm is averaged by the weights.
    """
    top = float(logs.max())
    weight = mean((logs - top).exp().cpu().numpy())
    relative = weight.standard_error / weight.value
    value, numerical = top + math.log(weight.value), 0.0
    if solver_error is not None:
        numerical = float((logs.softmax(dim=0) * solver_error).sum())
    return replace(
        weight, value=value, standard_error=relative, unit="nats", numerical_error=numerical
    )


def effective_number(logs: Logs) -> float:
    r"""The effective number :math:`(\sum w)^2 / \sum w^2` of weights."""
    return float(1 / logs.softmax(dim=0).square().sum())


def effective_share(logs: Logs, solver_error: Logs | None = None) -> Estimate:
    r"""The effective number of :math:`n` weights divided by :math:`n`.

    .. math:: \hat f = \frac{(\sum_i w_i)^2}{n \sum_i w_i^2} \to
        \frac{\mathbb{E}[w]^2}{\mathbb{E}[w^2]} ,

    with its standard error by the jackknife: that of the mean of the pseudovalues
    :math:`n \hat f - (n - 1) \hat f_{(i)}`, with :math:`\hat f_{(i)}` without weight :math:`i`.
    Solver errors :math:`e_i` of the logarithms change it by
    :math:`2 \hat f \sum_i |W_i - V_i|\,e_i` at most, to first order, where :math:`W` are the
    weights and :math:`V` their squares, of sum 1.

    References:
        The jackknife, the bootstrap and other resampling plans (Efron, 1982), section 3.
    """
    n, w = len(logs), (logs - logs.max()).exp()
    first, second = w.sum(), w.square().sum()
    value = float(first.square() / (n * second))
    left = (first - w).square() / ((n - 1) * (second - w.square()))
    # Without the largest, a difference would have lost the digits of what remains.
    largest = int(logs.argmax())
    rest = torch.cat((logs[:largest], logs[largest + 1 :]))
    left[largest] = effective_number(rest) / (n - 1) if rest.isfinite().any() else 0.0
    found = mean((n * value - (n - 1) * left).cpu().numpy())
    numerical = 0.0
    if solver_error is not None:
        change = (w / first - w.square() / second).abs() * solver_error
        numerical = 2 * value * float(change.sum())
    return replace(found, value=value, numerical_error=numerical)

r"""An embedded Runge–Kutta method with separate step sizes for every sample.

An explicit method of :math:`s` stages moves :math:`y' = f(u, y)` from :math:`u` to :math:`u + h` by

.. math:: k_i = f\Big(u + c_i h,\; y + h \sum_{j < i} a_{ij} k_j\Big), \qquad
    y \leftarrow y + h \sum_j b_j k_j, \qquad e = h \sum_j (b_j - \hat b_j)\, k_j,

where :math:`\hat b` is a method of lower order over the same stages. A step is accepted where the
error in units of the tolerance,

.. math:: \|e\| = \Big(\frac1n \sum_i \Big(\frac{e_i}
    {\mathrm{atol} + \mathrm{rtol} \max(|y_i|, |y_i^{new}|)}\Big)^2\Big)^{1/2},

is at most 1, and the next one is :math:`0.9\, \|e\|^{-1/p}` times as long. Each row of a batch has
its own place, step size and error, and leaves the batch on arrival: its calls and its result are
those of the row alone.

A row that does not arrive raises no exception: its :class:`Outcome` gives the reason, and its last
state is kept.

References:
    A family of embedded Runge–Kutta formulae (Dormand and Prince, 1980), table 2.

    Solving ordinary differential equations I (Hairer, Nørsett and Wanner, 1993), section II.4:
    equations 4.11 to 4.13 for the control of steps, 4.14 for the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scorefield.checks import check_count, check_finite, check_not_negative
from scorefield.errors import UserError

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps places ``(n,)`` in float64, states ``(n, width)`` and the numbers ``(n,)`` of their rows to
slopes like the states."""

Measure = Callable[[Tensor], Tensor]
"""Maps errors in units of the tolerance, ``(n, width)``, to one number for each row."""

Audit = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Maps the errors of steps, ``(n, width)``, and the places, states and slopes at their ends to the
effects of each error on quantities of interest, ``(n, effects)``: without an error, to zeros."""

Observer = Callable[["Solution"], object]

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0
_RESOLUTION = 8.0
"""The shortest step that still moves: so many roundings of the whole way."""


class Tableau(NamedTuple):
    r"""The coefficients of an embedded method whose last stage is the first of the next step: nodes
    :math:`c_i` after the first, weights :math:`a_{ij}` with :math:`b` as the last row, and
    :math:`b_j - \hat b_j`.
    """

    order: int
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]


DORMAND_PRINCE = Tableau(
    5,
    (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)
"""Order 5 with an error estimate of order 4, six calls a step."""


class Outcome(IntEnum):
    """The status of a row."""

    RUNNING = 0
    ARRIVED = 1
    OUT_OF_CALLS = 2
    STEP_TOO_SMALL = 3
    NOT_FINITE = 4


@dataclass(frozen=True, eq=False)
class Solution:
    """The state of every row, with its steps and calls; for rows that did not arrive, the last
    state.

    Attributes:
        y: The states.
        place: The coordinate :math:`u` that each has reached, float64.
        slope: The slopes there.
        outcome: An :class:`Outcome` for each row.
        accepted: The number of accepted steps.
        rejected: The number of steps that were too long.
        calls: How often the slope was evaluated.
        audited: The sums over the steps of the audited effects of their errors, in absolute value.
    """

    y: Float[Tensor, "batch width"]
    place: Float[Tensor, " batch"]
    slope: Float[Tensor, "batch width"]
    outcome: Int[Tensor, " batch"]
    accepted: Int[Tensor, " batch"]
    rejected: Int[Tensor, " batch"]
    calls: Int[Tensor, " batch"]
    audited: Float[Tensor, "batch effects"]
    rtol: float
    atol: float

    @property
    def arrived(self) -> Bool[Tensor, " batch"]:
        """Which rows have reached the end."""
        return self.outcome == Outcome.ARRIVED


def root_mean_square(error: Float[Tensor, "n width"]) -> Float[Tensor, " n"]:
    """The quadratic mean over the components of a row."""
    return error.square().mean(dim=1).sqrt()


def check_tolerances(rtol: float, atol: float, dtype: torch.dtype) -> None:
    """Raises ``ValueError`` for tolerances that are not positive or finer than rounding."""
    least = 10 * torch.finfo(dtype).eps
    check_finite("rtol", rtol)
    check_not_negative("atol", atol)
    if rtol < least:
        raise UserError(
            f"rtol must be at least {least:.1e} and finite for states of {dtype}, got {rtol}"
        )


def solve(
    slope: Slope,
    y: Float[Tensor, "batch width"],
    start: float,
    end: float,
    rtol: float,
    atol: float,
    *,
    max_calls: int = 10_000,
    measure: Measure = root_mean_square,
    audit: Audit | None = None,
    observer: Observer | None = None,
    tableau: Tableau = DORMAND_PRINCE,
) -> Solution:
    """Integrate :math:`y' = f(u, y)` from ``start`` to ``end``, each row with its own steps.

    A trial step into a region where the slope is not finite is repeated with a shorter one. A row
    stops early when its calls are used up, when its step no longer moves it, or when the slope is
    not finite however short the step; the others go on.

    Arguments:
        slope: The right-hand side; called with the unfinished rows and their indices.
        y: The states at ``start``; places and steps are kept in float64, the states in their dtype.
        start: The place :math:`u` at the start.
        end: The place at the end, in either direction.
        rtol: The relative tolerance, at least ten roundings of the dtype.
        atol: The absolute tolerance.
        max_calls: The largest number of calls per row.
        measure: Reduces the errors of the components of a row to one number.
        audit: Converts the error of a step into those of quantities of interest.
        observer: Called after each round of steps; the tensors that it receives change afterwards.
        tableau: The method.

    Raises:
        ValueError: If a tolerance is out of its range or ``max_calls`` is not positive.
    """
    check_tolerances(rtol, atol, y.dtype)
    check_count("max_calls", max_calls)
    n, device = len(y), y.device
    direction, span = math.copysign(1.0, end - start), abs(end - start)
    least = _RESOLUTION * torch.finfo(y.dtype).eps * span
    y, place = y.clone(), torch.full((n,), start, dtype=torch.float64, device=device)
    count = torch.zeros((4, n), dtype=torch.int64, device=device)
    outcome, accepted, rejected, calls = count.unbind()
    rows = torch.arange(n, device=device)
    first = slope(place, y, rows).clone() if n else y.clone()
    calls += 1
    audited = y.new_zeros((n, 0)) if audit is None else audit(torch.zeros_like(y), place, y, first)
    audited = torch.zeros_like(audited, dtype=torch.float64)
    state = Solution(y, place, first, outcome, accepted, rejected, calls, audited, rtol, atol)
    outcome[~_finite(first, y)] = Outcome.NOT_FINITE
    if span == 0:
        outcome[outcome == Outcome.RUNNING] = Outcome.ARRIVED
    rows = (outcome == Outcome.RUNNING).nonzero().flatten()
    length = torch.zeros(n, dtype=torch.float64, device=device)
    grow = torch.full_like(length, _GROW)
    if len(rows):
        length[rows] = _first_step(
            slope, state, rows, direction, span, least, measure, tableau.order
        )
        calls[rows] += 1
    # Without an absolute tolerance no error at all is allowed of a zero.
    tiny = torch.finfo(y.dtype).tiny
    # Finding who is still on the way is the one time a round that the host waits for the device.
    while len(rows):
        u, now, left = place[rows], y[rows], (end - place[rows]).abs()
        last = 1.01 * length[rows] >= left
        h = torch.where(last, left, length[rows])
        step = (direction * h).to(y.dtype).unsqueeze(1)
        slopes = [first[rows]]
        new = now
        for node, weights in zip(tableau.nodes, tableau.stages, strict=True):
            new = now + step * _combine(weights, slopes)
            at = u + node * direction * h
            at = torch.where(last, end, at) if node == 1 else at
            slopes.append(slope(at, new, rows))
        scale = (atol + rtol * torch.maximum(now.abs(), new.abs())).clamp_(min=tiny)
        local = step * _combine(tableau.error, slopes)
        error = measure(local / scale).to(torch.float64)
        fine = _finite(error.unsqueeze(1), slopes[-1])
        taken = fine & (error <= 1)
        y[rows] = torch.where(taken.unsqueeze(1), new, now)
        first[rows] = torch.where(taken.unsqueeze(1), slopes[-1], slopes[0])
        place[rows] = torch.where(taken, torch.where(last, end, u + direction * h), u)
        if audit is not None:
            said = audit(local, at, new, slopes[-1]).abs().to(torch.float64)
            audited[rows] += torch.where(taken.unsqueeze(1), said, 0.0)
        accepted[rows] += taken
        rejected[rows] += ~taken
        calls[rows] += len(tableau.nodes)
        factor = (_SAFETY * error.clamp(min=1e-10) ** (-1 / tableau.order)).clamp(min=_SHRINK)
        factor = torch.where(fine, torch.minimum(factor, grow[rows]), _SHRINK)
        # After a step that was too long, the next one is not longer than it.
        grow[rows] = torch.where(taken, _GROW, 1.0).to(torch.float64)
        # The last step may have been cut short: only what was tried says something of the length.
        length[rows] = h * factor
        outcome[rows] = torch.where(
            taken & last,
            Outcome.ARRIVED,
            torch.where(
                length[rows] < least,
                torch.where(fine, Outcome.STEP_TOO_SMALL, Outcome.NOT_FINITE),
                torch.where(
                    calls[rows] + len(tableau.nodes) > max_calls,
                    Outcome.OUT_OF_CALLS,
                    Outcome.RUNNING,
                ),
            ),
        )
        if observer is not None:
            observer(state)
        rows = rows[outcome[rows] == Outcome.RUNNING]
    return state


def _combine(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, value in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total.add_(value, alpha=weight)
    return total


def _finite(*values: Tensor) -> Tensor:
    """Which rows are finite throughout."""
    return torch.stack([v.isfinite().all(dim=1) for v in values]).all(dim=0)


def _first_step(
    slope: Slope,
    state: Solution,
    rows: Tensor,
    direction: float,
    span: float,
    least: float,
    measure: Measure,
    order: int,
) -> Tensor:
    """The length of the first step, from one more call."""
    y, first = state.y[rows], state.slope[rows]
    scale = (state.atol + state.rtol * y.abs()).clamp_(min=torch.finfo(y.dtype).tiny)
    size, speed = (measure(v / scale).to(torch.float64) for v in (y, first))
    trial = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed)
    trial = trial.clamp(max=span)
    moved = y + (direction * trial).to(y.dtype).unsqueeze(1) * first
    bend = slope(state.place[rows] + direction * trial, moved, rows) - first
    bend = measure(bend / scale).to(torch.float64) / trial
    steepest = torch.maximum(speed, bend).nan_to_num(nan=torch.inf)
    guess = torch.where(
        steepest <= 1e-15, (1e-3 * trial).clamp(min=1e-6), (0.01 / steepest) ** (1 / order)
    )
    return torch.minimum(100 * trial, guess).clamp(min=least, max=span)

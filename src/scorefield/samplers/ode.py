"""Adaptive sampling along the probability flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from torch import Tensor

from scorefield.checks import check_count, check_positive
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.samplers.base import Sampler
from scorefield.samplers.flow import Flow
from scorefield.samplers.runge_kutta import Observer, Solution
from scorefield.samplers.step import PLAIN, Block, StepContext, Stepped, level
from scorefield.sde.base import SDE

_MARKS = 100


@dataclass(frozen=True)
class ProbabilityFlow(Sampler):
    r"""The probability flow by Dormand and Prince's method of order 5, with separate step sizes for
    each sample.

    .. math:: \frac{\mathrm{d}x}{\mathrm{d}t} = f(t)\,x - \tfrac12 g(t)^2\,s(x, t)

    A sample takes as many network calls as its tolerance requires. The callback is called whenever
    the slowest sample of a block has advanced by another hundredth of the way;
    :attr:`SamplerState.nfe` is then the largest number of calls of a sample, and
    :attr:`SamplerState.solution` contains those of each.

    The coordinates of the integration are those of :mod:`scorefield.samplers.flow`; tolerances are
    relative to, and in units of, :math:`y = x_t / \sqrt{\alpha^2 + \sigma^2}`, which at the end is
    the data.

    Arguments:
        rtol: The relative tolerance of a step.
        atol: The absolute tolerance of a step.
        t_end: The time at which the integration ends; the process's ``t_min`` by default.
        denoise: Whether samples are the posterior means :math:`\mathbb{E}[x_0 \mid x_{t_{end}}]`
            (by Tweedie's formula, without a further call), or the scaled states :math:`\hat
            x_{t_{end}}` themselves.
        max_calls: The largest number of network calls of a sample.

    Raises:
        ValueError: If an argument is out of its range.
        StalledError: In :meth:`sample`, if a sample does not arrive within ``max_calls``, or the
            field is not finite on its way; names sample and noise level, and keeps the last states.

    References:
        Score-based generative modeling through stochastic differential equations (Song et al.,
        2021), equation 13, section 4.3 and appendix D.1.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    t_end: float | None = None
    denoise: bool = True
    max_calls: int = 10_000

    order: ClassVar[int] = 5

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            check_positive(f"ProbabilityFlow: {name}", getattr(self, name))
        check_count("ProbabilityFlow: max_calls", self.max_calls)

    @property
    def nfe(self) -> None:
        return None

    @classmethod
    def for_nfe(cls, budget: int, **settings: Any) -> NoReturn:
        raise UserError(
            "the tolerances of ProbabilityFlow determine its number of network calls, not a "
            "budget: choose rtol and atol, or another sampler"
        )

    def step(
        self, field: ScoreField, x: Tensor, t: float, s: float | None, at: StepContext = PLAIN
    ) -> Stepped:
        return self._carry(Flow(field, at.classes), x, t, s, at, None)

    def _run(self, field: ScoreField, x: Tensor, block: Block) -> Tensor:
        flow, t = Flow(field, block.context.classes), field.sde.t_max
        report = None
        if block.callback is not None:
            report = _Report(flow, block, flow.angle(self._end(field.sde)))
        return self._carry(flow, x, t, None, block.context, report).x

    def _carry(
        self,
        flow: Flow,
        x: Tensor,
        t: float,
        s: float | None,
        at: StepContext,
        observer: Observer | None,
    ) -> Stepped:
        end = self._end(flow.sde) if s is None else s
        scaled, limits = x / level(flow.sde, t).alpha, (self.rtol, self.atol, self.max_calls)
        solution = flow.carry(scaled, t, end, *limits, observer)
        flow.check(solution, at.index)
        denoised = flow.denoised(solution)
        if s is None:
            return Stepped(denoised if self.denoise else flow.scaled(solution), denoised, end, None)
        return Stepped(level(flow.sde, s).alpha * flow.scaled(solution), denoised, s, s)

    def _end(self, sde: SDE) -> float:
        end = sde.t_min if self.t_end is None else self.t_end
        if not sde.t_min <= end < sde.t_max:
            raise UserError(f"t_end must lie in [{sde.t_min:g}, {sde.t_max:g}), got {end:g}")
        return end


class _Report:
    """Reports the progress of the slowest sample of a block to the callback."""

    def __init__(self, flow: Flow, block: Block, end: float) -> None:
        self.flow, self.block, self.end = flow, block, end
        self.start = flow.angle(flow.sde.t_max)
        self.mark, self.last = 0, self.start

    def __call__(self, solution: Solution) -> None:
        slowest = float(solution.place.max())
        mark = math.floor(_MARKS * (self.start - slowest) / (self.start - self.end) + 1e-9)
        if mark == self.mark:
            return
        self.mark, before, self.last = mark, self.last, slowest
        levels, states = (math.tan(before), math.tan(slowest)), self.flow.scaled(solution)
        denoised, calls = self.flow.denoised(solution), int(solution.calls.max())
        self.block.show(mark - 1, _MARKS, *levels, states, denoised, calls, solution)

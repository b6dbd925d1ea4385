r"""Predictor–corrector sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.samplers.base import Block, Sampler, check_budget
from scorefield.samplers.correctors import Corrector
from scorefield.samplers.grid import Spacing, check_grid, grid_times
from scorefield.samplers.predictors import (
    Predictor,
    ReverseDiffusion,
    ReverseStep,
    levels_of,
)
from scorefield.sde import SDE, VE, VP, DiscreteVP, Discretization, Exact, ForwardStep, SubVP

First = Literal["corrector", "predictor"]

_REVERSE, _EXACT = ReverseDiffusion(), Exact()


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    r"""Steps of the reverse process, each corrected by Langevin steps at its noise level.

    The grid has the times :math:`t_1 = t_{max} > \dots > t_K = t_{end}`, whatever table a
    network was trained with. Corrector first, as in the published code, every time has its
    corrector steps and then the predictor, from :math:`t_i` to :math:`t_{i+1}` and from
    :math:`t_K` to the clean data. Predictor first, as in the published algorithms, a predictor
    step to :math:`t_{i+1}` is followed by the corrector steps there, up to :math:`t_K`.

    States are :math:`x_t` itself, in the units of the process, and so is what is returned. Noise
    is removed at the end: where the last update is a predictor's, by leaving its noise out (no
    call); where there is no predictor or it comes first, by one more call and Tweedie's formula,
    :math:`(x + \sigma^2 s) / \alpha` at :math:`t_{end}`.

    The law of the samples has the order 1 in the number of times, without a corrector.
    A corrector of finite step adds an error of its own, which no number of times makes smaller.
    On one Brownian path, a stochastic predictor has the strong order 1, since the noise of the
    process does not depend on its state.

    Noise has the addresses ``("predictor", sample, i)`` and ``("corrector", sample, i M + k)`` for
    the inner step :math:`k < M`. Callbacks see :math:`\hat x = x / \alpha` after the step, and as
    ``denoised`` the posterior mean at the last network call of the step (before noise removal).

    Arguments:
        steps: The number :math:`K` of times.
        predictor: The predictor; ``None`` for corrector steps only.
        corrector: The corrector; ``None`` for predictor steps only.
        discretization: How the process steps forward: by its own transitions between any two
            times, or by the levels of a table, which must then be as many as the times.
        first: What comes first at each time.
        spacing: How the times are spaced; see :func:`~scorefield.samplers.grid.grid_times`.
        rho: The exponent of Karras' spacing.
        t_end: The last time; by default :math:`10^{-5}` for VE, :math:`10^{-3}` for VP and
            sub-VP, the process' own ``t_min`` for others and where that is later.
        denoise: Whether noise is removed at the end.

    Raises:
        ValueError: If an argument is out of its range, there is neither predictor nor corrector,
            or a discretisation has other levels than there are steps; in use, if the
            discretisation does not fit the process.

    Example:
        >>> sampler = PredictorCorrector(1000, ReverseDiffusion(), Langevin(snr=0.16))
        >>> x = sampler.sample(field, n=64, seed=0)  # 2000 network calls

    References:
        Score-based generative modeling through stochastic differential equations (Song,
        Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, 2021), algorithms 1 to 3, section 4.2 and
        appendix G.

        Adversarial score matching and improved sampling for image generation
        (Jolicoeur-Martineau, Piché-Taillefer, Tachet des Combes and Mitliagkas, 2021),
        section 3.2, for noise removal.
    """

    order: ClassVar[int] = 1
    takes_measurements: ClassVar[bool] = True

    steps: int = 1000
    predictor: Predictor | None = _REVERSE
    corrector: Corrector | None = None
    discretization: Discretization = _EXACT
    first: First = "corrector"
    spacing: Spacing = "time"
    rho: float = 7.0
    t_end: float | None = None
    denoise: bool = True

    def __post_init__(self) -> None:
        check_grid(self.steps, self.spacing, self.rho)
        if self.predictor is None and self.corrector is None:
            raise UserError("PredictorCorrector: give a predictor or a corrector")
        if self.first not in get_args(First):
            names = " or ".join(get_args(First))
            raise UserError(f"PredictorCorrector: first is {names}, not {self.first!r}")
        if not self._corrector_first and self.steps < 2:
            raise UserError("PredictorCorrector: with the predictor first, steps are at least 2")
        levels = levels_of(self.discretization)
        if levels is not None and levels != self.steps:
            raise UserError(
                f"PredictorCorrector: discretization has {levels} levels, which steps={self.steps} "
                "times do not go through"
            )

    @property
    def stochastic(self) -> bool:
        return self.corrector is not None or (
            self.predictor is not None and self.predictor.stochastic
        )

    @property
    def nfe(self) -> int:
        return self._rounds * self._calls + self._tweedie

    @property
    def _corrector_first(self) -> bool:
        # Without a predictor there is but one order.
        return self.first == "corrector" or self.predictor is None

    @property
    def _calls(self) -> int:
        """The network calls of a round, which is a predictor and its corrector steps."""
        corrector = 0 if self.corrector is None else self.corrector.steps
        return corrector + (self.predictor is not None)

    @property
    def _rounds(self) -> int:
        return self.steps if self._corrector_first else self.steps - 1

    @property
    def _tweedie(self) -> bool:
        """Whether removing the noise takes a network call."""
        return self.denoise and (self.predictor is None or not self._corrector_first)

    @classmethod
    def for_nfe(cls, budget: int, **settings: Any) -> PredictorCorrector:
        check_budget(budget)
        least = cls(steps=2, **settings)
        rounds = (budget - least._tweedie) // least._calls
        if rounds < 1:
            raise UserError(
                f"a step takes {least._calls + least._tweedie} network calls, more than a budget "
                f"of {budget}"
            )
        return cls(steps=rounds + (not least._corrector_first), **settings)

    def _solve(self, field: ScoreField, x: Tensor, block: Block) -> Tensor:
        plan = self._plan(field.sde, x)
        nfe = 0
        for i in range(self._rounds):
            if self._corrector_first:
                x, corrected = self._correct(field, x, i, plan, block)
                x, predicted = self._predict(field, x, i, plan, block)
                calls = corrected, predicted
            else:
                x, predicted = self._predict(field, x, i, plan, block)
                x, corrected = self._correct(field, x, i + 1, plan, block)
                calls = predicted, corrected
            nfe += self._calls
            # Without a predictor the states stay at their time, to be taken for those of the next.
            end = i + 1 if self.predictor is not None else min(i + 1, self.steps - 1)
            if self._tweedie and i + 1 == self._rounds:
                x = field.denoise(x, plan.time[-1], block.classes)
                x = field.domain.wrap(block.impose(x, 0, 1.0, 0.0))
                nfe, end = nfe + 1, self.steps
            scaled = x if plan.alpha[end] == 1 or block.callback is None else x / plan.alpha[end]
            levels = plan.level(i), plan.level(end)
            last = [call for call in calls if call is not None][-1]
            denoised = partial(last.denoised, plan)
            block.report(i, self._rounds, *levels, scaled, denoised, nfe)
        return x

    def _correct(
        self, field: ScoreField, x: Tensor, i: int, plan: _Plan, block: Block
    ) -> tuple[Tensor, _Call | None]:
        """Corrects the states at a time of the grid."""
        if self.corrector is None:
            return x, None
        first = i * self.corrector.steps

        def draw(k: int) -> Tensor:
            return block.normal("corrector", first + k, like=x)

        here = plan.time[i], plan.scale[i]
        after = self.corrector.correct(field, x, *here, draw, block.classes)
        corrected = block.impose(after.x, 2 * i + 1, plan.alpha[i], plan.sigma[i])
        return field.domain.wrap(corrected), _Call(i, after.before, after.score)

    def _predict(
        self, field: ScoreField, x: Tensor, i: int, plan: _Plan, block: Block
    ) -> tuple[Tensor, _Call | None]:
        """Moves the states from a time of the grid to the next, or to the clean data."""
        if self.predictor is None:
            return x, None
        score, step = field.score(x, plan.time[i], block.classes), plan.reverse[i]
        predicted = step.mean(x, score)
        if step.spread != 0 and not (self.denoise and i + 1 == self.steps):
            predicted = predicted + step.spread * block.normal("predictor", i, like=x)
        predicted = block.impose(predicted, 2 * i + 2, plan.alpha[i + 1], plan.sigma[i + 1])
        return field.domain.wrap(predicted), _Call(i, x, score)

    def _plan(self, sde: SDE, x: Tensor) -> _Plan:
        """All that the steps need of the process, for the whole grid and in float64."""
        end = _default_end(sde) if self.t_end is None else self.t_end
        t = grid_times(sde, self.steps, self.spacing, end, self.rho)

        def whole(step: Callable[[Tensor, Tensor | None], tuple[Any, ...]]) -> list[Tensor]:
            """A step at every time of the grid; from the last it goes to the clean data."""
            parts = [step(t[:-1], t[1:])] if len(t) > 1 else []
            columns = zip(*parts, step(t[-1:], None), strict=True)
            return [torch.cat(column) for column in columns]

        reverse: list[ReverseStep] = []
        if self.predictor is not None:
            predict = partial(self.predictor.reverse, discretization=self.discretization)
            rows = whole(partial(predict, sde))
            reverse = [ReverseStep(*row) for row in torch.stack(rows, dim=1).tolist()]
        scale: list[float] = []
        if self.corrector is not None:
            forward = ForwardStep(*whole(partial(self.discretization.step, sde)))
            scale = self.corrector.scale(sde, t, forward).tolist()
        alpha, sigma = [*sde.alpha(t).tolist(), 1.0], [*sde.sigma(t).tolist(), 0.0]
        time = t.to(dtype=x.dtype, device=x.device).unbind()
        return _Plan(time, alpha, sigma, reverse, scale)


class _Plan(NamedTuple):
    """What the steps need at the times of the grid; the levels end with the clean data's."""

    time: Sequence[Tensor]
    alpha: Sequence[float]
    sigma: Sequence[float]
    reverse: Sequence[ReverseStep]
    scale: Sequence[float]

    def level(self, i: int) -> float:
        return self.sigma[i] / self.alpha[i]


class _Call(NamedTuple):
    """A network call: the index of its time, where it was made, and the score there."""

    time: int
    x: Tensor
    score: Tensor

    def denoised(self, plan: _Plan) -> Tensor:
        variance = plan.sigma[self.time] ** 2
        return (self.x + variance * self.score) / plan.alpha[self.time]


def _default_end(sde: SDE) -> float:
    match sde:
        case DiscreteVP():
            return sde.t_min
        case VE():
            return max(1e-5, sde.t_min)
        case VP() | SubVP():
            return max(1e-3, sde.t_min)
    return sde.t_min

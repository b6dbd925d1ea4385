r"""Predictor–corrector sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.samplers.base import GridSampler
from scorefield.samplers.correctors import Corrector
from scorefield.samplers.grid import Spacing, check_grid, grid_times
from scorefield.samplers.predictors import Predictor, ReverseDiffusion, ReverseStep, levels_of
from scorefield.samplers.step import CLEAN, PLAIN, Coefficients, StepContext, Stepped, clock, level
from scorefield.sde.base import SDE
from scorefield.sde.discrete import Discretization, Exact
from scorefield.sde.exploding import EDM, VE
from scorefield.sde.preserving import VP, SubVP

First = Literal["corrector", "predictor"]

_REVERSE, _EXACT = ReverseDiffusion(), Exact()


@dataclass(frozen=True)
class PredictorCorrector(GridSampler):
    r"""Steps of the reverse process, each corrected by Langevin steps at its noise level.

    The grid has the times :math:`t_1 = t_{max} > \dots > t_K = t_{end}`. With the corrector first,
    as in the published code, the corrector steps at each time are followed by a predictor step,
    from :math:`t_i` to :math:`t_{i+1}` and from :math:`t_K` to the clean data. With the predictor
    first, as in the published algorithms, a predictor step to :math:`t_{i+1}` is followed by the
    corrector steps there, down to :math:`t_K`.

    States and samples are :math:`x_t` itself, in the units of the process. Noise is removed at the
    end, whatever the predictor, by Tweedie's formula :math:`(x + \sigma^2 s) / \alpha` at
    :math:`t_{end}`: in place of the predictor's step to the clean data where that is the last
    update, and otherwise by one more call. (The published code omits the noise of the last step
    instead, which is the same for ancestral steps, and leaves half of the noise to the probability
    flow and nearly all to the method of Euler and Maruyama.)

    Without a corrector, the distribution of the samples has order 1 in the number of times, and on
    one Brownian path a stochastic predictor has the strong order 1. A corrector of finite step adds
    an error of its own, which does not depend on the number of times.

    Noise has the addresses ``("predictor", sample, i)`` and ``("corrector", sample, i M + k)`` for
    the inner step :math:`k < M`. Callbacks see :math:`\hat x = x / \alpha` after the step, and as
    ``denoised`` the posterior mean at the last network call of the step.

    Arguments:
        steps: The number :math:`K` of times.
        predictor: The predictor; ``None`` for corrector steps only.
        corrector: The corrector; ``None`` for predictor steps only.
        discretization: The forward steps of the process: its exact transitions between any two
            times, or those of a table, which must have as many levels as there are times.
        first: Which of the two comes first at each time.
        spacing: How the times are spaced; see :func:`~.grid_times`. By default evenly in time, and
            as Karras' for EDM, whose time is the noise level: evenly spaced it has no steps at the
            scale of the data.
        rho: The exponent of Karras' spacing.
        t_end: The last time; by default :math:`10^{-5}` for VE and :math:`10^{-3}` for VP and
            sub-VP, or ``t_min`` of the process if that is later; ``t_min`` for other processes.
        denoise: Whether noise is removed at the end.

    Raises:
        ValueError: If an argument is out of its range, there is neither predictor nor corrector,
            or the discretisation fits neither the steps nor, in use, the process.

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
    spacing: Spacing | None = None
    rho: float = 7.0
    t_end: float | None = None
    denoise: bool = True

    def __post_init__(self) -> None:
        check_grid(self.steps, self.spacing or "time", self.rho)
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
    def calls(self) -> int:  # type: ignore[override]
        """The network calls of a predictor and its corrector steps."""
        corrector = 0 if self.corrector is None else self.corrector.steps
        return corrector + (self.predictor is not None)

    @property
    def rounds(self) -> int:
        return self.steps if self._corrector_first else self.steps - 1

    @property
    def nfe(self) -> int:
        return self.calls * self.rounds + (self.denoise and not self._ends_with_predictor)

    @property
    def _corrector_first(self) -> bool:
        # Without a predictor there is but one order.
        return self.first == "corrector" or self.predictor is None

    @property
    def _ends_with_predictor(self) -> bool:
        """Whether the last update is the predictor's, which removal of the noise replaces."""
        return self._corrector_first and self.predictor is not None

    def times(self, sde: SDE) -> list[float | None]:
        grid = self._grid(sde)
        return [*grid, None] if self._corrector_first else [*grid[:-1], None]

    def step(
        self, field: ScoreField, x: Tensor, t: float, s: float | None, at: StepContext = PLAIN
    ) -> Stepped:
        """Moves states from one time to an earlier one, or removes their noise at the end; with the
        predictor first, the step to the clean data goes to ``t_end``.
        """
        removes = self.denoise and s is None
        if self._corrector_first:
            x, denoised = self._correct(field, x, t, s, at, at.step)
            if self.predictor is not None and not removes:
                x, denoised = self._predict(field, x, t, s, at)
            # Without a predictor the states stay, to be taken for those of the next time.
            end = t if s is None and (self.predictor is None or removes) else s
        else:
            grid = self._grid(field.sde)
            end = grid[-1] if s is None else s
            x, denoised = self._predict(field, x, t, end, at)
            if self.corrector is not None:
                then = next((u for u in grid if u < end), None)
                x, denoised = self._correct(field, x, end, then, at, at.step + 1)
        if removes:
            assert end is not None
            denoised = field.denoise(x, clock(end, x), at.classes)
            x, end = at.arrive(denoised, CLEAN, field.domain), None
        return Stepped(x, denoised, t, end)

    def _correct(
        self, field: ScoreField, x: Tensor, t: float, s: float | None, at: StepContext, i: int
    ) -> tuple[Tensor, Tensor]:
        """The corrected states at the time ``t``, number ``i`` of the grid, from which the process
        steps back to ``s``, and the posterior means at the last call.
        """
        if self.corrector is None:
            return x, x
        first = i * self.corrector.steps

        def draw(k: int) -> Tensor:
            return at.normal("corrector", x, first + k)

        time = torch.tensor(t, dtype=torch.float64)
        forward = self.discretization.step(field.sde, time, _time(s))
        scale = float(self.corrector.scale(field.sde, time, forward))
        after = self.corrector.correct(field, x, clock(t, x), scale, draw, at.classes)
        here = level(field.sde, t)
        x = at.arrive(after.x, here, field.domain, 2 * i + 1)
        return x, _denoised(after.before, after.score, here)

    def _predict(
        self, field: ScoreField, x: Tensor, t: float, s: float | None, at: StepContext
    ) -> tuple[Tensor, Tensor]:
        """The states at another time or as clean data, and the posterior means before."""
        assert self.predictor is not None
        time = torch.tensor(t, dtype=torch.float64)
        reverse = self.predictor.reverse(field.sde, time, _time(s), self.discretization)
        step, score = ReverseStep(*map(float, reverse)), field.score(x, clock(t, x), at.classes)
        moved = step.mean(x, score)
        if step.spread != 0:
            moved = moved + step.spread * at.normal("predictor", x)
        moved = at.arrive(moved, level(field.sde, s), field.domain, 2 * at.step + 2)
        return moved, _denoised(x, score, level(field.sde, t))

    def _grid(self, sde: SDE) -> list[float]:
        end = _default_end(sde) if self.t_end is None else self.t_end
        spacing = self._spacing(sde) if self.spacing is None else self.spacing
        times: list[float] = grid_times(sde, self.steps, spacing, end, self.rho).tolist()
        return times

    def _spacing(self, sde: SDE) -> Spacing:
        # The levels of a table are even in time.
        by_level = isinstance(sde, EDM) and levels_of(self.discretization) is None
        return "karras" if by_level else "time"


def _time(s: float | None) -> Tensor | None:
    return None if s is None else torch.tensor(s, dtype=torch.float64)


def _denoised(x: Tensor, score: Tensor, here: Coefficients) -> Tensor:
    return (x + (here.alpha * here.sigma) ** 2 * score) / here.alpha


def _default_end(sde: SDE) -> float:
    match sde:
        case VE():
            return max(1e-5, sde.t_min)
        case VP() | SubVP():
            return max(1e-3, sde.t_min)
    return sde.t_min

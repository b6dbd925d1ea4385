r"""Annealed Markov chain Monte Carlo: chains that visit one noise level after the other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np
from torch import Tensor

from scorefield.checks import check_count
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean
from scorefield.fields.base import ScoreField
from scorefield.samplers.base import Sampler
from scorefield.samplers.grid import Spacing, check_grid, grid_times
from scorefield.samplers.kernels import MALA, Density, Kernel
from scorefield.samplers.step import PLAIN, Block, SamplerState, StepContext, Stepped, clock, level
from scorefield.sde.base import SDE

_MALA = MALA()


@dataclass(frozen=True)
class AnnealedMCMC(Sampler):
    r"""Moves of a Markov kernel at each of a descending list of noise levels.

    At the time :math:`t_i` the chains take ``moves`` moves of the kernel for the density
    :math:`p_{t_i}` of the field; their scaled states :math:`x / \alpha` are the start at
    :math:`t_{i+1}`. The samples are the scaled states at the last level, without removal of its
    noise. The density of a level needs be the diffusion of no other: products and powers of
    densities are sampled as well, see :mod:`scorefield.fields.composition`.

    With a kernel that is adjusted, and a potential, each level has its density as the stationary
    distribution exactly; what remains is the memory of the start, which decreases with the number
    of moves. Between modes that no move crosses at low noise, the weights stay those of the level
    at which they parted. A field without a potential is accepted by line integrals of its score,
    see :mod:`scorefield.samplers.kernels`. The error of such an acceptance is the path gap: the
    difference between the integrals along two paths to one proposal. The callback receives it with
    every set of samples. In float32 log-densities at low noise have few digits left: take
    ``dtype=torch.float64``.

    The number of network calls depends on whether the field has a potential: a level takes one
    call, and each move ``leaps`` calls for scores (one for ULA and MALA) and one for potentials, or
    four times ``leaps`` for line integrals. For the path gap, where there is a callback, a level
    takes one move more and eight calls. The callback receives the number, the share of accepted
    moves of each sample and its path gap; :class:`AcceptanceRates` collects them.

    Noise has the addresses ``("momentum", sample, i M + k)`` and ``("acceptance", sample, i M +
    k)`` for the move :math:`k < M` at level i, and ``("gap momentum", sample, i)`` and
    ``("detour", sample, i)`` for the path gap.

    Arguments:
        steps: The number of noise levels.
        kernel: The kernel.
        moves: The number :math:`M` of moves at each level.
        spacing: How the levels are spaced; see :func:`~.grid_times`.
        rho: The exponent of Karras' spacing.
        t_end: The last time; ``t_min`` of the process by default.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> rates = AcceptanceRates()
        >>> sampler = AnnealedMCMC(32, HMC(size=0.5, width=0.3, leaps=4), moves=10)
        >>> x = sampler.sample(product(one, other), n=64, dtype=torch.float64, callback=rates)
        >>> rates  # the share of accepted moves at each noise level, and the path gap

    References:
        Reduce, reuse, recycle: compositional generation with energy-based diffusion models and MCMC
        (Du et al., 2023, arXiv 2302.11552), on annealed MCMC.

        MCMC-correction of score-based diffusion models for model composition (Sjöberg et al., 2023,
        arXiv 2307.14012).
    """

    order: ClassVar[int] = 0

    steps: int
    kernel: Kernel = _MALA
    moves: int = 10
    spacing: Spacing = "karras"
    rho: float = 7.0
    t_end: float | None = None

    def __post_init__(self) -> None:
        check_grid(self.steps, self.spacing, self.rho)
        check_count("AnnealedMCMC: moves", self.moves)

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def nfe(self) -> None:
        return None

    @classmethod
    def for_nfe(cls, budget: int, **settings: Any) -> NoReturn:
        raise UserError(
            "the network calls of AnnealedMCMC depend on the field, not on a budget: choose steps "
            "and moves, or another sampler"
        )

    def times(self, sde: SDE) -> list[float | None]:
        r"""The times that are visited, in descending order from :math:`t_{max}`; ``None``, which
        stands for the end, comes last.
        """
        grid = grid_times(sde, self.steps, self.spacing, self.t_end, self.rho)
        return [*grid.tolist(), None]

    def step(
        self, field: ScoreField, x: Tensor, t: float, s: float | None, at: StepContext = PLAIN
    ) -> Stepped:
        """The moves at one level, and the scaling of the states for the next."""
        return self._moved(field, x, t, s, at).stepped

    def _run(self, field: ScoreField, x: Tensor, block: Block) -> Tensor:
        calls = 0
        at = block.context
        for step, (t, s) in enumerate(pairwise(self.times(field.sde))):
            assert t is not None
            now = StepContext(at.noise, at.index, step, at.classes)
            moved = self._moved(field, x, t, s, now, block.callback is not None)
            x, calls = moved.stepped.x, calls + moved.calls
            here, there = level(field.sde, t), level(field.sde, s)
            place = step, self.steps, here.sigma, there.sigma
            block.check(x, *place)
            scaled, denoised = x / there.alpha, moved.stepped.denoised
            block.show(
                *place, scaled, denoised, calls, accepted=moved.accepted, path_gap=moved.path_gap
            )
        return x

    def _moved(
        self,
        field: ScoreField,
        x: Tensor,
        t: float,
        s: float | None,
        at: StepContext,
        gaps: bool = False,
    ) -> _Moved:
        here, there = level(field.sde, t), level(field.sde, s)
        density = Density(field, clock(t, x), at.classes)
        chain, h = self.kernel.begin(density, x), self.kernel.length(here)
        numbers = range(at.step * self.moves, (at.step + 1) * self.moves)
        chain, accepted = self.kernel.run(density, chain, h, at, numbers)
        gap = None
        if gaps:
            momentum, aside = (at.normal(name, x) for name in ("gap momentum", "detour"))
            gap = self.kernel.path_gap(density, chain, momentum, aside, h)
        denoised = (chain.x + (here.alpha * here.sigma) ** 2 * chain.score) / here.alpha
        end = field.domain.wrap(chain.x * (there.alpha / here.alpha))
        shares = accepted.double() / self.moves
        return _Moved(Stepped(end, denoised, t, s), shares, gap, density.calls)


class _Moved(NamedTuple):
    """The outcome of a level, the share of accepted moves and the path gap of each sample, and the
    calls.
    """

    stepped: Stepped
    accepted: Tensor
    path_gap: Tensor | None
    calls: int


class AcceptanceRates:
    """A callback that collects the share of accepted moves by noise level, and the path gap of
    moves that are accepted by line integrals.
    """

    def __init__(self) -> None:
        self._shares: dict[float, list[float]] = {}
        self._gaps: dict[float, list[float]] = {}

    def __call__(self, state: SamplerState) -> None:
        if state.accepted is not None:
            self._shares.setdefault(state.sigma, []).extend(state.accepted.tolist())
        if state.path_gap is not None:
            self._gaps.setdefault(state.sigma, []).extend(state.path_gap.abs().tolist())

    @property
    def levels(self) -> dict[float, Estimate]:
        """The mean over the samples so far at each noise level, with its standard error: chains of
        different samples are independent.
        """
        return {sigma: mean(shares) for sigma, shares in self._shares.items()}

    @property
    def path_gaps(self) -> dict[float, Estimate]:
        """The mean absolute path gap at each noise level, in nats: how far log-ratios of acceptance
        depend on the path. Empty for moves that are accepted by potentials, exactly, or always.
        """
        return {sigma: mean(gaps, "nats") for sigma, gaps in self._gaps.items()}

    @property
    def path_gap(self) -> Estimate | None:
        """The mean of the path gaps over all levels, with its error over samples.

        Raises:
            ValueError: If not all samples have passed the same levels.
        """
        if not self._gaps:
            return None
        if len({len(gaps) for gaps in self._gaps.values()}) > 1:
            raise UserError(
                "the mean path gap is over levels that all samples have passed: collect one call "
                "of a sampler, to its end"
            )
        return mean(np.mean(list(self._gaps.values()), axis=0), "nats")

    def __repr__(self) -> str:
        gaps = self.path_gaps
        lines = [
            f"sigma {sigma:.4g}: {rate}" + (f", path gap {gaps[sigma]}" if sigma in gaps else "")
            for sigma, rate in self.levels.items()
        ]
        return "\n".join(lines) or "AcceptanceRates()"

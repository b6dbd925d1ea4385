r"""Draws of Markov chains for a known energy, in place of a data set.

Chains of exact acceptance have the density :math:`e^{-u} / Z` as their stationary distribution.
Each starts at a point of its own, moves ``burn_in`` times, and then gives a draw every so many
moves; every fourth chain is held out, so that no held-out point is correlated with one of training.
Draws of one chain are correlated; :func:`~.mixing` measures for how many moves.
"""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count
from scorefield.data.arrays import ArraySource, FiniteSource
from scorefield.data.source import Split
from scorefield.engine import exact
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.samplers.kernels import HMC, Density, Kernel
from scorefield.samplers.step import StepContext, clock, level
from scorefield.targets.energy import Energy
from scorefield.targets.particles import DoubleWell, LennardJones

_HELD_OUT = 4
_LEAST_ACCEPTED = 0.2


class ChainSource(FiniteSource):
    """The draws of Markov chains for an energy, made on first use.

    Noise has the addresses ``("start", chain)``, ``("momentum", chain, move)`` and
    ``("acceptance", chain, move)``.

    Arguments:
        energy: The energy.
        kernel: A kernel whose moves are accepted or not.
        chains: The number of chains, at least four.
        draws: The number of draws of each.
        burn_in: The number of moves before the first draw.
        every: The number of moves from one draw to the next.
        seed: The seed of the chains.
        name: The name of the data.

    Raises:
        ValueError: If a number is out of its range; when the draws are made, if fewer than a fifth
            of the moves are accepted or a point is not finite.
    """

    def __init__(
        self,
        energy: Energy,
        kernel: Kernel,
        chains: int,
        draws: int,
        burn_in: int,
        every: int,
        seed: int = 0,
        name: str = "chains",
    ) -> None:
        for key, value, least in (
            ("chains", chains, _HELD_OUT),
            ("draws", draws, 1),
            ("burn_in", burn_in, 0),
            ("every", every, 1),
        ):
            check_count(key, value, least)
        self.energy, self.kernel, self.name, self.shape = energy, kernel, name, energy.domain.shape
        self.chains, self.draws, self._burn_in = chains, draws, burn_in
        # Not the seed of samplers, whose moves have the same addresses.
        self.every, self._noise = every, Noise(-1 - seed)

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self._points.mean

    @property
    def std(self) -> float:
        return self._points.std

    def stored(self, split: Split) -> Tensor:
        return self._points.stored(split)

    def count(self, split: Split) -> int:
        held = self.chains // _HELD_OUT
        return self.draws * (held if split == "test" else self.chains - held)

    @cached_property
    def _points(self) -> ArraySource:
        energy, index = self.energy, torch.arange(self.chains)
        t, moves = energy.sde.t_min, self._burn_in + self.draws * self.every
        x = energy.start(self._noise, index)
        accepted, found = torch.zeros(self.chains), []
        with exact(), torch.no_grad():
            h, density = self.kernel.length(level(energy.sde, t)), Density(energy, clock(t, x))
            start, at = self.kernel.begin(density, x), StepContext(self._noise, index)
            path = self.kernel.moves(density, start, h, at, range(moves))
            for k, (chain, moved) in enumerate(path, 1 - self._burn_in):
                accepted += moved
                if k > 0 and k % self.every == 0:
                    found.append(chain.x)
        share, points = float(accepted.mean()) / moves, torch.stack(found)
        if share < _LEAST_ACCEPTED or not bool(points.isfinite().all()):
            fault = f"accepted {100 * share:.3g} % of their moves"
            if not bool(points.isfinite().all()):
                fault = "did not stay finite"
            raise UserError(f"the chains of {self.name} {fault}: make step smaller")
        held = index % _HELD_OUT == _HELD_OUT - 1
        train, test = (points[:, rows].flatten(0, 1) for rows in (~held, held))
        return ArraySource(train, test, self.name)


def double_well(
    particles: int = 4,
    dims: int = 2,
    a: float = 0.0,
    b: float = -4.0,
    c: float = 0.9,
    d0: float = 4.0,
    tau: float = 1.0,
    chains: int = 1024,
    draws: int = 20,
    burn_in: int = 500,
    every: int = 10,
    step: float = 0.15,
    leaps: int = 20,
    chains_seed: int = 0,
) -> ChainSource:
    """Chains of :class:`~.HMC` for :class:`~.DoubleWell`, as relative coordinates.

    Arguments:
        particles: As ``dims``, ``a``, ``b``, ``c``, ``d0`` and ``tau`` that of the energy.
        chains: As ``draws``, ``burn_in`` and ``every`` that of :class:`ChainSource`.
        step: The length of a leapfrog step.
        leaps: The number of leapfrog steps of a move.
        chains_seed: The seed of the chains.
    """
    energy = DoubleWell(particles, dims, a, b, c, d0, tau)
    kernel = HMC(step, 1.0, leaps)
    return ChainSource(
        energy, kernel, chains, draws, burn_in, every, chains_seed, f"double_well_{particles}"
    )


def lennard_jones(
    particles: int = 13,
    dims: int = 3,
    eps: float = 1.0,
    rm: float = 1.0,
    tau: float = 1.0,
    trap: float = 1.0,
    chains: int = 512,
    draws: int = 20,
    burn_in: int = 40,
    every: int = 4,
    step: float = 0.02,
    leaps: int = 40,
    chains_seed: int = 0,
) -> ChainSource:
    """Chains of :class:`~.HMC` for :class:`~.LennardJones`, as relative coordinates.

    Arguments:
        particles: As ``dims``, ``eps``, ``rm``, ``tau`` and ``trap`` that of the energy.
        chains: As ``draws``, ``burn_in`` and ``every`` that of :class:`ChainSource`.
        step: The length of a leapfrog step.
        leaps: The number of leapfrog steps of a move.
        chains_seed: The seed of the chains.
    """
    energy = LennardJones(particles, dims, eps, rm, tau, trap)
    kernel = HMC(step, 1.0, leaps)
    return ChainSource(
        energy, kernel, chains, draws, burn_in, every, chains_seed, f"lennard_jones_{particles}"
    )

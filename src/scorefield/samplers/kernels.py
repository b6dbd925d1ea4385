r"""Markov kernels at one noise level: unadjusted and Metropolis-adjusted Langevin steps, and
Hamiltonian Monte Carlo.

A move draws a momentum :math:`p \sim N(0, I)` and takes :math:`L` leapfrog steps of length
:math:`h` from :math:`(q_0, p_0) = (x, p)`,

.. math:: p_{k+1/2} = p_k + \tfrac{h}{2} s(q_k), \qquad q_{k+1} = q_k + h\,p_{k+1/2}, \qquad
    p_{k+1} = p_{k+1/2} + \tfrac{h}{2} s(q_{k+1}),

a map that preserves volume and that a reversed momentum undoes, whatever the field. It is accepted
with the probability :math:`\min(1, e^r)`,

.. math:: r = \Delta - \tfrac12 |p_L|^2 + \tfrac12 |p_0|^2, \qquad
    \Delta = \begin{cases} \phi(q_L) - \phi(q_0) & \text{of a field with a potential } \phi \\
    \sum_k \int_0^1 s\big(q_k + \tau (q_{k+1} - q_k)\big) \cdot (q_{k+1} - q_k)\,\mathrm{d}\tau &
    \text{of any other,} \end{cases}

and otherwise the chain stays. With a potential the density :math:`e^\phi` is in detailed balance
with the move, for every :math:`h`. The line integral, along the path of the proposal by
Gauss–Legendre quadrature with four nodes for each leapfrog step, is the same number where the field
is a gradient, up to the error of the quadrature; it changes its sign with the path. Where the field
is no gradient, no density need be in balance with the moves.

With :math:`L = 1`, :math:`q_1 = x + \frac{h^2}{2} s(x) + h p` is a Langevin step, and its adjusted
form is MALA.

References:
    MCMC using Hamiltonian dynamics (Neal, 2011), sections 5.2 and 5.3.

    Exponential convergence of Langevin distributions and their discrete approximations (Roberts and
    Tweedie, 1996), section 1.4.

    MCMC-correction of score-based diffusion models for model composition (Sjöberg, Lindqvist,
    Önnheim, Jirstrand and Svensson, 2023, arXiv 2307.14012), for the line integral.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from scorefield.calculus.circulation import quadrature
from scorefield.calculus.paths import across
from scorefield.checks import check_count, check_not_negative, check_positive
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.samplers.step import Coefficients, StepContext

_RULE = quadrature("gauss-4")


class Density:
    """A field at one time: its score, and the change of its log-density along a path.

    Attributes:
        calls: The number of evaluations of the field so far.
    """

    def __init__(self, field: ScoreField, t: float | Tensor, classes: Classes = None) -> None:
        self.field, self.t, self.classes, self.calls = field, t, classes, 0

    def score(self, x: Tensor) -> Tensor:
        """The score at points of the covering space."""
        self.calls += 1
        return self.field.score(self.field.domain.wrap(x), self.t, self.classes)

    def potential(self, x: Tensor) -> Tensor | None:
        """The potential at points of the covering space; ``None`` if the field has none."""
        if not self.field.has_potential:
            return None
        self.calls += 1
        return self.field.potential(self.field.domain.wrap(x), self.t, self.classes)

    def along(self, start: Tensor, end: Tensor) -> Tensor:
        """The line integral of the score along segments."""
        chord = end - start
        total = torch.zeros_like(chord)
        for tau, weight in zip(_RULE.nodes, _RULE.weights, strict=True):
            total = total + weight * self.score(start + tau * chord)
        return _dot(total, chord)


class Chain(NamedTuple):
    """States, with the scores there, and the potentials of a field that has one."""

    x: Tensor
    score: Tensor
    potential: Tensor | None


class Proposal(NamedTuple):
    """Where a move leads: the states and the momenta there, and the logarithm of the ratio that it
    is accepted by, ``None`` if it always is.
    """

    end: Chain
    momentum: Tensor
    log_ratio: Tensor | None


@dataclass(frozen=True)
class Kernel(ABC):
    r"""Moves at one noise level.

    The step length at the noise level :math:`\lambda` is :math:`h = \rho\,\alpha
    \sqrt{w^2 + \lambda^2}`: :math:`\rho` times the standard deviation of a normal distribution of
    width :math:`w` in that noise.

    Arguments:
        size: The relative step length :math:`\rho`, a pure number.
        width: The width :math:`w` of the narrowest mode of the data, in units of the data.

    Attributes:
        adjusted: Whether moves are accepted or not, so that the density of a potential stays as it
            is.

    Raises:
        ValueError: If ``size`` is not positive or ``width`` negative.
    """

    adjusted: ClassVar[bool] = True

    size: float = 0.5
    width: float = 0.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_positive(f"{name}: size", self.size)
        check_not_negative(f"{name}: width", self.width)

    def length(self, here: Coefficients) -> float:
        """The step length :math:`h` at a noise level."""
        return self.size * here.alpha * math.hypot(self.width, here.sigma)

    @abstractmethod
    def propose(self, density: Density, chain: Chain, momentum: Tensor, h: float) -> Proposal:
        """Where moves of step length ``h`` lead from states with momenta."""

    def begin(self, density: Density, x: Tensor) -> Chain:
        """The chains at states."""
        return Chain(x, density.score(x), density.potential(x))

    def moves(
        self, density: Density, chain: Chain, h: float, at: StepContext, numbers: range
    ) -> Iterator[tuple[Chain, Tensor]]:
        """The chains after each of numbered moves of step length ``h``, and which of them moved.

        The noise of move k has the addresses ``("momentum", sample, k)`` and ``("acceptance",
        sample, k)``.
        """
        for k in numbers:
            momentum, uniform = at.normal("momentum", chain.x, k), at.uniform("acceptance", k)
            chain, moved = self.move(density, chain, momentum, uniform, h)
            yield chain, moved

    def run(
        self, density: Density, chain: Chain, h: float, at: StepContext, numbers: range
    ) -> tuple[Chain, Tensor]:
        """The chains after all of :meth:`moves`, and the number of these that each accepted."""
        accepted = torch.zeros(len(chain.x), dtype=torch.int64, device=chain.x.device)
        for state, moved in self.moves(density, chain, h, at, numbers):
            chain, accepted = state, accepted + moved
        return chain, accepted

    def move(
        self, density: Density, chain: Chain, momentum: Tensor, uniform: Tensor, h: float
    ) -> tuple[Chain, Tensor]:
        """The chains after a move, and which of the moves were accepted.

        States of which the ratio is not a number become so themselves, to be reported.
        """
        end, _, log_ratio = self.propose(density, chain, momentum, h)
        x = density.field.domain.wrap(end.x)
        if log_ratio is None:
            return end._replace(x=x), torch.ones_like(uniform, dtype=torch.bool)
        x = torch.where(_like(log_ratio.isnan(), x), torch.full_like(x, math.nan), x)
        # Not the reverse, of which a ratio that is no number would be a rejection.
        stays = uniform.log() >= log_ratio.to(uniform)
        here = _like(stays, x)
        potential = end.potential
        if potential is not None and chain.potential is not None:
            potential = torch.where(stays, chain.potential, potential)
        states = torch.where(here, chain.x, x)
        return Chain(states, torch.where(here, chain.score, end.score), potential), ~stays

    def path_gap(
        self, density: Density, chain: Chain, momentum: Tensor, aside: Tensor, h: float
    ) -> Tensor | None:
        r"""The line integral :math:`\Delta` that a proposal is accepted by, less that along another
        path from the same state to the same end, in nats.

        The other path has two segments. They meet beside the middle of the chord :math:`e`, at a
        right angle to it and at the distance :math:`|e| / 2`, on the side of ``aside``. The gap of
        a gradient is zero up to the error of the quadrature; in the plane, that of one leapfrog
        step in a field of constant curl :math:`\omega` is :math:`\pm \omega |e|^2 / 4`.
        ``None`` where no line integral is taken, or in one dimension, where there is one path.
        """
        if density.field.has_potential or density.field.domain.dim < 2:
            return None
        end, last, log_ratio = self.propose(density, chain, momentum, h)
        if log_ratio is None:
            return None
        chord = end.x - chain.x
        length = chord.flatten(1).norm(dim=1)
        apex = chain.x + 0.5 * chord + 0.5 * _like(length, chord) * across(aside, chord)
        other = density.along(chain.x, apex) + density.along(apex, end.x)
        return log_ratio - _kinetic(momentum, last) - other


@dataclass(frozen=True)
class ULA(Kernel):
    r"""The unadjusted Langevin algorithm, :math:`x' = x + \frac{h^2}{2} s(x) + h z`.

    All moves are accepted, so that the distribution is off by :math:`O(h^2)`: a normal one of
    variance :math:`v` becomes one of variance :math:`v / (1 - h^2 / 4v)`. Without ``width`` it is
    the corrector :class:`~.AnnealedLangevin` with the signal-to-noise ratio :math:`\rho / 2`.

    Arguments and errors are those of :class:`Kernel`.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations (Roberts
        and Tweedie, 1996), section 1.4.
    """

    adjusted: ClassVar[bool] = False

    def begin(self, density: Density, x: Tensor) -> Chain:
        return Chain(x, density.score(x), None)

    def path_gap(
        self, density: Density, chain: Chain, momentum: Tensor, aside: Tensor, h: float
    ) -> None:
        """``None``: no move is rejected."""

    def propose(self, density: Density, chain: Chain, momentum: Tensor, h: float) -> Proposal:
        x = chain.x + h**2 / 2 * chain.score + h * momentum
        score = density.score(x)
        return Proposal(Chain(x, score, None), momentum, None)


@dataclass(frozen=True)
class HMC(Kernel):
    r"""Hamiltonian Monte Carlo, with a new momentum for each move.

    Arguments:
        size: The relative step length :math:`\rho`, a pure number.
        width: The width :math:`w` of the narrowest mode of the data, in units of the data.
        leaps: The number :math:`L` of leapfrog steps of a move.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), section 5.3.2.
    """

    leaps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(f"{type(self).__name__}: leaps", self.leaps)

    def propose(self, density: Density, chain: Chain, momentum: Tensor, h: float) -> Proposal:
        return leapfrog(density, chain, momentum, h, self.leaps)


@dataclass(frozen=True)
class MALA(Kernel):
    """The Metropolis-adjusted Langevin algorithm: Hamiltonian Monte Carlo with one leapfrog step.

    Arguments and errors are those of :class:`Kernel`.

    References:
        Exponential convergence of Langevin distributions and their discrete approximations (Roberts
        and Tweedie, 1996), section 1.4.
    """

    def propose(self, density: Density, chain: Chain, momentum: Tensor, h: float) -> Proposal:
        return leapfrog(density, chain, momentum, h, 1)


def leapfrog(density: Density, chain: Chain, momentum: Tensor, h: float, leaps: int) -> Proposal:
    """The end of a path of leapfrog steps, and the logarithm of its acceptance ratio."""
    x, score, p = chain.x, chain.score, momentum
    path = [x]
    for _ in range(leaps):
        p = p + h / 2 * score
        x = x + h * p
        score = density.score(x)
        p = p + h / 2 * score
        path.append(x)
    potential = density.potential(x)
    if potential is None or chain.potential is None:
        rise = torch.stack([density.along(*ends) for ends in pairwise(path)]).sum(dim=0)
    else:
        rise = potential - chain.potential
    return Proposal(Chain(x, score, potential), p, rise + _kinetic(momentum, p))


def _kinetic(before: Tensor, after: Tensor) -> Tensor:
    """The loss of kinetic energy."""
    return 0.5 * (_dot(before, before) - _dot(after, after))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).reshape(len(a), -1).sum(dim=1)


def _like(rows: Tensor, x: Tensor) -> Tensor:
    return rows.reshape(-1, *(1,) * (x.dim() - 1))

r"""Sequential Monte Carlo: weighted particles that visit one noise level after the other.

Chains of :class:`~.AnnealedMCMC` keep the share of a mode that they had where the modes parted.
Particles correct it by weights. At the levels :math:`t_0 > t_1 > \dots` with the potentials
:math:`\phi_i(x) = \phi(x, t_i)`, each particle

1. has at first the weight :math:`e^{\phi_0(x)} / \pi(x)`, with :math:`x` from the prior
   :math:`\pi`;
2. is moved by a Markov kernel that leaves the density :math:`e^{\phi_i}` as it is;
3. goes to :math:`x' = c\,x`, :math:`c = \alpha_{i+1} / \alpha_i`, with its weight times
   :math:`c^D e^{\phi_{i+1}(x') - \phi_i(x)}`.

Where the effective number :math:`(\sum w)^2 / \sum w^2` of the :math:`n` particles is below a
share of :math:`n`, they are drawn anew by their weights, independently. Weighted means are
consistent for the density of the last level, and the product of the mean weights is an unbiased
estimate of :math:`Z = \int e^{\phi(x, t_{end})}\,\mathrm{d}x`. Neither depends on the constants of
the potential at the levels before, so that compositions of potentials need no normalisation.

The error of that estimate comes from one run by the ancestors of its particles. With :math:`W_e`,
the sum of the last weights, of sum 1, of all that descend from particle :math:`e` of the prior, and
:math:`r` times that particles were drawn anew,

.. math:: V = 1 - \Big( \frac{n}{n - 1} \Big)^{r + 1} \Big( 1 - \sum_e W_e^2 \Big)

estimates the relative variance of :math:`Z`, and :math:`\sqrt V` is the standard error of
:math:`\log Z` by the delta method. Where :math:`V` is not positive, :math:`\sum_e W_e^2`, which is
greater, is taken in its place.

References:
    Sequential Monte Carlo samplers (Del Moral, Doucet and Jasra, 2006), sections 2.3 and 3.3.2.3.

    Variance estimation in the particle filter (Lee and Whiteley, 2018), theorem 1.

    Composition and control with distilled energy diffusion models and sequential Monte Carlo
    (Thornton, Béthune, Zhang, Bradley, Nakkiran and Zhai, 2025, arXiv 2502.12786).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count, check_kind, check_probability
from scorefield.engine import device_of, exact
from scorefield.errors import DivergedError, UnsupportedError, UserError
from scorefield.estimate import Estimate, ratio
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.noise import Noise
from scorefield.samplers.grid import Spacing, check_grid, grid_times
from scorefield.samplers.kernels import MALA, Density, Kernel
from scorefield.samplers.step import StepContext, clock, level
from scorefield.samplers.weights import effective_number, log_mean

_MALA = MALA()


@dataclass(frozen=True)
class ParticleLevel:
    """What happened at a noise level.

    Attributes:
        sigma: The noise level.
        effective: The effective number of particles on arrival.
        resampled: Whether they were drawn anew there.
        accepted: The share of accepted moves; ``None`` without moves. Its error is that over the
            particles of the prior, each with the moves of all that descend from it: copies of one
            particle share their start.
    """

    sigma: float
    effective: float
    resampled: bool
    accepted: Estimate | None


@dataclass(frozen=True, eq=False)
class Particles:
    r"""Weighted particles of the last level.

    Attributes:
        x: The scaled states :math:`x / \alpha`.
        weights: Their weights, of sum 1.
        log_constant: The estimate of :math:`\log Z` at the last level, in nats. Its error is that
            over runs, for an error below about one half; its degrees of freedom are one less than
            the effective number of ancestors, :math:`1 / \sum_e W_e^2`.
        levels: The levels, from the greatest.
        calls: The number of network calls of a particle.
    """

    x: Tensor
    weights: Float[Tensor, " n"]
    log_constant: Estimate
    levels: tuple[ParticleLevel, ...]
    calls: int

    @property
    def effective(self) -> float:
        """The effective number of particles at the end."""
        return effective_number(self.weights.log())

    def draw(self, seed: int = 0) -> Float[Tensor, "n *event"]:
        """As many particles of equal weight, drawn by their weights."""
        return self.x[_resampled(self.weights.log(), Noise(seed), len(self.levels))]

    def __repr__(self) -> str:
        lines = [
            f"sigma {each.sigma:.4g}: effective {each.effective:.0f} of {len(self.x)}"
            f"{', resampled' if each.resampled else ''}"
            f"{'' if each.accepted is None else f', accepted {each.accepted}'}"
            for each in self.levels
        ]
        return "\n".join([*lines, f"log Z {self.log_constant}, {self.calls} calls"])


def smc(
    field: ScoreField,
    n: int,
    steps: int,
    kernel: Kernel = _MALA,
    moves: int = 5,
    threshold: float = 0.5,
    spacing: Spacing = "karras",
    rho: float = 7.0,
    t_end: float | None = None,
    seed: int = 0,
    classes: Classes = None,
) -> Particles:
    r"""Sample the density of a potential at a noise level by weighted particles.

    All particles are in memory at once, in float64. A particle depends on all others, so that
    weighted means have errors only over runs with several seeds; the constant has one of its own.

    Arguments:
        field: A field with a potential.
        n: The number of particles.
        steps: The number of noise levels.
        kernel: A kernel whose moves are accepted or not: MALA or HMC.
        moves: The number of moves at each level.
        threshold: The share of ``n`` that the effective number must not fall below; at 0
            particles are never drawn anew.
        spacing: How the levels are spaced; see :func:`~.grid_times`.
        rho: The exponent of Karras' spacing.
        t_end: The last time; ``t_min`` of the process by default.
        seed: The seed, with the addresses of :class:`~.AnnealedMCMC`, and ``("resampling", k, i)``
            for the particle that takes place k at level i.
        classes: The class of all particles.

    Raises:
        TypeError: If the field has no potential, or the kernel is none.
        ValueError: If an argument is out of its range, the kernel is not adjusted, or the classes
            do not fit.
        FloatingPointError: If a weight is not finite.

    Example:
        >>> found = smc(product(one, other), n=4096, steps=16, kernel=HMC(size=0.5, width=0.3))
        >>> (found.weights * (found.x[:, 0] > 0)).sum(), found.log_constant
    """
    _check(field, kernel)
    check_count("n", n, 2)
    check_grid(steps, spacing, rho)
    check_count("moves", moves, 0)
    check_probability("threshold", threshold)
    index = torch.arange(n, device=device_of(field))
    noise = Noise(seed)
    at = StepContext(noise, index)
    grid = grid_times(field.sde, steps, spacing, t_end, rho).tolist()
    prior, calls, constant, levels = field.sde.prior(field.domain), 0, 0.0, []
    x = prior.sample(noise, index, torch.float64)
    rows = field.class_rows(classes, x)
    gains = -prior.log_prob(x)
    logs, ancestors, drawn = torch.zeros_like(gains), index, 0
    with exact(), torch.no_grad(), evaluation_mode(field):
        for i, (t, s) in enumerate(pairwise([*grid, None])):
            here, there = level(field.sde, t), level(field.sde, s)
            density = Density(field, clock(t, x), rows)
            chain = kernel.begin(density, x)
            assert chain.potential is not None
            logs = logs + gains + chain.potential
            if not bool(logs.isfinite().all()):
                raise DivergedError(
                    f"smc: the weights of {int((~logs.isfinite()).sum())} of {n} particles are not "
                    f"finite at noise level {here.sigma:.6g}"
                )
            effective = effective_number(logs)
            again = effective < threshold * n
            if again:
                constant += log_mean(logs).value
                kept = _resampled(logs, noise, i)
                chain = type(chain)(chain.x[kept], chain.score[kept], chain.potential[kept])
                logs, ancestors, drawn = torch.zeros_like(logs), ancestors[kept], drawn + 1
            numbers = range(i * moves, (i + 1) * moves)
            chain, accepted = kernel.run(density, chain, kernel.length(here), at, numbers)
            calls += density.calls
            shares = _by_ancestors(accepted.double() / moves, ancestors) if moves else None
            levels.append(ParticleLevel(here.sigma, effective, again, shares))
            scale = there.alpha / here.alpha
            x = field.domain.wrap(chain.x * scale)
            assert chain.potential is not None
            gains = field.domain.dim * math.log(scale) - chain.potential
    constant += log_mean(logs).value
    weights = logs.softmax(dim=0)
    found = _with_error(constant, weights, ancestors, drawn)
    return Particles(x, weights, found, tuple(levels), calls)


def _with_error(constant: float, weights: Tensor, ancestors: Tensor, drawn: int) -> Estimate:
    """The constant with its error by the ancestors of the particles, drawn anew so many times."""
    n = len(weights)
    shares = torch.zeros_like(weights).index_add(0, ancestors, weights)
    together = float(shares.square().sum())
    variance = 1 - (n / (n - 1)) ** (drawn + 1) * (1 - together)
    error = math.sqrt(variance if variance > 0 else together)
    return Estimate(constant, error, n, "nats", freedom=max(1 / together - 1, 1.0))


def _by_ancestors(shares: Tensor, ancestors: Tensor) -> Estimate:
    r"""The mean of shares with its error over ancestors, which alone are independent: that of a
    ratio of sums over the particles of each, times :math:`G / (G - 1)` in variance for an effective
    number G of ancestors. One half, the largest error of a share, where there is one left.
    """
    n, none = len(shares), torch.zeros_like(shares)
    sums = none.index_add(0, ancestors, shares)
    counts = none.index_add(0, ancestors, torch.ones_like(shares))
    found = ratio(sums.cpu().numpy(), counts.cpu().numpy())
    others = float(n**2 / counts.square().sum()) - 1
    if others == 0:
        return replace(found, standard_error=0.5, freedom=1.0)
    error = found.standard_error * math.sqrt((others + 1) / others)
    freedom = min(max(others, 1.0), found.draws - 1)
    return replace(found, standard_error=error, freedom=freedom)


def _resampled(logs: Tensor, noise: Noise, step: int) -> Tensor:
    """The numbers of the particles that are kept, drawn independently by their weights."""
    n = len(logs)
    places = torch.arange(n, device=logs.device)
    u = noise.uniform("resampling", (), places, step, torch.float64)
    shares = logs.softmax(dim=0).cumsum(dim=0)
    return torch.searchsorted(shares / shares[-1], u).clamp(max=n - 1)


def _check(field: ScoreField, kernel: Kernel) -> None:
    check_field(field)
    if not field.has_potential:
        raise UnsupportedError(
            f"smc weights particles by a potential, and {type(field).__name__} has none"
        )
    check_kind("kernel", kernel, Kernel)
    if not kernel.adjusted:
        raise UserError(
            "smc needs a kernel that leaves a density as it is: MALA or HMC, not "
            f"{type(kernel).__name__}"
        )

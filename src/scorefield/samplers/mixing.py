r"""How well Markov chains mix at one noise level: R-hat and integrated autocorrelation times.

Of :math:`M` chains of :math:`N` draws :math:`y_{nm}` let :math:`W` be the mean over chains of their
variances and :math:`B / N` the variance of their means. With

.. math:: v^+ = \frac{N - 1}{N} W + \frac{B}{N}, \qquad \hat R = \sqrt{v^+ / W}, \qquad
    \rho_k = 1 - \frac{W - \bar c_k}{v^+}, \qquad
    \tau = 1 + 2 \sum_{k \ge 1} \rho_k ,

where :math:`\bar c_k` is the mean over chains of the autocovariance at lag :math:`k`, a mean over
all draws has the variance of a mean over :math:`M N / \tau` independent ones. For :math:`\hat R`
each chain is divided into two, so that one that drifts is seen too. The sum ends where a pair
:math:`\rho_{2k} + \rho_{2k+1}`, made monotone, is no longer positive. Of chains whose draws
alternate, :math:`\tau` is the less certain the smaller it is: it is at least
:math:`1 / \log_{10} M N`, as in Stan.

The halves of stationary chains that agree have means of the variance :math:`2 v \tau / N`, so that

.. math:: \hat R^2 \approx 1 + \frac{\tau - 1}{N / 2} ,

with a relative scatter of :math:`1 / \sqrt M` of the second term. That is agreement: 200 moves of
:math:`\tau = 13` have an :math:`\hat R` of 1.06, and 1.01 takes about :math:`100\,\tau` moves.
More moves tell it from disagreement, whose :math:`\hat R` they leave as it is. (The threshold 1.01
of Vehtari et al. is one of long chains and of ranks, which are not taken here.)

References:
    Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of
    MCMC (Vehtari, Gelman, Simpson, Carpenter and Bürkner, 2021), equations 1 to 4 and 10 to 13.

    Practical Markov chain Monte Carlo (Geyer, 1992), section 3.3, for the end of the sum.

    Monte Carlo methods in statistical mechanics: foundations and new algorithms (Sokal, 1997),
    equation 3.19, for the error of the time.

    The jackknife, the bootstrap and other resampling plans (Efron, 1982), equation 3.5, for the
    error of the ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count, check_finite, check_kind, check_rows
from scorefield.engine import exact
from scorefield.errors import DivergedError, UserError
from scorefield.estimate import Estimate, format_uncertain, mean
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.noise import Noise
from scorefield.samplers.kernels import Density, Kernel
from scorefield.samplers.latent import check_points
from scorefield.samplers.step import StepContext, clock, level

_FEWEST = 8
"""The least number of draws of a chain: two halves of which each has a variance worth the name."""

Draws = Float[Tensor, "draws chains values"]


@dataclass(frozen=True, eq=False)
class Mixing:
    r"""The mixing of chains, by coordinate; of a torus by the cosines and sines of the coordinates.

    Attributes:
        r_hat: The ratio :math:`\hat R`. Chains that agree have about
            :math:`(1 + 2 (\tau - 1) / N)^{1/2}` after :math:`N` moves, and 1 in the limit.
        r_hat_error: Its standard error, by the jackknife over chains.
        time: The integrated autocorrelation time :math:`\tau`, in moves. Chains that do not agree
            have longer ones than is seen.
        time_error: Its standard error :math:`\tau (2 (2 w + 1) / M N)^{1/2}`, where :math:`w` is
            the last lag of the sum; that of :math:`\tau = 1` for shorter ones. It is that of chains
            that agree, whose correlations die out within :math:`N` moves.
        effective: The number :math:`M N / \tau` of independent draws of equal worth, with the
            relative error of :math:`\tau`.
        accepted: The share of accepted moves; its error is that over chains.
        x: The last states.
    """

    r_hat: Float[Tensor, " values"]
    r_hat_error: Float[Tensor, " values"]
    time: Float[Tensor, " values"]
    time_error: Float[Tensor, " values"]
    effective: Float[Tensor, " values"]
    accepted: Estimate
    x: Tensor

    def __repr__(self) -> str:
        longest = int(self.time.argmax())
        relative = float(self.time_error[longest] / self.time[longest])
        least = float(self.effective[longest])
        return (
            f"Mixing(largest R-hat {_largest(self.r_hat, self.r_hat_error)}, largest time "
            f"{_largest(self.time, self.time_error)} moves, least effective number "
            f"{format_uncertain(least, relative * least)}, accepted {self.accepted})"
        )


def mixing(
    field: ScoreField,
    kernel: Kernel,
    x: Float[Tensor, "chains *event"],
    t: float,
    moves: int = 1000,
    seed: int = 0,
    classes: Classes = None,
) -> Mixing:
    r"""Move chains at one noise level, and measure how well they mix.

    Start them from different places, wider apart than the density: chains that all start in one
    mode agree on it. Move them 100 autocorrelation times or more to tell chains that agree by
    :math:`\hat R`; see :class:`Mixing`.

    Arguments:
        field: The field.
        kernel: The kernel.
        x: The states :math:`x_t` that the chains start from, at least two.
        t: The time, a number.
        moves: The number of moves; all of them count.
        seed: The seed of the momenta and uniforms, with addresses as those of
            :class:`~.AnnealedMCMC`.
        classes: The class of each chain, or of all.

    Raises:
        ValueError: If the states do not fit the field, the time is no finite number, there are
            fewer than two chains or 8 moves, or fewer than two chains move in a coordinate.
        FloatingPointError: If a chain does not stay finite.

    Example:
        >>> start = 5 * torch.randn(64, 2, dtype=torch.float64)
        >>> mixing(field, HMC(size=0.5, leaps=4), start, t=0.5, moves=500)
    """
    check_points(field, x)
    check_rows("x", x, 2)
    check_kind("kernel", kernel, Kernel)
    check_finite("t", t)
    check_count("moves", moves, _FEWEST)
    at = StepContext(Noise(seed), torch.arange(len(x), device=x.device))
    h, draws = kernel.length(level(field.sde, t)), []
    accepted = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    with exact(), torch.no_grad(), evaluation_mode(field):
        density = Density(field, clock(t, x), field.class_rows(classes, x))
        path = kernel.moves(density, kernel.begin(density, x), h, at, range(moves))
        for chain, moved in path:
            accepted = accepted + moved
            draws.append(field.domain.embed(chain.x).double())
    values = torch.stack(draws)
    if not bool(values.isfinite().all()):
        raise DivergedError(
            "mixing: the chains did not stay finite; make the kernel's size smaller"
        )
    r_hat, r_hat_error = split_r_hat(values)
    still = ~r_hat_error.isfinite()
    if bool(still.any()):
        raise UserError(
            f"mixing: fewer than two chains moved in coordinate {int(still.nonzero()[0])} in "
            f"{moves} moves; make the kernel's size smaller"
        )
    time, error = autocorrelation_time(values)
    return Mixing(
        r_hat,
        r_hat_error,
        time,
        error,
        values.shape[0] * values.shape[1] / time,
        mean((accepted.double() / moves).cpu().numpy()),
        chain.x,
    )


def split_r_hat(draws: Draws) -> tuple[Float[Tensor, " values"], Float[Tensor, " values"]]:
    r"""The ratio :math:`\hat R` of the halves of chains, and its standard error by the jackknife
    over chains, which alone are independent: with :math:`\hat R_{(m)}` of all chains but one,
    :math:`\big(\frac{M - 1}{M} \sum_m (\hat R_{(m)} - \bar R)^2\big)^{1/2}`.

    The middle draw of an odd number is left out.
    """
    half, chains = len(draws) // 2, draws.shape[1]
    halves = torch.stack((draws[:half], draws[-half:]), dim=1)
    means = halves.mean(dim=0)
    means = means - means.mean(dim=(0, 1))
    parts = torch.stack((halves.var(dim=0), means, means.square())).sum(dim=1)
    whole = parts.sum(dim=1)
    without = _ratio(whole.unsqueeze(1) - parts, half, 2 * chains - 2)
    error = (without - without.mean(dim=0)).square().mean(dim=0) * (chains - 1)
    return _ratio(whole, half, 2 * chains), error.sqrt()


def autocorrelation_time(
    draws: Draws,
) -> tuple[Float[Tensor, " values"], Float[Tensor, " values"]]:
    r"""The integrated autocorrelation time :math:`\tau` of chains, in draws, and its standard
    error.
    """
    n, chains = draws.shape[:2]
    means = draws.mean(dim=0)
    # Zeros behind the draws keep the last from meeting the first.
    waves = torch.fft.rfft(draws - means, n=2 * n, dim=0)
    sums = torch.fft.irfft(waves.abs().square(), n=2 * n, dim=0)[:n]
    covariances = sums.mean(dim=1) / (n - 1)
    within = covariances[0]
    correlation = 1 - (within - covariances) / _stationary(within, means, n)
    pairs = correlation[: n - n % 2].reshape(n // 2, 2, -1).sum(dim=1)
    pairs = pairs.cummin(dim=0).values.clamp(min=0)
    time = (2 * pairs.sum(dim=0) - 1).clamp(min=1 / math.log10(n * chains))
    window = 2 * (pairs > 0).sum(dim=0).clamp(min=1) - 1
    # Where draws alternate, the end of the sum errs by more than a share of the time.
    return time, time.clamp(min=1) * (2 * (2 * window + 1) / (n * chains)).sqrt()


def _ratio(
    sums: Float[Tensor, "3 *many values"], half: int, count: int
) -> Float[Tensor, "*many values"]:
    """The ratio of a number of halves of so many draws, by the sums over halves of their variances,
    their centred means and the squares of these.
    """
    variance, total, square = sums
    between = (square - total**2 / count) / (count - 1)
    return ((half - 1) / half + count * between / variance).sqrt()


def _largest(values: Tensor, errors: Tensor) -> str:
    """The largest of some values, with its error."""
    k = int(values.argmax())
    return format_uncertain(float(values[k]), float(errors[k]))


def _stationary(within: Tensor, means: Tensor, n: int) -> Tensor:
    """The variance of the stationary distribution, by that within chains and their means."""
    return (n - 1) / n * within + means.var(dim=0)

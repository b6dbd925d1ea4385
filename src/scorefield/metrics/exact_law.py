r"""Distances between samples and an exact distribution.

Nothing is drawn for the reference, whose probabilities are exact: all of the error is that of the
samples, and its distribution under the null hypothesis is known for any number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from scorefield.checks import check_count, check_floating, check_fraction, check_share
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.metrics.sets import WIDE, flat
from scorefield.sde.exploding import EDM
from scorefield.targets.atoms import PseudoAtoms

Cdf = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class KolmogorovSmirnov:
    r"""The largest gap :math:`D_n = \sup_x |F_n(x) - F(x)|` between the distribution function of
    samples and an exact one, with a distribution-free interval.

    Attributes:
        value: The gap :math:`D_n`.
        low: The lower end of the interval for the gap :math:`D` of the samples' distribution.
        high: The upper end, likewise.
        confidence: A lower bound on the coverage of the interval.
        p_value: An upper bound on the probability of as large a gap for exact samples.
        n: The number of samples.
        standard_error: That of the empirical distribution function at the place of the gap,
            :math:`\sqrt{F_n (1 - F_n) / n}`.
        inexact: The error bound of the exact distribution function; part of the interval.
    """

    value: float
    low: float
    high: float
    confidence: float
    p_value: float
    n: int
    standard_error: float
    inexact: float

    @property
    def null(self) -> float:
        r"""The mean gap of as many exact samples: :math:`\sqrt{\pi / 2n}\,\ln 2 - 1 / 6n`, up
        to the order :math:`n^{-3/2}`.

        References:
            Approximating the lower tail-areas of the Kolmogorov–Smirnov one-sample statistic
            (Pelz and Good, 1976).
        """
        return math.sqrt(math.pi / (2 * self.n)) * math.log(2) - 1 / (6 * self.n)

    @property
    def estimate(self) -> Estimate:
        """The gap as an estimate; ``settings`` hold :attr:`null` and the p-value."""
        settings = {"null": self.null, "p_value": self.p_value}
        return Estimate(self.value, self.standard_error, self.n, "", settings, self.inexact)

    def __str__(self) -> str:
        return (
            f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f}, {100 * self.confidence:.3g} %; "
            f"p = {self.p_value:.2g})"
        )


def ks_test(
    values: Float[Tensor, " n"], cdf: Cdf, confidence: float = 0.95, inexact: float = 0.0
) -> KolmogorovSmirnov:
    r"""The Kolmogorov–Smirnov gap between values on a line and a continuous distribution.

    For independent values of any continuous distribution :math:`G`, the distribution of
    :math:`\sup |F_n - G|` is the same, and known exactly for each :math:`n`. By the triangle
    inequality its quantile :math:`q` bounds :math:`|D_n - D|`: the interval
    :math:`D_n \pm q` covers with at least that probability. (Asymptotically
    :math:`q = \sqrt{\ln(2/\alpha) / 2n}`, Massart's constant; the exact quantile is a little less.)

    Arguments:
        values: Independent values, at least 2.
        cdf: The exact distribution function.
        inexact: The error bound of ``cdf``; it widens the interval and raises the p-value.

    References:
        Evaluating Kolmogorov's distribution (Marsaglia, Tsang and Wang, 2003).

        The tight constant in the Dvoretzky–Kiefer–Wolfowitz inequality (Massart, 1990),
        corollary 1.
    """
    check_share("a confidence", confidence)
    check_fraction("the error of a distribution function", inexact)
    x = flat(values, least=2)[:, 0].sort().values
    n = len(x)
    f = cdf(x).to(torch.float64)
    steps = torch.arange(n + 1, dtype=torch.float64, device=x.device) / n
    above, below = steps[1:] - f, f - steps[:-1]
    over, under = int(above.argmax()), int(below.argmax())
    ahead = bool(above[over] >= below[under])
    value = float(above[over] if ahead else below[under])
    share = float(steps[over + 1] if ahead else steps[under])
    reach = float(stats.kstwo.ppf(confidence, n)) + inexact
    return KolmogorovSmirnov(
        value,
        max(0.0, value - reach),
        min(1.0, value + reach),
        confidence,
        float(stats.kstwo.sf(max(0.0, value - inexact), n)),
        n,
        math.sqrt(share * (1 - share) / n),
        inexact,
    )


def marginal_ks(
    samples: Float[Tensor, "batch n d"],
    law: PseudoAtoms,
    atom: int = 0,
    axis: int = 0,
    t: float | None = None,
    confidence: float = 0.95,
) -> KolmogorovSmirnov:
    r"""The Kolmogorov–Smirnov gap between coordinate ``axis`` of one ``atom`` and its exact
    marginal.

    On the circle the distribution function counts from 0 to :math:`u \in [0, L)`. One atom of each
    sample is used, since the others are not independent of it.
    """
    x = _coordinate(samples, law, atom, axis)
    clean, time = at_time(law, t)
    return ks_test(x, lambda u: clean.marginal_cdf(u, time, axis), confidence)


def total_variation(
    samples: Float[Tensor, "batch n d"],
    law: PseudoAtoms,
    bins: int = 64,
    atom: int = 0,
    axis: int = 0,
    t: float | None = None,
) -> Estimate:
    r"""The total variation between samples and an exact distribution over the cells of a grid; a
    pure number in [0, 1].

    .. math:: TV = \frac12 \sum_c |\hat p_c - p_c|

    with the exact probabilities of the cells: of the joint distribution where a point has two
    coordinates, and of coordinate ``axis`` of one ``atom`` otherwise. It is a lower bound on the
    total variation of the distributions, to which it converges on finer grids.

    The standard error is that of the mean of :math:`\frac12 \sum_c \pm 1_c(x_i)` with the signs of
    :math:`\hat p_c - p_c`, a fraction of the samples, with one more of either sign added: it is
    not zero where all samples have one sign. The interval is one for the mean distance of so many
    samples, as the settings say; where the distributions agree the signs are noise, and the
    interval covers over 99 %. As a sum of absolute values the distance is positive for exact
    samples too: ``settings["null"]`` is its mean for :math:`n` of them, exact for any :math:`n` by
    de Moivre's formula for the mean modulus of a binomial deviation.

    References:
        Closed form summation for classical distributions: variations on a theme of De Moivre
        (Diaconis and Zabell, 1991), section 1.
    """
    check_count("bins", bins, 2)
    clean, time = at_time(law, t)
    if law.domain.dim == 2:
        x = flat(_points(samples, law), least=2)
        periods = law.domain.periods(x).expand(law.domain.shape).reshape(-1)
        first, second = _cells(x / periods, bins).unbind(dim=1)
        cell, p = bins * first + second, clean.cell_probabilities(bins, time).reshape(-1)
    else:
        u = _coordinate(samples, law, atom, axis)
        period = law.domain.periods(u).expand(law.domain.shape[1])[axis]
        edges = torch.arange(bins + 1, dtype=u.dtype, device=u.device) * (period / bins)
        cell, p = _cells(u / period, bins), clean.marginal_cdf(edges, time, axis).diff()
    n = len(cell)
    p = p.clamp(0, 1)
    excess = torch.bincount(cell, minlength=len(p)) / n - p
    share = (float((excess > 0)[cell].sum()) + 1) / (n + 2)
    settings = {"cells": len(p), "null": _null(p.cpu().numpy(), n), **WIDE}
    error = math.sqrt(share * (1 - share) / (n + 2))
    return Estimate(0.5 * float(excess.abs().sum()), error, n, "", settings)


def at_time(law: PseudoAtoms, t: float | None) -> tuple[PseudoAtoms, float]:
    """A distribution and a time, of its process or, by default, of clean data."""
    return (law.under(EDM()), 0.0) if t is None else (law, t)


def _null(p: np.ndarray[tuple[int], np.dtype[np.float64]], n: int) -> float:
    r"""Half the sum of :math:`\mathbb{E}|\hat p - p| = \frac{2}{n}\,\nu (1 - p) P(X = \nu)` with
    :math:`\nu = \lfloor n p \rfloor + 1` of the binomial count :math:`X`.
    """
    most = np.floor(n * p) + 1
    return float((most * (1 - p) * stats.binom.pmf(most, n, p)).sum()) / n


def _cells(turns: Tensor, bins: int) -> Tensor:
    # The upper end of the last cell is the start of the first.
    return torch.floor(turns * bins).to(torch.int64) % bins


def _points(samples: Tensor, law: PseudoAtoms) -> Tensor:
    check_floating("samples", samples)
    if samples.shape[1:] != law.domain.shape:
        raise UserError(
            f"samples of shape {tuple(samples.shape[1:])} cannot be compared with a "
            f"distribution on {law.domain}"
        )
    return law.domain.wrap(samples.detach().to(law.positions.device, torch.float64))


def _coordinate(samples: Tensor, law: PseudoAtoms, atom: int, axis: int) -> Tensor:
    atoms, dims = law.domain.shape
    if not (0 <= atom < atoms and 0 <= axis < dims):
        raise UserError(
            f"coordinate {axis} of atom {atom} does not exist among {atoms} atoms in {dims} "
            "dimensions"
        )
    return flat(_points(samples, law)[:, atom, axis], least=2)[:, 0]

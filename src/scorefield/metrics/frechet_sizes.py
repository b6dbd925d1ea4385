r"""The Fréchet distance at the size of a set, and at that of an infinite one.

Between the normal distributions with the moments :math:`(\mu, C)` of :math:`n` features and those
of a reference, the squared distance

.. math:: d^2 = |\mu - \mu_r|^2 + \mathrm{tr}\,C + \mathrm{tr}\,C_r
    - 2\,\mathrm{tr}\big(C_r^{1/2} C\,C_r^{1/2}\big)^{1/2}

is biased upwards: :math:`\mathbb{E}\,d_n^2 = d_\infty^2 + b / n + O(n^{-2})`, where :math:`b`
differs between models, so that distances of equal size can be in the wrong order too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.metrics.moments import Moments, Statistics
from scorefield.metrics.sets import WIDE

PARTS = 20
"""The number of parts that the jackknife leaves out one by one; even."""


@dataclass(frozen=True)
class SizedFrechet:
    """A Fréchet distance of a set from a reference.

    Attributes:
        at_size: The distance of this set, biased as all sets of its size are; its interval is one
            for the mean over such sets.
        infinity: The distance extrapolated to an infinite set.
        warning: A sentence where the distance must not be compared as it is; empty elsewhere.
    """

    at_size: Estimate
    infinity: Estimate
    warning: str

    @property
    def bias(self) -> float:
        """The bias at this size."""
        return self.at_size.value - self.infinity.value


def frechet_between(one: Statistics, other: Statistics) -> float:
    """The squared Fréchet distance between two normal distributions, in float64.

    Raises:
        ValueError: If their dimensions differ, or a moment is not finite.

    References:
        The Fréchet distance between multivariate normal distributions (Dowson and Landau, 1982).
    """
    return _From(other)(one)


def frechet_sizes(
    part: Callable[[int], Moments],
    known: Statistics,
    unit: str = "",
    difference: float | None = None,
    **settings: Any,
) -> SizedFrechet:
    r"""The Fréchet distance of a set in :data:`PARTS` parts of about equal size, and its limit.

    The distances :math:`d_n^2` of the set and :math:`d_{n/2}^2` of its two halves, the parts of
    even and of odd number, determine a line in :math:`1 / n`, whose value at zero is

    .. math:: d_\infty^2 = d_n^2 - \frac{b}{n}, \qquad
        b = \frac{\overline{d_{n/2}^2} - d_n^2}{\overline{1 / n_{1/2}} - 1 / n}.

    Standard errors of both are those of the jackknife, :math:`\frac{G - 1}{G} \sum_g
    (\theta_{-g} - \bar\theta)^2` over the sets without one of the :math:`G` parts, with
    :math:`G - 1` degrees of freedom. They are for independent samples and this reference. Between
    distributions that differ the interval covers 93 to 97 %; the jackknife doubles the variance
    that is of second order in the samples, so that between equal ones it covers over 99 %.

    Arguments:
        part: The moments of the part of a number from 0; called at most three times each, and never
            held all at once.
        known: The moments of the reference, which are taken as exact.
        unit: The unit of the features, squared.
        difference: The difference between two models that is in question; by default the half-width
            of the interval, the smallest that the set resolves.
        settings: Settings of the estimate.

    Raises:
        ValueError: If a part has less than 2 samples, or the dimensions differ.

    References:
        Effectively unbiased FID and Inception Score and where to find them (Chong and Forsyth,
        2020), section 4.

        Bias and confidence in not quite large samples (Tukey, 1958).
    """
    distance = _From(known)
    halves = [reduce(Moments.__add__, map(part, range(side, PARTS, 2))) for side in (0, 1)]
    whole = halves[0] + halves[1]
    full, of_halves = distance(whole.statistics), [distance(h.statistics) for h in halves]
    infinity = _limit(full, of_halves, whole, halves)
    without, limits = [], []
    for k in range(PARTS):
        # The other half has no row of the part.
        left, side = part(k), k % 2
        rest, half = whole - left, halves[side] - left
        own, pair, both = distance(rest.statistics), list(of_halves), list(halves)
        pair[side], both[side] = distance(half.statistics), half
        without.append(own)
        limits.append(_limit(own, pair, rest, both))
    about = {"dim": len(whole.mean), "parts": PARTS, "coverage": WIDE["coverage"], **settings}
    limit = Estimate(infinity, _jackknife(limits), whole.n, unit, about, freedom=PARTS - 1.0)
    bias = full - infinity
    at_size = replace(
        limit,
        value=max(full, 0.0),
        standard_error=_jackknife(without),
        settings={**about, "bias": bias, "interval_of": "the mean over sets of this size"},
    )
    return SizedFrechet(at_size, limit, _warning(at_size, bias, difference))


def _warning(found: Estimate, bias: float, difference: float | None) -> str:
    n, dim = found.n, found.settings["dim"]
    if n < 2 * dim:
        return (
            f"half of the {n} samples are fewer than the {dim} features: neither the distance "
            f"nor its extrapolation is reliable below {2 * dim} samples"
        )
    low, high = found.interval()
    width = (high - low) / 2 if difference is None else difference
    if bias <= width:
        return ""
    # Of a limit that no size reaches there is none to name.
    words = f"at {n} samples the bias {bias:.3g} exceeds the difference {width:.2g} in question"
    if width > 0:
        words += f", which takes {math.ceil(n * bias / width)} samples"
    return f"{words}: compare the extrapolated distances, or distances at one number of samples"


def _limit(full: float, of_halves: list[float], whole: Moments, halves: list[Moments]) -> float:
    inverse = sum(1 / half.n for half in halves) / 2 - 1 / whole.n
    return full - (sum(of_halves) / 2 - full) / inverse / whole.n


def _jackknife(values: list[float]) -> float:
    mean = sum(values) / len(values)
    share = (len(values) - 1) / len(values)
    return math.sqrt(share * sum((value - mean) ** 2 for value in values))


class _From:
    """The distance from a reference, the root of whose covariance is taken once."""

    def __init__(self, reference: Statistics) -> None:
        self._mean, self._covariance = (_double(part) for part in reference)
        values, vectors = torch.linalg.eigh(self._covariance)
        self._root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT

    def __call__(self, one: Statistics) -> float:
        mean, covariance = (_double(part).to(self._root.device) for part in one)
        if mean.shape != self._mean.shape:
            raise UserError(
                f"features of {len(mean)} columns cannot be compared with {len(self._mean)}"
            )
        inner = self._root @ covariance @ self._root
        # Symmetric but for rounding, of which eigvalsh sees one triangle.
        cross = torch.linalg.eigvalsh((inner + inner.mT) / 2).clamp(min=0).sqrt().sum()
        shift = (mean - self._mean).square().sum()
        return float(shift + covariance.trace() + self._covariance.trace() - 2 * cross)


def _double(numbers: Tensor) -> Tensor:
    if not bool(torch.isfinite(numbers).all()):
        raise UserError("the moments of features are not finite")
    return numbers.to(torch.float64)

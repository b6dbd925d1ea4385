r"""The common part of all distances between two sets of samples, and their noise floors.

A distance is a functional :math:`T(\hat P, \hat Q)` of two empirical distributions, of
:math:`n` and :math:`m` independent samples. Its standard error is that of its first-order expansion

.. math:: T(\hat P, \hat Q) \approx T(P, Q)
    + \frac1n \sum_i u(x_i) + \frac1m \sum_j v(y_j),

the *infinitesimal jackknife*: with the exact influence :math:`u, v` of each sample, no resampling
is needed. Where the two distributions agree the influences vanish and only the order of magnitude
of the error is right; there a distance is compared with its :func:`noise_floor`: its values between
two real sets of the same size.

References:
    The infinitesimal jackknife (Jaeckel, 1972).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count, check_floating
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.estimate import mean as mean_of
from scorefield.noise import Noise
from scorefield.points import Given, numbers_of
from scorefield.targets.base import Target

WIDE = {
    "interval_of": "the mean over sets of these sizes",
    "coverage": "97 to 100 % between like distributions",
}
"""What the settings of a distance that is biased upwards say about its interval, which influences
that are noise make too wide."""

Metric = Callable[[Tensor, Tensor], Estimate]


@runtime_checkable
class Reference(Protocol):
    """A finite set of real samples."""

    @property
    def size(self) -> int:
        """Their number."""

    def reference(self, n: int, seed: int) -> Tensor:
        """``n`` distinct real samples; an error if there are fewer."""


@dataclass(frozen=True)
class NoiseFloor:
    """The distribution of a distance between two real sets: its mean, with the standard error over
    the pairs; its standard deviation ``sd`` over the pairs; the distance of each pair.
    """

    mean: Estimate
    sd: float
    values: tuple[float, ...]

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return len(self.values)

    def quantile(self, q: float) -> float:
        """The empirical quantile over the pairs, interpolated."""
        if not 0 <= q <= 1:
            raise UserError(f"the level of a quantile must be in [0, 1], got {q}")
        return float(torch.tensor(self.values, dtype=torch.float64).quantile(q))

    def ratio(self, distance: Estimate | float) -> float:
        """A distance divided by the mean floor, which must be positive by three standard errors."""
        if self.mean.value <= 3 * self.mean.standard_error:
            raise UserError(
                f"a noise floor of {self.mean} is not significantly positive, so that ratios to it "
                "mean nothing: use excess"
            )
        return _value(distance) / self.mean.value

    def excess(self, distance: Estimate | float) -> float:
        """A distance above the mean floor, in standard deviations of the floor, which must not be
        zero.
        """
        if self.sd == 0:
            raise UserError("all pairs of real sets have the same distance: the floor has no scale")
        return (_value(distance) - self.mean.value) / self.sd


def noise_floor(
    metric: Metric,
    source: Target | Reference,
    n: int,
    pairs: int = 20,
    seed: int = 0,
    m: int | None = None,
) -> NoiseFloor:
    r"""The distance between two real sets of the sizes used for a model.

    Every pair is two sets without a common sample. A target's pairs are independent draws, at the
    addresses of purpose ``"data"``. Those of a finite source are random subsets of the same
    samples, of which at most :math:`k = \lfloor size / (n + m) \rfloor` are disjoint: the standard
    error of the mean is then that of :math:`k` pairs, however many are drawn.

    Arguments:
        metric: A distance, such as :func:`~.mmd`; options are set by
            ``functools.partial``.
        source: A target, or data with a method ``reference(n, seed)``.
        n: The size of the first set: the number of samples of a model.
        pairs: The number of pairs, at least 2.
        seed: The seed of the first pair.
        m: The size of the second set; ``n`` by default.

    Raises:
        ValueError: If a finite source has fewer than :math:`n + m` samples.
    """
    m = n if m is None else m
    for name, count, least in (("n", n, 1), ("m", m, 1), ("pairs", pairs, 2)):
        check_count(f"noise_floor: {name}", count, least)
    distances = []
    for pair in range(pairs):
        if isinstance(source, Target):
            index = torch.arange(n + m, device=source.mean.device)
            points = source.draw(Noise(seed), index, step=pair)
        else:
            points = source.reference(n + m, seed + pair)
        distances.append(metric(points[:n], points[n:]))
    values = tuple(distance.value for distance in distances)
    settings = {"n": n, "m": m, "seed": seed}
    mean = mean_of(list(values), distances[0].unit, **settings)
    sd = statistics.stdev(values)
    if not isinstance(source, Target):
        independent = min(pairs, source.size // (n + m))
        error = sd / math.sqrt(independent)
        mean = replace(mean, standard_error=error, n=independent, freedom=None)
    return NoiseFloor(mean, sd, values)


def _value(distance: Estimate | float) -> float:
    return distance.value if isinstance(distance, Estimate) else distance


def flat_pair(samples: Given, reference: Given, least: int = 2) -> tuple[Tensor, Tensor]:
    """Two sets as float64 matrices, one sample per row, of at least ``least`` samples each."""
    samples, reference = set_of(samples), set_of(reference)
    if samples.shape[1:] != reference.shape[1:]:
        raise UserError(
            f"two sets of samples need one event shape, got {tuple(samples.shape[1:])} and "
            f"{tuple(reference.shape[1:])}"
        )
    return flat(samples, least), flat(reference, least)


def set_of(samples: Given) -> Tensor:
    """A set of samples as a tensor; classes are left out."""
    return numbers_of("samples", samples)[0]


def flat(samples: Tensor, least: int = 1) -> Tensor:
    """A set as a float64 matrix, one sample per row."""
    check_floating("samples", samples)
    if samples.dim() == 0 or len(samples) < least:
        raise UserError(
            f"a set of at least {least} samples is needed, got shape {tuple(samples.shape)}"
        )
    rows = samples.detach().to(torch.float64).reshape(len(samples), -1)
    bad = int((~torch.isfinite(rows).all(dim=1)).sum())
    if bad:
        raise UserError(f"{bad} of {len(samples)} samples are not finite")
    return rows


def variance_of_means(u: Float[Tensor, " n"], v: Float[Tensor, " m"]) -> float:
    r"""The variance :math:`s_u^2 / n + s_v^2 / m` of the sum of the means of two samples."""
    return float(u.var() / len(u) + v.var() / len(v))

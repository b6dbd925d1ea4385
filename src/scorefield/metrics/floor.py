r"""The noise floor of a distance: its values between two real sets of the same size."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.estimate import mean as mean_of
from scorefield.noise import Noise
from scorefield.targets.base import Target

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
        """A distance divided by the mean floor: 1 for a perfect model, on average.

        Raises:
            ValueError: If the floor is not positive by three standard errors, as for an unbiased
                distance.
        """
        if self.mean.value <= 3 * self.mean.standard_error:
            raise UserError(
                f"a noise floor of {self.mean} is not significantly positive, so that ratios to it "
                "mean nothing: use excess"
            )
        return _value(distance) / self.mean.value

    def excess(self, distance: Estimate | float) -> float:
        """A distance above the mean floor, in standard deviations of the floor.

        Raises:
            ValueError: If the distances of all pairs are equal.
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
        metric: A distance, such as :func:`~scorefield.metrics.mmd`; options are set by
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
    if n < 1 or m < 1:
        raise UserError(f"a noise floor needs sets of at least one sample, got {n} and {m}")
    if pairs < 2:
        raise UserError(f"a noise floor needs at least 2 pairs of real sets, got {pairs}")
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
        mean = replace(mean, standard_error=sd / math.sqrt(independent), n=independent)
    return NoiseFloor(mean, sd, values)


def _value(distance: Estimate | float) -> float:
    return distance.value if isinstance(distance, Estimate) else distance

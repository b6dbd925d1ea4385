r"""The first two moments of features, summed over parts of a set that is never held as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.metrics.sets import flat


class Statistics(NamedTuple):
    """The mean and the covariance of features, float64, by which a reference set is known."""

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Moments:
    r"""The moments of :math:`n` rows: their mean :math:`\bar x` and their scatter
    :math:`S = \sum_i (x_i - \bar x)(x_i - \bar x)^T`, float64.

    Sets without a common row are joined by ``+``, and a part is taken out by ``-``, without a
    difference of large numbers:

    .. math:: S = S_1 + S_2 + \frac{n_1 n_2}{n_1 + n_2} (\bar x_1 - \bar x_2)(\bar x_1 - \bar x_2)^T

    References:
        Algorithms for computing the sample variance: analysis and recommendations (Chan, Golub and
        LeVeque, 1983), equation 2.1.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """The moments of rows, one sample each."""
        x = flat(rows, least=1)
        mean = x.mean(dim=0)
        off = x - mean
        return cls(len(x), mean, off.mT @ off)

    @classmethod
    def of_blocks(cls, blocks: Iterable[Tensor]) -> Moments:
        """The moments of all rows of several blocks, of which one is held at a time."""
        return reduce(cls.__add__, map(cls.of, blocks))

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance :math:`S / (n - 1)`."""
        if self.n < 2:
            raise UserError(f"a covariance needs at least 2 samples, got {self.n}")
        return self.scatter / (self.n - 1)

    @property
    def statistics(self) -> Statistics:
        """The mean and the unbiased covariance."""
        return Statistics(self.mean, self.covariance)

    def __add__(self, other: Moments) -> Moments:
        n = self.n + other.n
        step = other.mean - self.mean
        between = torch.outer(step, step) * (self.n * other.n / n)
        mean = self.mean + step * (other.n / n)
        return Moments(n, mean, self.scatter + other.scatter + between)

    def __sub__(self, part: Moments) -> Moments:
        n = self.n - part.n
        step = part.mean - self.mean
        mean = self.mean - step * (part.n / n)
        between = torch.outer(step, step) * (self.n * part.n / n)
        return Moments(n, mean, self.scatter - part.scatter - between)

"""The median of draws, whose interval holds whatever their distribution is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from scorefield.checks import check_share
from scorefield.estimate import finite_draws


@dataclass(frozen=True)
class Median:
    """The median of ``n`` draws, with a distribution-free interval from ``low`` to ``high``, both
    draws, for the median of their distribution; its coverage ``confidence`` is exact for a
    distribution without atoms, and a lower bound for any.
    """

    value: float
    low: float
    high: float
    confidence: float
    n: int

    def __str__(self) -> str:
        return (
            f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g}, {100 * self.confidence:.3g} %)"
        )


def median(draws: ArrayLike, /, confidence: float = 0.95) -> Median:
    r"""The median of independent draws, with the interval between two order statistics.

    For :math:`n` draws the interval from the :math:`j`-th smallest to the :math:`j`-th largest
    covers the median of their distribution with probability
    :math:`1 - 2\,P(B \le j - 1)`, :math:`B \sim \mathrm{Bin}(n, \tfrac12)`. Of these the
    narrowest whose probability is at least ``confidence`` is taken; fewer than six draws have none
    of 95 %, and their whole range is returned. The result has the coverage of its interval.

    Raises:
        ValueError: For fewer than two draws, a draw that is not finite, or a ``confidence`` that is
            not in (0, 1).

    References:
        Order statistics (David and Nagaraja, 2003), section 7.1.
    """
    check_share("a confidence", confidence)
    y = np.sort(finite_draws(draws))
    n = int(y.size)
    misses = 2 * stats.binom.cdf(np.arange(n // 2), n, 0.5)
    # Number j excludes j draws on both sides.
    j = max(0, int((misses <= 1 - confidence).sum()) - 1)
    return Median(float(np.median(y)), float(y[j]), float(y[n - 1 - j]), float(1 - misses[j]), n)

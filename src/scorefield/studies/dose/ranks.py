r"""Which measure of a score error predicts its harm: rank correlations over fields.

Spearman's :math:`\rho` of a measure and an outcome over fields is 1 where the measure puts them in
the order of the harm. What is not distinguishable from zero, by its 95 % interval, is ranked as
zero, and ties have their mean rank. Intervals are of the percentile bootstrap over fields: from
resamples of the fields, with replacement, the 2.5th and 97.5th percentile. They hold for fields of
the same kind, and take each field as independent of the others.

References:
    The proof and measurement of association between two things (Spearman, 1904).

    An introduction to the bootstrap (Efron and Tibshirani, 1993), section 13.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue.metric import OfLevel
from scorefield.evaluation.catalogue.samples import SLICED_WASSERSTEIN
from scorefield.noise import Noise
from scorefield.studies.dose.cases import MIXTURE
from scorefield.studies.dose.compute import DoseResponse, Response
from scorefield.studies.dose.errors import MEASURES, over_all

RESAMPLES = 2000
FEWEST = 5
"""The least number of fields whose order is compared."""


class Outcome(NamedTuple):
    """A harm: its name, its title, and its number."""

    name: str
    title: str
    of: Callable[[Response], Estimate]


OUTCOMES = (
    Outcome("kl", "KL(data ‖ model) [nats]", lambda r: r.kl),
    Outcome(SLICED_WASSERSTEIN.name, "sliced Wasserstein distance", lambda r: r.distance),
    Outcome("likelihood_error", "error of the log-density [nats]", lambda r: r.likelihood),
)


class Correlation(NamedTuple):
    """The rank correlation of a measure and an outcome over the fields of a group."""

    group: str
    fields: int
    measure: OfLevel
    outcome: Outcome
    value: float
    low: float
    high: float

    def row(self) -> dict[str, Any]:
        """A record of a table."""
        names = {"measure": self.measure.name, "outcome": self.outcome.name}
        numbers = {"spearman": self.value, "low": self.low, "high": self.high}
        return {"group": self.group, "fields": self.fields, **names, **numbers}


def groups(result: DoseResponse, dose: float) -> dict[str, list[Response]]:
    """The fields over which measures are compared."""
    alike = [r for r in result.responses if r.case.dose == dose and r.case.kind != MIXTURE]
    found = {"planted": result.responses, f"planted, all of dose {dose:g}": alike}
    found |= result.trained_by_data
    return {name: some for name, some in found.items() if len(some) >= FEWEST}


def correlations(result: DoseResponse, dose: float, seed: int) -> list[Correlation]:
    """All rank correlations; those with a measure or an outcome that is the same in all fields of a
    group are left out.
    """
    found = []
    for name, fields in groups(result, dose).items():
        for metric in MEASURES:
            x = [_or_zero(over_all(r.levels, metric)) for r in fields]
            for outcome in OUTCOMES:
                y = [_or_zero(outcome.of(r)) for r in fields]
                if len(set(x)) > 1 and len(set(y)) > 1:
                    numbers = spearman(x, y, seed)
                    found.append(Correlation(name, len(fields), metric, outcome, *numbers))
    return found


def spearman(x: Sequence[float], y: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Spearman's correlation of numbers that are not all the same, and its interval of 95 %."""
    a, b = np.asarray(x), np.asarray(y)
    index = torch.arange(RESAMPLES)
    u = Noise(seed).uniform("dose/bootstrap", (len(a),), index, dtype=torch.float64)
    rows = (u * len(a)).long().numpy()
    # A resample of one field over and over has no order.
    low, high = np.nanpercentile(_correlation(a[rows], b[rows]), [2.5, 97.5])
    return float(_correlation(a[None], b[None])[0]), float(low), float(high)


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b = (stats.rankdata(v, axis=1) for v in (x, y))
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def _or_zero(estimate: Estimate) -> float:
    low, high = estimate.interval()
    return 0.0 if low <= 0 <= high else estimate.value


def markdown(found: Sequence[Correlation]) -> str:
    """A table of a page: a row for each measure in each group, a column for each outcome."""
    heads = ["fields", "measure", *(outcome.title for outcome in OUTCOMES)]
    lines = [heads, ["---"] * len(heads)]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for c in found:
        group = f"{c.group} ({c.fields})"
        cells = rows.setdefault((group, c.measure.label), {})
        cells[c.outcome.name] = f"{c.value:.2f} ({c.low:.2f} to {c.high:.2f})"
    for names, cells in rows.items():
        lines.append([*names, *(cells.get(outcome.name, "–") for outcome in OUTCOMES)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

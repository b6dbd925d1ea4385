r"""Differences between models, paired over seeds.

Trainings of two models with a common seed share their data, their noise and, where the networks are
alike, their initial weights; and all are evaluated on the same points. What they share cancels in
the difference seed by seed, whose mean has a Student interval with one degree of freedom less than
there are seeds:

.. math:: \bar d = \tfrac1k \sum_{s} (a_s - b_s), \qquad
    \bar d \pm t_{k-1,\,0.975}\, \frac{\mathrm{sd}(a_s - b_s)}{\sqrt k}.

The scatter of the evaluation that is common to both models cancels as well; what of it differs is
the same for every seed, and is not in the interval, which holds for these samples and points.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scorefield.comparison.groups import Group, Key, measured
from scorefield.estimate import Estimate, mean, paired_difference
from scorefield.evaluation.columns import Schema, attributes, derived


def excludes_zero(difference: Estimate) -> bool:
    """Whether the 95 % interval of a difference leaves zero out."""
    low, high = difference.interval()
    return low > 0 or high < 0


@dataclass(frozen=True)
class Pair:
    """A number of a model against the same number of the baseline, over their common seeds.

    Attributes:
        difference: The mean of model − baseline.
        ratio: The geometric mean of model / baseline with the ends of its interval, by Student's
            law for the logarithms; ``None`` where a number is not positive.
        deviation: The standard deviation of the differences over seeds.
        matched_by: The resource of which both were given the same, if they were.
        budget_fraction: The fraction of the shared budget of it.
    """

    model: Group
    baseline: Group
    key: Key
    difference: Estimate
    ratio: tuple[float, float, float] | None
    deviation: float
    seeds: tuple[int, ...]
    matched_by: str | None = None
    budget_fraction: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the 95 % interval of the difference leaves zero out."""
        return excludes_zero(self.difference)


PAIR_COLUMNS = Schema(
    derived("dataset", get=lambda p: p.model.dataset),
    derived("model_id", get=lambda p: p.model.model),
    derived("baseline_id", get=lambda p: p.baseline.model),
    derived("matched_by", get=lambda p: p.matched_by),
    derived("budget_fraction", get=lambda p: p.budget_fraction),
    *attributes(*Key._fields, of="key"),
    derived("difference_mean", get=lambda p: p.difference.value),
    derived("difference_std", get=lambda p: p.deviation),
    derived("difference_standard_error", get=lambda p: p.difference.standard_error),
    derived("difference_low", "difference_high", get=lambda p: p.difference.interval()),
    *attributes("numerical_error", "unit", of="difference"),
    derived("excludes_zero", get=lambda p: "yes" if p.excludes_zero else "no"),
    derived("ratio_mean", "ratio_low", "ratio_high", get=lambda p: p.ratio),
    derived("num_seeds", get=lambda p: len(p.seeds)),
)
"""The table of differences."""


def pairs(members: Sequence[Group]) -> list[Pair]:
    """Every number of every model of a data set against that of the first."""
    base = members[0]
    numbers = {g.model: {e.seed: measured(e) for e in g.members} for g in members}
    return [
        pair
        for g in members[1:]
        for pair in compare(g, base, numbers[g.model], numbers[base.model])
    ]


def compare(
    model: Group,
    base: Group,
    numbers: Mapping[int, Mapping[Key, Estimate]],
    base_numbers: Mapping[int, Mapping[Key, Estimate]],
    matched_by: str | None = None,
    budget_fraction: float | None = None,
) -> list[Pair]:
    """The numbers of two models, given by seed, over their common seeds."""
    seeds = tuple(sorted(numbers.keys() & base_numbers.keys()))
    if len(seeds) < 2:
        return []
    found = []
    for key in numbers[seeds[0]]:
        if not all(key in numbers[s] and key in base_numbers[s] for s in seeds):
            continue
        a, b = [numbers[s][key] for s in seeds], [base_numbers[s][key] for s in seeds]
        values = [e.value for e in a], [e.value for e in b]
        numerical = sum(e.numerical_error for e in (*a, *b)) / len(seeds)
        difference = replace(paired_difference(*values, unit=a[0].unit), numerical_error=numerical)
        both = list(zip(*values, strict=True))
        deviation, ratio = statistics.stdev([x - y for x, y in both]), None
        if min(min(xy) for xy in both) > 0:
            logs = mean([math.log(x / y) for x, y in both])
            # With two seeds an interval can be wider than what a float holds.
            low, high = (math.exp(min(max(end, -700.0), 700.0)) for end in logs.interval())
            ratio = math.exp(logs.value), low, high
        matched = (matched_by, budget_fraction)
        found.append(Pair(model, base, key, difference, ratio, deviation, seeds, *matched))
    return found

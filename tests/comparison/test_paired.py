"""Differences over common seeds: exact where they are known, with an interval that covers."""

import math

import numpy as np
import pytest
from scipy import stats

from scorefield.comparison.groups import RMS, Group, Key
from scorefield.comparison.paired import compare, pairs
from scorefield.estimate import Estimate
from tests.comparison.benchmark import evaluation


def group(model, values):
    return Group("toy", model, tuple(evaluation(model, s, v) for s, v in values.items()))


def one(found, metric, **wanted):
    keys = [p for p in found if p.key.metric_name == metric]
    (pair,) = [p for p in keys if all(getattr(p.key, n) == v for n, v in wanted.items())]
    return pair


def test_what_seeds_share_cancels():
    base = group("m0", {0: 1.0, 1: 5.0, 2: 9.0})
    other = group("m1", {0: 1.5, 1: 5.4, 2: 9.6})
    pair = one(pairs([base, other]), "sliced_wasserstein", nfe_budget=8)
    assert pair.difference.value == pytest.approx(0.5)
    assert pair.deviation == pytest.approx(0.1)
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert pair.difference.interval() == pytest.approx((0.5 - half, 0.5 + half))
    assert pair.excludes_zero
    assert pair.seeds == (0, 1, 2)


def test_ratios_are_geometric_means():
    found = pairs([group("m0", {0: 1.0, 1: 2.0}), group("m1", {0: 2.0, 1: 8.0})])
    value, low, high = one(found, "validation_loss").ratio
    assert value == pytest.approx(math.sqrt(2 * 4))
    assert low * high == pytest.approx(value**2)


def test_a_number_that_may_be_negative_has_no_ratio():
    found = pairs([group("m0", {0: -1.0, 1: 2.0}), group("m1", {0: 2.0, 1: 8.0})])
    assert one(found, "validation_loss").ratio is None


def test_only_common_seeds_are_compared():
    base = group("m0", {0: 1.0, 1: 2.0, 2: 100.0})
    found = pairs([base, group("m1", {0: 2.0, 1: 3.0, 7: -50.0})])
    assert one(found, "validation_loss").difference.value == pytest.approx(1.0)
    assert pairs([base, group("m1", {0: 2.0})]) == []
    assert pairs([base, group("m1", {5: 2.0, 6: 3.0})]) == []


def test_a_field_is_compared_as_a_whole_too():
    """The root mean square over levels is taken within a run, and compared over seeds."""
    found = pairs([group("m0", {0: 1.0, 1: 2.0}), group("m1", {0: 2.0, 1: 3.0})])
    pair = one(found, "relative_asymmetry", sigma_bin=RMS)
    assert pair.difference.value == pytest.approx(5.0)
    assert one(found, "relative_asymmetry", sigma_bin=1).difference.value == pytest.approx(7.0)


def test_the_errors_of_quadratures_widen_the_interval():
    found = pairs([group("m0", {0: 1.0, 1: 2.0}), group("m1", {0: 2.0, 1: 3.0})])
    pair = one(found, "loop_circulation", sigma_bin=0)
    assert pair.difference.numerical_error == pytest.approx(0.1)  # that of both
    assert pair.difference.interval() == pytest.approx((0.9, 1.1))


def test_the_interval_covers():
    """Two equal models with a common scatter of the seeds and noise of their own: 95 % of the
    intervals hold zero.
    """
    rng = np.random.default_rng(0)
    n, seeds, covered = 1500, 4, 0
    groups, key = (group("m1", {0: 1.0}), group("m0", {0: 1.0})), Key("distance")
    for _ in range(n):
        shared, own = 10 + 3.0 * rng.normal(size=seeds), 0.5 * rng.normal(size=(2, seeds))
        numbers = (
            {s: {key: Estimate(float(v), 0.0, 0)} for s, v in enumerate(shared + noise)}
            for noise in own
        )
        (pair,) = compare(*groups, *numbers)
        covered += not pair.excludes_zero
    # Five standard deviations of a binomial around 0.95.
    assert abs(covered / n - 0.95) < 5 * math.sqrt(0.95 * 0.05 / n)

"""Truths about numbers with uncertainties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scorefield import estimate
from scorefield.estimate import Estimate, Variance, proportion, share
from scorefield.median import median
from scorefield.noise import Noise

REPEATS = 1500


def _normals(purpose, n, repeats=REPEATS):
    return Noise(0).normal(purpose, (n,), torch.arange(repeats), dtype=torch.float64).numpy()


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("n", [2, 5, 50])
def test_an_interval_covers_the_truth_as_often_as_it_says(n, confidence):
    covered = 0
    for y in _normals("coverage", n):
        low, high = estimate.mean(3 + 2 * y).interval(confidence)
        covered += low < 3 < high
    spread = math.sqrt(confidence * (1 - confidence) / REPEATS)
    assert abs(covered / REPEATS - confidence) < 5.5 * spread


def test_mean_is_the_sample_mean_with_its_standard_error():
    result = estimate.mean([1.0, 2.0, 3.0, 6.0], "nats", probes=4)
    assert (result.value, result.n, result.unit) == (3.0, 4, "nats")
    assert result.standard_error == pytest.approx(math.sqrt(14 / 3 / 4))
    assert result.settings == {"probes": 4}
    assert not result.exact


def test_long_tailed_draws_determine_their_error_like_few_normal_ones():
    """One draw of eight that is off has the kurtosis 43 / 7: 2 / (43 / 56 - 5 / 56) degrees."""
    y = np.array([0.0] * 7 + [1.0])
    assert estimate.mean(y).freedom == pytest.approx(2 * 56 / 38)
    # Whatever the unit, in a ratio and under a root.
    for e in (estimate.mean(1e-100 * y), estimate.ratio(y, np.ones(8)), estimate.mean(-y)):
        assert e.freedom == pytest.approx(2 * 56 / 38)
    rms = estimate.root(estimate.mean(y + 10))
    wide = stats.t.ppf(0.975, 2 * 56 / 38) * rms.standard_error
    assert rms.interval() == pytest.approx((rms.value - wide, rms.value + wide))
    # Evenly spread draws are no better than normal ones.
    assert estimate.mean(np.arange(8.0)).freedom == 7
    assert estimate.mean(np.ones(8)).draws == 8


def test_standard_error_of_a_ratio_is_the_scatter_of_ratios():
    n = 400
    shared, own = _normals("shared", n), _normals("own", n)
    pairs = [(2 + a, 4 + 0.5 * a + b) for a, b in zip(shared, own, strict=True)]
    ratios = [estimate.ratio(a, b) for a, b in pairs]
    scatter = np.std([r.value for r in ratios])
    predicted = math.sqrt(np.mean([r.standard_error**2 for r in ratios]))
    # a standard deviation of R repeats has relative error 1/sqrt(2R); 2 % for the delta method
    assert predicted == pytest.approx(scatter, rel=5.5 / math.sqrt(2 * REPEATS) + 0.02)
    assert np.mean([r.value for r in ratios]) == pytest.approx(
        0.5, abs=5.5 * scatter / math.sqrt(REPEATS) + 1e-3
    )


def test_ratio_to_a_constant_is_a_scaled_mean():
    y = [1.0, 4.0, 2.5]
    a, b = estimate.ratio(y, [2.0] * 3), estimate.mean(y).scaled(0.5)
    assert (a.value, a.standard_error) == pytest.approx((b.value, b.standard_error))


def test_proportional_pairs_have_an_exact_ratio():
    result = estimate.ratio([2.0, 4.0, 7.0], [1.0, 2.0, 3.5])
    assert result.value == 2
    assert result.standard_error == pytest.approx(0, abs=1e-15)


def test_root_follows_the_delta_method():
    result = estimate.root(Estimate(9.0, 0.6, 10, "nats²"), "nats")
    assert (result.value, result.standard_error, result.unit) == (3.0, pytest.approx(0.1), "nats")


def test_root_of_a_square_that_is_lost_in_its_error():
    for value in (-1e-4, 0.0, 1e-5):
        result = estimate.root(Estimate(value, 1e-4, 10))
        assert result.value == math.sqrt(max(value, 0))
        assert result.standard_error == pytest.approx(1e-2)
    assert estimate.root(Estimate(0.0, 0.0, 0)).interval() == (0, 0)


def test_root_of_a_negative_square_is_an_error():
    with pytest.raises(ValueError, match="no root"):
        estimate.root(Estimate(-1.0, 0.1, 10))


def test_shared_noise_cancels_in_a_paired_difference():
    y = _normals("pair", 50, 1)[0]
    result = estimate.paired_difference(y + 1.5, y)
    assert result.value == pytest.approx(1.5)
    assert result.standard_error < 1e-15


def test_pooling_measures_the_scatter_between_estimates():
    runs = [Estimate(v, 100.0, 7, "nats") for v in (1.0, 2.0, 6.0)]
    pooled, direct = estimate.pool(runs), estimate.mean([1.0, 2.0, 6.0], "nats")
    assert pooled == direct


@given(factor=st.floats(-1e6, 1e6), value=st.floats(-1e6, 1e6), error=st.floats(0, 1e6))
def test_scaling_scales_the_interval(factor, value, error):
    e = Estimate(value, error, 5, "m")
    low, high = (factor * v for v in e.interval())
    assert e.scaled(factor, "km").interval() == pytest.approx((min(low, high), max(low, high)))


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.2344, 0.0678, "1.234 ± 0.068"),
        (1234.4, 67.8, "1234 ± 68"),
        (0.0, 0.5, "0.00 ± 0.50"),
        (1.2344e-7, 6.78e-9, "(1.234 ± 0.068)e-07"),
        (2.0, 0.0, "2 ± 0"),
    ],
)
def test_two_digits_of_the_error_are_written(value, error, text):
    assert estimate.format_uncertain(value, error) == text


@given(value=st.floats(-1e8, 1e8), error=st.floats(1e-8, 1e8))
def test_what_is_written_is_the_number_to_a_tenth_of_its_error(value, error):
    text = estimate.format_uncertain(value, error)
    body, _, exponent = text.replace("(", "").replace(")", "").partition("e")
    shown, shown_error = (float(p) * 10 ** int(exponent or 0) for p in body.split(" ± "))
    assert abs(shown - value) <= 0.0501 * error + 1e-15 * abs(value)
    assert shown_error == pytest.approx(error, rel=0.0501)


def test_text_names_the_unit_and_hides_no_error():
    assert str(Estimate(1.5, 0.25, 9, "nats")) == "1.50 ± 0.25 nats"
    assert str(Estimate(1.5, 0.0, 0, "nats")) == "1.5 nats"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Estimate(math.nan, 0.0, 0),
        lambda: Estimate(0.0, -1.0, 2),
        lambda: Estimate(0.0, math.inf, 2),
        lambda: estimate.mean([1.0]),
        lambda: estimate.mean([1.0, math.inf]),
        lambda: estimate.ratio([1.0, 2.0], [1.0, 2.0, 3.0]),
        lambda: estimate.ratio([1.0, 2.0], [1.0, -1.0]),
        lambda: estimate.paired_difference([1.0, 2.0], [1.0, 2.0, 3.0]),
        lambda: estimate.pool([Estimate(1.0, 0.1, 5)]),
        lambda: estimate.pool([Estimate(1.0, 0.1, 5, "m"), Estimate(1.0, 0.1, 5, "s")]),
        lambda: Estimate(0.0, 1.0, 5).interval(1.0),
    ],
)
def test_a_failed_measurement_is_an_error(make):
    with pytest.raises(ValueError, match=r"\w+"):
        make()


@pytest.mark.parametrize("n", [2, 5, 6, 9, 20, 101])
def test_the_interval_of_a_median_covers_it_as_often_as_it_says(n):
    """Of a skewed law with infinite mean, so that no moment can help."""
    law = np.exp(2 * _normals("median", n))
    found = [median(np.sign(y - 1) * y**2) for y in law]
    confidence = found[0].confidence
    assert {m.confidence for m in found} == {confidence}
    assert (confidence >= 0.95) == (n >= 6)
    covered = sum(m.low <= 0 <= m.high for m in found) / REPEATS
    spread = math.sqrt(confidence * (1 - confidence) / REPEATS)
    assert abs(covered - confidence) < 5.5 * spread


def test_the_interval_of_a_median_is_the_narrowest_that_suffices():
    """Of 10 draws the second and the ninth: 1 - 2 (1 + 10) / 2^10; of 5 the whole range."""
    ten = median([3.0, 9.0, 1.0, 4.0, 10.0, 2.0, 7.0, 8.0, 5.0, 6.0])
    assert (ten.value, ten.low, ten.high, ten.n) == (5.5, 2.0, 9.0, 10)
    assert ten.confidence == pytest.approx(1 - 22 / 1024)
    assert str(ten) == "5.5 (2 to 9, 97.9 %)"
    five = median([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (five.value, five.low, five.high) == (3.0, 1.0, 5.0)
    assert five.confidence == pytest.approx(1 - 2 / 32)
    assert median(range(101), 0.5).confidence < 0.6
    with pytest.raises(ValueError, match="must be in"):
        median([1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="two draws"):
        median([1.0])


class TestVariance:
    """The interval of a measurement whose variance depends on the true value."""

    def test_both_ends_are_as_far_from_the_value_as_their_own_standard_error_says(self):
        e = Estimate(3.0, 1.0, 1, variance=Variance(0.5, 0.2))
        q = stats.norm.ppf(0.95)
        for end in e.interval(0.9):
            assert abs(end - 3.0) == pytest.approx(q * math.sqrt(0.5 + 0.2 * end))

    def test_that_of_a_proportion_is_wilsons_to_first_order(self):
        """Counts have the variance of their mean: the interval of Rao's score for one."""
        k, z = 9, stats.norm.ppf(0.975)
        low, high = Estimate(float(k), 3.0, 1, variance=Variance(0.0, 1.0)).interval()
        assert (low, high) == pytest.approx(
            tuple(k + z * z / 2 + s * z * math.sqrt(k + z * z / 4) for s in (-1, 1))
        )

    def test_the_variance_may_bend(self):
        e = Estimate(0.3, 1.0, 20, variance=Variance(0.01, 0.05, -0.04))
        q = stats.t.ppf(0.95, 19)
        for end in e.interval(0.9):
            assert abs(end - 0.3) == pytest.approx(q * math.sqrt(0.01 + 0.05 * end - 0.04 * end**2))

    def test_it_is_scaled_with_the_number(self):
        e = Estimate(3.0, 1.0, 20, variance=Variance(0.5, 0.2, -0.01), numerical_error=0.1)
        low, high = e.interval()
        assert e.scaled(2.0).interval() == pytest.approx((2 * low, 2 * high))
        assert e.scaled(-2.0).interval() == pytest.approx((-2 * high, -2 * low))

    def test_one_that_does_not_vary_changes_nothing(self):
        plain = Estimate(3.0, 0.5, 20)
        same = Estimate(3.0, 0.5, 20, variance=Variance(0.25, 0.0))
        assert same.interval() == pytest.approx(plain.interval())


@pytest.mark.parametrize("n", [2, 4, 11])
def test_equal_errors_have_the_sum_of_their_degrees_of_freedom(n):
    """Welch and Satterthwaite's number is then whole, and rounding takes none of it away."""
    for parts in range(1, 60):
        for size in (1.0, 0.1, 3e-7):
            error, draws = estimate.add_errors([(size, n)] * parts)
            assert error == pytest.approx(size * parts**0.5)
            assert draws == parts * (n - 1) + 1


@pytest.mark.parametrize("n", [2, 5, 64, 1000])
def test_the_interval_of_a_share_holds_wilsons_and_is_not_much_wider(n):
    q2 = stats.t.ppf(0.975, n - 1) ** 2
    for k in range(n + 1):
        y, low, high = proportion(k, n)
        found = share(k, n)
        assert found.value == y
        begin, end = found.interval()
        assert begin <= low + 1e-12
        assert high - 1e-12 <= end
        assert -1e-12 <= begin < end <= 1 + 1e-12
        # Where none or all are, only one end is in doubt.
        if k in (0, n):
            assert end - begin == pytest.approx(q2 / (n + q2))
            assert (begin, end)[k == n] == pytest.approx(y, abs=1e-12)

import math

import pytest
import torch

from scorefield import mmd
from scorefield.metrics.kernel import kernel_bandwidths, median_distance
from scorefield.noise import Noise


def normals(n, dim, seed, shift=0.0, std=1.0):
    z = Noise(seed).normal("test", (dim,), torch.arange(n), dtype=torch.float64)
    return shift + std * z


def gaussian_kernel_mean(dim, h, variance, square_shift):
    """E k(x, y) for x - y ~ N(shift, variance I)."""
    total = h**2 + variance
    return (h**2 / total) ** (dim / 2) * math.exp(-0.5 * square_shift / total)


def closed_form(dim, h, s, r, square_shift):
    """MMD² between N(0, s² I) and N(shift, r² I)."""
    return (
        gaussian_kernel_mean(dim, h, 2 * s**2, 0.0)
        + gaussian_kernel_mean(dim, h, 2 * r**2, 0.0)
        - 2 * gaussian_kernel_mean(dim, h, s**2 + r**2, square_shift)
    )


def naive(x, y, bandwidths):
    def kernel(a, b):
        square = (a[:, None] - b[None]).square().sum(dim=2)
        return torch.stack([torch.exp(-square / (2 * h**2)) for h in bandwidths]).mean(dim=0)

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    n, m = len(x), len(y)
    within = (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1))
    return float(within - 2 * xy.mean())


@pytest.mark.parametrize("bandwidths", [(0.7,), (2.0, 1.0, 0.5), (0.3, 1.1)])
def test_it_is_the_sum_over_pairs(bandwidths):
    x, y = normals(40, 3, 0), normals(25, 3, 1, shift=0.5)
    assert mmd(x, y, bandwidths).value == pytest.approx(naive(x, y, bandwidths), abs=1e-13)


def test_blocks_change_nothing(monkeypatch):
    x, y = normals(40, 3, 0), normals(25, 3, 1, shift=0.5)
    whole = mmd(x, y)
    monkeypatch.setattr("scorefield.metrics.kernel._BLOCK", 7)
    parts = mmd(x, y)
    assert parts.value == pytest.approx(whole.value, abs=1e-13)
    assert parts.standard_error == pytest.approx(whole.standard_error, rel=1e-9)


@pytest.mark.parametrize(("dim", "h", "r", "shift"), [(1, 1.0, 1.0, 1.0), (3, 1.5, 1.4, 0.3)])
def test_between_gaussians_it_has_a_closed_form(dim, h, r, shift):
    x, y = normals(1500, dim, 2), normals(1200, dim, 3, shift=shift, std=r)
    estimate = mmd(x, y, [h])
    truth = closed_form(dim, h, 1.0, r, dim * shift**2)
    assert abs(estimate.value - truth) < 6 * estimate.standard_error
    assert estimate.standard_error < 0.2 * truth


@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_it_is_unbiased_and_its_standard_error_is_that_of_repetitions(shift):
    h, repeats, n, m = 1.0, 300, 60, 45
    found = [
        mmd(normals(n, 2, 2 * k), normals(m, 2, 2 * k + 1, shift=shift), [h])
        for k in range(repeats)
    ]
    values = torch.tensor([e.value for e in found], dtype=torch.float64)
    truth = closed_form(2, h, 1.0, 1.0, 2 * shift**2)
    assert abs(float(values.mean()) - truth) < 6 * float(values.std()) / repeats**0.5
    # The variance of 300 values is known to about 10 %, hence the ratio of deviations to 5 %.
    error = math.sqrt(sum(e.standard_error**2 for e in found) / repeats)
    assert 0.7 < error / float(values.std()) < 1.3


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 8])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_its_interval_covers_95_percent_of_equal_similar_and_different_laws(dim, shift):
    """Of 1,000 intervals of 93 to 97 % coverage, fewer than 886 or more than 995 hold the truth
    with probability below 1e-6.
    """
    covered, equal = 0, 0.0
    for k in range(1000):
        x, y = normals(100, dim, 2 * k), normals(80, dim, 2 * k + 1, shift=shift / dim**0.5)
        found, widths = mmd(x, y), kernel_bandwidths(y)
        truth = sum(closed_form(dim, h, 1.0, 1.0, shift**2) for h in widths) / len(widths)
        low, high = found.interval()
        covered += low <= truth <= high
        equal += found.standard_error**2 - found.value**2
    assert 886 <= covered <= 995
    if not shift:
        # Six standard errors of a mean of 1,000 squares of skew values, about.
        assert abs(equal) / 1000 < 0.5 * found.variance.at_zero


def test_order_and_scale_do_not_matter():
    x, y = normals(50, 2, 0), normals(40, 2, 1)
    shuffled = mmd(x.flip(0), y[Noise(0).permutation("test", 40)])
    whole = mmd(x, y)
    assert shuffled.value == pytest.approx(whole.value, abs=1e-13)
    assert shuffled.standard_error == pytest.approx(whole.standard_error, rel=1e-9)
    scaled = mmd(1e3 * x + 5e3, 1e3 * y + 5e3)
    assert scaled.value == pytest.approx(whole.value, abs=1e-8)


def test_any_event_shape_and_float32():
    x, y = normals(20, 6, 0), normals(20, 6, 1)
    image = mmd(x.reshape(20, 1, 2, 3), y.reshape(20, 1, 2, 3))
    assert image.value == pytest.approx(mmd(x, y).value, abs=1e-13)
    assert mmd(x.float(), y.float()).value == pytest.approx(image.value, abs=1e-6)
    assert mmd(x[:, 0], y[:, 0]).value == pytest.approx(mmd(x[:, :1], y[:, :1]).value, abs=1e-13)


def test_the_median_distance():
    assert median_distance(torch.tensor([[0.0], [1.0], [3.0]])) == 2.0
    with pytest.raises(ValueError, match="median distance is zero"):
        median_distance(torch.zeros(5, 2))


@pytest.mark.parametrize("bandwidths", [(), (0.0,), (-1.0,), (float("nan"),)])
def test_bandwidths_are_positive(bandwidths):
    with pytest.raises(ValueError, match="bandwidths"):
        mmd(normals(5, 1, 0), normals(5, 1, 1), bandwidths)


def test_sets_fit_each_other():
    with pytest.raises(ValueError, match="at least 4 samples"):
        mmd(normals(3, 1, 0), normals(5, 1, 1))
    with pytest.raises(ValueError, match="2 of 5 samples are not finite"):
        mmd(torch.tensor([0.0, math.nan, 1.0, math.inf, 2.0]), torch.arange(5.0))


@pytest.mark.usefixtures("unchecked")
def test_event_shapes_agree():
    with pytest.raises(ValueError, match="one event shape"):
        mmd(normals(5, 1, 0), normals(5, 2, 1))

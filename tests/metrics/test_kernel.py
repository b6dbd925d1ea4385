import itertools
import math

import pytest
import torch

from scorefield import mmd
from scorefield.metrics.kernel import kernel_bandwidths, kid, median_distance
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


@pytest.mark.parametrize("bandwidths", [(0.7,), (2.0, 1.0, 0.5), (4.0, 0.5), (0.3, 1.1)])
def test_it_is_the_sum_over_pairs(bandwidths):
    x, y = normals(40, 3, 0), normals(25, 3, 1, shift=0.5)
    assert mmd(x, y, bandwidths).value == pytest.approx(naive(x, y, bandwidths), abs=1e-13)


def of_distinct(k, within):
    """E k, E k² and E k(x, y) k(x, z) over different indices, and the means of the rows."""
    n, m = k.shape
    columns = [[j for j in range(m) if not within or j != i] for i in range(n)]
    first = [float(k[i, columns[i]].mean()) for i in range(n)]
    square = [float(k[i, columns[i]].square().mean()) for i in range(n)]
    pairs = [
        [k[i, j] * k[i, h] for j, h in itertools.permutations(columns[i], 2)] for i in range(n)
    ]
    products = [float(torch.stack(some).mean()) for some in pairs]
    mean, square, product = (sum(v) / n for v in (first, square, products))
    return mean, square, product, torch.tensor(first, dtype=torch.float64)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_variance_is_that_of_hoeffdings_decomposition(shift):
    """The mean squares of the doubly centred kernel, and the variances of the row means without
    their noise, by sums over all different indices.
    """
    h, n, m = 1.5, 9, 7
    x, y = normals(n, 2, 0), normals(m, 2, 1, shift=shift)
    xx, yy, xy = (
        torch.exp(-(torch.cdist(a, b) ** 2) / (2 * h**2)) for a, b in ((x, x), (y, y), (x, y))
    )
    (mean_x, square_x, product_x, row_x), (mean_y, square_y, product_y, row_y) = (
        of_distinct(k, True) for k in (xx, yy)
    )
    (mean, square, across, to_y), (_, _, down, to_x) = (of_distinct(k, False) for k in (xy, xy.T))
    spread_x = max(square_x - 2 * product_x + mean_x**2, 0.0)
    spread_y = max(square_y - 2 * product_y + mean_y**2, 0.0)
    spread = max(square - across - down + mean**2, 0.0)
    alone = 2 * spread_x / (n * (n - 1)) + 2 * spread_y / (m * (m - 1)) + 4 * spread / (n * m)
    found = mmd(x, y, [h])
    assert found.variance.at_zero == pytest.approx(alone, rel=1e-9)
    own_x = float((row_x - to_y).var()) - spread_x / (n - 1) - spread / m
    own_y = float((row_y - to_x).var()) - spread_y / (m - 1) - spread / n
    linear = 4 * own_x / n + 4 * own_y / m
    if shift:
        assert found.value > 2 * math.sqrt(alone)
        assert 0 < linear < math.sqrt(8 * alone) * found.value
        assert found.variance.slope == pytest.approx(linear / found.value, rel=1e-9)
    else:
        assert found.value < 2 * math.sqrt(alone)
        assert found.variance.slope == pytest.approx(math.sqrt(8 * alone), rel=1e-9)
        linear = 0.0
    assert found.standard_error**2 == pytest.approx(alone + linear, rel=1e-9)


def test_the_variance_of_laws_on_two_points_in_closed_form():
    """Points are at the origin with probability p or q, or far away, where k is 0: the doubly
    centred kernel is 2 (a - p)(b - q) with the indicators a and b, and MMD² is 2 (p - q)².
    """
    n, m, p, q = 1000, 800, 0.3, 0.6
    x, y = (torch.zeros(size, 1, dtype=torch.float64) for size in (n, m))
    x[int(n * p) :], y[int(m * q) :] = 1e3, 1e3
    found = mmd(x, y, [1.0])
    a, b = p * (1 - p), q * (1 - q)
    alone = 8 * a**2 / n**2 + 8 * b**2 / m**2 + 16 * a * b / (n * m)
    linear = 16 * (p - q) ** 2 * (a / n + b / m)
    assert found.value == pytest.approx(2 * (p - q) ** 2, rel=0.01)
    assert found.variance.at_zero == pytest.approx(alone, rel=0.01)
    assert found.standard_error**2 == pytest.approx(alone + linear, rel=0.02)


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
    with pytest.raises(ValueError, match="finite: 2 of 5 points are not"):
        mmd(torch.tensor([0.0, math.nan, 1.0, math.inf, 2.0]), torch.arange(5.0))


@pytest.mark.usefixtures("unchecked")
def test_event_shapes_agree():
    with pytest.raises(ValueError, match="one event shape"):
        mmd(normals(5, 1, 0), normals(5, 2, 1))


def cubic(a, b):
    return (a @ b.T / a.shape[1] + 1) ** 3


def test_the_kernel_distance_of_features_is_the_sum_over_pairs():
    x, y = normals(40, 6, 0), normals(25, 6, 1, shift=0.5)
    xx, yy, xy = cubic(x, x), cubic(y, y), cubic(x, y)
    within = (xx.sum() - xx.trace()) / (40 * 39) + (yy.sum() - yy.trace()) / (25 * 24)
    assert kid(x, y).value == pytest.approx(float(within - 2 * xy.mean()), rel=1e-10)


def cubic_mean(shift):
    """E k(x, y) for x ~ N(0, I), y ~ N(shift, I), D = 2: with z = x.y / 2 + 1, of mean 1 and
    E (x.y)² = 2 + |shift|², it is 1 + 3 E (x.y)² / 4.
    """
    return 1 + 0.75 * (2 + shift**2)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_the_kernel_distance_of_features_is_unbiased_over_1000_repeats(shift):
    """Within N(m, I), |m| = s, E (x.y) is s², and E k is a polynomial of normal moments."""
    repeats, n, m = 1000, 30, 20
    move = torch.tensor([shift, 0.0], dtype=torch.float64)
    found = torch.tensor(
        [kid(normals(n, 2, 2 * k), move + normals(m, 2, 2 * k + 1)).value for k in range(repeats)],
        dtype=torch.float64,
    )
    # x.y = s² + s (a + b) + u.v with a, b the first coordinates of the normal u, v; moments by sum.
    s = shift
    second = s**4 + 2 * s**2 + 2
    third = s**6 + 3 * s**2 * (2 * s**2 + 2) + 6 * s**2
    within = 1 + 1.5 * s**2 + 0.75 * second + third / 8
    truth = within + cubic_mean(0.0) - 2 * cubic_mean(shift)
    error = float(found.std()) / math.sqrt(repeats)
    assert abs(float(found.mean()) - truth) < 5.5 * error
    assert error < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("n", [500, 5000])
def test_the_interval_of_the_kernel_distance_of_features_covers_95_percent(n):
    s, covered, repeats = 0.6, 0, 1000 if n == 500 else 120
    move = torch.tensor([s, 0.0], dtype=torch.float64)
    second, third = s**4 + 2 * s**2 + 2, s**6 + 3 * s**2 * (2 * s**2 + 2) + 6 * s**2
    within = 1 + 1.5 * s**2 + 0.75 * second + third / 8
    truth = within + cubic_mean(0.0) - 2 * cubic_mean(s)
    for k in range(repeats):
        low, high = kid(normals(n, 2, 2 * k), move + normals(n, 2, 2 * k + 1)).interval()
        covered += low <= truth <= high
    # The chance of 93 to 97 % coverage to leave these bounds is below 1e-6.
    assert (886 <= covered <= 995) if n == 500 else covered >= 95

import math

import pytest
import torch
from scipy import linalg

from scorefield import frechet_distance
from scorefield.networks.features import COORDINATES, PIXELS, Features
from scorefield.noise import Noise


def normals(n, dim, seed):
    return Noise(seed).normal("test", (dim,), torch.arange(n), dtype=torch.float64)


def exact(n, dim, seed, mean, covariance):
    """Points whose sample mean and covariance are the given ones."""
    z = normals(n, dim, seed)
    z = z - z.mean(dim=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(z.T.cov()), z.T, upper=False).T
    return mean + white @ torch.linalg.cholesky(covariance).T


C1 = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
C2 = torch.tensor([[1.0, -0.4], [-0.4, 3.0]], dtype=torch.float64)
SHIFT = torch.tensor([1.0, -2.0], dtype=torch.float64)


def formula(mu, c1, c2):
    cross = linalg.sqrtm((c1 @ c2).numpy())
    return float(mu.square().sum() + (c1 + c2).trace()) - 2 * float(cross.trace().real)


def test_of_known_moments_it_is_the_closed_form():
    x, y = exact(50, 2, 0, SHIFT, C1), exact(40, 2, 1, torch.zeros(2), C2)
    assert frechet_distance(x, y).value == pytest.approx(formula(SHIFT, C1, C2), rel=1e-10)
    diagonal = torch.diag(torch.tensor([4.0, 9.0], dtype=torch.float64))
    unit = torch.eye(2, dtype=torch.float64)
    x, y = exact(50, 2, 0, torch.zeros(2), diagonal), exact(50, 2, 1, torch.zeros(2), unit)
    assert frechet_distance(x, y).value == pytest.approx((2 - 1) ** 2 + (3 - 1) ** 2, rel=1e-10)


def test_equal_sets_and_constant_features():
    x = normals(30, 4, 0)
    assert frechet_distance(x, x).value == pytest.approx(0, abs=1e-10)
    padded = torch.nn.functional.pad(x, (0, 2))
    y = torch.nn.functional.pad(normals(30, 4, 1) + 1, (0, 2))
    with_constants = frechet_distance(padded, y)
    without = frechet_distance(x, y[:, :4])
    assert with_constants.value == pytest.approx(without.value, rel=1e-7)
    assert with_constants.standard_error == pytest.approx(without.standard_error, rel=1e-7)


@pytest.mark.parametrize(("n", "m", "dim"), [(20, 20, 512), (20, 30, 64), (400, 300, 8)])
def test_more_features_than_samples_cost_no_digits(n, m, dim):
    """Where one set is the other, stretched and moved, half of the directions having no variance,
    the distance is exact: that of the means, and (k - 1)² times the trace.
    """
    x, move = normals(n, dim, 0), normals(1, dim, 1)[0]
    trace = float((x - x.mean(dim=0)).square().sum()) / (n - 1)
    shift = float((move + 0.5 * x.mean(dim=0)).square().sum())
    found = frechet_distance(x, 1.5 * x + move)
    assert found.value == pytest.approx(shift + 0.25 * trace, rel=1e-12)
    # The map is linear: each influence is known.
    delta = x - x.mean(dim=0)
    way = -0.5 * x.mean(dim=0) - move
    own = 2 * delta @ way - 0.5 * delta.square().sum(dim=1)
    other = -3 * delta @ way + 1.5**2 * (1 - 1 / 1.5) * delta.square().sum(dim=1)
    error = math.sqrt(float(own.var() / n + other.var() / n))
    assert found.standard_error == pytest.approx(error, rel=1e-9)
    # Twice every row has the same mean, and a covariance smaller by a factor.
    y = normals(m, dim, 2)
    twice, factor = torch.cat((y, y)), 2 * (m - 1) / (2 * m - 1)
    moved = frechet_distance(y, twice).value
    spread = float((y - y.mean(dim=0)).square().sum()) / (m - 1)
    assert moved == pytest.approx(spread * (1 - math.sqrt(factor)) ** 2, rel=1e-7)


def test_its_standard_error_is_that_of_repetitions():
    repeats, values, variances = 300, [], []
    low1, low2 = torch.linalg.cholesky(C1), torch.linalg.cholesky(C2)
    for k in range(repeats):
        x = SHIFT + normals(200, 2, 2 * k) @ low1.T
        y = normals(150, 2, 2 * k + 1) @ low2.T
        estimate = frechet_distance(x, y)
        values.append(estimate.value)
        variances.append(estimate.standard_error**2)
    ratio = (sum(variances) / repeats) ** 0.5 / float(torch.tensor(values).std())
    assert 0.75 < ratio < 1.35
    middle = sum(values) / repeats
    covered = sum(abs(v - middle) < 1.96 * e**0.5 for v, e in zip(values, variances, strict=True))
    # Binomial(300, 0.95) lies below 262 with probability 1e-7.
    assert covered > 261


def test_features_have_a_name_and_a_function():
    x, y = normals(20, 4, 0).reshape(20, 1, 2, 2), normals(20, 4, 1).reshape(20, 1, 2, 2)
    pixels = frechet_distance(x, y, PIXELS)
    assert pixels.unit == "squared units of the pixels"
    assert pixels.value == frechet_distance(x, y, COORDINATES).value
    brightness = Features("brightness", lambda image: image.mean(dim=(1, 2, 3)))
    estimate = frechet_distance(x, y, brightness)
    a, b = brightness(x)[:, 0], brightness(y)[:, 0]
    expected = float((a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2)
    assert estimate.value == pytest.approx(expected, rel=1e-10)
    assert estimate.settings["features"] == "brightness"


def test_order_and_dtype():
    x, y = normals(30, 3, 0), normals(20, 3, 1)
    whole = frechet_distance(x, y)
    assert frechet_distance(x.flip(0), y.flip(0)).value == pytest.approx(whole.value, rel=1e-10)
    single = frechet_distance(x.float(), y.float())
    assert math.isclose(single.value, whole.value, rel_tol=1e-5)


def test_one_sample_and_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples"):
        frechet_distance(normals(1, 2, 0), normals(5, 2, 1))
    broken = Features("broken", lambda samples: samples[:1])
    with pytest.raises(ValueError, match="'broken' gave 1 rows for 5 samples"):
        frechet_distance(normals(5, 2, 0), normals(5, 2, 1), broken)
    ragged = Features("ragged", lambda samples: samples[:, : 1 + (len(samples) > 5)])
    with pytest.raises(ValueError, match="1 and 2 columns"):
        frechet_distance(normals(5, 2, 0), normals(6, 2, 1), ragged)


@pytest.mark.parametrize("shape", [(0, 2), (0,), (0, 1, 4, 4)], ids=str)
def test_empty_sets_are_refused(shape):
    some = torch.randn(5, *shape[1:], generator=torch.Generator().manual_seed(0))
    for pair in ((torch.empty(shape), some), (some, torch.empty(shape))):
        with pytest.raises(ValueError, match="at least one point"):
            frechet_distance(*pair)

import math

import pytest
import torch
from scipy import stats

from scorefield import sliced_wasserstein
from scorefield.noise import Noise


def normals(n, dim, seed, shift=0.0, std=1.0):
    z = Noise(seed).normal("test", (dim,), torch.arange(n), dtype=torch.float64)
    return shift + std * z


@pytest.mark.parametrize("dim", [2, 5])
def test_a_translation_moves_by_its_length_over_root_dim(dim):
    x = normals(200, dim, 0)
    shift = torch.zeros(dim, dtype=torch.float64)
    shift[0] = 3.0
    # Each direction sees |θ·shift| exactly, so that all error is that of 4000 directions.
    square = sliced_wasserstein(x, x + shift, projections=4000).value ** 2
    spread = math.sqrt(3 / (dim * (dim + 2)) - 1 / dim**2)
    assert abs(square - 9 / dim) < 6 * 9 * spread / math.sqrt(4000)
    first_order = sliced_wasserstein(x, x + shift, order=1, projections=4000).value
    cosine = math.gamma(dim / 2) / (math.sqrt(math.pi) * math.gamma((dim + 1) / 2))
    spread = math.sqrt(1 / dim - cosine**2)
    assert abs(first_order - 3 * cosine) < 6 * 3 * spread / math.sqrt(4000)


def test_between_gaussians_it_has_a_closed_form():
    x, y = normals(3000, 2, 0, std=1.0), normals(3000, 2, 1, shift=1.0, std=2.0)
    estimate = sliced_wasserstein(x, y, projections=1000)
    # |shift|²/d + (s - r)², along every direction the second part.
    assert abs(estimate.value - math.sqrt(1.0 + 1.0)) < 6 * estimate.standard_error
    assert estimate.standard_error < 0.05


@pytest.mark.parametrize(("n", "m"), [(7, 7), (7, 5), (12, 30), (2, 9)])
def test_on_a_line_it_is_exact_for_any_sizes(n, m):
    x, y = normals(n, 1, 0), normals(m, 1, 1, shift=0.3)
    value = sliced_wasserstein(x, y, order=1).value
    oracle = stats.wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert value == pytest.approx(oracle, rel=1e-12)
    # Repeating every point leaves a law as it is, and makes the sizes equal.
    repeated = x.repeat_interleave(m, dim=0).sort(dim=0).values
    other = y.repeat_interleave(n, dim=0).sort(dim=0).values
    square = float((repeated - other).square().mean())
    assert sliced_wasserstein(x, y).value == pytest.approx(math.sqrt(square), rel=1e-12)


def test_a_set_is_at_distance_zero_from_itself():
    x = normals(30, 3, 0)
    # A projection is a sum of three products, whose order may depend on the row.
    rounding = 3 * torch.finfo(x.dtype).eps * float(x.norm(dim=1).max())
    for order in (1, 2):
        assert sliced_wasserstein(x, x.flip(0), order=order).value <= rounding


@pytest.mark.parametrize("order", [1, 2])
def test_its_standard_error_is_that_of_repetitions(order):
    repeats, values, variances = 150, [], []
    for k in range(repeats):
        estimate = sliced_wasserstein(
            normals(150, 2, 2 * k),
            normals(100, 2, 2 * k + 1, shift=1.0, std=1.5),
            order=order,
            projections=32,
            seed=k,
        )
        values.append(estimate.value)
        variances.append(estimate.standard_error**2)
    ratio = (sum(variances) / repeats) ** 0.5 / float(torch.tensor(values).std())
    # The deviation of 150 values is known to 6 %; six times that.
    assert 0.7 < ratio < 1.45
    middle = sum(values) / repeats
    covered = sum(abs(v - middle) < 1.96 * e**0.5 for v, e in zip(values, variances, strict=True))
    # Binomial(150, 0.95) lies below 127 with probability below 1e-6.
    assert covered > 126


def test_order_of_samples_and_parts_of_directions_do_not_matter(monkeypatch):
    x, y = normals(50, 3, 0), normals(40, 3, 1)
    whole = sliced_wasserstein(x, y)
    shuffled = sliced_wasserstein(x.flip(0), y[Noise(0).permutation("test", 40)])
    monkeypatch.setattr("scorefield.metrics.sliced._ELEMENTS", 900)
    parts = sliced_wasserstein(x, y)
    for other in (shuffled, parts):
        assert other.value == pytest.approx(whole.value, rel=1e-12)
        assert other.standard_error == pytest.approx(whole.standard_error, rel=1e-9)


def test_images_have_the_distance_of_their_pixels():
    x, y = normals(20, 6, 0), normals(20, 6, 1)
    image = sliced_wasserstein(x.reshape(20, 1, 2, 3), y.reshape(20, 1, 2, 3))
    assert image == sliced_wasserstein(x, y)
    line = sliced_wasserstein(x[:, 0], y[:, 0])
    assert line == sliced_wasserstein(x[:, :1], y[:, :1])
    assert line.unit == "units of the data"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("options", [{"order": 3}, {"projections": 1}])
def test_an_order_of_three_and_a_single_projection_are_refused(options):
    with pytest.raises(ValueError, match=r"order of a sliced distance|projections must be"):
        sliced_wasserstein(normals(5, 2, 0), normals(5, 2, 1), **options)

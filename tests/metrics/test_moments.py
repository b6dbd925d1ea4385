"""Fréchet distances by moments, their bias and their limit, and the Inception Score."""

import math

import pytest
import torch
from scipy import linalg

from scorefield.metrics.frechet_sizes import PARTS, frechet_between, frechet_sizes
from scorefield.metrics.inception_score import inception_score, score_rows
from scorefield.metrics.moments import Moments, Statistics
from scorefield.noise import Noise


def normals(n, dim, seed):
    return Noise(seed).normal("test", (dim,), torch.arange(n), dtype=torch.float64)


def covariance(dim, seed):
    root = normals(dim, dim, seed)
    return root @ root.T / dim + 0.1 * torch.eye(dim, dtype=torch.float64)


@pytest.mark.parametrize("dim", [1, 5, 64])
def test_between_exact_gaussians_it_is_the_formula_to_eight_digits(dim):
    """Covariances that commute have the distance of their eigenvalues' roots, and any have that
    of scipy's root of the product.
    """
    a, b = Statistics(normals(1, dim, 0)[0], covariance(dim, 1)), None
    q, values = torch.linalg.qr(covariance(dim, 2))[0], normals(2, dim, 3).abs() + 0.1
    own, other = (q @ torch.diag(v) @ q.T for v in values)
    shift = normals(1, dim, 4)[0]
    found = frechet_between(Statistics(shift, own), Statistics(torch.zeros_like(shift), other))
    exact = float(shift.square().sum() + (values[0].sqrt() - values[1].sqrt()).square().sum())
    assert found == pytest.approx(exact, rel=1e-8)
    b = Statistics(normals(1, dim, 5)[0], covariance(dim, 6))
    cross = linalg.sqrtm((a.covariance @ b.covariance).numpy()).trace().real
    known = (a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace() - 2 * cross
    assert frechet_between(a, b) == pytest.approx(float(known), rel=1e-8)


def test_moments_of_parts_are_those_of_the_whole_and_back():
    x = 1e3 + normals(90, 4, 0)
    parts = x.split([1, 40, 49])
    whole, joined = Moments.of(x), Moments.of_blocks(parts)
    assert joined.n == 90
    torch.testing.assert_close(joined.mean, x.mean(dim=0), rtol=1e-14, atol=0)
    torch.testing.assert_close(joined.covariance, x.T.cov(), rtol=1e-10, atol=1e-12)
    rest = whole - Moments.of(parts[1])
    kept = torch.cat((parts[0], parts[2]))
    torch.testing.assert_close(rest.covariance, kept.T.cov(), rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        _ = Moments.of(x[:1]).covariance


def sized(x, reference, difference=None):
    parts = x.chunk(PARTS)
    return frechet_sizes(lambda k: Moments.of(parts[k]), reference, difference=difference)


def standard(dim):
    return Statistics(torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64))


def test_the_bias_of_equal_normal_distributions_is_that_of_the_expansion():
    """Of N(0, I) it is D (D + 5) / (4 n) to first order: that of the mean is D / n, that of the
    covariance a quarter of the mean square deviation of its entries.
    """
    dim, n, repeats = 4, 1000, 60
    found = [sized(normals(n, dim, seed), standard(dim)) for seed in range(repeats)]
    exact = dim / n + 0.25 * dim * (dim + 1) / n
    for values in ([f.bias for f in found], [f.at_size.value for f in found]):
        mean = torch.tensor(values, dtype=torch.float64)
        assert abs(float(mean.mean()) - exact) < 5.5 * float(mean.std()) / repeats**0.5
        assert float(mean.mean()) > 0.5 * exact
    limit = torch.tensor([f.infinity.value for f in found], dtype=torch.float64)
    assert abs(float(limit.mean())) < 5.5 * float(limit.std()) / repeats**0.5


def test_the_warning_names_the_size_at_which_the_bias_is_below_the_difference():
    found = sized(normals(1000, 4, 0), standard(4), difference=1e-4)
    needed = math.ceil(1000 * found.bias / 1e-4)
    assert f"exceeds the difference 0.0001 in question, which takes {needed} samples" in (
        found.warning
    )
    assert sized(normals(1000, 4, 0), standard(4), difference=1.0).warning == ""
    few = sized(normals(60, 40, 0), standard(40))
    assert "half of the 60 samples are fewer than the 40 features" in few.warning


@pytest.mark.slow
@pytest.mark.parametrize("n", [500, 5000])
@pytest.mark.parametrize(("shift", "scale"), [(0.3, 1.2), (1.0, 1.5)])
def test_the_interval_of_the_limit_covers_95_percent(n, shift, scale):
    """Of 1,000 intervals of 93 to 97 % coverage, fewer than 886 or more than 995 hold the truth
    with probability below 1e-6.
    """
    dim, covered, sizes = 4, 0, 0
    stretch = torch.ones(dim, dtype=torch.float64)
    stretch[0], move = scale, torch.zeros(dim, dtype=torch.float64)
    move[1] = shift
    truth = shift**2 + (scale - 1) ** 2
    for seed in range(1000):
        found = sized(move + stretch * normals(n, dim, seed), standard(dim))
        low, high = found.infinity.interval()
        covered += low <= truth <= high
        sizes += found.at_size.value > truth
    assert 886 <= covered <= 995
    assert sizes > 500


def logits(n, seed):
    """Rows whose classes have unequal shares and unequal certainty."""
    z = normals(n, 6, seed)
    return z * torch.tensor([2.0, 1.0, 0.5, 3.0, 1.0, 0.2], dtype=torch.float64)


def test_the_inception_score_is_its_definition():
    z = logits(200, 0)
    p = torch.softmax(z, dim=1)
    mean = p.mean(dim=0)
    exact = float((p * (p / mean).log()).sum(dim=1).mean().exp())
    found = inception_score(Moments.of_blocks(score_rows(part) for part in z.split(37)))
    assert found.settings["uncorrected"] == pytest.approx(exact, rel=1e-12)
    # Five certain classes with equal shares have the score 5, and no error but rounding.
    certain = 1e4 * torch.eye(5, dtype=torch.float64).repeat(8, 1)
    best = inception_score(Moments.of(score_rows(certain)))
    assert best.settings["uncorrected"] == pytest.approx(5, rel=1e-12)
    assert best.standard_error < 1e-6
    # Without differences between samples it is 1.
    none = inception_score(Moments.of(score_rows(torch.ones(9, 4))))
    assert none.value == pytest.approx(1, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("n", [500, 5000])
def test_the_interval_of_the_inception_score_covers_95_percent(n):
    """As for the Fréchet distance; the truth is that of 2e6 samples, whose own error is a fiftieth
    of an interval's at n = 500 and a twentieth at 5,000.
    """
    truth = inception_score(
        Moments.of_blocks(score_rows(logits(20_000, -k)) for k in range(1, 101))
    )
    covered = 0
    for seed in range(1000):
        low, high = inception_score(Moments.of(score_rows(logits(n, seed)))).interval()
        covered += low <= truth.value <= high
    assert 886 <= covered <= 995

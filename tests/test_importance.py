"""Importance weights: closed forms of normal distributions, and fields that are exact."""

import math
from fractions import Fraction

import pytest
import torch
from scipy import stats

from scorefield import (
    EDM,
    DoubleWell,
    Gaussian,
    GaussianMixture,
    flow_samples,
    importance,
)
from scorefield.errors import UserError
from scorefield.samplers.weights import effective_share

DIM = 3


def normal(std):
    return Gaussian(torch.zeros(DIM), std)


@pytest.mark.parametrize("std", [0.85, 1.0, 1.3])
def test_normal_proposals_have_the_share_of_the_closed_form(std):
    """For q = N(0, s²) and p = N(0, 1) in D dimensions the share is (√(2 s² − 1) / s²)^D, and Z is
    1; within six standard errors."""
    p, q = normal(1.0), normal(std)
    x = q.sample(20_000, seed=0, dtype=torch.float64)
    found = importance(p, x, q.log_density(x, 0.0))
    exact = (math.sqrt(2 * std**2 - 1) / std**2) ** DIM
    assert found.share.value == pytest.approx(exact, abs=6 * found.share.standard_error + 1e-12)
    assert found.log_constant.value == pytest.approx(
        0, abs=6 * found.log_constant.standard_error + 1e-12
    )
    assert found.effective == pytest.approx(20_000 * found.share.value)
    assert float(found.weights.sum()) == pytest.approx(1)
    if std == 1.0:
        assert found.share.value == pytest.approx(1, abs=1e-12)
        return
    assert 0 < found.share.standard_error < 0.02
    # A mean under p of points of q: E x² = 1, which is s² without weights.
    square = found.mean(x[:, 0].square())
    assert square.value == pytest.approx(1, abs=6 * square.standard_error)
    assert square.standard_error < abs(std**2 - 1) / 6


def test_the_interval_of_the_share_covers():
    """Of 200 repetitions with 500 draws, at a coverage of 0.94 fewer hits have a
    probability of one in a million."""
    p, q = normal(1.0), normal(1.2)
    exact, hits = (math.sqrt(2 * 1.2**2 - 1) / 1.2**2) ** DIM, 0
    x = q.sample(100_000, seed=1, dtype=torch.float64)
    logs = q.log_density(x, 0.0)
    for part, own in zip(x.split(500), logs.split(500), strict=True):
        low, high = importance(p, part, own).share.interval()
        hits += low <= exact <= high
    assert hits >= stats.binom.ppf(1e-6, 200, 0.94)


@pytest.mark.parametrize("lead", [1.0, 10.0, 20.0, 30.0, 400.0, math.inf])
def test_a_weight_above_all_others_leaves_one_sample(lead):
    """By exact arithmetic, the jackknife of a share of 1 / n with equal weights behind."""
    n, rest = 50, Fraction(math.exp(-lead))
    logs = torch.full((n,), -lead, dtype=torch.float64)
    logs[7] = 0.0
    found = effective_share(logs)

    def share(large, others):
        total, square = large + others * rest, large + others * rest**2
        return total**2 / (large + others) / square if square else Fraction(0)

    whole = share(1, n - 1)
    left = [share(0, n - 1), *[share(1, n - 2)] * (n - 1)]
    values = [n * whole - (n - 1) * one for one in left]
    scatter = sum((v - sum(values) / n) ** 2 for v in values)
    assert found.value == pytest.approx(float(whole))
    assert found.standard_error == pytest.approx(math.sqrt(scatter / (n - 1) / n))


def test_an_energy_has_its_constant():
    """Two particles on a line with a single well, v = (r − 3)⁴: the integral over y, r = √2 |y|, is
    that of the positive half line times √2, by quadrature."""
    energy = DoubleWell(particles=2, dims=1, b=0.0, c=1.0, d0=3.0)
    r = torch.linspace(0, 8, 40_001, dtype=torch.float64)
    exact = math.log(math.sqrt(2) * float(torch.trapezoid(torch.exp(-((r - 3) ** 4)), r)))
    modes = GaussianMixture([[-3 / 2**0.5], [3 / 2**0.5]], stds=0.6)
    y = modes.sample(20_000, seed=2, dtype=torch.float64)
    found = importance(energy, y.unsqueeze(2), modes.log_density(y, 0.0))
    assert found.log_constant.standard_error < 0.01
    assert found.log_constant.value == pytest.approx(
        exact, abs=6 * found.log_constant.standard_error
    )


def test_samples_of_an_exact_field_have_equal_weights():
    """The flow of an exact mixture has its own density, blurred by the least noise level, up to the
    difference of the prior from its diffused density, a hundredth at 200 times the data."""
    truth = GaussianMixture([[1.5, 0.3], [-1.0, 0.4]], stds=0.4, sde=EDM(0.002, 200.0))
    drawn = flow_samples(truth, 32, rtol=1e-6, atol=1e-6)
    again = flow_samples(truth, 8, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(again.x, drawn.x[:8], rtol=0, atol=1e-9)
    blurred = truth.log_density(drawn.x, truth.sde.t_min)
    torch.testing.assert_close(drawn.log_prob.value, blurred, rtol=0, atol=2e-2)
    found = importance(truth, drawn.x, drawn.log_prob)
    assert found.share.value == pytest.approx(1, abs=1e-3)
    assert found.log_constant.value == pytest.approx(0, abs=1e-2)
    # What the solver may have added is stated.
    assert 0 < found.share.numerical_error < 1e-2
    low, high = found.log_constant.interval()
    assert high - low > 2 * found.log_constant.numerical_error > 0


def test_what_cannot_be_weighted_is_refused():
    p, x = normal(1.0), torch.zeros(4, DIM)
    with pytest.raises(TypeError, match="a target is an Energy or a Target"):
        importance(torch.nn.Identity(), x, torch.zeros(4))
    with pytest.raises(UserError, match=r"log_q has the shape \(3,\), and there are 4 samples"):
        importance(p, x, torch.zeros(3))
    with pytest.raises(UserError, match="1 of 4 samples have a weight that is not a positive"):
        importance(p, x, torch.tensor([0.0, math.nan, 0.0, 0.0]))
    with pytest.raises(UserError, match="4 of 4 samples"):
        importance(p, x, torch.full((4,), math.inf))
    with pytest.raises(UserError, match="n must be a positive integer"):
        flow_samples(p, 0)
    with pytest.raises(UserError, match="there are 4 samples, and values of shape"):
        importance(p, x, torch.zeros(4)).mean(torch.zeros(3))

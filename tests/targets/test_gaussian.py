"""Truths about the normal law."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import MultivariateNormal

from scorefield import EDM, VP, Gaussian
from tests.laws.cases import SDES, covariance, normal, times

DIM = 4
SIGMA = covariance(DIM, "covariance")
EYE = torch.eye(DIM, dtype=torch.float64)
MEAN = normal((1, DIM), "mean")[0]


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


def test_density_and_score_are_those_of_a_library(sde):
    truth = Gaussian(MEAN, covariance=SIGMA, sde=sde)
    for t in times(sde, 5):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        law = MultivariateNormal(alpha * MEAN, alpha**2 * SIGMA + sigma**2 * EYE)
        x = law.loc + law.scale_tril.mv(normal((1, DIM), "x")[0])
        x = x.unsqueeze(0).requires_grad_()
        log_prob = law.log_prob(x)
        (score,) = torch.autograd.grad(log_prob.sum(), x)
        x = x.detach()
        torch.testing.assert_close(truth.log_density(x, t), log_prob.detach())
        torch.testing.assert_close(truth.score(x, t), score, rtol=1e-8, atol=1e-8)
        precision = law.precision_matrix.unsqueeze(0)
        torch.testing.assert_close(truth.jacobian(x, t), -precision, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("std", [0.6, torch.linspace(0.2, 0.8, DIM)], ids=["isotropic", "diagonal"])
def test_standard_deviations_are_a_diagonal_covariance(sde, std):
    diagonal = torch.as_tensor(std, dtype=torch.float64).expand(DIM).square().diag()
    a, b = Gaussian(MEAN, std=std, sde=sde), Gaussian(MEAN, covariance=diagonal, sde=sde)
    x, t = normal((10, DIM), "x"), times(sde, 10)
    for f, g in (
        (a.log_density, b.log_density),
        (a.score, b.score),
        (a.denoise, b.denoise),
        (a.jacobian, b.jacobian),
    ):
        torch.testing.assert_close(f(x, t), g(x, t), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(a.flow(x, t, t.flip(0)), b.flow(x, t, t.flip(0)))
    assert a.std == pytest.approx(b.std)
    torch.testing.assert_close(a.covariance, b.covariance)


def test_the_density_integrates_to_one():
    truth, x = Gaussian(0.7, std=0.4), torch.linspace(-30, 30, 20_001, dtype=torch.float64)
    for t in (0.0, 0.1, 3.0):
        density = truth.log_density(x, t).exp()
        assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("t", [None, 0.5, 4.0])
def test_samples_have_the_diffused_law_along_every_axis(t):
    truth = Gaussian(MEAN, covariance=SIGMA)
    x = truth.sample(20_000, seed=5, dtype=torch.float64, t=t)
    law = SIGMA + (t or 0.0) ** 2 * EYE
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(law), (x - MEAN).T, upper=False)
    for row in white:
        assert stats.kstest(row, "norm").pvalue > 1e-8
    assert stats.kstest(white.square().sum(dim=0), "chi2", args=(DIM,)).pvalue > 1e-8


def test_the_flow_obeys_its_differential_equation(sde):
    truth = Gaussian(MEAN, covariance=SIGMA, sde=sde)
    t = times(sde, 9)[1:-1]
    x = truth.sde.perturb(normal((7, DIM), "x"), t, normal((7, DIM), "z"))
    h = 1e-4 * torch.minimum(t - sde.t_min, sde.t_max - t).clamp(min=1e-6)
    ahead, behind = truth.flow(x, t, t + h), truth.flow(x, t, t - h)
    quotient = (ahead - behind) / ((t + h) - (t - h)).unsqueeze(1)
    velocity = truth.velocity(x, t)
    error = (quotient - velocity).norm(dim=1) / velocity.norm(dim=1)
    rounding = 1e-14 * x.norm(dim=1) / (h * velocity.norm(dim=1))
    assert (error < 1e-6 + rounding).all()


def test_the_flow_composes_and_goes_back(sde):
    truth = Gaussian(MEAN, covariance=SIGMA, sde=sde)
    x, levels = normal((6, DIM), "x"), times(sde, 6)
    s, t, u = levels[4], levels[1], levels[3]
    torch.testing.assert_close(
        truth.flow(truth.flow(x, s, t), t, u), truth.flow(x, s, u), rtol=1e-11, atol=1e-11
    )
    torch.testing.assert_close(truth.flow(truth.flow(x, s, t), t, s), x, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(truth.flow(x, s, s), x, rtol=1e-13, atol=1e-13)


def test_the_flow_carries_marginals_to_marginals(sde):
    """p_t(Φ(x)) |det ∂Φ| = p_s(x), with the constant Jacobian from the map itself."""
    truth = Gaussian(MEAN, covariance=SIGMA, sde=sde)
    s, t = times(sde, 6)[4], times(sde, 6)[2]
    x = truth.sde.perturb(normal((6, DIM), "x"), s.reshape(1), normal((6, DIM), "z"))
    basis = torch.eye(DIM, dtype=torch.float64)
    zero = truth.flow(torch.zeros_like(basis), s, t)
    log_det = torch.linalg.slogdet(truth.flow(basis, s, t) - zero).logabsdet
    carried = truth.log_density(truth.flow(x, s, t), t) + log_det
    torch.testing.assert_close(carried, truth.log_density(x, s), rtol=1e-9, atol=1e-9)


def test_the_flow_to_time_zero_gives_data():
    truth = Gaussian(MEAN, covariance=SIGMA)
    x = truth.sample(20_000, seed=6, dtype=torch.float64, t=3.0)
    clean = truth.flow(x, 3.0, 0.0)
    square = MultivariateNormal(MEAN, SIGMA)
    distance = torch.einsum("bi,ij,bj->b", clean - MEAN, square.precision_matrix, clean - MEAN)
    assert stats.kstest(distance, "chi2", args=(DIM,)).pvalue > 1e-7


def test_clean_data_has_its_density():
    truth = Gaussian(MEAN, covariance=SIGMA)
    x = normal((5, DIM), "x")
    law = MultivariateNormal(MEAN, SIGMA)
    torch.testing.assert_close(truth.log_density(x, 0.0), law.log_prob(x))


def test_the_denoiser_at_high_noise_keeps_its_digits():
    """x + σ² s cancels to nothing at σ = 10⁸; the posterior mean does not."""
    truth = Gaussian(2.0, std=1e-3, sde=EDM(sigma_max=1e8))
    x = 1e8 * normal((20,), "x")
    expected = 2.0 + 1e-6 / (1e-6 + 1e16) * (x - 2.0)
    torch.testing.assert_close(truth.denoise(x, 1e8), expected, rtol=1e-15, atol=0)


def test_moments_are_the_given_ones():
    truth = Gaussian(MEAN.reshape(1, 2, 2), covariance=SIGMA)
    torch.testing.assert_close(truth.covariance, SIGMA)
    assert torch.equal(truth.mean, MEAN.reshape(1, 2, 2))
    assert truth.std == pytest.approx(math.sqrt(float(SIGMA.trace()) / DIM))
    assert Gaussian(0.0, std=0.3).std == pytest.approx(0.3)


def test_edm_is_the_process_unless_another_is_given():
    assert Gaussian(0.0, std=1.0).sde == EDM()
    assert Gaussian(0.0, std=1.0, sde=VP()).sde == VP()


@pytest.mark.parametrize("spread", [{}, {"std": 1.0, "covariance": torch.eye(2)}])
def test_exactly_one_spread_is_given(spread):
    with pytest.raises(TypeError, match="either standard deviations or a covariance"):
        Gaussian(torch.zeros(2), **spread)


@pytest.mark.parametrize(
    ("spread", "message"),
    [
        ({"std": 0.0}, "positive"),
        ({"std": -1.0}, "positive"),
        ({"std": float("nan")}, "positive"),
        ({"std": torch.ones(3)}, "std"),
        ({"std": torch.ones(2, 2)}, "does not broadcast"),
        ({"covariance": torch.eye(3)}, r"shape \(2, 2\)"),
        ({"covariance": torch.tensor([[1.0, 0.5], [0.0, 1.0]])}, "symmetric"),
        ({"covariance": torch.ones(2, 2)}, "positive definite"),
        ({"covariance": torch.tensor([[1.0, 2.0], [2.0, 1.0]])}, "positive definite"),
        ({"covariance": torch.full((2, 2), float("nan"))}, "finite"),
    ],
)
def test_an_impossible_spread_is_an_error(spread, message):
    with pytest.raises(ValueError, match=message):
        Gaussian(torch.zeros(2), **spread)


def test_an_infinite_mean_is_an_error():
    with pytest.raises(ValueError, match="finite"):
        Gaussian(torch.tensor([0.0, math.inf]), std=1.0)

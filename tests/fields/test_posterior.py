"""Posterior fields, where the posterior is known: normal distributions and their mixtures."""

import math
from typing import get_args

import pytest
import torch
from scipy.special import dawsn

import scorefield as sf
from scorefield.fields.conjugate_gradients import conjugate_gradients
from scorefield.fields.forms import Quantity
from tests.laws.cases import KnownWave, Wave, covariance, normal

SDES = [sf.EDM(0.01, 20.0), sf.VP(t_min=1e-3), sf.RectifiedFlow()]
LEVELS = [0.05, 0.7, 6.0]
MATRIX = normal((2, 3), "matrix")
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


@pytest.fixture(params=SDES, ids=lambda sde: type(sde).__name__)
def sde(request):
    return request.param


def gaussian(sde):
    return sf.Gaussian(normal((1, 3), "mean")[0], covariance=covariance(3, "prior"), sde=sde)


def mixture(sde):
    covariances = torch.stack([covariance(3, f"part {k}") for k in range(3)])
    return sf.GaussianMixture(
        normal((3, 3), "means"), covariances=covariances, weights=[0.5, 0.3, 0.2], sde=sde
    )


def time(sde, level):
    return float(sde.time(torch.tensor(level, dtype=torch.float64)))


def one(noise=0.3, matrix=MATRIX):
    return sf.Observation(matrix, torch.tensor([0.4, -0.8])[: len(matrix)], noise)


@pytest.mark.parametrize("prior", [gaussian, mixture])
def test_the_exact_posterior_is_prior_times_likelihood(prior):
    prior = prior(sf.EDM())
    x, observation = normal((9, 3), "x"), one()
    likelihood = torch.distributions.Normal(observation.y, 0.3).log_prob(x @ MATRIX.T).sum(dim=1)
    expected = prior.log_density(x, 0.0) + likelihood
    found = sf.exact_posterior(prior, observation).log_density(x, 0.0)
    torch.testing.assert_close(found - found[0], expected - expected[0])


@pytest.mark.parametrize("level", LEVELS)
def test_many_exact_posteriors_are_one_each(sde, level):
    prior, ys, x = mixture(sde), normal((4, 2), "ys"), normal((8, 3), "x")
    many = sf.ExactPosteriors(prior, sf.Observation(MATRIX, ys, 0.3))
    rows, t = torch.arange(8) % 4, time(sde, level)
    for k in range(4):
        each = sf.exact_posterior(prior, sf.Observation(MATRIX, ys[k], 0.3))
        own = rows == k
        for quantity in get_args(Quantity):
            found = many.predict(x, t, quantity, rows)[own]
            torch.testing.assert_close(found, each.predict(x[own], t, quantity), **CLOSE)
        found = many.potential(x, t, rows)[own], many.jacobian(x, t, rows)[own]
        expected = each.potential(x[own], t), each.jacobian(x[own], t)
        torch.testing.assert_close(found, expected, **CLOSE)
    draws = many.sample(20_000, 1, classes=2, dtype=torch.float64)
    each = sf.exact_posterior(prior, sf.Observation(MATRIX, ys[2], 0.3))
    wanted = each.sample(20_000, 2, dtype=torch.float64)
    for axis in torch.eye(3, dtype=torch.float64):
        a, b = (draws @ axis).sort().values, (wanted @ axis).sort().values
        gap = (
            torch.searchsorted(b, a, right=True) / 20_000 - torch.arange(1, 20_001) / 20_000
        ).abs()
        assert gap.max() < 2.7e-2  # Kolmogorov and Smirnov, 10^-6


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("quantity", get_args(Quantity))
def test_moment_matching_is_exact_for_normal_data(sde, level, quantity):
    prior, x, t = gaussian(sde), normal((5, 3), "x"), time(sde, level)
    truth = sf.exact_posterior(prior, one())
    found = sf.MMPS(prior, one(), iterations=2)
    torch.testing.assert_close(
        found.predict(x, t, quantity), truth.predict(x, t, quantity), **CLOSE
    )
    # One conjugate gradient is not enough for two measurements.
    fewer = sf.MMPS(prior, one(), iterations=1)
    assert (fewer.score(x, t) - truth.score(x, t)).abs().max() > 1e-3


@pytest.mark.parametrize("level", LEVELS)
def test_one_variance_is_exact_for_isotropic_data(sde, level):
    prior = sf.Gaussian(normal((1, 3), "mean")[0], std=0.7, sde=sde)
    x, t = normal((5, 3), "x"), time(sde, level)
    truth = sf.exact_posterior(prior, one())
    found = sf.PiGDM(prior, one(), sigma_data=0.7).score(x, t)
    torch.testing.assert_close(found, truth.score(x, t), **CLOSE)
    assert (sf.PiGDM(prior, one()).score(x, t) - truth.score(x, t)).abs().max() > 1e-4


@pytest.mark.parametrize("level", LEVELS)
def test_scores_of_normal_data_have_the_closed_form_of_their_covariance(sde, level):
    """(∂D)ᵀ Aᵀ (A C Aᵀ + τ²)⁻¹ (y − A D) with the matrices of the normal distribution."""
    prior, x, t = gaussian(sde), normal((5, 3), "x"), time(sde, level)
    clock = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = sde.alpha(clock), sde.sigma(clock)
    eye = torch.eye(3, dtype=torch.float64)
    slope = (
        alpha * prior.covariance @ torch.linalg.inv(alpha**2 * prior.covariance + sigma**2 * eye)
    )
    residual = one().y - prior.denoise(x, t) @ MATRIX.T

    def expected(spread):
        gram = MATRIX @ spread @ MATRIX.T + 0.09 * torch.eye(2, dtype=torch.float64)
        pull = torch.linalg.solve(gram, residual.T).T @ MATRIX @ slope
        return prior.score(x, t) + pull

    rho = 1.3**2 * sigma**2 / (alpha**2 * 1.3**2 + sigma**2)
    found = sf.DPS(prior, one()), sf.PiGDM(prior, one(), sigma_data=1.3)
    for field, spread in zip(found, (0 * eye, rho * eye), strict=True):
        torch.testing.assert_close(field.score(x, t), expected(spread), **CLOSE)
    inverse = torch.linalg.pinv(MATRIX)
    denoised = prior.denoise(x, t)
    projected = sf.ProjectedField(prior, one())
    torch.testing.assert_close(projected.denoise(x, t), denoised + residual @ inverse.T, **CLOSE)
    torch.testing.assert_close(projected.denoise(x, t) @ MATRIX.T, one().y.expand(5, 2), **CLOSE)


METHODS = {
    "DPS": sf.DPS,
    "PiGDM": lambda field, y: sf.PiGDM(field, y, 0.8),
    "MMPS": sf.MMPS,
    "projected": sf.ProjectedField,
}


@pytest.mark.parametrize("name", METHODS)
def test_a_function_that_is_linear_is_its_matrix(name):
    prior, x = mixture(SDES[0]), normal((5, 3), "x")
    function = sf.Observation(lambda u: u @ MATRIX.T, one().y, 0.3)
    found, expected = (METHODS[name](prior, y) for y in (function, one()))
    for t in LEVELS:
        torch.testing.assert_close(found.score(x, t), expected.score(x, t), **CLOSE)


@pytest.mark.parametrize("name", METHODS)
def test_measurements_are_classes_and_without_one_it_is_the_prior(name):
    prior, x, ys = mixture(SDES[1]), normal((6, 3), "x"), normal((3, 2), "ys")
    many = METHODS[name](prior, sf.Observation(MATRIX, ys, 0.3))
    rows = torch.tensor([2, 0, 3, 1, 3, 2])
    found = many.score(x, 0.4, rows)
    for k in range(3):
        expected = METHODS[name](prior, sf.Observation(MATRIX, ys[k], 0.3)).score(x, 0.4)
        torch.testing.assert_close(found[rows == k], expected[rows == k], **CLOSE)
    free = prior.score(x, 0.4)
    torch.testing.assert_close(found[rows == 3], free[rows == 3], **CLOSE)
    torch.testing.assert_close(many.score(x, 0.4), free)
    network = sf.PreconditionedField(KnownWave((3,)), SDES[1], sigma_data=1.0)
    single = METHODS[name](network, one())
    assert single.classes == 3
    taken = METHODS[name](sf.OneClass(network, 1), one())
    torch.testing.assert_close(single.score(x, 0.4, 1), taken.score(x, 0.4))


@pytest.mark.parametrize("prior", [mixture, "network"])
def test_gradients_are_those_of_their_potentials_and_the_others_have_curl(prior):
    """A DPS and a PiGDM by a matrix are gradients; MMPS and projections are not."""
    sde, x = SDES[0], normal((4, 3), "x")
    if prior == "network":
        field = sf.PotentialField(Wave((3,), 1), sde, sigma_data=0.8)
    else:
        field = prior(sde)
    square = sf.Observation(lambda u: u.square().sum(dim=1), torch.tensor([2.0]), 0.5)
    for posterior in (sf.DPS(field, one()), sf.DPS(field, square), sf.PiGDM(field, one(), 0.8)):
        assert posterior.has_potential
        u = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(posterior.potential(u, 0.5).sum(), u)
        torch.testing.assert_close(posterior.score(x, 0.5), slope, rtol=1e-6, atol=1e-6)
    for posterior in (sf.MMPS(field, one()), sf.ProjectedField(field, one())):
        assert not posterior.has_potential
        j = sf.jacobian(posterior.score, x, 0.5)
        assert (j - j.mT).norm() > 1e-3 * j.norm()
    assert not sf.PiGDM(field, square).has_potential


def affine_flow(field):
    """Mean and covariance of samples by Heun's method from N(0, Λ²), of a field that is affine."""
    dim, largest = field.domain.dim, field.sde.t_max
    start = torch.cat((torch.zeros(1, dim), torch.eye(dim))).double()
    end = sf.Heun(120).sample(field, start=start, dtype=torch.float64)
    slope = largest * (end[1:] - end[:1])
    return end[0], slope.T @ slope


def test_the_flow_of_moment_matching_ends_at_the_exact_posterior_of_normal_data():
    """And that of the other methods does not: DPS is too narrow, a projection too wide."""
    sde = sf.EDM(0.002, 1000.0)
    prior = sf.Gaussian([0.0, 0.0], covariance=[[1.0, 0.8], [0.8, 1.0]], sde=sde)
    observation = one(0.3, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    truth = sf.exact_posterior(prior, observation)
    exact = truth.covariances[0].diagonal()
    mean, covariance = affine_flow(sf.MMPS(prior, observation))
    torch.testing.assert_close(mean, truth.mean, rtol=0, atol=4e-3)
    torch.testing.assert_close(covariance, truth.covariances[0], rtol=0, atol=4e-3)
    narrow = affine_flow(sf.DPS(prior, observation))[1].diagonal() / exact
    assert bool((narrow < torch.tensor([0.1, 0.7])).all())
    one_variance = affine_flow(sf.PiGDM(prior, observation))[1].diagonal() / exact
    assert bool((one_variance > torch.tensor([1.2, 1.05])).all())
    measured, free = affine_flow(sf.ProjectedField(prior, observation))[1].diagonal() / exact
    assert measured < 1e-5
    assert free > 1.4


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_the_flow_of_dps_has_the_closed_form_of_a_coordinate(noise):
    v = 0.8
    prior = sf.Gaussian([0.0], std=v**0.5, sde=sf.EDM(0.001, 500.0))
    observation = one(noise, torch.tensor([[1.0]], dtype=torch.float64))
    mean, covariance = affine_flow(sf.DPS(prior, observation))
    k = v / (2 * noise**2)
    assert float(mean) == pytest.approx(0.4 * 2 * k**0.5 * dawsn(k**0.5), rel=5e-3)
    assert float(covariance) == pytest.approx(v * math.exp(-2 * k), rel=3e-2)


def test_fields_are_evaluated_under_every_context_and_have_jacobians():
    prior, x = mixture(SDES[0]), normal((4, 3), "x")
    square = sf.Observation(lambda u: u.square().sum(dim=1), torch.tensor([2.0]), 0.5)
    for make in METHODS.values():
        for observation in (one(), square):
            field = make(prior, observation)
            expected = field.score(x, 0.5)
            with torch.inference_mode():
                torch.testing.assert_close(field.score(x, 0.5), expected)
            j = sf.jacobian(field.score, x, 0.5)
            step = 1e-5 * torch.eye(3, dtype=torch.float64)[0]
            slope = (field.score(x + step, 0.5) - field.score(x - step, 0.5)) / 2e-5
            torch.testing.assert_close(j[:, :, 0], slope, rtol=1e-5, atol=1e-5)
            along = sf.jvp(field.score, x, torch.full((4,), 0.5), step.expand(4, 3))
            torch.testing.assert_close(along, 1e-5 * slope, rtol=1e-5, atol=1e-9)


def test_without_noise_repeated_rows_measure_once():
    prior, x = mixture(SDES[0]), normal((4, 3), "x")
    twice = torch.cat((MATRIX[:1], MATRIX[:1]))
    for name in ("PiGDM", "MMPS", "projected"):
        pair = METHODS[name](prior, sf.Observation(twice, torch.tensor([0.4, 0.4]), 0.0))
        single = METHODS[name](prior, sf.Observation(MATRIX[:1], torch.tensor([0.4]), 0.0))
        torch.testing.assert_close(pair.score(x, 0.5), single.score(x, 0.5), rtol=1e-6, atol=1e-6)


def test_conjugate_gradients_solve_and_do_not_follow_negative_curvature():
    m = torch.stack([covariance(4, f"m{k}") for k in range(3)])
    b = normal((3, 4), "b")
    u = conjugate_gradients(lambda v: torch.einsum("bij,bj->bi", m, v), b, 4)
    torch.testing.assert_close(u, torch.linalg.solve(m, b), rtol=1e-7, atol=1e-7)
    assert bool((conjugate_gradients(lambda v: -v, b, 4) == 0).all())


def test_simulated_measurements_are_of_their_points():
    points = normal((50_000, 3), "points")
    observation = sf.Observation.of(MATRIX, points, 0.3, seed=3)
    again = sf.Observation.of(lambda x: x @ MATRIX.T, points[:7], 0.3, seed=3)
    torch.testing.assert_close(observation.y[:7], again.y)
    errors = (observation.y - points @ MATRIX.T) / 0.3
    assert abs(float(errors.mean())) < 5 / 100_000**0.5
    assert abs(float(errors.square().mean()) - 1) < 5 * (2 / 100_000) ** 0.5


def test_what_cannot_be_measured_is_one_sentence(unchecked):
    prior, y = mixture(SDES[0]), torch.tensor([0.4, -0.8])
    many = sf.Observation(MATRIX, torch.stack((y, y)), 0.3)
    square = sf.Observation(lambda u: u.square(), y, 0.3)
    network = sf.PreconditionedField(KnownWave((3,)), SDES[0], sigma_data=1.0)

    def of(operator, noise):
        return sf.Observation.of(operator, normal((4, 3), "x"), noise)

    def score(function):
        return sf.DPS(prior, sf.Observation(function, y, 0.3)).score(normal((4, 3), "x"), 0.5)

    cases = [
        (lambda: sf.Observation(MATRIX, y[:1], 0.3), "y has 1 values a point, and the matrix 2"),
        (lambda: sf.Observation(MATRIX, y, -0.3), "noise of an observation must be at least 0"),
        (lambda: sf.Observation(0 * MATRIX, y, 0.3), "it measures nothing"),
        (lambda: sf.Observation(MATRIX, y[None, None], 0.3), "y has the shape"),
        (lambda: sf.Observation([1.0], y, 0.3), "by a matrix or a function, not a list"),
        (lambda: sf.Observation(MATRIX, y.long(), 0.3), "y must be floating-point numbers"),
        (lambda: sf.DPS(prior, one(0.0)), "noise of its observation must be positive"),
        (lambda: sf.PiGDM(prior, one(), sigma_data=0.0), "sigma_data must be positive"),
        (lambda: sf.MMPS(prior, one(), iterations=0), "iterations must be a positive integer"),
        (lambda: sf.MMPS(prior, sf.Observation(MATRIX[:, :2], y, 0.3)), "cannot measure points"),
        (lambda: sf.MMPS(prior, y), "must be of class Observation"),
        (lambda: sf.MMPS(network, many), "the prior has classes itself"),
        (lambda: sf.MMPS(prior, square).score(normal((4, 3), "x"), 0.5), "y has 2 values a point"),
        (lambda: of(lambda u: u.sum(dim=1), None), "noise of an observation must be at least 0"),
        (lambda: of(lambda u: u.sum(dim=1), "a"), "noise of an observation must be at least 0"),
        (lambda: of([1.0], 0.3), "by a matrix or a function, not a list"),
        (lambda: of(lambda u: 1.0, 0.3), "for 4 points it gave a float"),
        (lambda: of(lambda u: u.sum(), 0.3), r"for 4 points it gave torch.float64 of shape \(\)"),
        (lambda: of(lambda u: u[:3], 0.3), r"for 4 points it gave torch.float64 of shape \(3, 3\)"),
        (lambda: of(lambda u: u.long(), 0.3), "for 4 points it gave torch.int64"),
        (lambda: score(lambda u: 1.0), "for 4 points it gave a float"),
        (lambda: score(lambda u: u[:, :2].detach()), "has no derivative"),
        (lambda: score(lambda u: (u[:, :2] > 0).to(u)), "has no derivative"),
        (lambda: sf.exact_posterior(prior, many), "of one measurement, not 2"),
        (lambda: sf.ExactPosteriors(prior, one()), "one measurement has one posterior"),
        (lambda: sf.exact_posterior(prior, square), "by a matrix only"),
        (lambda: sf.exact_posterior(network, one()), "not of a PreconditionedField"),
        (lambda: sf.exact_posterior(prior, one(0.0)), "must be positive"),
    ]
    for case, sentence in cases:
        with pytest.raises((ValueError, TypeError), match=sentence):
            case()


def test_a_function_with_attention_is_linearised():
    def attended(x):
        tokens = x.reshape(len(x), 1, 4, 3)
        found = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return found.reshape(len(x), -1)

    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = sf.Observation(attended, torch.zeros(12, dtype=torch.float64), 0.1).linearize(x)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda u: attended(u[None])[0], u) for u in x]
    )
    v = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(2, 12)
    torch.testing.assert_close(at[1](v), torch.einsum("bij,bj->bi", jacobian, v))
    torch.testing.assert_close(at[2](v), torch.einsum("bij,bi->bj", jacobian, v))

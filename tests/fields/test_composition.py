"""Compositions of normal distributions and their mixtures, whose densities are known."""

from typing import get_args

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from scorefield import (
    EDM,
    VP,
    Gaussian,
    GaussianMixture,
    OneClass,
    PreconditionedField,
    mixture,
    negation,
    product,
    tempered,
)
from scorefield.fields.forms import Quantity
from tests.laws.cases import KnownWave, Wave, normal
from tests.planted import Watched

SDES = [EDM(0.01, 20.0), VP(t_min=1e-3)]
EYE = torch.eye(2, dtype=torch.float64)


@pytest.fixture(params=SDES, ids=lambda sde: type(sde).__name__)
def sde(request):
    return request.param


def coefficients(sde, level):
    t = sde.time(torch.tensor(level, dtype=torch.float64))
    return float(t), float(sde.alpha(t)), float(sde.sigma(t))


def agrees(field, log_prob, t, scale=1.0):
    """The score and, up to a constant, the potential are those of a log-density."""
    x = (scale * normal((7, 2), "x")).requires_grad_()
    expected = log_prob(x)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    found = field.potential(x, t)
    torch.testing.assert_close(field.score(x, t), gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found - found[0], expected - expected[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
def test_a_product_of_mixtures_is_a_mixture_of_products(sde, level):
    """Bromiley's products of normals: precisions add, weights are densities of differences."""
    one = GaussianMixture([[1.0, 0.2], [-1.0, 0.0]], stds=[0.6, 0.4], weights=[0.3, 0.7], sde=sde)
    other = GaussianMixture([[0.3, 1.0], [-0.2, -1.0]], stds=0.7, weights=[0.6, 0.4], sde=sde)
    t, alpha, sigma = coefficients(sde, level)
    logs, means, variances = [], [], []
    for i in range(2):
        for j in range(2):
            m, n = alpha * one.means[i], alpha * other.means[j]
            v = alpha**2 * one.covariances[i, 0, 0] + sigma**2
            w = alpha**2 * other.covariances[j, 0, 0] + sigma**2
            between = MultivariateNormal(n, (v + w) * EYE).log_prob(m)
            logs.append(one.weights[i].log() + other.weights[j].log() + between)
            means.append((m * w + n * v) / (v + w))
            variances.append(v * w / (v + w))
    exact = MixtureSameFamily(
        Categorical(logits=torch.stack(logs)),
        MultivariateNormal(torch.stack(means), torch.stack(variances)[:, None, None] * EYE),
    )
    agrees(product(one, other), exact.log_prob, t)


@pytest.mark.parametrize("level", [0.1, 5.0])
def test_powers_and_quotients_of_normals_are_normal(sde, level):
    one = Gaussian([0.5, -0.2], std=0.4, sde=sde)
    other = Gaussian([-0.3, 0.1], std=0.9, sde=sde)
    t, alpha, sigma = coefficients(sde, level)
    v, w = ((alpha * f.std) ** 2 + sigma**2 for f in (one, other))
    power = MultivariateNormal(alpha * one.mean, v / 2.5 * EYE)
    agrees(tempered(one, 2.5), power.log_prob, t)
    precision = 1 / v - 0.7 / w
    centre = alpha * (one.mean / v - 0.7 * other.mean / w) / precision
    quotient = MultivariateNormal(centre, EYE / precision)
    agrees(negation(one, other, 0.7), quotient.log_prob, t)


@pytest.mark.parametrize("level", [0.02, 0.5, 5.0])
def test_a_mixture_of_normals_is_the_diffused_mixture_in_every_form(sde, level):
    means, stds, weights = [[1.0, 0.5], [-1.2, 0.3], [0.2, -0.9]], [0.3, 0.5, 0.4], [5.0, 3.0, 2.0]
    exact = GaussianMixture(means, stds=stds, weights=weights, sde=sde)
    parts = [Gaussian(m, std=s, sde=sde) for m, s in zip(means, stds, strict=True)]
    found = mixture(parts, weights)
    t, x = coefficients(sde, level)[0], normal((7, 2), "x")
    torch.testing.assert_close(found.potential(x, t), exact.potential(x, t))
    for quantity in get_args(Quantity):
        expected = exact.predict(x, t, quantity)
        torch.testing.assert_close(found.predict(x, t, quantity), expected, rtol=1e-9, atol=1e-9)


def test_classes_are_those_of_the_parts():
    field = PreconditionedField(KnownWave((2,)), EDM(), sigma_data=0.7)
    x, classes = normal((4, 2), "x"), torch.tensor([0, 1, 2, 1])
    both = product(field, tempered(field, 0.5))
    assert both.classes == 3
    torch.testing.assert_close(both.score(x, 0.5, classes), 1.5 * field.score(x, 0.5, classes))
    pair = product(OneClass(field, 0), OneClass(field, 2))
    expected = field.score(x, 0.5, 0) + field.score(x, 0.5, 2)
    torch.testing.assert_close(pair.score(x, 0.5), expected)


def test_what_does_not_compose_is_one_sentence():
    one = Gaussian([0.0, 0.0], std=1.0)
    free = Watched(one)
    with pytest.raises(ValueError, match="fields of a product share one process"):
        product(one, Gaussian([0.0], std=1.0))
    with pytest.raises(ValueError, match="share one process"):
        negation(one, one.under(VP()))
    with pytest.raises(ValueError, match="know the same classes"):
        product(PreconditionedField(KnownWave((2,)), one.sde, sigma_data=1.0), one)
    with pytest.raises(ValueError, match="the number of fields of a product"):
        product()
    with pytest.raises(TypeError, match="Wave is no score field"):
        product(one, Wave((2,)))
    with pytest.raises(ValueError, match="beta must be positive, got -1"):
        tempered(one, -1.0)
    with pytest.raises(ValueError, match="strength of a negation must be positive"):
        negation(one, one, 0.0)
    with pytest.raises(TypeError, match="weighted by potentials, and Watched has none"):
        mixture([one, free], [0.5, 0.5])
    with pytest.raises(ValueError, match="2 fields has as many weights, not 1"):
        mixture([one, one], [0.5])
    with pytest.raises(ValueError, match="a weight of a mixture must be positive"):
        mixture([one, one], [0.5, 0.0])
    assert not product(one, free).has_potential
    with pytest.raises(TypeError, match="all of its fields have one, and Watched has none"):
        product(one, free).potential(torch.zeros(1, 2), 1.0)

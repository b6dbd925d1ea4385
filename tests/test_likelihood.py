"""Densities along the flow, against closed forms."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from scorefield import likelihood
from scorefield.fields import PlantedField, PreconditionedField, Turned, right_angle
from scorefield.fields.planted import PredictedNoise
from scorefield.likelihood import log_prob
from scorefield.noise import Noise
from scorefield.sde import EDM, VP, SubVP
from scorefield.targets import Gaussian, GaussianMixture
from tests.planted import Affine

SDES = [EDM(0.02, 50.0), VP(t_min=1e-3), SubVP(t_min=1e-2)]


def points(shape, n=6, scale=1.0):
    z = Noise(3).normal("points", shape, torch.arange(n), dtype=torch.float64)
    return 0.5 + scale * z


def carried_prior(x, sde, mean, variance, stretch=1.0):
    """The law that the flow of independent normals, stretched, carries the prior to, at x.

    Each coordinate's deviation from the mean goes as the standard deviation to the power
    ``stretch``.
    """
    low, high = (variance + level**2 for level in (sde.sigma_min, sde.sigma_max))
    shrink = (low / high) ** (stretch / 2)
    law = torch.distributions.Normal(mean * (1 - shrink), sde.sigma_max * shrink)
    return law.log_prob(x).reshape(len(x), -1).sum(dim=1)


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 2)])
def test_of_a_gaussian_it_is_the_closed_form(sde, shape):
    mean = 0.3 * torch.ones(shape, dtype=torch.float64)
    std = 0.5 + 0.1 * torch.arange(mean.numel(), dtype=torch.float64).reshape(shape)
    x = points(shape)
    found = log_prob(Gaussian(mean, std, sde=sde), x, steps=96)
    error = (found.value - carried_prior(x, sde, mean, std**2)).abs()
    assert bool((error <= found.numerical_error + 1e-9).all())
    assert float(error.max()) < 1e-4


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
def test_of_a_wrong_field_it_is_the_density_of_its_own_flow(sde):
    truth = Gaussian(torch.zeros(2), 0.7, sde=sde)
    x = points((2,), scale=0.1)
    found = log_prob(PlantedField(truth, PredictedNoise(), 0.1), x, steps=96)
    error = (found.value - carried_prior(x, sde, torch.zeros(2), 0.49, stretch=1.1)).abs()
    assert bool((error <= found.numerical_error + 1e-9).all())


def test_curl_that_moves_no_mass_changes_no_density():
    truth = GaussianMixture([[-1.0, 0.5, 0.5], [1.0, -0.5, -0.5]], [0.5, 0.8], sde=EDM(0.05, 500.0))
    x = truth.sample(16, 0, torch.float64, truth.sde.t_min)
    exact = truth.log_density(x, truth.sde.t_min)
    turned = PlantedField(truth, Turned(PredictedNoise(), right_angle(3)), 0.5)
    for field in (truth, turned):
        found = log_prob(field, x, steps=64)
        # The prior neglects the spread of the data, some (1.3 / 500)² of its own.
        assert bool(((found.value - exact).abs() < found.numerical_error + 1e-4).all())
        assert float(found.numerical_error.max()) < 1e-2
    assert float((turned.score(x, 1.0) - truth.score(x, 1.0)).norm(dim=1).mean()) > 0.1


def test_it_converges_with_order_four_and_knows_its_error():
    truth = GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], [0.6, 0.8], sde=EDM(0.1, 20.0))
    x = points((2,), n=32)
    reference = log_prob(truth, x, steps=160).value
    found = [log_prob(truth, x, steps=n) for n in (20, 40, 80)]
    errors = [float((f.value - reference).square().mean().sqrt()) for f in found]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(order - 4) < 0.4 for order in orders), orders
    told = float(found[-1].numerical_error.square().mean().sqrt())
    assert 12 < told / errors[-1] < 19


def test_a_row_does_not_know_its_neighbours(monkeypatch):
    truth = GaussianMixture.ring(sde=VP(t_min=1e-3))
    x = torch.cat((truth.sample(9, 0, torch.float64), points((2,), n=2, scale=50.0)))
    together = log_prob(truth, x, steps=16)
    alone = [log_prob(truth, row.unsqueeze(0), steps=16) for row in x]
    for k, value in enumerate(together):
        assert torch.allclose(value, torch.cat([a[k] for a in alone]), rtol=0, atol=1e-10)
    monkeypatch.setattr(likelihood, "_ROWS", 1)
    assert torch.allclose(together.value, log_prob(truth, x, steps=16).value, rtol=0, atol=1e-10)


def test_a_network_keeps_its_mode_and_gets_no_gradients():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.dropout = nn.Linear(2, 2), nn.Dropout(0.5)

        def forward(self, x, label):
            return self.dropout(torch.tanh(self.inner(x)))

        event_shape = (2,)

    field = PreconditionedField(Backbone(), EDM(), 1.0)
    first, second = (log_prob(field, torch.ones(3, 2), steps=4) for _ in range(2))
    assert torch.equal(first.value, second.value)
    assert first.value.dtype == torch.float32
    assert not first.value.requires_grad
    assert field.training
    assert all(p.grad is None for p in field.parameters())


@pytest.mark.parametrize(
    ("x", "steps", "words"),
    [
        (torch.zeros(2, 3), 8, "a field on event shape .* has a density at floating points"),
        (torch.zeros(2, 2, dtype=torch.int64), 8, "got torch.int64"),
        (torch.zeros(2, 2), 7, "positive even number of steps"),
        (torch.zeros(2, 2), 0, "positive even number of steps"),
    ],
)
def test_mistakes_are_named(unchecked, x, steps, words):
    with pytest.raises(ValueError, match=words):
        log_prob(GaussianMixture.ring(), x, steps)


def test_a_flow_that_diverges_is_an_error():
    away = Affine(-1e6 * torch.eye(2, dtype=torch.float64))
    with pytest.raises(FloatingPointError, match="2 of 2 log-densities are not finite"):
        log_prob(away, torch.ones(2, 2, dtype=torch.float64), steps=32)

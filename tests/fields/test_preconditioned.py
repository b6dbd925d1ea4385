"""Truths about networks as fields."""

import pytest
import torch
from torch import nn

from scorefield import (
    EDM,
    DenoiserPrediction,
    EDMScaling,
    Gaussian,
    NoisePrediction,
    PotentialField,
    PreconditionedField,
    ScoreField,
    ScorePrediction,
    fit,
)
from scorefield.domain import Euclidean
from tests.laws.cases import PARAMETRIZATIONS, SDES, SHAPES, Wave, normal, times

SIGMA_DATA = 0.7


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


def column(values, shape):
    return values.reshape(-1, *(1,) * len(shape))


def close(actual, expected, rtol=1e-11):
    actual, expected = actual.detach(), expected.detach()
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_edm_scaling_is_the_denoiser_of_karras(sde, shape):
    """D = c_skip x̂ + c_out F(c_in x̂, ln(λ)/4), table 1, column "Ours"."""
    net, n = Wave(shape), 8
    field = PreconditionedField(net, sde, sigma_data=SIGMA_DATA)
    t = times(sde, n)
    x = sde.perturb(normal((n, *shape), "data"), t, normal((n, *shape), "noise"))
    level = column(sde.noise_level(t), shape)
    total = (level**2 + SIGMA_DATA**2).sqrt()
    x_hat = x / sde.alpha(column(t, shape))
    output = net(x_hat / total, sde.noise_level(t).log() / 4)
    c_skip, c_out = SIGMA_DATA**2 / total**2, level * SIGMA_DATA / total
    close(field.denoise(x, t), c_skip * x_hat + c_out * output)


def test_edm_scaling_gives_unit_variance_to_input_and_target(sde):
    t = times(sde, 50)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    c = EDMScaling(SIGMA_DATA).coefficients(t, sde)
    one = torch.ones_like(alpha)
    close(c.c_in**2 * ((alpha * SIGMA_DATA) ** 2 + sigma**2), one)
    # The target F = (ε − a x)/b with x = α x₀ + σ ε, variance of x₀ times that of its factor.
    a, b = c.means.noise
    from_data = (a * alpha / b * SIGMA_DATA) ** 2
    from_noise = ((1 - a * sigma) / b) ** 2
    close(from_data + from_noise, one, rtol=1e-9)


def test_nothing_is_left_to_learn_of_the_normal_law_of_that_variance(sde):
    class Nothing(nn.Module):
        event_shape = (3,)

        def forward(self, x, label):
            return torch.zeros_like(x)

    field = PreconditionedField(Nothing(), sde, sigma_data=SIGMA_DATA)
    truth = Gaussian(torch.zeros(3), std=SIGMA_DATA, sde=sde)
    x, t = 2 * normal((20, 3), "x"), times(sde, 20)
    for quantity in ("score", "denoiser", "noise", "velocity", "drift"):
        close(field.predict(x, t, quantity), truth.predict(x, t, quantity), rtol=1e-9)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS, ids=lambda p: type(p).__name__)
def test_the_optimal_output_gives_the_exact_score(sde, parametrization):
    """For normal data of any mean and variance the optimum is affine in u, known from the
    label alone."""
    mean, std = 0.8, 1.9

    class Optimum(nn.Module):
        event_shape = (3,)

        def forward(self, u, label):
            t = sde.time((4 * label).exp()).unsqueeze(1)
            alpha, sigma = sde.alpha(t), sde.sigma(t)
            c = parametrization.coefficients(t, sde)
            x = u / c.c_in
            # From the larger of the two coefficients: both means have the same solution.
            variance = (alpha * std) ** 2 + sigma**2
            noise = sigma * (x - alpha * mean) / variance
            denoiser = mean + alpha * std**2 * (x - alpha * mean) / variance
            by_noise = (noise - c.means.noise.of_x * x) / c.means.noise.of_value
            by_denoiser = (denoiser - c.means.denoiser.of_x * x) / c.means.denoiser.of_value
            larger = c.means.noise.of_value.abs() > c.means.denoiser.of_value.abs()
            return torch.where(larger, by_noise, by_denoiser)

    field = PreconditionedField(Optimum(), sde, parametrization=parametrization)
    truth = Gaussian(torch.full((3,), mean), std=std, sde=sde)
    x, t = 2 * normal((20, 3), "x"), times(sde, 20)
    # A predicted denoiser holds the score to the rounding of x over the noise level only.
    form = "denoiser" if isinstance(parametrization, DenoiserPrediction) else "score"
    close(field.predict(x, t, form), truth.predict(x, t, form), rtol=1e-7)


def test_noise_and_score_prediction_return_the_backbone(sde):
    net, x, t = Wave((3,)), normal((10, 3), "x"), times(sde, 10)
    output = net(x, sde.noise_level(t).log() / 4)
    noise = PreconditionedField(net, sde, parametrization=NoisePrediction())
    score = PreconditionedField(net, sde, parametrization=ScorePrediction())
    close(noise.predict_noise(x, t), output)
    assert torch.equal(score.score(x, t), output)


def test_the_backbone_keeps_its_dtype_and_the_result_that_of_the_points():
    class Recorder(Wave):
        def forward(self, x, label):
            self.seen = (x.dtype, label.dtype)
            return super().forward(x, label)

    net = Recorder((3,), dtype=torch.float32)
    field = PreconditionedField(net, EDM(), sigma_data=1.0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert field.score(torch.ones(2, 3, dtype=dtype), 0.5).dtype == dtype
        assert net.seen == (torch.float32, torch.float32)


def test_small_noise_keeps_its_digits_in_float32(sde):
    """Forms are combined before the output enters: none is a difference of near-equal numbers."""
    net = Wave((3,))
    field = PreconditionedField(net, sde, sigma_data=SIGMA_DATA)
    x, t = normal((40, 3), "x").float(), times(sde, 40).float()
    level = sde.noise_level(t.double())
    for quantity in ("score", "denoiser", "noise"):
        exact = field.predict(x.double(), t.double(), quantity)
        single = field.predict(x, t, quantity).double()
        assert ((single - exact).norm(dim=1) / exact.norm(dim=1))[level < 10].max() < 3e-5


def test_exactly_one_description_of_the_scaling_is_given():
    for extra in ({}, {"sigma_data": 1.0, "parametrization": NoisePrediction()}):
        with pytest.raises(TypeError, match="sigma_data or a parametrization"):
            PreconditionedField(Wave((2,)), EDM(), **extra)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_sigma_data_is_positive(value):
    with pytest.raises(ValueError, match="sigma_data must be positive"):
        PreconditionedField(Wave((2,)), EDM(), sigma_data=value)


class Plain(nn.Module):
    """A network of a user's own, which says nothing about itself."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x, c_noise):
        return self.linear(x) * c_noise[:, None]


@pytest.mark.parametrize("kind", [PreconditionedField, PotentialField])
def test_the_shape_is_given_or_learned(kind):
    assert kind(Plain(), EDM(), 0.5, shape=(3,)).domain == Euclidean((3,))
    field = kind(Plain(), EDM(), 0.5)
    with pytest.raises(ValueError, match="does not know its event shape yet: give shape="):
        _ = field.domain
    field.score(torch.zeros(2, 3), 0.5)
    assert field.domain == Euclidean((3,))
    trained = kind(Plain(), EDM(), 0.5)
    fit(trained, torch.randn(8, 3), steps=1, quiet=True)
    assert trained.domain == Euclidean((3,))
    with pytest.raises(TypeError, match="a domain or a shape"):
        kind(Plain(), EDM(), 0.5, domain=Euclidean((3,)), shape=(3,))


def test_a_field_defines_its_score_or_a_form_of_it():
    class Wrong(ScoreField):
        pass

    with pytest.raises(TypeError, match="Wrong must define score or predict"):
        Wrong(EDM(), Euclidean((3,)))

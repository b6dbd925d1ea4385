"""Planted errors: what is declared of each shape, measured."""

import math

import pytest
import torch

from scorefield import (
    EDM,
    VP,
    Gaussian,
    GaussianMixture,
    PlantedField,
    Protocol,
    convert,
    jacobian,
    relative_asymmetry,
    score_error,
)
from scorefield.fields.planted import (
    Band,
    Matched,
    PredictedNoise,
    Radial,
    Turned,
    Waves,
    right_angle,
)
from scorefield.noise import Noise

TRUTH = GaussianMixture.ring(sde=EDM(0.01, 80.0))
LEVEL = 0.6


def noisy(truth, n=64, level=LEVEL):
    t = truth.sde.time(torch.tensor(level, dtype=torch.float64))
    return truth.sample(n, 5, torch.float64, float(t)), t.expand(n)


def error_jacobian(shape, truth=TRUTH):
    """The Jacobian of an error in units of the noise."""
    x, t = noisy(truth)

    def error(x, t):
        planted = PlantedField(truth, shape, 1.0)
        return planted.predict_noise(x, t) - truth.predict_noise(x, t)

    return jacobian(error, x, t), error(x, t), x, t


GRADIENTS = {"noise": PredictedNoise(), "radial": Radial(0.35), "waves": Waves(2, 0.35)}


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_has_no_curl_and_turned_no_divergence(name):
    matrix, *_ = error_jacobian(GRADIENTS[name])
    assert float((matrix - matrix.mT).abs().max()) < 1e-10
    turned, *_ = error_jacobian(Turned(GRADIENTS[name], right_angle(2)))
    assert float(turned.diagonal(dim1=1, dim2=2).sum(dim=1).abs().max()) < 1e-10
    assert float((turned - turned.mT).norm(dim=(1, 2)).mean()) > 0.1


def moved_mass(shape):
    """The rms of div(p η) / p = div η + s · η, and that of η."""
    matrix, eta, x, t = error_jacobian(shape)
    moved = matrix.diagonal(dim1=1, dim2=2).sum(dim=1) + (TRUTH.score(x, t) * eta).sum(dim=1)
    return float(moved.square().mean().sqrt()), float(eta.square().mean().sqrt())


def test_only_the_turned_score_moves_no_mass():
    moved, size = moved_mass(Turned(PredictedNoise(), right_angle(2)))
    assert moved < 1e-10
    assert size > 0.5
    for other in (Waves(2, 0.35), Turned(Waves(2, 0.35), right_angle(2)), Radial(0.35)):
        assert moved_mass(other)[0] > 0.1


def test_a_rotation_moves_no_mass_where_the_law_is_round():
    turned = Turned(Radial(0.35), right_angle(2))
    assert moved_mass(turned)[0] > 0.1
    x, t = noisy(TRUTH, level=20.0)
    eta = turned(x, x, torch.full((1, 1), 20.0, dtype=torch.float64))
    assert float((20.0 * TRUTH.score(x, t) * eta).sum(dim=1).abs().max()) < 1e-7


@pytest.mark.parametrize("sde", [EDM(0.01, 80.0), VP(t_min=1e-3)], ids=["EDM", "VP"])
def test_the_dose_is_the_relative_error_of_the_score(sde):
    truth = GaussianMixture.ring(sde=sde)
    data = truth.sample(4096, 1, torch.float64)
    protocol = Protocol((0.2, 1.0, 7.0), n=4096)
    for shape in (Turned(PredictedNoise(), right_angle(2)), Waves(2, 0.35)):
        field = PlantedField(truth, Matched(shape, truth, data), 0.1, Band(0.05, 30.0))
        for _, found in score_error(field, truth, protocol):
            # The size itself is known to a percent or so, from as many points.
            assert abs(found.value - 0.1) < 6 * math.sqrt(2) * found.standard_error + 1e-4


def test_the_forms_of_a_planted_field_agree():
    truth = GaussianMixture.ring(sde=VP(t_min=1e-3))
    field = PlantedField(truth, Waves(2, 0.35), 0.2, Band(0.1, 3.0))
    x, t = noisy(truth)
    for quantity in ("score", "denoiser", "noise", "velocity", "drift"):
        said = convert(field.score(x, t), x, t, field.sde, "score", quantity)
        assert torch.allclose(field.predict(x, t, quantity), said, rtol=1e-10, atol=1e-10)
    assert not field.has_potential
    assert field.predict(x.float(), t.float(), "score").dtype == torch.float32


def test_outside_its_band_the_field_is_the_base():
    field = PlantedField(TRUTH, Waves(2, 0.35), 0.3, Band(0.1, 1.0))
    for level in (0.02, 5.0):
        x, t = noisy(TRUTH, level=level)
        assert torch.allclose(
            field.predict_noise(x, t), TRUTH.predict_noise(x, t), rtol=0, atol=1e-12
        )
    x, t = noisy(TRUTH)
    assert not torch.allclose(field.predict_noise(x, t), TRUTH.predict_noise(x, t), atol=0.05)


def test_bands_that_share_an_edge_add_up():
    levels = torch.logspace(-2, 2, 41, dtype=torch.float64)
    parts = Band(high=0.35), Band(0.35, 4.0), Band(low=4.0)
    assert torch.allclose(sum(part(levels) for part in parts), Band()(levels))
    assert torch.equal(Band()(levels), torch.ones_like(levels))
    inside = Band(0.1, 1.0, width=0.05)(torch.tensor([0.08, 0.1, 0.3, 1.0, 1.25]))
    assert torch.allclose(inside, torch.tensor([0.0, 0.5, 1.0, 0.5, 0.0]), atol=1e-4)


def test_at_both_ends_of_the_process_the_size_is_the_measured_one():
    """The first and the last level are knots of the spline: there the root mean square is 1."""
    base = Gaussian(torch.zeros(2), 0.7)
    data = base.sample(64, 0, torch.float64)
    matched = Matched(Waves(2, 0.5), base, data, levels=5)
    z = Noise(0).normal("planted/noise", (2,), torch.arange(64), dtype=torch.float64)
    for level in torch.tensor(base.sde.level_range, dtype=torch.float64):
        x = data + level * z
        noise = base.predict_noise(x, base.sde.time(level))
        size = matched(x, noise, level.reshape(1, 1)).square().mean().sqrt()
        assert float(size) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("shape", [(4,), (5,), (1, 4, 4)])
def test_any_event_shape(shape):
    dim = math.prod(shape)
    base = Gaussian(torch.zeros(shape), 0.7)
    data = base.sample(64, 0, torch.float64)
    turned = Matched(Turned(Waves(dim, 0.5), right_angle(dim)), base, data)
    field = PlantedField(base, turned, 0.2)
    assert field.score(data, 0.5).shape == data.shape
    (found,) = relative_asymmetry(field, base, Protocol((0.5,), n=16)).estimates
    assert found.value > 10 * found.standard_error
    r = right_angle(dim)
    assert torch.equal(r, -r.T)
    square = -torch.eye(dim, dtype=torch.float64)
    square[dim // 2 * 2 :] = 0
    assert torch.equal(r @ r, square)


def test_waves_are_a_function_of_their_seed_and_of_size_one():
    x = 100 * Noise(0).normal("x", (6,), torch.arange(4096), dtype=torch.float64)
    level = torch.ones(1, 1, dtype=torch.float64)
    first, second, other = (Waves(6, 0.5, seed=s)(x, x, level) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)
    # At points far apart on the scale of the waves the phases are as if uniform.
    assert float(first.square().mean().sqrt()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Band(1.0, 1.0), "a band has 0 <= low < high"),
        (lambda: Band(width=0.0), "width of a band's edges must be positive"),
        (lambda: Radial(0.0), "the scale of a perturbation must be positive"),
        (lambda: Waves(2, 0.5, count=0), "the count of waves must be a positive integer"),
        (lambda: Turned(Radial(1.0), torch.eye(2)), "turned by a skew matrix"),
        (lambda: right_angle(1), "a rotation needs two dimensions"),
        (lambda: PlantedField(TRUTH, Radial(1.0), math.nan), "a dose must be finite"),
        (lambda: Matched(Radial(1.0), TRUTH, torch.zeros(4, 2), levels=3), "4 noise levels"),
        (
            lambda: Matched(Turned(Radial(1.0), torch.zeros(2, 2)), TRUTH, torch.ones(4, 2)),
            "vanishes at a noise level",
        ),
    ],
)
def test_a_perturbation_names_the_setting_that_it_refuses(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_radial_error_has_the_length_of_its_definition():
    """With the legs 1.2 and 0.5 of a right-angled triangle, x over 1.3."""
    x, level = torch.tensor([[2.6, -1.3]], dtype=torch.float64), torch.tensor([[1.2]])
    found = Radial(0.5)(x, torch.zeros_like(x), level.double())
    torch.testing.assert_close(found, torch.tensor([[2.0, -1.0]], dtype=torch.float64))

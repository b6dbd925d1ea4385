"""Latent codes: of a normal law they are an affine map of the points."""

import math

import pytest
import torch

from scorefield import EDM, VE, VP, Gaussian, GaussianMixture, SubVP
from scorefield.noise import Noise
from scorefield.samplers.latent import decode, encode, interpolate, round_trip, temper

SDES = [EDM(), VE(prior_mean=0.4), VP(t_min=1e-3), SubVP(t_min=1e-2)]
COVARIANCE = [[1.0, 0.6, 0.0], [0.6, 0.5, 0.1], [0.0, 0.1, 0.3]]


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
def test_of_a_normal_law_they_are_an_affine_map(sde):
    field = Gaussian(torch.full((3,), 0.2), covariance=COVARIANCE, sde=sde)
    a0, a1 = sde.alpha(torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)).tolist()
    x = field.sample(6, 0, torch.float64)
    exact = field.flow(a0 * x, sde.t_min, sde.t_max)
    scale = float(exact.abs().max())
    code = encode(field, x, 1e-9, 1e-9)
    torch.testing.assert_close(code.x, exact, rtol=0, atol=1e-6 * scale)
    back = decode(field, code.x, 1e-9, 1e-9)
    torch.testing.assert_close(back.x, x, rtol=0, atol=1e-5)
    assert bool(code.solution.arrived.all())
    # Affine: the code of a midpoint is the midpoint of the codes.
    middle = encode(field, x[:1] / 2 + x[1:2] / 2, 1e-9, 1e-9).x
    torch.testing.assert_close(middle, code.x[:2].mean(0, keepdim=True), rtol=0, atol=1e-5 * scale)
    assert a1 > 0


def test_a_round_trip_comes_back_the_closer_the_finer_the_tolerance():
    field = GaussianMixture.ring(sde=EDM())
    x = field.sample(16, 0, torch.float64, 0.01)
    found = [round_trip(field, x, tol, tol) for tol in (1e-4, 1e-7)]
    assert found[1].value < 0.01 * found[0].value
    assert found[1].value < 1e-4
    assert found[0].settings["calls"] < found[1].settings["calls"]
    assert found[0].n == 16


def test_a_code_does_not_know_its_batch():
    field = GaussianMixture.ring(sde=VP(t_min=1e-3))
    x = field.sample(9, 0, torch.float64)
    whole = encode(field, x).x
    alone = torch.cat([encode(field, row).x for row in x.split(1)])
    torch.testing.assert_close(alone, whole, rtol=1e-10, atol=1e-12)


def test_between_codes_of_one_length_every_code_has_it():
    z = Noise(0).normal("z", (2, 3, 3), torch.arange(2), dtype=torch.float64)
    a, b = (v / v.norm() * 7 for v in z)
    path = interpolate(a, b, 9)
    torch.testing.assert_close(path.flatten(1).norm(dim=1), torch.full((9,), 7.0).double())
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)
    # Even steps on a great circle.
    steps = (path[1:] * path[:-1]).flatten(1).sum(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(8))
    linear = interpolate(a, b, 9, "linear")
    torch.testing.assert_close(linear[4], (a + b) / 2)
    assert float(linear[4].norm()) < 6


def test_lengths_change_evenly_and_about_a_center():
    a, b, c = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([5.0, -2.0])
    path = interpolate(a + c, b + c, 5, center=c)
    torch.testing.assert_close((path - c).norm(dim=1), torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0]))


def test_degenerate_codes_are_defined():
    a, zero = torch.tensor([0.0, 2.0, 0.0]), torch.zeros(3)
    opposite = interpolate(a, -a, 5)
    torch.testing.assert_close(opposite.norm(dim=1), torch.full((5,), 2.0))
    torch.testing.assert_close(opposite[0], a)
    torch.testing.assert_close(opposite[-1], -a, rtol=0, atol=1e-6)
    torch.testing.assert_close(interpolate(a, zero, 3)[1], a / 2)
    torch.testing.assert_close(interpolate(zero, zero, 3), torch.zeros(3, 3))
    torch.testing.assert_close(interpolate(a, a, 3), a.expand(3, 3))
    torch.testing.assert_close(interpolate(a, 3 * a, 3)[1], 2 * a)
    scalar = torch.tensor(1.0)
    torch.testing.assert_close(interpolate(scalar, 3 * scalar, 3), torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="no circle"):
        interpolate(scalar, -scalar, 3)


def test_between_nearly_parallel_codes_the_way_is_straight():
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = torch.tensor([1.0, 8e-7], dtype=torch.float64)
    tau = torch.linspace(0, 1, 5, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(interpolate(a, b, 5), a + tau * (b - a), rtol=0, atol=1e-12)


def test_temperature_is_that_of_the_law():
    sde = VE(prior_mean=(0.5, -1.0, 2.0))
    field = Gaussian(torch.zeros(3, 2), 0.5, sde=sde)
    prior = sde.prior(field.domain)
    z = prior.sample(Noise(0), torch.arange(20_000), torch.float64)
    center = prior.center(z)
    assert center.shape == (3, 1)
    cool = temper(z, 0.25, center)
    torch.testing.assert_close(cool.mean(0), center.expand(3, 2), rtol=0, atol=1.5)
    std = (cool - center).square().mean().sqrt()
    assert float(std) == pytest.approx(25.0, rel=0.02)
    torch.testing.assert_close(temper(z, 1.0, center), z)
    torch.testing.assert_close(temper(z, 0.0, center), center.expand_as(z))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f, x: encode(f, x[:, :1]), "x must have the event shape"),
        (lambda f, x: decode(f, x.long()), "x must be floating-point numbers"),
        (lambda f, x: encode(f, x * math.nan), "2 of 2 points are not, the first is nan at"),
        (lambda f, x: encode(f, x, rtol=0.0), "rtol must be"),
        (lambda f, x: interpolate(x[0], x[1, :1], 3), "z0 and z1 differ in shape"),
        (lambda f, x: interpolate(x[0], x[1], 1), "n must be an integer of at least 2"),
        (lambda f, x: interpolate(x[0], x[1], 3, "cubic"), "kind must be spherical or linear"),
        (lambda f, x: temper(x, -1.0), "temperature must be"),
    ],
)
def test_codes_name_the_argument_that_they_refuse(unchecked, call, words):
    with pytest.raises(ValueError, match=words):
        call(GaussianMixture.ring(), torch.ones(2, 2))

"""Truths about the five forms of a field."""

import itertools
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scorefield import EDM, PreconditionedField, convert, evaluation_mode
from scorefield.fields.forms import Quantity, affine
from tests.laws.cases import SDES, SHAPES, Wave, normal, times
from tests.planted import Function

QUANTITIES = get_args(Quantity)


@given(
    sde=st.sampled_from(list(SDES.values())),
    shape=st.sampled_from(SHAPES),
    path=st.lists(st.sampled_from(QUANTITIES), min_size=1, max_size=6),
    seed=st.integers(0, 10**9),
)
def test_every_round_trip_is_exact(sde, shape, path, seed):
    n = 12
    t = times(sde, n)
    epsilon, z = normal((n, *shape), "noise", seed), normal((n, *shape), "data", seed)
    x = sde.perturb(z, t, epsilon)
    start = convert(epsilon, x, t, sde, "noise", path[0])
    value = start
    for source, target in itertools.pairwise((*path, path[0])):
        value = convert(value, x, t, sde, source, target)
    rows = (value - start).reshape(n, -1).norm(dim=1) / start.reshape(n, -1).norm(dim=1)
    # The denoiser holds the noise to eps |x| / sigma only, whatever the arithmetic.
    floor = 1e-15 * x.reshape(n, -1).norm(dim=1) / epsilon.reshape(n, -1).norm(dim=1)
    assert (rows <= 1e-12 + floor / sde.noise_level(t)).all()


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_forms_are_what_they_say(name, shape):
    """From the exact noise of one clean point every form has an elementary value."""
    sde, n = SDES[name], 8
    t = times(sde, n)
    clean, epsilon = normal((n, *shape), "data"), normal((n, *shape), "noise")
    x = sde.perturb(clean, t, epsilon)
    column = t.reshape(-1, *(1,) * len(shape))
    score = -epsilon / sde.sigma(column)
    drift, g2 = sde.drift(column), sde.diffusion_squared(column)
    expected = {
        "score": score,
        "denoiser": clean,
        "noise": epsilon,
        "velocity": sde.alpha_dot(column) * clean + sde.sigma_dot(column) * epsilon,
        "drift": drift * x - g2 * score,
    }
    for quantity in QUANTITIES:
        value = convert(epsilon, x, t, sde, "noise", quantity)
        torch.testing.assert_close(value, expected[quantity], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0.3, torch.tensor(0.3), torch.tensor([0.3]), torch.full((4,), 0.3)])
def test_one_time_serves_all_points(t):
    x, s = normal((4, 2), "x").float(), normal((4, 2), "s").float()
    expected = convert(s, x, torch.full((4,), 0.3), EDM(), "score", "denoiser")
    assert torch.equal(convert(s, x, t, EDM(), "score", "denoiser"), expected)


@pytest.mark.parametrize("t", [torch.ones(3), torch.ones(4, 1)])
def test_other_numbers_of_times_are_errors(t):
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="4 points need one time or as many"):
        convert(x, x, t, EDM(), "score", "denoiser")


def test_an_unknown_form_is_an_error_that_names_the_five(unchecked):
    with pytest.raises(ValueError, match="score, denoiser, noise, velocity, drift"):
        affine(torch.zeros(1, 2), 1.0, EDM(), "speed")


def test_a_field_without_a_potential_says_so():
    field = PreconditionedField(Wave((2,)), EDM(), sigma_data=1.0)
    assert not field.has_potential
    with pytest.raises(TypeError, match="PreconditionedField has no potential"):
        field.potential(torch.zeros(1, 2), 1.0)


def test_evaluation_restores_every_module_even_after_an_error():
    net = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout()))
    net[1].eval()
    before = [m.training for m in net.modules()]
    within = []

    def fail():
        with evaluation_mode(net):
            within.extend(m.training for m in net.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert within == [False] * 4
    assert [m.training for m in net.modules()] == before


def test_a_field_is_known_by_its_score_alone():
    field = Function(lambda x, t: -x)
    x = normal((3, 2), "x")
    torch.testing.assert_close(field.denoise(x, 0.5), x - 0.25 * x)
    torch.testing.assert_close(field.predict_noise(x, 0.5), 0.5 * x)
    torch.testing.assert_close(field.velocity(x, 0.5), 0.5 * x)
    torch.testing.assert_close(field.drift(x, 0.5), x)
    assert torch.equal(field(x, 0.5), -x)

"""End points of the probability flow, against closed forms and the original's own."""

import numpy as np
import pytest
import torch

from scorefield import VE, VP, Gaussian
from scorefield.samplers.ode import ProbabilityFlow
from tests.conformance.reference import load, meta, tensor

SDES = {"ode_ve": VE, "ode_vp": VP}


@pytest.fixture(params=list(SDES))
def case(request):
    arrays, eps = load(request.param), meta(request.param)["eps"]
    sde = SDES[request.param](t_min=eps)
    return arrays, Gaussian(tensor(arrays["mu"]), float(arrays["sigma0"]), sde=sde)


def end(case, tol, denoise, dtype=torch.float64):
    arrays, field = case
    states = []
    start = tensor(arrays["x_T"])
    method = ProbabilityFlow(tol, tol, denoise=denoise)
    x = method.sample(field, start=start, dtype=dtype, callback=states.append)
    if not denoise:
        x = x * float(field.sde.alpha(torch.tensor(field.sde.t_min, dtype=torch.float64)))
    return x.numpy(), states[-1].solution


@pytest.mark.parametrize("tol", [1e-5, 1e-7, 1e-10])
def test_they_are_the_closed_form_within_the_tolerance(case, tol):
    found, solution = end(case, tol, denoise=False)
    assert np.abs(found - case[0]["x_eps_analytic"]).max() < 10 * tol
    assert np.abs(found - case[0]["x_eps_numeric_rtol1e11"]).max() < 10 * tol
    assert bool(solution.arrived.all())


def test_they_are_the_originals_within_its_tolerance_and_take_fewer_calls(case):
    arrays, _ = case
    found, solution = end(case, 1e-5, denoise=False)
    theirs = np.abs(arrays["ref_f32_rtol1e-5"] - arrays["x_eps_analytic"]).max()
    assert np.abs(found - arrays["ref_f32_rtol1e-5"]).max() < theirs + 1e-5
    assert int(solution.calls.max()) < 0.7 * int(arrays["ref_nfe"])


def test_in_single_precision_they_are_as_good(case):
    arrays, _ = case
    found, _ = end(case, 1e-5, denoise=False, dtype=torch.float32)
    theirs = np.abs(arrays["ref_f32_rtol1e-5"] - arrays["x_eps_analytic"]).max()
    assert np.abs(found - arrays["x_eps_analytic"]).max() < max(theirs, 1e-4)


def test_their_denoising_is_tweedies_up_to_the_first_step_of_their_table(case):
    # They take one reverse-diffusion step, whose table has its own least noise level.
    found, _ = end(case, 1e-8, denoise=True)
    assert np.abs(found - case[0]["ref_f32_rtol1e-5_denoised"]).max() < 1e-4

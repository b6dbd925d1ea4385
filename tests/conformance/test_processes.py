"""Processes, their steps and their tables against recorded values of the score_sde code."""

import pytest
import torch

from scorefield import VE, VP, DiscreteVP, Gaussian, SubVP
from scorefield.domain import Euclidean
from scorefield.sde.discrete import DDPMSteps, EulerForward, SMLDSteps
from scorefield.sde.tables import alphas, alphas_cumprod, betas, level_index, sigmas
from tests.conformance import reference

LEVELS = 1000
CASES = {
    "ve": (VE(0.01, 50.0), SMLDSteps(LEVELS)),
    "vp": (VP(0.1, 20.0), DDPMSteps(LEVELS)),
    "subvp": (SubVP(0.1, 20.0), EulerForward(LEVELS)),
}


@pytest.fixture(params=CASES)
def case(request):
    """A process, the steps that its networks are sampled with, and the recorded values."""
    return *CASES[request.param], reference.load(f"sde_{request.param}")


def read(arrays, *names):
    found = tuple(reference.tensor(arrays[name], torch.float64) for name in names)
    return found if len(found) > 1 else found[0]


def column(values):
    return values[:, None, None, None]


def close(actual, expected, tol=1e-8):
    torch.testing.assert_close(actual, expected, rtol=tol, atol=tol)


def truth(arrays, sde):
    return Gaussian(read(arrays, "mu"), float(arrays["sigma0"]), sde=sde)


def test_marginals(case):
    sde, _, arrays = case
    t, x = read(arrays, "t", "x")
    close(sde.alpha(t), read(arrays, "mean_coeff"))
    close(sde.sigma(t), read(arrays, "std"))
    close(sde.perturb(x, t, torch.zeros_like(x)), read(arrays, "mean"))


def test_drift_and_diffusion(case):
    sde, _, arrays = case
    t, x = read(arrays, "t", "x")
    close(column(sde.drift(t)) * x, read(arrays, "drift"))
    close(sde.diffusion(t), read(arrays, "diffusion"))


def test_steps(case):
    sde, steps, arrays = case
    t, x = read(arrays, "t", "x")
    step = steps.step(sde, t, None)
    close((column(step.factor) - 1) * x, read(arrays, "disc_f"))
    close(step.std, read(arrays, "disc_G"))


def test_the_prior(case):
    sde, _, arrays = case
    z = read(arrays, "z")
    close(sde.prior(Euclidean((3, 4, 4))).log_prob(z), read(arrays, "prior_logp_z"))


def test_the_reverse_process(case):
    sde, steps, arrays = case
    t, x, score = read(arrays, "t", "x", "score")
    field = truth(arrays, sde)
    close(field.score(x, t), score)
    close(field.drift(x, t), read(arrays, "rev_drift"))
    close(field.velocity(x, t), read(arrays, "pf_drift"))
    close(sde.diffusion(t), read(arrays, "rev_diffusion"))
    step = steps.step(sde, t, None)
    forward, variance = (column(step.factor) - 1) * x, column(step.std) ** 2
    close(forward - variance * score, read(arrays, "rev_disc_f"))
    close(forward - 0.5 * variance * score, read(arrays, "pf_disc_f"))
    close(step.std, read(arrays, "rev_disc_G"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_time_of_the_grid_belongs_to_its_level(case, dtype):
    _, _, arrays = case
    found = level_index(reference.tensor(arrays["sampler_t_grid"]).to(dtype), LEVELS)
    assert torch.equal(found, reference.tensor(arrays["sampler_timestep_index"]))
    # Their grid, made in this precision.
    grid = torch.linspace(1, float(arrays["sampler_eps"]), LEVELS, dtype=dtype)
    assert torch.equal(level_index(grid, LEVELS), torch.arange(LEVELS - 1, -1, -1))


def test_float32_is_as_near_to_float64_as_rounding_lets_it(case):
    """Theirs loses up to a hundredth near time 0, to 1 - exp; no digit of ours goes there."""
    sde, steps, arrays = case
    t, x = read(arrays, "t", "x")
    t, x = t.float(), x.float()
    step = steps.step(sde, t, None)
    ours = {
        "std": sde.sigma(t),
        "diffusion": sde.diffusion(t),
        "disc_G": step.std,
        "disc_f": (column(step.factor) - 1) * x,
    }
    for name, value in ours.items():
        assert value.dtype == torch.float32
        theirs, exact = read(arrays, f"f32_{name}", name)
        close(value.double(), exact, 2e-6)
        assert ((value - theirs).abs() <= (theirs - exact).abs() + 2e-6 * exact.abs() + 2e-6).all()


def test_the_table_of_smld():
    arrays = reference.load("sde_ve")
    close(sigmas(0.01, 50.0, LEVELS), read(arrays, "discrete_sigmas"))
    theirs = read(arrays, "f32_discrete_sigmas")
    torch.testing.assert_close(sigmas(0.01, 50.0, LEVELS), theirs, rtol=2e-6, atol=0)
    step = SMLDSteps(LEVELS).table(VE(0.01, 50.0))
    close(step.sigma_to, read(arrays, "discrete_sigmas"))


def test_the_tables_of_ddpm():
    arrays, rates = reference.load("sde_vp"), (0.1, 20.0, LEVELS)
    close(betas(*rates), read(arrays, "discrete_betas"), 1e-14)
    close(alphas(*rates), read(arrays, "alphas"), 1e-14)
    close(alphas_cumprod(*rates), read(arrays, "alphas_cumprod"), 1e-12)
    step = DDPMSteps(LEVELS).table(VP(0.1, 20.0))
    close(step.sigma_to, read(arrays, "sqrt_1m_alphas_cumprod"), 1e-12)
    t = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    process = DiscreteVP(0.1, 20.0, levels=LEVELS)
    close(process.alpha(t), read(arrays, "sqrt_alphas_cumprod"), 1e-12)
    close(process.sigma(t), read(arrays, "sqrt_1m_alphas_cumprod"), 1e-12)

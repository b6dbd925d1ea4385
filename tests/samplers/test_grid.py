import pytest
import torch

from scorefield.samplers import karras_levels
from scorefield.samplers.grid import at_levels
from scorefield.sde import EDM, VE, VP, Cosine, SubVP

PROCESSES = [EDM(), VE(), VP(), SubVP(), Cosine()]


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
def test_levels_descend_from_the_highest_to_the_lowest_and_then_to_zero(sde):
    levels = karras_levels(sde, 18)
    assert levels.shape == (19,)
    assert levels.dtype == torch.float64
    assert (levels.diff() < 0).all()
    assert levels[[0, -2, -1]].tolist() == [sde.sigma_max, sde.sigma_min, 0.0]


def test_levels_are_evenly_spaced_after_the_root():
    levels = karras_levels(EDM(0.01, 50.0), 11, rho=5.0)[:-1] ** (1 / 5)
    assert torch.allclose(levels.diff(), levels.diff().mean(), rtol=1e-12)
    uniform = karras_levels(EDM(0.01, 50.0), 11, rho=1.0)[:-1]
    assert torch.allclose(uniform.diff(), uniform.diff().mean(), rtol=1e-12)


def test_one_step_goes_straight_to_zero():
    assert karras_levels(EDM(0.01, 50.0), 1).tolist() == [50.0, 0.0]


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
def test_times_and_coefficients_belong_to_their_levels(sde):
    levels = karras_levels(sde, 9)[:-1]
    at = at_levels(levels, sde, torch.zeros(3, dtype=torch.float64))
    times = torch.stack(list(at.time))
    assert torch.allclose(sde.noise_level(times), levels, rtol=1e-9)
    assert torch.allclose(sde.alpha(times), torch.tensor(at.alpha, dtype=torch.float64))


@pytest.mark.parametrize("steps", [0, -3, True])
def test_the_number_of_steps_is_a_positive_integer(steps):
    with pytest.raises(ValueError, match="positive integer number of steps"):
        karras_levels(EDM(), steps)


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan")])
def test_rho_is_positive(rho):
    with pytest.raises(ValueError, match="rho"):
        karras_levels(EDM(), 4, rho)

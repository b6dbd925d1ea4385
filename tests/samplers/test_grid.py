import pytest
import torch

from scorefield import EDM, VE, VP, Cosine, SubVP
from scorefield.samplers.grid import grid_times, karras_levels
from scorefield.samplers.step import level

PROCESSES = [EDM(), VE(), VP(), SubVP(), Cosine()]


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
def test_levels_descend_from_the_highest_to_the_lowest_and_then_to_zero(sde):
    levels = karras_levels(sde, 18)
    assert levels.shape == (19,)
    assert levels.dtype == torch.float64
    assert (levels.diff() < 0).all()
    assert levels[[0, -2, -1]].tolist() == [*sde.level_range[::-1], 0.0]


def test_levels_end_where_the_process_begins():
    sde = VE(0.01, 50.0, t_min=0.2)
    times = sde.time(karras_levels(sde, 8)[:-1])
    assert float(times[-1]) == pytest.approx(0.2, abs=1e-12)
    assert torch.allclose(times, grid_times(sde, 8, "karras"), rtol=0, atol=1e-12)


def test_levels_are_evenly_spaced_after_the_root():
    levels = karras_levels(EDM(0.01, 50.0), 11, rho=5.0)[:-1] ** (1 / 5)
    assert torch.allclose(levels.diff(), levels.diff().mean(), rtol=1e-12)
    uniform = karras_levels(EDM(0.01, 50.0), 11, rho=1.0)[:-1]
    assert torch.allclose(uniform.diff(), uniform.diff().mean(), rtol=1e-12)


def test_one_step_goes_straight_to_zero():
    assert karras_levels(EDM(0.01, 50.0), 1).tolist() == [50.0, 0.0]


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
def test_coefficients_belong_to_their_times(sde):
    levels, times = karras_levels(sde, 9)[:-1], grid_times(sde, 9)
    at = [level(sde, t) for t in times.tolist()]
    assert torch.allclose(torch.tensor([a.sigma for a in at], dtype=levels.dtype), levels)
    assert torch.allclose(sde.alpha(times), torch.tensor([a.alpha for a in at], dtype=levels.dtype))
    assert level(sde, None) == (1.0, 0.0)


@pytest.mark.parametrize("steps", [0, -3, True])
def test_the_number_of_steps_is_a_positive_integer(steps):
    with pytest.raises(ValueError, match="steps must be a positive integer"):
        karras_levels(EDM(), steps)


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan")])
def test_rho_is_positive(rho):
    with pytest.raises(ValueError, match="rho"):
        karras_levels(EDM(), 4, rho)


@pytest.mark.parametrize("spacing", ["karras", "time", "logsnr"])
@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
class TestTimes:
    def test_they_descend_from_the_first_to_the_last(self, sde, spacing):
        t_end = 0.9 * sde.t_min + 0.1 * sde.t_max
        for end in (None, t_end):
            times = grid_times(sde, 18, spacing, end)
            assert times.shape == (18,)
            assert times.dtype == torch.float64
            assert (times.diff() < 0).all()
            assert times[0] == sde.t_max
            assert times[-1] == (sde.t_min if end is None else end)

    def test_what_is_named_is_evenly_spaced(self, sde, spacing):
        times = grid_times(sde, 12, spacing, rho=3.0)
        level = sde.noise_level(times)
        even = {"karras": level ** (1 / 3), "time": times, "logsnr": level.log()}[spacing]
        assert torch.allclose(even.diff(), even.diff().mean(), rtol=1e-6)

    def test_one_time_is_the_first(self, sde, spacing):
        assert grid_times(sde, 1, spacing).tolist() == [sde.t_max]


def test_karras_times_are_those_of_its_levels():
    times = grid_times(VP(), 9, "karras", rho=5.0)
    assert torch.allclose(VP().noise_level(times), karras_levels(VP(), 9, rho=5.0)[:-1], rtol=1e-9)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"steps": 3, "spacing": "even"}, "spacing is one of karras, time, logsnr"),
        ({"steps": 3, "rho": -1.0}, "rho"),
        ({"steps": 3, "t_end": 1.0}, "t_end must lie in"),
        ({"steps": 3, "t_end": 0.0}, "t_end must lie in"),
    ],
)
def test_a_grid_that_there_is_not_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        grid_times(VP(), **settings)

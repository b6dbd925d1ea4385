"""Trajectories whose length and curvature are known."""

import math
import statistics

import pytest
import torch

from scorefield import EDM, VP, Euler, Gaussian, Heun
from scorefield.samplers.trajectory import Trajectory
from tests.planted import Function


def turning(sde, levels, angle):
    """The predicted noise has length one and turns by a fixed angle from one level to the next."""

    def score(x, t):
        level = sde.noise_level(t.double().reshape(-1, 1))
        turn = angle * (levels - level).abs().argmin(dim=1)
        noise = torch.stack((torch.cos(turn), torch.sin(turn)), dim=1).to(x)
        return (-noise / sde.sigma(t.to(x)).reshape(-1, 1)).expand_as(x)

    return Function(score, sde=sde)


@pytest.mark.parametrize("sde", [EDM(sigma_min=0.01, sigma_max=40.0), VP()])
def test_a_point_mass_is_reached_on_straight_lines(sde):
    """Noise around one point flows straight to it: the length is the distance from the start."""
    target = Gaussian(torch.zeros(2), 1e-6, sde=sde)
    seen = Trajectory(target, Heun(steps=12), 256, seed=3)
    start = sde.sigma_max * math.sqrt(math.pi / 2)  # the mean length of a normal vector
    assert abs(seen.length.value - start) < 6 * seen.length.standard_error
    assert seen.curvature.value == pytest.approx(0.0, abs=1e-6)


def test_a_field_that_turns_by_an_angle_has_that_curvature():
    sde = EDM(sigma_min=0.01, sigma_max=40.0)
    steps, angle = 10, 0.3
    from scorefield.samplers.grid import karras_levels

    levels = karras_levels(sde, steps)[:-1]
    seen = Trajectory(turning(sde, levels, angle), Euler(steps=steps), 16, seed=0)
    assert seen.curvature.value == pytest.approx(1 - math.cos(angle), rel=1e-4)
    # Each step is as long as the noise level falls.
    assert seen.length.value == pytest.approx(40.0, rel=1e-5)


def test_watching_changes_no_sample(monkeypatch):
    sde = VP()
    target = Gaussian(torch.ones(2), 0.5, sde=sde)
    sampler = Heun(steps=6, churn=2.0)
    seen = Trajectory(target, sampler, 5000, seed=7)
    assert torch.equal(seen.samples, sampler.sample(target, 5000, 7))
    assert seen.length.n == 5000  # more than one block


def test_one_step_has_a_length_and_no_curvature():
    target = Gaussian(torch.zeros(2), 1.0, sde=EDM())
    seen = Trajectory(target, Euler(steps=1), 8, seed=0)
    assert seen.curvature is None
    assert seen.latency is None
    assert seen.length.value > 0
    assert Trajectory(target, Euler(steps=8), 8, seed=0).latency.standard_error > 0


def test_latency_is_the_time_of_all_steps_with_the_scatter_of_one(monkeypatch):
    """On a clock that only the network moves, by 1 s and 3 s in turn: the scatter of a step is that
    of these, and grows with the root of the number of steps.
    """
    clock, calls, steps = [100.0], [0], 10

    def score(x, t):
        clock[0] += 1.0 if calls[0] % 2 == 0 else 3.0
        calls[0] += 1
        return -x

    monkeypatch.setattr("scorefield.samplers.trajectory.time.perf_counter", lambda: clock[0])
    seen = Trajectory(Function(score, sde=EDM()), Euler(steps=steps), 4, seed=0)
    durations = [1.0, 3.0] * (steps // 2)
    # The last step is no measurement, since it is shorter for some samplers.
    scatter = statistics.stdev(durations[: steps - 1])
    assert seen.latency.value == sum(durations)
    assert seen.latency.standard_error == pytest.approx(math.sqrt(steps - 1) * scatter)

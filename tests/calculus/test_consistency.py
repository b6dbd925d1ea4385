import itertools
import math

import pytest
import torch

from scorefield import (
    EDM,
    VE,
    VP,
    Cosine,
    Gaussian,
    GaussianMixture,
    PseudoAtoms,
    ReverseDiffusion,
    ScoreField,
)
from scorefield.calculus.consistency import kernel_target, martingale_target, reverse_trajectory
from scorefield.domain import Torus
from scorefield.noise import Noise
from scorefield.sde.discrete import Exact
from tests.planted import Function, Watched

PROCESSES = [EDM(0.01, 20.0), VE(0.01, 20.0), VP(), Cosine()]
ATOMS = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=VE(0.001, 0.5))


def grid(sde, high, low, steps):
    """Times between two noise levels, evenly spaced in the logarithm of the level."""
    ends = math.log(high), math.log(low)
    return sde.time(torch.linspace(*ends, steps + 1, dtype=torch.float64).exp())


def affine(field, times):
    """The factor and the variance of what the steps of a linear field without offset do."""
    steps = len(times) - 1
    x, z = torch.zeros(1 + steps, 1).double(), torch.zeros(steps, 1 + steps, 1).double()
    x[0] = 1.0
    for k in range(steps):
        z[k, 1 + k] = 1.0
    end = reverse_trajectory(field, x, times.unsqueeze(1).expand(-1, 1 + steps), z)[-1]
    return float(end[0]), float(end[1:].square().sum())


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("std", [0.3, 2.0])
def test_the_law_of_the_end_is_the_posterior_to_first_order_in_the_step(sde, std):
    """Of normal data, x_e given x_s is normal with factor f V_e / V_s and variance
    (V_s - f^2 V_e) V_e / V_s, where V = alpha^2 std^2 + sigma^2. Errors halve with the step; that
    of the mean is none where the process keeps the mean of the data."""
    field = Gaussian(torch.zeros(1), std=std, sde=sde)
    errors = []
    for steps in (32, 64, 128):
        times = grid(sde, 1.0, 0.25, steps)
        found = affine(field, times)
        s, e = times[0], times[-1]
        spread = [float((sde.alpha(t) * std) ** 2 + sde.sigma(t) ** 2) for t in (s, e)]
        factor = float(sde.alpha(s) / sde.alpha(e))
        mean = factor * spread[1] / spread[0]
        variance = (spread[0] - factor**2 * spread[1]) * spread[1] / spread[0]
        errors.append([abs(found[0] - mean), abs(found[1] - variance)])
    means, variances = zip(*errors, strict=True)
    for found in (variances,) if sde.keeps_mean else (means, variances):
        assert all(1.9 < a / b < 2.1 for a, b in itertools.pairwise(found))
    assert means[-1] < (1e-12 if sde.keeps_mean else 0.02)
    assert variances[-1] < 0.02


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda s: type(s).__name__)
def test_a_step_is_that_of_reverse_diffusion(sde):
    field, t = GaussianMixture.ring(sde=sde), grid(sde, 1.0, 0.6, 1)
    x, z = (Noise(0).normal(p, (2,), torch.arange(5), dtype=torch.float64) for p in "xz")
    step = ReverseDiffusion().reverse(sde, t[0], t[1], Exact())
    expected = step.mean(x, field.score(x, t[0])) + step.spread * z
    found = reverse_trajectory(field, x, t.unsqueeze(1).expand(-1, 5), z.unsqueeze(0))[0]
    torch.testing.assert_close(found, expected)


def test_each_trajectory_has_times_of_its_own():
    """A batch is as good as one after the other, and the states are those on the way."""
    field = GaussianMixture.ring(sde=VP())
    index = torch.arange(3)
    x = Noise(0).normal("x", (2,), index, dtype=torch.float64)
    z = Noise(0).normal("z", (4, 2), index, dtype=torch.float64).transpose(0, 1)
    times = torch.stack([grid(VP(), high, 0.1, 4) for high in (0.5, 1.0, 2.0)], dim=1)
    states = reverse_trajectory(field, x, times, z)
    for k in range(3):
        alone = reverse_trajectory(field, x[k : k + 1], times[:, k : k + 1], z[:, k : k + 1])
        torch.testing.assert_close(states[:, k : k + 1], alone)
    later = reverse_trajectory(field, states[1], times[2:], z[2:])
    torch.testing.assert_close(later, states[2:])


def test_a_known_first_score_is_not_asked_again():

    field = Watched(GaussianMixture(torch.eye(2), stds=0.3))
    x, z = torch.ones(5, 2).double(), torch.zeros(3, 5, 2).double()
    times = grid(field.sde, 1.0, 0.5, 3).unsqueeze(1).expand(-1, 5)
    plain = reverse_trajectory(field, x, times, z)
    assert [len(x) for x in field.points] == [5, 5, 5]
    known = reverse_trajectory(field, x, times, z, first=field.score(x, times[0]))
    torch.testing.assert_close(known, plain)
    assert [len(x) for x in field.points] == [5] * 6


def test_on_a_torus_trajectories_go_round_and_the_field_is_asked_inside():
    drift = Function(
        lambda x, t: torch.full_like(x, 40.0), sde=VE(0.01, 1.0), domain=Torus((2,), 1.0)
    )
    field = Watched(drift)
    x = torch.full((1, 2), 0.9, dtype=torch.float64)
    times = grid(field.sde, 0.8, 0.1, 6).unsqueeze(1)
    end = reverse_trajectory(field, x, times, torch.zeros(6, 1, 2).double())[-1]
    torch.testing.assert_close(end, x + 40 * (0.8**2 - 0.1**2))
    y = martingale_target(field, x, times[0], end, times[-1])
    torch.testing.assert_close(y, torch.full_like(x, 40 * 0.8))
    seen = torch.cat(field.points)
    assert len(seen) == 7
    assert bool(((seen >= 0) & (seen < 1)).all())


def test_trajectories_have_no_gradient_and_martingales_have():
    class Scaled(ScoreField):
        def __init__(self):
            super().__init__(EDM(), Gaussian(torch.zeros(2), 1.0).domain)
            self.weight = torch.nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))

        def score(self, x, t, classes=None):
            return self.weight * x

    field, x = Scaled(), torch.ones(3, 2).double()
    times = grid(field.sde, 1.0, 0.5, 2).unsqueeze(1).expand(-1, 3)
    end = reverse_trajectory(field, x, times, torch.zeros(2, 3, 2).double())[-1]
    assert not end.requires_grad
    martingale_target(field, x, times[0], end, times[-1]).sum().backward()
    assert float(field.weight.grad) != 0


def pairs(target, s, e, n):
    """Points at two times of the forward process; those of a torus in its covering space."""
    noise, index = Noise(3), torch.arange(n)
    x_0 = target.draw(noise, index, dtype=torch.float64)
    s, e = (torch.full((n,), t, dtype=torch.float64) for t in (s, e))
    z = noise.normal("early", target.domain.shape, index, dtype=torch.float64)
    x_e = target.sde.perturb(x_0, e, z)
    factor, std = (c.reshape(-1, *(1,) * (x_0.dim() - 1)) for c in target.sde.transition(e, s))
    z = noise.normal("late", target.domain.shape, index, dtype=torch.float64)
    return factor * x_e + std * z, s, x_e, e


@pytest.mark.parametrize("kind", [kernel_target, martingale_target])
@pytest.mark.parametrize(
    ("target", "s", "e"),
    [
        (GaussianMixture.ring(sde=EDM()), 1.0, 0.6),
        (GaussianMixture.ring(sde=VP()), 0.5, 0.3),
        (ATOMS, 0.95, 0.7),
        (ATOMS, 0.75, 0.6),
    ],
    ids=["EDM", "VP", "atoms late", "atoms early"],
)
def test_the_mean_of_a_target_is_the_score_in_units_of_the_noise(kind, target, s, e):
    """Over the forward process, which knows no steps, the error of a target is at a right angle
    to whatever depends on x_s."""
    x_s, s, x_e, e = pairs(target, s, e, 4_000)
    inside = target.domain.wrap(x_s)
    score = -target.predict_noise(inside, s)
    error = kind(target, x_s, s, x_e, e) - score
    for test in (torch.ones_like(score), score, torch.sin(2 * math.pi * inside), score**2):
        product = (error * test).flatten(1).mean(dim=1)
        z = product.mean() / (product.std() / len(product) ** 0.5)
        assert abs(float(z)) < 6


def test_the_residual_of_the_martingale_is_that_of_the_denoiser():
    for target in (GaussianMixture.ring(sde=VP()), ATOMS):
        x_s, s, x_e, e = pairs(target, 0.7, 0.4, 50)
        y = martingale_target(target, x_s, s, x_e, e)
        residual = y + target.predict_noise(target.domain.wrap(x_s), s)
        sde, wrap = target.sde, target.domain.wrap

        def denoise(x, t, field=target, sde=sde, wrap=wrap):
            shape = (-1, *(1,) * (x.dim() - 1))
            score = field.score(wrap(x), t)
            return (x + sde.sigma(t).reshape(shape) ** 2 * score) / sde.alpha(t).reshape(shape)

        expected = denoise(x_e, e) - denoise(x_s, s)
        level = sde.noise_level(s).reshape(-1, *(1,) * (x_s.dim() - 1))
        torch.testing.assert_close(level * residual, expected, rtol=1e-9, atol=1e-10)


def test_kernels_do_not_see_how_often_a_trajectory_went_round():
    x_s, s, x_e, e = pairs(ATOMS, 0.9, 0.5, 50)
    turned = kernel_target(ATOMS, x_s, s, x_e + 3, e)
    torch.testing.assert_close(turned, kernel_target(ATOMS, x_s, s, x_e, e), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("times", "steps", "message"),
    [
        ([1.0, 0.5], 2, "are 1 steps, not 2"),
        ([0.5, 1.0], 1, "descend"),
        ([200.0, 1.0], 1, "must lie in"),
    ],
)
def test_bad_trajectories_are_named(times, steps, message):
    field, x = Gaussian(torch.zeros(2), 1.0, sde=EDM()), torch.ones(1, 2).double()
    times = torch.tensor(times).double().unsqueeze(1)
    with pytest.raises(ValueError, match=message):
        reverse_trajectory(field, x, times, torch.zeros(steps, 1, 2).double())

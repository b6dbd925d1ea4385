"""A loop of one's own over the steps of a sampler, and a sampler of one's own."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch

from scorefield import (
    DDIM,
    EDM,
    VP,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPlusPlus2M,
    Euler,
    Gaussian,
    GaussianMixture,
    GridSampler,
    Heun,
    Inpainting,
    Langevin,
    PreconditionedField,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    StepContext,
    Stepped,
)
from scorefield.noise import Noise
from scorefield.samplers.step import level
from scorefield.samplers.trajectory import Trajectory
from tests.laws.cases import KnownWave

INDEX = torch.arange(6)
CLASSES = torch.tensor([0, 2, 1, 3, 1, 0])
SAMPLERS = [
    Euler(5, churn=1.0),
    Heun(5, churn=1.0),
    DDIM(5, eta=0.5),
    DPMSolverPlusPlus2M(5),
    PredictorCorrector(5, Ancestral(), AnnealedLangevin(0.1, 2)),
    PredictorCorrector(5, None, Langevin(0.1)),
    PredictorCorrector(5, ReverseDiffusion(), Langevin(0.1), first="predictor"),
    PredictorCorrector(5, denoise=False),
]


def by_hand(sampler, field, context):
    """The loop of the documentation."""
    x, done = field.sde.prior(field.domain).sample(context.noise, INDEX, torch.float64), None
    if context.measurement is not None:
        x = context.arrive(x, level(field.sde, field.sde.t_max), field.domain, 0)
    for k, (t, s) in enumerate(pairwise(sampler.times(field.sde))):
        done = sampler.step(field, x, t, s, replace(context, step=k, previous=done))
        x = done.x
    return x


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_loop_over_the_steps_samples(sampler):
    field = PreconditionedField(KnownWave((2,)), VP(), sigma_data=0.7)
    known = Inpainting(torch.tensor([1.0, 0.0]), torch.ones(1, 2, dtype=torch.float64))
    for measurement in (None, known):
        noise = Noise(4)
        context = StepContext(noise, INDEX, classes=CLASSES, measurement=measurement)
        with torch.no_grad():
            x = by_hand(sampler, field, context)
        settings = {"classes": CLASSES, "measurement": measurement, "dtype": torch.float64}
        assert torch.equal(x, sampler.sample(field, 6, seed=noise, **settings))


def test_the_flow_may_be_followed_in_parts():
    truth = GaussianMixture.ring(sde=VP())
    sampler = ProbabilityFlow(1e-8, 1e-8)
    start = truth.sde.prior(truth.domain).sample(Noise(0), INDEX, torch.float64)
    middle = sampler.step(truth, start, truth.sde.t_max, 0.4)
    assert middle.end == 0.4
    end = sampler.step(truth, middle.x, 0.4, None)
    whole = sampler.sample(truth, start=start, dtype=torch.float64)
    torch.testing.assert_close(end.x, whole, rtol=1e-5, atol=1e-5)
    posterior = truth.denoise(middle.x, 0.4)
    torch.testing.assert_close(middle.denoised, posterior, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [Heun(4, churn=1.0), DDIM(4, eta=1.0), PredictorCorrector(4)])
def test_a_step_that_draws_noise_needs_some(sampler):
    truth = GaussianMixture.ring(sde=VP())
    with pytest.raises(ValueError, match=r"draws .* noise: give its StepContext noise and index"):
        sampler.step(truth, torch.ones(2, 2), 0.5, 0.4)


@dataclass(frozen=True)
class Midpoint(GridSampler):
    """The slope in the middle of a step, half way between its noise levels."""

    order = calls = 2

    def step(self, field, x, t, s, at=StepContext()):  # noqa: B008
        here, there = level(field.sde, t), level(field.sde, s)
        half = (here.sigma + there.sigma) / 2
        middle = float(field.sde.time(torch.tensor(half, dtype=torch.float64)))
        scaled, noise = x / here.alpha, field.predict_noise(x, t, at.classes)
        x = level(field.sde, middle).alpha * (scaled + (half - here.sigma) * noise)
        slope = field.predict_noise(x, middle, at.classes)
        x = there.alpha * (scaled + (there.sigma - here.sigma) * slope)
        return Stepped(x, scaled - here.sigma * noise, t, s)


class TestOwn:
    """What a class with an order, its calls and a step can do."""

    def test_its_order(self):
        means = [[1.0, 0.5], [-1.5, 0.2], [0.3, -1.2]]
        truth = GaussianMixture(means, stds=[0.7, 0.9, 0.6], sde=EDM(0.5, 20.0))
        start = truth.sde.prior(truth.domain).sample(Noise(1), torch.arange(16), torch.float64)
        fine = Midpoint(1000).sample(truth, start=start, dtype=torch.float64)
        errors = []
        for steps in (50, 100):
            x = Midpoint(steps).sample(truth, start=start, dtype=torch.float64)
            errors.append(float((x - fine).square().mean().sqrt()))
        assert errors[0] / errors[1] == pytest.approx(2**Midpoint.order, rel=0.15)

    def test_its_network_calls(self):
        assert Midpoint(9).nfe == 18
        assert Midpoint.for_nfe(19) == Midpoint(9)
        assert not Midpoint(9).stochastic
        with pytest.raises(ValueError, match="takes 2 network calls, more than a budget of 1"):
            Midpoint.for_nfe(1)
        with pytest.raises(ValueError, match="steps must be a positive integer"):
            Midpoint(0)

    def test_its_samples_callbacks_and_trajectories(self):
        field = PreconditionedField(KnownWave((2,)), VP(), sigma_data=0.7)
        seen = []
        x = Midpoint(5).sample(field, 7, batch_size=3, classes=1, callback=seen.append)
        assert [(s.block, s.step, s.nfe) for s in seen] == [
            (block, step, 2 * step + 2) for block in range(3) for step in range(5)
        ]
        torch.testing.assert_close(torch.cat([s.x for s in seen[4::5]]), x)
        torch.testing.assert_close(Midpoint(5).sample(field, 7, classes=1), x)
        watched = Trajectory(field, Midpoint(5), 7, 0)
        assert torch.equal(watched.samples, Midpoint(5).sample(field, 7))
        assert watched.length.value > 0

    def test_it_takes_no_measurement_unless_it_says_so(self):
        truth = GaussianMixture.ring(sde=VP())
        known = Inpainting(torch.tensor([1.0, 0.0]), torch.ones(1, 2))
        with pytest.raises(TypeError, match="Midpoint takes no measurement"):
            Midpoint(3).sample(truth, 2, measurement=known)


def test_a_step_of_langevins_by_hand():
    r"""x + eps s, and sqrt(2 eps) z: twice along a Gaussian score, eps = 2 snr² (|z| / |s|)²."""
    field = Gaussian(torch.zeros(2), 1.0, sde=EDM())
    x = torch.tensor([[3.0, 4.0], [0.5, -0.5]], dtype=torch.float64)
    z = torch.tensor([[0.6, 0.8], [-2.0, 0.0]], dtype=torch.float64)
    corrected = Langevin(0.1, 2, norm="sample").correct(field, x, 1.0, 2 * 0.1**2, lambda k: z)
    before = x
    for _ in range(2):
        score = -before / 2
        eps = 2 * 0.1**2 * (z.norm(dim=1) / score.norm(dim=1)).square().unsqueeze(1)
        mean = before + eps * score
        after, last = mean + (2 * eps).sqrt() * z, before
        before = after
    for got, expected in zip(corrected, (after, mean, last, score), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("sde", [EDM(), VP()])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_of_ddim_by_hand(sde, eta):
    r"""The posterior of the forward process at eta = 1 has the variance
    :math:`\tau^2 (\sigma^2 - \tau^2) / \sigma^2` between the levels sigma and tau, of which eta
    takes a part; the rest of tau is kept of the predicted noise.
    """
    field = Gaussian(torch.zeros(2), 1e-9, sde=sde)  # all that is there is noise
    start, end = 0.8, 0.3
    t, s = (float(sde.time(torch.tensor(v, dtype=torch.float64))) for v in (start, end))
    here, there = level(sde, t), level(sde, s)
    x = torch.tensor([[0.3, -0.2], [1.0, 0.5]], dtype=torch.float64)
    context = StepContext(Noise(1), torch.arange(2))
    z = context.normal("ddim", x)
    fresh = eta * end * math.sqrt(1 - (end / start) ** 2)
    kept = math.sqrt(end**2 - fresh**2)
    expected = there.alpha * (kept / start * x / here.alpha + fresh * z)
    done = DDIM(4, eta=eta).step(field, x, t, s, context)
    torch.testing.assert_close(done.x, expected, rtol=1e-6, atol=1e-7)

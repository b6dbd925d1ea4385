"""Truths about straight paths between data and noise."""

import pytest
import torch

from scorefield import (
    DDIM,
    DenoiserPrediction,
    DPMSolverPlusPlus2M,
    GaussianMixture,
    Heun,
    PreconditionedField,
    PredictorCorrector,
    ProbabilityFlow,
    RectifiedFlow,
    TimeLabel,
    UniformTime,
    VelocityPrediction,
    VPrediction,
    log_prob,
)
from scorefield.objectives.denoising import Batch, DenoisingScoreMatching
from tests.laws.cases import Wave, normal, times

FLOW = RectifiedFlow()


def test_the_path_is_straight():
    t, x, z = times(FLOW, 9), normal((9, 2), "x"), normal((9, 2), "z")
    column = t[:, None]
    torch.testing.assert_close(FLOW.perturb(x, t, z), (1 - column) * x + column * z)
    assert FLOW.level_range == pytest.approx((0.001 / 0.999, 999.0))


@pytest.mark.parametrize("kind", [VelocityPrediction, VPrediction, DenoiserPrediction])
def test_at_the_end_of_the_path_all_that_is_finite_is_exact(kind):
    """At time 1 nothing of the data is left: the points are the noise."""
    net, x = Wave((3,)), normal((4, 3), "x")
    field = PreconditionedField(net, FLOW, parametrization=kind(TimeLabel(1)))
    output = net(x, torch.ones(4, dtype=torch.float64))
    data = {VelocityPrediction: x - output, VPrediction: -output, DenoiserPrediction: output}[kind]
    torch.testing.assert_close(field.denoise(x, 1.0), data)
    torch.testing.assert_close(field.predict_noise(x, 1.0), x)
    torch.testing.assert_close(field.score(x, 1.0), -x)
    torch.testing.assert_close(field.velocity(x, 1.0), x - data)


@pytest.mark.parametrize(
    "sampler",
    [Heun(40), DDIM(200), DPMSolverPlusPlus2M(60), ProbabilityFlow(), PredictorCorrector(300)],
    ids=lambda s: type(s).__name__,
)
def test_every_kind_of_sampler_gives_the_law(sampler):
    ring = GaussianMixture.ring(sde=FLOW)
    x = sampler.sample(ring, n=400, seed=1, dtype=torch.float64)
    expected = ring.sample(400, seed=2).double()
    spread = (x.square().sum(1).mean() - expected.square().sum(1).mean()).abs()
    assert float(spread) < 0.15 * float(expected.square().sum(1).mean())
    nearest = (ring.log_density(x, 0.0)).mean() - ring.log_density(expected, 0.0).mean()
    assert float(nearest) > -0.3


def test_the_likelihood_is_that_of_the_data():
    ring = GaussianMixture.ring(sde=FLOW)
    x = ring.sample(16, seed=0).double()
    found = log_prob(ring, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.value, ring.log_density(x, 0.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("bad", [{"t_min": 0.0}, {"t_max": 1.0}, {"t_min": 0.5, "t_max": 0.4}])
def test_the_ends_lie_inside(bad):
    with pytest.raises(ValueError, match=r"RectifiedFlow: .*t_m"):
        RectifiedFlow(**bad)


def test_velocity_weighting_is_the_loss_of_flow_matching():
    """Lipman et al. (2023), equation 9: the squared error of the velocity."""
    field = PreconditionedField(Wave((3,)), FLOW, parametrization=VelocityPrediction())
    t, x, z = times(FLOW, 9), normal((9, 3), "x"), normal((9, 3), "z")
    loss = DenoisingScoreMatching("velocity", UniformTime())(field, Batch(x, t, z))
    x_t = FLOW.perturb(x, t, z)
    expected = (field.velocity(x_t, t) - (z - x)).square().mean(dim=1)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)

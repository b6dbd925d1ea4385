"""What holds for every predictor, corrector, order and process of predictor–corrector sampling."""

from itertools import product

import pytest
import torch

from scorefield import (
    EDM,
    VE,
    VP,
    Ancestral,
    AnnealedLangevin,
    Cosine,
    DiscreteVP,
    EulerMaruyama,
    Gaussian,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    SubVP,
)
from scorefield.sde.discrete import DDPMSteps, EulerForward, Exact, SMLDSteps
from tests.laws.test_sampler_laws import law

LEVELS = 3
STOCHASTIC = [ReverseDiffusion(), EulerMaruyama(), Ancestral("upper"), Ancestral("posterior")]
FLOWS = [ReverseDiffusion(probability_flow=True), EulerMaruyama(probability_flow=True)]
CORRECTORS = [None, Langevin(0.1), AnnealedLangevin(0.1, 2)]
PROCESSES = [EDM(), VE(), VP(), SubVP(), Cosine(), DiscreteVP(levels=100)]
RATES = {"beta_min": 0.1, "beta_max": 2.0}
STEPPED = [
    *((sde, Exact()) for sde in PROCESSES),
    (VE(), SMLDSteps(LEVELS)),
    (VP(**RATES), DDPMSteps(LEVELS)),
    (SubVP(**RATES), EulerForward(LEVELS)),
    (EDM(), EulerForward(LEVELS)),
]


def name(value):
    return type(value).__name__


@pytest.mark.parametrize(("sde", "table"), STEPPED, ids=name)
@pytest.mark.parametrize("first", ["corrector", "predictor"])
def test_samples_of_a_point_have_no_noise(sde, table, first):
    """The posterior mean of a point is the point, wherever the noisy state is."""
    point = Gaussian([2.0, -0.5], std=1e-12, sde=sde)
    for predictor, corrector in product([None, *STOCHASTIC, *FLOWS], CORRECTORS):
        if predictor is None and corrector is None:
            continue
        sampler = PredictorCorrector(LEVELS, predictor, corrector, table, first)
        seen = []
        x = sampler.sample(point, n=3, dtype=torch.float64, callback=seen.append)
        assert torch.allclose(x, point.mean.expand_as(x), rtol=0, atol=1e-9), sampler
        assert torch.equal(seen[-1].denoised, x)


@pytest.mark.parametrize("sde", PROCESSES[:-1], ids=name)
@pytest.mark.parametrize("predictor", [*STOCHASTIC[:2], Ancestral()], ids=name)
def test_64_times_are_enough_for_normal_data_on_every_process(sde, predictor):
    truth = Gaussian([0.3], std=0.7, sde=sde)
    mean, covariance = law(PredictorCorrector(64, predictor), truth)[-1]
    assert float(mean) == pytest.approx(0.3, abs=0.04)
    assert float(covariance) ** 0.5 == pytest.approx(0.7, rel=0.1)


def test_a_spacing_that_is_given_is_kept():
    truth = Gaussian([0.0], std=1.0, sde=EDM())
    even = PredictorCorrector(5, spacing="time").times(truth.sde)[:-1]
    assert even == pytest.approx([80 - k * (80 - 0.002) / 4 for k in range(5)])

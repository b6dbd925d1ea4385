"""Inpainting and colourisation against recorded runs of the score_sde code.

The published loops differ from this library's in three ways, which their recorded results show:
they noise the known part to the level that an update left and not to the one it reached; their
last mean is built from the noisy state; and at the start the known part is not noised. Put together
that way, the library's predictors, correctors and measurements give the recorded numbers.
"""

import pytest
import torch

from scorefield import (
    VE,
    VP,
    Colorization,
    EulerMaruyama,
    Gaussian,
    Inpainting,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
)
from scorefield.samplers.grid import grid_times
from scorefield.sde.discrete import EulerForward, SMLDSteps
from tests.conformance import reference
from tests.planted import Watched

N = 20


@pytest.fixture(params=["control_inpaint_vp", "control_colorize_ve"])
def case(request):
    """The recorded arrays, the field, the sampler, the measurement and the published start."""
    arrays = {name: reference.tensor(a) for name, a in reference.load(request.param).items()}
    prior = arrays["prior_noise"]
    if request.param == "control_inpaint_vp":
        sde = VP(beta_min=0.1, beta_max=10.0)
        sampler = PredictorCorrector(N, EulerMaruyama(), None, EulerForward(N), t_end=1e-5)
        measurement = Inpainting(arrays["mask"], arrays["data"])
        start = arrays["data"] * arrays["mask"] + prior * (1 - arrays["mask"])
    else:
        sde = VE()
        corrector = Langevin(0.16, norm="batch")
        sampler = PredictorCorrector(N, ReverseDiffusion(), corrector, SMLDSteps(N), t_end=1e-5)
        measurement = Colorization(arrays["gray"])
        # The prior loses its first channel, and not its grey.
        rest = 50.0 * prior * torch.tensor([0.0, 1.0, 1.0]).reshape(3, 1, 1)
        start = measurement.known + rest
    return (
        arrays,
        Gaussian(arrays["mu"], std=arrays["sigma0"], sde=sde),
        sampler,
        measurement,
        start,
    )


def along(measurement, noise):
    """Noise for the known part; the published colouriser draws the grey's first, by itself."""
    if isinstance(measurement, Inpainting):
        return noise
    return noise[:, :1].expand_as(noise) / 3**0.5


def test_published_loops_are_reproduced_from_the_same_parts(case):
    arrays, field, sampler, measurement, x = case
    sde, noises = field.sde, iter(arrays["noises"])
    for t in grid_times(sde, N, "time", 1e-5):
        level = float(sde.alpha(t)), float(sde.sigma(t))
        if sampler.corrector is not None:
            forward = sampler.discretization.step(sde, t, None)
            scale = sampler.corrector.scale(sde, t, forward)
            x = sampler.corrector.correct(field, x, t, scale, lambda k: next(noises)).x
        x = measurement.impose(x, *level, along(measurement, next(noises)))
        step = sampler.predictor.reverse(sde, t, None, sampler.discretization)
        x = step.mean(x, field.score(x, t)) + step.spread * next(noises)
        x = measurement.impose(x, *level, along(measurement, next(noises)))
    assert next(noises, None) is None
    result = measurement.impose(x, level[0])
    # The published directions of colour have the digits of float32.
    tolerance = 1e-8 if isinstance(measurement, Inpainting) else 2e-6
    assert torch.allclose(result, arrays["result"], rtol=0, atol=tolerance)


def test_the_known_part_of_a_sample_is_exact_and_the_mean_has_no_noise(case):
    _, field, sampler, measurement, start = case
    settings = {"start": start, "measurement": measurement, "dtype": torch.float64}
    watched = Watched(field)
    x = sampler.sample(watched, **settings)
    assert torch.allclose(measurement.project(x), measurement.known, rtol=0, atol=1e-12)
    # Elsewhere the mean at the last state, which has the noise of its level.
    clean = field.denoise(watched.points[-1], watched.times[-1])
    assert torch.allclose(x, measurement.impose(clean, 1.0), rtol=0, atol=1e-12)
    assert float((x - watched.points[-1]).abs().max()) > 1e-3

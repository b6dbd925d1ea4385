"""Whole predictor–corrector runs against recorded ones of the score_sde code, noise by noise."""

from dataclasses import dataclass

import pytest
import torch

from scorefield import (
    VE,
    VP,
    Ancestral,
    AnnealedLangevin,
    EulerMaruyama,
    Gaussian,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    SubVP,
)
from scorefield.noise import Noise
from scorefield.samplers.grid import grid_times
from scorefield.sde.discrete import DDPMSteps, EulerForward, SMLDSteps
from tests.conformance import reference
from tests.planted import Watched

N, SNR = 20, 0.16
LANGEVIN = Langevin(SNR, norm="batch")
FLOW = ReverseDiffusion(probability_flow=True)
EULER = EulerForward(N)
RATES = {"beta_min": 0.1, "beta_max": 10.0}
RUNS = {
    "pc_ve_reverse_diffusion_langevin": (VE(), SMLDSteps(N), ReverseDiffusion(), LANGEVIN),
    "pc_ve_euler_maruyama_ald": (VE(), SMLDSteps(N), EulerMaruyama(), AnnealedLangevin(SNR)),
    "pc_ve_none_ald_n3": (VE(), SMLDSteps(N), None, AnnealedLangevin(SNR, 3)),
    "pc_ve_reverse_diffusion_none_pf": (VE(), SMLDSteps(N), FLOW, None),
    "pc_vp_reverse_diffusion_langevin": (VP(**RATES), DDPMSteps(N), ReverseDiffusion(), LANGEVIN),
    "pc_vp_ancestral_sampling_none": (VP(**RATES), DDPMSteps(N), Ancestral(), None),
    "pc_vp_euler_maruyama_none": (VP(**RATES), DDPMSteps(N), EulerMaruyama(), None),
    "pc_vp_reverse_diffusion_none_pf": (VP(**RATES), DDPMSteps(N), FLOW, None),
    "pc_subvp_euler_maruyama_none": (SubVP(**RATES), EULER, EulerMaruyama(), None),
}


@dataclass(frozen=True)
class Recorded(Noise):
    """Hands out recorded noise by purpose and step, in the order in which it was drawn."""

    draws: dict

    def normal(self, purpose, shape, index, step=0, dtype=torch.float32):
        return self.draws[purpose, step][index]


def recorded(noises, predictor, corrector):
    """Draws by address: each time has its corrector steps first, then the predictor's."""
    draws, position = {}, 0
    for i in range(N):
        inner = 0 if corrector is None else corrector.steps
        for k in range(inner):
            draws["corrector", i * inner + k] = noises[position + k]
        position += inner
        if predictor is not None:
            # The published code draws for the probability flow too, and multiplies by zero.
            draws["predictor", i] = noises[position]
            position += 1
    assert position == len(noises)
    return Recorded(0, draws)


@pytest.fixture(params=RUNS)
def run(request):
    """The recorded arrays, the field, a maker of the sampler, and the noise."""
    arrays = {name: reference.tensor(a) for name, a in reference.load(request.param).items()}
    sde, table, predictor, corrector = RUNS[request.param]
    field = Gaussian(arrays["mu"], std=arrays["sigma0"], sde=sde)
    noise = recorded(arrays["noises"], predictor, corrector)

    def sampler(denoise):
        return PredictorCorrector(N, predictor, corrector, table, denoise=denoise)

    return arrays, field, sampler, noise


def close(x, expected):
    return torch.allclose(x, expected, rtol=0, atol=1e-8)


def sample(run, denoise, field=None, callback=None):
    arrays, truth, sampler, noise = run
    return sampler(denoise).sample(
        truth if field is None else field,
        start=arrays["x_T"],
        seed=noise,
        dtype=torch.float64,
        callback=callback,
    )


def test_every_state_is_the_recorded_one(run):
    arrays, truth, sampler, _ = run
    watched, seen = Watched(truth), []
    x = sample(run, False, watched, seen.append)
    times = torch.cat([arrays["t_grid"], arrays["t_grid"].new_zeros(1)])
    alpha = [*truth.sde.alpha(times[:-1]).tolist(), 1.0]
    if sampler(False).predictor is not None:
        inner = sampler(False).nfe // N
        corrected = torch.stack(watched.points[inner - 1 :: inner])
        assert close(corrected, arrays["after_corrector"])
    else:
        states = torch.stack([s.x for s in seen])
        assert close(states, arrays["after_corrector"])
    states = torch.stack([s.x * alpha[s.step + 1] for s in seen])
    assert close(states, arrays["after_predictor"])
    assert close(x, arrays["final_x"])


def test_the_last_mean_is_the_recorded_one(run):
    """The published code leaves out the noise of the last predictor, where there is one."""
    arrays, truth, sampler, _ = run
    x, t = arrays["after_corrector"][-1], arrays["t_grid"][-1]
    chosen = sampler(False)
    if chosen.predictor is not None:
        step = chosen.predictor.reverse(truth.sde, t, None, chosen.discretization)
        x = step.mean(x, truth.score(x, t))
    assert close(x, arrays["final_x_mean"])
    assert close(0.5 * (x + 1), arrays["returned"])


def test_the_grid_is_the_recorded_one(run):
    arrays, field, _, _ = run
    end = 1e-5 if isinstance(field.sde, VE) else 1e-3
    assert torch.allclose(grid_times(field.sde, N, "time", end), arrays["t_grid"], rtol=1e-14)


def test_calls_are_counted_where_the_published_count_is_not_true(run):
    arrays, field, sampler, _ = run
    chosen = sampler(denoise=False)
    assert chosen.nfe <= int(arrays["returned_nfe"])
    full = chosen.predictor is not None and chosen.corrector is not None
    assert (chosen.nfe == int(arrays["returned_nfe"])) == full
    watched = Watched(field)
    sample(run, False, watched)
    assert len(watched.points) == chosen.nfe


def test_noise_is_removed_from_the_last_recorded_state(run):
    arrays, truth, sampler, _ = run
    x = sample(run, denoise=True)
    assert close(x, truth.denoise(arrays["after_corrector"][-1], arrays["t_grid"][-1]))
    assert sampler(True).nfe == sampler(False).nfe + (sampler(True).predictor is None)

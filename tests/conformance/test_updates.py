"""Single predictor and corrector updates against recorded ones of the score_sde code."""

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
    ReverseDiffusion,
)
from scorefield.samplers.predictors import ReverseStep
from scorefield.sde.discrete import DDPMSteps, SMLDSteps
from tests.conformance import reference

TABLES = {"updates_ve": (VE(), SMLDSteps(1000)), "updates_vp": (VP(), DDPMSteps(1000))}
PREDICTORS = {
    "euler_maruyama": EulerMaruyama(),
    "reverse_diffusion": ReverseDiffusion(),
    "reverse_diffusion_pf": ReverseDiffusion(probability_flow=True),
    "ancestral_sampling": Ancestral(),
}
CORRECTORS = {
    "langevin": lambda n: Langevin(0.16, n, "batch"),
    "ald": lambda n: AnnealedLangevin(0.16, n),
}


@pytest.fixture(params=TABLES)
def case(request):
    """The recorded arrays, the exact field, and the table."""
    sde, table = TABLES[request.param]
    arrays = {name: reference.tensor(a) for name, a in reference.load(request.param).items()}
    return arrays, Gaussian(arrays["mu"], std=arrays["sigma0"], sde=sde), table


def column(value):
    """One value a sample, shaped to broadcast against images."""
    return value.reshape(-1, 1, 1, 1)


def close(x, expected):
    return torch.allclose(x, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictors(case, name):
    arrays, field, table = case
    x, t = arrays["x"], arrays["t"]
    step = ReverseStep(*map(column, PREDICTORS[name].reverse(field.sde, t, None, table)))
    mean = step.mean(x, field.score(x, t))
    assert close(mean, arrays[f"pred_{name}_mean"])
    assert close(mean + step.spread * arrays[f"pred_{name}_noise"], arrays[f"pred_{name}_x"])


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", CORRECTORS)
def test_correctors(case, name, steps):
    arrays, field, table = case
    x, t = arrays["x"], arrays["t"]
    corrector = CORRECTORS[name](steps)
    scale = column(corrector.scale(field.sde, t, table.step(field.sde, t, None)))
    noise = arrays[f"corr_{name}_n{steps}_noise"]
    after = corrector.correct(field, x, t, scale, noise.__getitem__)
    assert close(after.x, arrays[f"corr_{name}_n{steps}_x"])
    assert close(after.mean, arrays[f"corr_{name}_n{steps}_mean"])


def test_nothing_is_done_by_none(case):
    arrays, _, _ = case
    for name in ("pred_none", "pred_none_pf", "corr_none_n1", "corr_none_n3"):
        assert torch.equal(arrays[f"{name}_x"], arrays["x"])
        assert torch.equal(arrays[f"{name}_mean"], arrays["x"])

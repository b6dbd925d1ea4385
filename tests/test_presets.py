"""What the presets promise when they are trained to their length."""

import pytest
import torch

from scorefield.diagnostics import Protocol, relative_asymmetry
from scorefield.experiments import load
from scorefield.experiments.build import build_field, build_objective, build_source
from scorefield.metrics import mode_coverage, noise_floor, sliced_wasserstein
from scorefield.samplers import Heun
from scorefield.training import Optim, Trainer, TrainSettings

SAMPLES = 4096


def trained(name, *overrides):
    config = load(name, overrides)
    source = build_source(config)
    field = build_field(config, source)
    trainer = Trainer(
        field,
        source,
        build_objective(config, source),
        Optim(**config.optim.model_dump()),
        TrainSettings(**config.train.model_dump()),
        seed=config.seed,
        quiet=True,
    )
    return source, trainer.run().field


@pytest.mark.slow
@pytest.mark.parametrize("model", ["m0", "m1", "m2", "m3", "m4"])
def test_a_toy_model_covers_all_modes_and_lies_at_the_noise_floor(model):
    """At 35 true network calls: 8 of 8 modes, and a sliced Wasserstein distance within three
    times that of two real sets."""
    source, field = trained(f"toy/{model}")
    sampler = Heun.for_nfe(35)
    assert sampler.nfe == 35
    x = sampler.sample(field, SAMPLES, seed=0)
    assert mode_coverage(x, source.truth).value == 8
    floor = noise_floor(sliced_wasserstein, source.truth, SAMPLES, pairs=16, seed=1)
    assert floor.ratio(sliced_wasserstein(x, source.reference(SAMPLES, seed=2))) < 3
    sigmas = (0.02, 0.1, 0.35, 1.0, 5.0, 40.0)
    asymmetry = relative_asymmetry(field, source.truth, Protocol(sigmas, n=128))
    values = torch.tensor([e.value for _, e in asymmetry])
    if model == "m2":
        assert float(values.max()) < 1e-5
        exact = relative_asymmetry(field.double(), source.truth, Protocol(sigmas, n=128))
        assert max(e.value for _, e in exact) < 1e-12
    elif model == "m4":
        assert float(values[:3].max()) < 1e-5
        assert float(values[3:].min()) > 1e-5
    else:
        assert float(values.min()) > 1e-4


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_potential_of_the_digits_is_conservative(dtype, bound):
    """The U-Net under the head of the preset, after a few steps of training."""
    source, field = trained(
        "digits/m2", "train.steps=3", "train.batch_size=8", "field.network.channels=8"
    )
    protocol = Protocol((0.002, 0.5, 40.0), n=2, dtype=dtype)
    data = source.reference(2, seed=0)
    for _, e in relative_asymmetry(field.to(dtype), data, protocol):
        assert e.value < bound

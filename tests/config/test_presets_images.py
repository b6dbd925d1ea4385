"""The five models on images: what they share, and what each is."""

import pytest
import torch

from scorefield.calculus.asymmetry import probed_asymmetry
from scorefield.config.build import build_field
from scorefield.config.document import differences
from scorefield.config.resolve import load_config
from scorefield.data.arrays import LabelledSource
from scorefield.noise import Noise

MODELS = ("m0", "m1", "m2", "m3", "m4")


def pictures(shape, classes, n=64):
    """Random images of a shape, and their classes."""
    x = Noise(0).uniform("pictures", shape, torch.arange(n)) * 2 - 1
    labels = torch.arange(n) % classes
    return LabelledSource(x, x[:16], labels, labels[:16], "pictures")


@pytest.mark.parametrize("family", ["fashion_mnist"])
def test_the_five_models_differ_in_what_they_are_and_nothing_else(family):
    base = load_config(f"{family}/m0")
    for model in MODELS[1:]:
        changed = {
            key
            for key, *_ in differences(base.document(), load_config(f"{family}/{model}").document())
        }
        own = ("field.kind", "field.head", "field.sigma_c", "field.low_network", "objective.")
        assert {k for k in changed if not k.startswith(own)} == {"name", "description"}
        assert not {k for k in changed if k.startswith(("objective.law", "objective.weighting"))}


@pytest.mark.parametrize("head", ["inner", "denoising"])
def test_a_potential_of_784_pixels_is_conservative(head):
    """By six probes of the Jacobians at three noise levels, with weights of ordinary size: as it
    begins, the network adds nothing to them."""
    source = pictures((1, 28, 28), 10)
    field = build_field(load_config("fashion_mnist/m2", [f"field.head={head}"]), source)
    with torch.no_grad():
        for k, parameter in enumerate(field.parameters()):
            drawn = Noise(2).normal("weights", parameter.shape, torch.tensor([k]))[0]
            fan_in = parameter[0].numel()
            parameter.copy_(drawn / fan_in**0.5 + float(parameter.dim() == 1))
    sigma = torch.tensor([0.002, 0.5, 40.0]).repeat_interleave(2)
    index = torch.arange(len(sigma))
    noise, x = Noise(1), source.reference(len(sigma), seed=0)
    x = x + sigma.reshape(-1, 1, 1, 1) * noise.normal("points", x.shape[1:], index)
    v = noise.signs("probes", x.shape[1:], index)
    skew, whole = probed_asymmetry(field.score, x, field.sde.time(sigma), v)
    assert float((0.5 * (skew / whole).sqrt()).detach().max()) < 1e-5

"""Truths about networks from configurations and weights of the score_sde code."""

import copy

import numpy as np
import pytest
import torch

from scorefield.interop.score_sde.build import build, state_of

SMALL = {"nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [4]}
KINDS = {
    "defaults": {},
    "ddpm": {"name": "ddpm", "nf": 32},
    "unconditional": {"conditional": False, "scale_by_sigma": False},
    "unconditional ddpm": {"name": "ddpm", "nf": 32, "conditional": False},
    "cat": {"progressive_input": "input_skip", "progressive_combine": "cat"},
    "filters": {"resblock_type": "ddpm", "progressive": "residual"},
    "no filters": {"resblock_type": "ddpm", "progressive": "residual", "fir": False},
    "one level": {"ch_mult": [1], "progressive": "residual", "embedding_type": "positional"},
    "no convolutions": {"resblock_type": "ddpm", "resamp_with_conv": False, "fir": False},
    "images": {"progressive": "output_skip", "progressive_input": "input_skip"},
    "ncsnv2": {
        "name": "ncsnv2_64",
        "num_scales": 5,
        "nonlinearity": "elu",
        "normalization": "InstanceNorm++",
        "sigma_min": 0.01,
        "sigma_max": 50,
    },
}


def configuration(kind):
    data = {"image_size": 8, "num_channels": 2, "centered": False}
    return {
        "training": {"continuous": True},
        "data": data,
        "model": {"name": "ncsnpp", **SMALL, **KINDS[kind]},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind):
    config = configuration(kind)
    one = build(config, seed=1).eval()
    state = state_of(one, config)
    prefixed = {f"module.{name}": weight.numpy() for name, weight in state.items()}
    for given in (state, prefixed):
        other = build(config, given, seed=2).eval()
        assert all(map(torch.equal, other.parameters(), one.parameters()))
        x = torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        labels = torch.tensor([1.0, 2.0])
        torch.testing.assert_close(other(x, labels), one(x, labels))


def test_the_network_takes_the_precision_of_the_weights():
    config = configuration("cat")
    state = {name: weight.double() for name, weight in state_of(build(config), config).items()}
    assert {p.dtype for p in build(config, state).parameters()} == {torch.float64}


def spoiled(change):
    config = configuration("defaults")
    state = state_of(build(config), config)
    change(state)
    return config, state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("all_modules.3.weight"), r"lacks all_modules.3.weight$"),
        (lambda s: s.update(extra=torch.zeros(2)), "beside what is expected, extra$"),
        (
            lambda s: s.update({"all_modules.1.bias": torch.zeros(3)}),
            r"other shapes of all_modules.1.bias \(3,\) instead of \(32,\)",
        ),
        (lambda s: s.update(sigmas=s["sigmas"] * 1.01), "sigmas .* another table"),
        (lambda s: s.update(sigmas=s["sigmas"][1:]), "sigmas .* 1000 levels from 50 to 0.01"),
        (lambda s: [s.pop(name) for name in list(s)], "lacks .* and .* more"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message):
    config, state = spoiled(change)
    with pytest.raises(ValueError, match=message):
        build(config, state)


def test_a_table_in_single_precision_fits():
    config, state = spoiled(lambda s: s.update(sigmas=s["sigmas"].float().numpy()))
    assert isinstance(state["sigmas"], np.ndarray)
    build(config, state)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"name": "ddpmpp"}, "model.name"),
        ("model", {"resblock_type": "resnet"}, "model.resblock_type must be one of biggan, ddpm"),
        ("model", {"nonlinearity": "tanh"}, "model.nonlinearity"),
        ("training", {"continuous": False}, "training.continuous"),
        ("data", {"image_size": 7}, "multiples of 2"),
    ],
)
def test_configurations_that_make_no_network_are_an_error(section, values, message):
    config = copy.deepcopy(configuration("defaults"))
    config[section] |= values
    with pytest.raises(ValueError, match=message):
        build(config)


def test_a_configuration_needs_a_name():
    with pytest.raises(ValueError, match=r"lacks model\.name"):
        build({"model": {}})


def test_state_of_another_network_is_refused():
    with pytest.raises(ValueError, match="lacks"):
        state_of(build(configuration("defaults")), configuration("cat"))

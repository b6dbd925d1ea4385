"""The NCSN family against recorded outputs and gradients of the score_sde code."""

import pytest
import torch

from scorefield.interop.score_sde.refinenet_names import build_refinenet
from tests.conformance import reference

torch.set_num_threads(1)

FILES = ["model_ncsnv2_64", "model_ncsn_v1", "model_ncsnv2_256"]


@pytest.fixture(params=FILES)
def case(request):
    """Metadata, arrays, and the network with the recorded weights, in float64."""
    meta, arrays = reference.meta(request.param), reference.load(request.param)
    network, pairs = build_refinenet(meta["config"])
    theirs = {k[3:]: v for k, v in arrays.items() if k.startswith("sd/") and k != "sd/sigmas"}
    assert sorted(theirs) == sorted(name for name, _ in pairs)
    state = {ours: reference.tensor(theirs[name]) for name, ours in pairs}
    network.load_state_dict(state)
    return meta, arrays, network.double(), pairs


def test_outputs_agree_in_float64(case):
    _, arrays, network, _ = case
    y = network(reference.tensor(arrays["x"], torch.float64), reference.tensor(arrays["labels"]))
    expected = reference.tensor(arrays["y64"])
    assert y.dtype == torch.float64
    assert (y - expected).abs().amax() <= 1e-9 * expected.abs().amax()


def test_outputs_agree_in_float32(case):
    _, arrays, network, _ = case
    y = network.float()(reference.tensor(arrays["x"]), reference.tensor(arrays["labels"]))
    expected = reference.tensor(arrays["y64"])
    assert y.dtype == torch.float32
    assert (y - expected).abs().amax() <= 1e-4 * expected.abs().amax()


def test_gradients_agree(case):
    # They were recorded in float32, so that this is as near as they are.
    meta, arrays, network, pairs = case
    x = reference.tensor(arrays["x"], torch.float64).requires_grad_()
    v = reference.tensor(arrays["v"], torch.float64)
    (network(x, reference.tensor(arrays["labels"])) * v).sum().backward()
    expected = reference.tensor(arrays["vjp_x"], torch.float64)
    assert (x.grad - expected).abs().amax() <= 1e-4 * expected.abs().amax()
    ours, norms = dict(pairs), reference.tensor(arrays["param_grad_norms"], torch.float64)
    parameters = dict(network.named_parameters())
    for name, norm in zip(meta["param_order"], norms, strict=True):
        found = parameters[ours[name]].grad.norm()
        assert abs(found - norm) <= 1e-4 * norms.amax(), name


def test_counts_agree(case):
    meta, _, network, _ = case
    assert sum(p.numel() for p in network.parameters()) == meta["n_params"]


@pytest.mark.parametrize(
    ("name", "scales", "image", "count"),
    [
        ("ncsn", 10, 32, 30_117_635),
        ("ncsn", 232, 32, 39_750_659),
        ("ncsn", 500, 64, 51_379_715),
        ("ncsnv2_64", 232, 32, 29_694_083),
        ("ncsnv2_128", 1086, 128, 83_445_379),
    ],
)
def test_published_structures_have_the_published_counts(name, scales, image, count):
    config = {
        "data": {"image_size": image, "num_channels": 3, "centered": False},
        "model": {
            "name": name,
            "nf": 128,
            "num_scales": scales,
            "sigma_min": 0.01,
            "sigma_max": 50,
            "nonlinearity": "elu",
            "normalization": "InstanceNorm++",
        },
    }
    with torch.device("meta"):
        network, pairs = build_refinenet(config)
    assert sum(p.numel() for p in network.parameters()) == count
    assert len({theirs for theirs, _ in pairs}) == len(pairs)

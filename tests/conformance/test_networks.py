"""Networks agree with the score_sde code, given its weights."""

import math

import pytest
import torch
from torch.func import functional_call

from scorefield.interop.score_sde.build import build, state_of
from scorefield.networks.blocks import PixelAttention, Style
from scorefield.networks.embedding import FourierFeatures, NoiseTable, positional_features
from scorefield.networks.resampling import Double, Halve, HalvingConv, resample
from tests.conformance.reference import ROOT, load, meta, tensor

MODELS = sorted(path.stem for path in (ROOT / "score_sde").glob("model_*.npz"))


@pytest.fixture(params=MODELS)
def case(request):
    """The metadata, the arrays, and the network with their weights."""
    about, arrays = meta(request.param), load(request.param)
    network = build(about["config"], state(arrays)).eval()
    return about, {name: tensor(array) for name, array in arrays.items()}, network


def state(arrays):
    return {name[3:]: array for name, array in arrays.items() if name.startswith("sd/")}


def inputs(arrays, dtype):
    x, labels = arrays["x"], arrays["labels"]
    return x.to(dtype), labels.to(dtype) if labels.is_floating_point() else labels


def error(found, expected):
    """The largest difference, in units of the largest value."""
    return float((found.detach().double() - expected).abs().amax() / expected.abs().amax())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=["32", "64"]
)
def test_outputs_are_the_recorded_ones(case, dtype, tolerance):
    _, arrays, network = case
    found = network.to(dtype)(*inputs(arrays, dtype))
    assert found.dtype == dtype
    assert error(found, arrays["y64"]) <= tolerance


def test_gradients(case):
    about, arrays, network = case
    network.double()
    x, labels = inputs(arrays, torch.float64)
    x.requires_grad_()
    (network(x, labels) * arrays["v"].double()).sum().backward()
    # Stored in float32, of a network in float32.
    assert error(x.grad, arrays["vjp_x"].double()) <= 1e-4
    for p in network.parameters():
        p.data = torch.full_like(p, math.nan) if p.grad is None else p.grad
    found = state_of(network, about["config"])
    expected = arrays["param_grad_norms"].double()
    for theirs, norm in zip(about["param_order"], expected.tolist(), strict=True):
        wanted = math.nan if norm == -1 else norm
        near = pytest.approx(wanted, rel=1e-3, abs=1e-4 * float(expected.amax()), nan_ok=True)
        assert float(found[theirs].norm()) == near, theirs


def test_parameters(case):
    about, _, network = case
    assert sum(p.numel() for p in network.parameters()) == about["n_params"]
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == about["n_trainable"]
    assert len(list(network.parameters())) == len(about["param_order"])


def test_the_way_back_gives_the_same_weights(case):
    about, arrays, network = case
    given = state(arrays)
    back = state_of(network, about["config"])
    assert set(back) == set(given)
    for name, weight in given.items():
        if name == "sigmas":
            torch.testing.assert_close(back[name].double(), weight.double(), rtol=1e-6, atol=0)
        else:
            assert torch.equal(back[name], weight)


def test_resampling():
    arrays = {name: tensor(array) for name, array in load("ops").items()}
    x, taps = arrays["x"], (1, 3, 3, 1)
    convolution = HalvingConv(3, 5, taps).double()
    weights = {"weight": arrays["w"], "bias": torch.zeros(5, dtype=torch.float64)}
    for found, name in (
        (Double(taps)(x), "upsample_2d_1331"),
        (Halve(taps)(x), "downsample_2d_1331"),
        (Double((1, 1))(x), "upsample_2d_default"),
        (Halve((1, 1))(x), "downsample_2d_default"),
        (Double()(x), "naive_up"),
        (Halve()(x), "naive_down"),
        (functional_call(convolution, weights, (x,)), "conv_downsample_2d_1331"),
    ):
        torch.testing.assert_close(found, arrays[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", range(4))
def test_resampling_in_general(k):
    arrays = load("ops")
    settings = arrays[f"upfirdn_{k}_args_upx_upy_dnx_dny_padx0_padx1_pady0_pady1"].tolist()
    up_x, up_y, down_x, down_y, left, right, top, bottom = settings
    x, kernel = tensor(arrays["x"]), tensor(arrays["k_3x4"])
    found = resample(x, kernel, (up_y, up_x), (down_y, down_x), (top, bottom, left, right))
    torch.testing.assert_close(found, tensor(arrays[f"upfirdn_{k}"]), rtol=1e-12, atol=1e-12)


def test_embeddings():
    arrays = {name: tensor(array) for name, array in load("ops").items()}
    for features in (128, 17):
        # Their phases, up to 999 radians, are rounded to float32.
        found = positional_features(arrays["emb_t"], features)
        expected = arrays[f"timestep_embedding_{features}"].double()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    fourier = FourierFeatures(16)
    weights = {"frequencies": arrays["fourier_W"]}
    found = functional_call(fourier, weights, (arrays["fourier_sigma"],))
    expected = arrays["fourier_out_of_log_sigma"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    table = NoiseTable(0.01, 50.0, 1000)
    sigmas = arrays["get_sigmas_1000"]
    found = table.at(torch.arange(1000), like=sigmas)
    torch.testing.assert_close(found, sigmas, rtol=1e-12, atol=0)


def test_attention():
    arrays = {name: tensor(array) for name, array in load("ops").items()}
    parts = {"GroupNorm_0": "norm", "NIN_0": "query", "NIN_1": "key", "NIN_2": "value"}
    parts["NIN_3"] = "out"
    weights = {}
    for theirs, ours in parts.items():
        leaves = ("weight", "bias") if ours == "norm" else ("W", "b")
        for leaf, name in zip(leaves, ("weight", "bias"), strict=True):
            value = arrays[f"attn_sd/{theirs}.{leaf}"]
            weights[f"{ours}.{name}"] = value.T if leaf == "W" else value
    layer = PixelAttention(8, Style(torch.nn.SiLU(), None, 0.0, rescale=True))
    found = functional_call(layer, weights, (arrays["attn_x"],))
    torch.testing.assert_close(found, arrays["attn_y"], rtol=1e-5, atol=1e-5)

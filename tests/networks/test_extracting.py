"""The networks whose features compare images, against other implementations of the same."""

import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scorefield.metrics.frechet_sizes import frechet_between
from scorefield.metrics.inception_score import inception_score, score_rows
from scorefield.metrics.kernel import kid
from scorefield.metrics.moments import Moments
from scorefield.metrics.neighbours import precision, recall
from scorefield.networks.dinov2 import DinoV2
from scorefield.networks.inception import Inception, _resized


def random_(network, seed=0):
    """Random weights under which neither the values nor their differences vanish."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            fan = tensor[0].numel() if tensor.dim() > 1 else 25
            tensor.normal_(0, (2 / fan) ** 0.5, generator=generator)
        if name.endswith(("bn.weight", "norm.weight", "norm1.weight", "norm2.weight", "gamma")):
            tensor.uniform_(0.5, 1.5, generator=generator)
    return network


def images(n, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def test_the_resizing_is_interpolation_with_corners_not_aligned():
    """By the formula, pixel by pixel; an affine image stays affine but for its last pixels."""
    x = torch.rand(1, 1, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = _resized(x)[0, 0]
    for i, j in ((0, 0), (150, 17), (298, 298), (43, 240)):
        u, v = i * 7 / 299, j * 5 / 299
        p, q = int(u), int(v)
        p1, q1 = min(p + 1, 6), min(q + 1, 4)
        top = (1 - v + q) * x[0, 0, p, q] + (v - q) * x[0, 0, p, q1]
        low = (1 - v + q) * x[0, 0, p1, q] + (v - q) * x[0, 0, p1, q1]
        assert float(found[i, j]) == pytest.approx(
            float((1 - u + p) * top + (u - p) * low), abs=1e-6
        )


@pytest.fixture(scope="module")
def fidelity(tmp_path_factory):
    """torch-fidelity, which imports torchvision for data sets that are not read here."""
    names = ("", ".datasets", ".transforms", ".transforms.functional", ".models")
    stubs = [f"torchvision{name}" for name in names if f"torchvision{name}" not in sys.modules]
    sys.modules.update((name, MagicMock()) for name in stubs)
    try:
        pytest.importorskip("torch_fidelity")
        from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        network = random_(Inception())
        file = tmp_path_factory.mktemp("weights") / "inception.pth"
        torch.save(network.state_dict(), file)
        names = ["2048", "logits_unbiased"]
        theirs = FeatureExtractorInceptionV3("inception-v3-compat", names, str(file))
        yield network, theirs, (metric_fid, metric_isc, metric_kid, metric_prc)
    finally:
        for name in stubs:
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (28, 40), (320, 200)])
def test_inception_is_that_of_torch_fidelity_with_random_weights(fidelity, size):
    own, theirs, _ = fidelity
    x, spatial = images(2, *size), []
    hook = theirs.Mixed_6d.branch1x1.register_forward_hook(lambda m, i, out: spatial.append(out))
    features, logits = theirs(x)
    hook.remove()
    found = own(x)
    for name, wanted in (("features", features), ("logits", logits)):
        assert float(wanted.abs().max()) > 0
        assert float((found[name] - wanted).abs().max()) <= 1e-6 * float(wanted.abs().max())
    wanted = spatial[0].numpy().transpose(0, 2, 3, 1)[..., :7].reshape(2, -1)
    np.testing.assert_allclose(found["spatial"].numpy(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_metrics_are_those_of_torch_fidelity_on_the_same_features(fidelity):
    """On features of its own Inception with random weights, and on plain ones."""
    _, theirs, (fid, isc, kids, prc) = fidelity
    generator = torch.Generator().manual_seed(1)
    small = [theirs(images(12, 8, 8, seed)) for seed in (0, 1)]
    for x, y in (
        [features for features, _ in small],
        [torch.randn(300, 24, generator=generator) * s + m for s, m in ((1.0, 0.0), (1.3, 0.4))],
    ):
        x64, y64 = x.double(), y.double()
        one, other = (fid.fid_features_to_statistics(rows) for rows in (x64, y64))
        wanted = fid.fid_statistics_to_metric(one, other, False)[fid.KEY_METRIC_FID]
        found = frechet_between(Moments.of(x64).statistics, Moments.of(y64).statistics)
        # More features than samples leave roots of rounding in both.
        scale = float(Moments.of(x64).covariance.trace() + Moments.of(y64).covariance.trace())
        assert abs(found - wanted) <= 1e-6 * scale
        size = len(x)
        wanted = kids.kid_features_to_metric(
            x64, y64, kid_subsets=1, kid_subset_size=size, verbose=False
        )[kids.KEY_METRIC_KID_MEAN]
        assert kid(x, y).value == pytest.approx(wanted, rel=1e-6)
        wanted = prc.calculate_precision_recall_full(x64, y64)
        assert (precision(x, y).value, recall(x, y).value) == pytest.approx(wanted, rel=1e-6)
    logits = small[0][1]
    wanted = isc.isc_features_to_metric(logits, splits=1)[isc.KEY_METRIC_ISC_MEAN]
    found = inception_score(Moments.of(score_rows(logits)))
    assert found.settings["uncorrected"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("gated", [False, True])
def test_dinov2_is_a_transformer_with_its_scales_in_the_weights(gated):
    """Of torch's own layers, with each learned scale multiplied into the last weights of its
    branch; positions are cubic interpolations at the centres of the patches.
    """
    dim, depth, grid, hidden = 128, 2, 16, 96
    own = random_(DinoV2(dim, depth, grid, hidden, gated)).double()
    own.pos_embed.data.mul_(0.1)
    x = images(2, 224, 224)
    shift, scale = (
        torch.tensor(values, dtype=torch.float64)[:, None, None]
        for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    h = (x.double() / 255 - shift) / scale
    kernel, bias = own.patch_embed["proj"].weight, own.patch_embed["proj"].bias
    cut = F.unfold(h, 14, stride=14).mT @ kernel.flatten(1).T + bias
    h = torch.cat((own.cls_token.expand(2, -1, -1), cut), dim=1) + own.pos_embed
    for block in own.blocks:
        attention = torch.nn.MultiheadAttention(dim, dim // 64, batch_first=True).double()
        gamma = block.ls1["gamma"]
        qkv, proj = block.attn["qkv"], block.attn["proj"]
        attention.in_proj_weight.data, attention.in_proj_bias.data = qkv.weight, qkv.bias
        attention.out_proj.weight.data = gamma[:, None] * proj.weight
        attention.out_proj.bias.data = gamma * proj.bias
        z = block.norm1(h)
        h = h + attention(z, z, z)[0]
        z = block.norm2(h)
        if gated:
            both = z @ block.mlp["w12"].weight.T + block.mlp["w12"].bias
            gate = both[..., :hidden]
            inner = gate * torch.sigmoid(gate) * both[..., hidden:]
            out = block.mlp["w3"]
        else:
            u = z @ block.mlp["fc1"].weight.T + block.mlp["fc1"].bias
            inner, out = u * 0.5 * (1 + torch.erf(u / 2**0.5)), block.mlp["fc2"]
        h = h + block.ls2["gamma"] * (inner @ out.weight.T + out.bias)
    wanted = F.layer_norm(h[:, 0], (dim,), own.norm.weight, own.norm.bias, 1e-6)
    torch.testing.assert_close(own(x)["features"], wanted, rtol=1e-9, atol=1e-9)
    again = DinoV2.of(own.state_dict())
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in own.state_dict().items()
    }


def test_positions_of_dinov2_are_interpolated_and_small_images_resized():
    own = random_(DinoV2(64, 1, 37, 64))
    grid = own.pos_embed[0, 1:, 5].reshape(37, 37).double()

    def cubic(at):
        """Keys' kernel with a = -3/4 at four neighbours, under the published factor."""
        at = (at + 0.5) * 37 / 16.1 - 0.5
        places = [int(at) + k for k in (-1, 0, 1, 2)]
        far = [abs(at - p) for p in places]
        near = [1.25 * d**3 - 2.25 * d**2 + 1 for d in far]
        wide = [-0.75 * (d**3 - 5 * d**2 + 8 * d - 4) for d in far]
        weights = [n if d <= 1 else w for d, n, w in zip(far, near, wide, strict=True)]
        return places, torch.tensor(weights, dtype=torch.float64)

    placed = own._positions()[0, 1:, 5].reshape(16, 16)
    for i, j in ((3, 3), (4, 11), (9, 6)):
        (rows, u), (columns, v) = cubic(i), cubic(j)
        wanted = u @ grid[rows][:, columns] @ v
        assert float(placed[i, j]) == pytest.approx(float(wanted), abs=1e-5)
    assert own(images(2, 32, 32))["features"].shape == (2, 64)

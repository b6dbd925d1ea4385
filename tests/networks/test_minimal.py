import os
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.calculus import exact_asymmetry, jacobian
from scorefield.networks import MinimalUNet


def image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_says_which_sizes_fit():
    with pytest.raises(ValueError, match=r"4 levels .* multiples of 8, got 28 x 28"):
        MinimalUNet((1, 28, 28), (32, 64, 128, 256))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 8)}, "channels, height, width"),
        ({"fsizes": ()}, "channels a level"),
        ({"fsizes": (8, 0)}, r"channels a level, got \[8, 0\]"),
        ({"padding": "reflect"}, "zeros or circular, not 'reflect'"),
        ({"normalization": "batch"}, "group or not at all, not 'batch'"),
        ({"embedding": 7}, "even number"),
        ({"kernel_size": 2}, r"odd number .* \[2, 1\]"),
        ({"fsizes": (40, 40), "normalization": "group"}, "40 channels .* 32 groups"),
        (
            {"shape": (1, 4, 4), "fsizes": (4, 4, 4), "padding": "circular", "kernel_size": 5},
            "circular padding of 2 pixels",
        ),
    ],
)
def test_rejects_what_makes_no_network(unchecked, arguments, message):
    with pytest.raises(ValueError, match=message):
        MinimalUNet(**arguments)


def test_circular_padding_moves_with_the_image():
    """A shift by a multiple of the lowest level's pixel shifts the output; zeros do not."""
    x, label = image(2, 1, 8, 8), image(2)
    for padding, moves in (("circular", True), ("zeros", False)):
        network = MinimalUNet((1, 8, 8), (4, 6, 8), padding, embedding=8).double()
        shifted = network(x.roll((4, -4), (2, 3)), label)
        difference = (
            (shifted - network(x, label).roll((4, -4), (2, 3))).detach().abs().amax().item()
        )
        assert (difference < 1e-12) == moves


def test_the_label_enters_as_given():
    """The slowest wave sees the label itself: no factor stands before it."""
    network = MinimalUNet((1, 4, 4), (4, 4), embedding=8).double()
    waves = network.waves(torch.tensor([0.3], dtype=torch.float64))
    expected = torch.tensor([0.3 * 10 ** (-4 * j / 3) for j in range(4)], dtype=torch.float64)
    torch.testing.assert_close(waves[0, :4], expected.sin(), rtol=1e-14, atol=0)
    torch.testing.assert_close(waves[0, 4:], expected.cos(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("normalization", [None, "group"])
def test_works_under_vmap(normalization):
    network = MinimalUNet((1, 8, 8), (4, 6, 8), normalization=normalization, embedding=8).double()
    x, label = image(3, 1, 8, 8), image(3)
    mapped = torch.func.vmap(lambda u, c: network(u[None], c[None])[0])(x, label)
    torch.testing.assert_close(mapped, network(x, label), rtol=1e-12, atol=1e-12)
    rows = torch.func.vmap(torch.func.jacrev(lambda u, c: network(u[None], c[None])[0]))(x, label)
    expected = jacobian(network, x, label)
    torch.testing.assert_close(rows.reshape(3, 64, 64), expected, rtol=1e-9, atol=1e-12)


BLOCK = {
    "emb.1": "level",
    "model.0": "first",
    "model.2": "second",
}


def named(key):
    """The name here of a weight of the original implementation."""
    part, *rest = key.split(".")
    name = {
        "feature_blocks": "down",
        "bottleneck": "bottom",
        "upsamples": "enlarge",
        "output_blocks": "up",
        "last_emb": "last_level",
        "output_conv": "last",
    }[part]
    if part == "last_emb":
        rest = rest[1:]
    if part in ("feature_blocks", "output_blocks"):
        name, rest = f"{name}.{rest[0]}", rest[1:]
    if "block" in part or part == "bottleneck":
        rest = [BLOCK[".".join(rest[:2])], *rest[2:]]
    return ".".join([name, *rest])


@pytest.mark.skipif(
    "SCOREFIELD_FIXTURES" not in os.environ,
    reason="SCOREFIELD_FIXTURES names no folder of reference outputs",
)
def test_agrees_with_the_original_implementation():
    path = Path(os.environ["SCOREFIELD_FIXTURES"]) / "els" / "net_unet_zeros.npz"
    with np.load(path) as archive:
        arrays = {key: torch.from_numpy(archive[key]) for key in archive}
    network = MinimalUNet((1, 8, 8), (8, 16, 24), embedding=16, last_kernel_size=3).double()
    weights = {
        named(key.removeprefix("sd::")): v for key, v in arrays.items() if key.startswith("sd::")
    }
    network.load_state_dict(weights)
    x, t = arrays["x"], arrays["t"]
    torch.testing.assert_close(network(x, t), arrays["out"], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(network.waves(t), arrays["emb"], rtol=1e-12, atol=1e-12)
    j = jacobian(network, x[:2], arrays["ed_t"].expand(2).contiguous())
    torch.testing.assert_close(j, arrays["jac_eps"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        exact_asymmetry(j)[0].sqrt(), arrays["edmag_eps"], rtol=1e-10, atol=1e-12
    )

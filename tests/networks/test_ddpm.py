"""Truths about the DDPM network."""

import pytest
import torch

from scorefield import DDPM, differentiable

torch.set_num_threads(1)

SMALL = {"shape": (1, 4, 4), "channels": 64, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}
OPTIONS = [
    {},
    {"conditional": False, "resample_with_conv": False},
    {"scale_by_sigma": True, "levels": 5, "activation": "elu", "centered": False},
    {"classes": 2, "conditional": False},
    {"classes": 2, "multipliers": (1,), "shape": (2, 3, 5)},
]


@pytest.fixture(params=range(len(OPTIONS)))
def network(request):
    made = DDPM(**{**SMALL, "dropout": 0.0, **OPTIONS[request.param]}).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                draws = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(draws / parameter[0].numel() ** 0.5)
    return made


def inputs(network):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, *network.event_shape, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64)


def test_gradients_reach_every_parameter(network):
    x, label = inputs(network)
    y = network(x, label)
    assert y.shape == x.shape
    loss = (y * x).sum()
    if network.conditioning is not None and network.conditioning.classes is not None:
        loss = loss + network(x, label, torch.tensor([0, 1, 0])).square().sum()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # A constant in the keys changes no attention.
        assert name.endswith("key.bias") or parameter.grad.abs().amax() > 1e-12, name


def test_forward_mode_and_maps(network):
    x, label = inputs(network)
    with differentiable():
        y, tangent = torch.func.jvp(lambda u: network(u, label), (x,), (x.cos(),))
        mapped = torch.func.vmap(lambda u, c: network(u[None], c[None])[0])(x, label)
    torch.testing.assert_close(mapped, y, rtol=1e-11, atol=1e-11)
    step = 1e-5
    forward, backward = (network(x + s * step * x.cos(), label) for s in (1, -1))
    torch.testing.assert_close(tangent, (forward - backward) / (2 * step), rtol=1e-5, atol=1e-6)


def test_the_label_is_seen_where_it_is_told(network):
    x, label = inputs(network)
    same = torch.equal(network(x, label), network(x, label.flip(0)))
    heard = network.conditioning is not None and network.conditioning.first is not None
    assert same != (heard or network.division is not None)


def test_channels_are_normalised_in_32_groups():
    with pytest.raises(ValueError, match=r"48 channels .* 32 equal groups"):
        DDPM(**{**SMALL, "channels": 48})


@pytest.mark.parametrize(
    ("count", "options"),
    [
        (35_218_947, {}),
        (111_569_923, {"shape": (3, 256, 256), "multipliers": (1, 1, 2, 2, 4, 4)}),
    ],
)
def test_published_sizes(count, options):
    with torch.device("meta"):
        network = DDPM(**options)
    assert sum(p.numel() for p in network.parameters()) == count

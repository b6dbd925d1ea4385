"""EDM's networks as they begin: initial weights, classes, derivatives."""

from functools import partial

import pytest
import torch

from scorefield import EDM, PotentialField, PreconditionedField
from scorefield.calculus.asymmetry import probed_asymmetry
from scorefield.interop.edm.fresh import DhariwalNetwork, SongNetwork

SMALL = {"channels": 16, "blocks": 1, "classes": 3, "dropout": 0.0}


def song(variant, **k):
    shape = {"multipliers": (1, 2), "attention": (4,)}
    return SongNetwork((2, 8, 8), variant, **shape, **SMALL, **k)


def adm(**k):
    return DhariwalNetwork((2, 8, 8), multipliers=(1, 4), attention=(4,), embedding=2, **SMALL, **k)


NETWORKS = {"ddpmpp": partial(song, "ddpmpp"), "ncsnpp": partial(song, "ncsnpp"), "adm": adm}


def skewness(field, x):
    j = torch.func.jacrev(lambda v: field.denoise(v.reshape(x.shape), 0.5).flatten())(x.flatten())
    return ((j - j.mT).norm() / (2 * j.norm())).detach()


@pytest.fixture(params=NETWORKS)
def make(request):
    return NETWORKS[request.param]


def test_begins_at_nearly_zero_with_gradients_everywhere(make):
    network = make()
    x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    y = network(x, torch.linspace(-1, 1, 4), torch.tensor([0, 1, 2, 3]))
    assert float(y.detach().abs().amax()) < 0.01
    (y - x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().amax() > 0 for p in network.parameters())


def test_the_asymmetry_of_a_field_can_be_made_small(make):
    """Forward mode through attention, and a gradient in the weights of that."""
    field = PreconditionedField(make(), EDM(), 0.5)
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.5, 1.0])
    skew, _ = probed_asymmetry(field.score, x, t, x.sign(), "trace")
    skew.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in field.parameters() if p.grad is not None)


def test_the_seed_decides_the_weights(make):
    states = [make(seed=k).state_dict() for k in (1, 1, 2)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_weights_have_the_published_spread():
    """Of a matrix of 64 x 16 and the biases: uniform with the bounds of Xavier and of Kaiming."""
    layers = song("ddpmpp").map_layer0, adm().map_layer0
    biases = [bool(layer.bias.any()) for layer in layers]
    assert biases == [False, True]
    bounds = [(6 / 80) ** 0.5, (1 / 16) ** 0.5]
    for layer, bound in zip(layers, bounds, strict=True):
        weight = layer.weight.detach()
        assert 0.95 * bound < float(weight.abs().max()) < bound
        # Six standard errors of the mean square of a uniform number.
        square = float(weight.square().mean()) * 3 / bound**2
        assert abs(square - 1) < 6 * (0.8 / weight.numel()) ** 0.5


def test_a_point_of_no_class_is_one_without_classes(make):
    network, x = make(), torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    for parameter in network.parameters():
        parameter.data.add_(0.1)
    label = torch.zeros(2)
    assert torch.equal(network(x, label), network(x, label, torch.tensor([3, 3])))
    assert not torch.allclose(network(x, label), network(x, label, torch.tensor([0, 3])))


def test_is_a_field_whose_potential_is_conservative(make):
    network = make().double()
    for k, parameter in enumerate(network.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k))
        parameter.data.add_(0.1 * noise)
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = PreconditionedField(network, EDM(), 0.5)
    fields = (PotentialField(network, EDM(), 0.5, head="inner"), plain)
    skews = [float(skewness(field, x)) for field in fields]
    assert skews[0] < 1e-12
    assert skews[1] > 1e-6

import pytest
import torch

from scorefield import (
    VP,
    MinimalResNet,
    MinimalUNet,
    NoisePrediction,
    PreconditionedField,
    TimeLabel,
    jacobian,
)

NETWORKS = {
    "unet": lambda **options: MinimalUNet((1, 8, 8), (4, 6, 8), embedding=16, **options),
    "resnet": lambda **options: MinimalResNet((1, 8, 8), 16, 2, **options),
}


@pytest.fixture(params=NETWORKS)
def make(request):
    """How to make a small network of each kind."""
    return NETWORKS[request.param]


def image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_minimal_networks_name_the_sizes_that_fit():
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
def test_rejects_what_makes_no_unet(unchecked, arguments, message):
    with pytest.raises(ValueError, match=message):
        MinimalUNet(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (8, 8)}, "channels, height, width"),
        ({"channels": 8}, "multiple of 8 from 16 on, got 8"),
        ({"channels": 36}, "multiple of 8 from 16 on, got 36"),
        ({"layers": 0}, "layers must be a positive integer, got 0"),
        ({"padding": "reflect"}, "zeros or circular, not 'reflect'"),
        ({"normalization": "batch"}, "group or not at all, not 'batch'"),
        ({"last_kernel_size": 4}, r"odd number .* \[3, 4\]"),
        ({"shape": (1, 2, 9), "padding": "circular", "kernel_size": 7}, "padding of 3 pixels .* 2"),
        ({"classes": 0}, "classes must be a positive integer, got 0"),
    ],
)
def test_rejects_what_makes_no_resnet(unchecked, arguments, message):
    with pytest.raises(ValueError, match=message):
        MinimalResNet(**arguments)


def difference(a, b):
    return (a - b).detach().abs().amax().item()


@pytest.mark.parametrize(("padding", "moves"), [("circular", True), ("zeros", False)])
def test_circular_padding_moves_with_the_image(make, padding, moves):
    """A shift by a multiple of the lowest level's pixel shifts the output; zeros do not."""
    x, label = image(2, 1, 8, 8), image(2)
    network = louder(make(padding=padding)).double()
    shifted = network(x.roll((4, -4), (2, 3)), label)
    apart = difference(shifted, network(x, label).roll((4, -4), (2, 3)))
    assert (apart < 1e-12) == moves


def louder(network):
    """With a last convolution that is not nearly zero."""
    with torch.no_grad():
        for parameter in network.last.parameters():
            parameter.copy_(image(*parameter.shape))
    return network


@pytest.mark.parametrize(("kernel", "last", "reach"), [(3, 1, 3), (3, 3, 4), (5, 3, 7)])
def test_an_output_of_the_resnet_sees_its_surroundings_only(kernel, last, reach):
    """Two layers: (L + 1)(k - 1)/2 pixels in each direction, and (k' - 1)/2 more."""
    options = {"kernel_size": kernel, "last_kernel_size": last}
    network = louder(MinimalResNet((1, 17, 5), 16, 2, **options)).double()
    x = image(1, 1, 17, 5).requires_grad_()
    (seen,) = torch.autograd.grad(network(x, image(1))[0, 0, 8, 2], x)
    rows = seen[0, 0].abs().amax(dim=1).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (8 - reach, 8 + reach)


def test_without_the_last_embedding_the_features_are_doubled():
    one, two = (louder(MinimalResNet((1, 4, 4), 16, 1, add_one=a)).double() for a in (True, False))
    state = one.state_dict()
    assert set(state) - set(two.state_dict()) == {k for k in state if k.startswith("last_level")}
    two.load_state_dict({k: v for k, v in state.items() if k in two.state_dict()})
    x, label = image(2, 1, 4, 4), image(2)
    added = one.last_level(one.label(label))[:, :, None, None]
    h = one.layers[0](one.first(x), one.label(label))
    torch.testing.assert_close(one(x, label), one.last(h + added))
    torch.testing.assert_close(two(x, label), one.last(2 * h))


def test_the_resnet_begins_with_nearly_no_output():
    x, label = image(2, 1, 8, 8).float(), image(2).float()
    assert MinimalResNet((1, 8, 8), 16, 4)(x, label).abs().amax() < 1e-3


def test_each_class_has_a_vector_of_its_own(make):
    network = louder(make(classes=3)).double()
    x, label = image(4, 1, 8, 8), image(4)
    classes = torch.tensor([0, 1, 2, 3])
    together = network(x, label, classes)
    for k in range(4):
        alone = network(x[k : k + 1], label[k : k + 1], classes[k : k + 1])
        torch.testing.assert_close(alone, together[k : k + 1])
    torch.testing.assert_close(network(x, label)[3:], together[3:])
    assert difference(network(x, label)[:3], together[:3]) > 1e-3
    with pytest.raises(ValueError, match=r"classes must lie in \[0, 3\], got 0 to 4"):
        network(x, label, classes + torch.tensor([0, 0, 0, 1]))


def test_a_network_of_known_classes_only_needs_them(make):
    network = louder(make(classes=3, unlabelled=False)).double()
    assert network.label.classes.vectors.weight.shape[0] == 3
    field = PreconditionedField(network, VP(), parametrization=NoisePrediction(TimeLabel(1.0)))
    x, t = image(2, 1, 8, 8), torch.tensor([0.2, 0.7], dtype=torch.float64)
    told = field.score(x, t, torch.tensor([2, 0]))
    torch.testing.assert_close(told[1:], field.score(x[1:], t[1:], 0))
    with pytest.raises(ValueError, match="trained on points of known classes only"):
        field.score(x, t)
    with pytest.raises(ValueError, match=r"classes must lie in 0 … 2, got 3"):
        field.score(x, t, 3)
    with pytest.raises(ValueError, match=r"classes must lie in \[0, 2\], got 0 to 3"):
        network(x, t, torch.tensor([0, 3]))


def test_the_label_enters_as_given():
    """The slowest wave sees the label itself: no factor stands before it."""
    network = MinimalUNet((1, 4, 4), (4, 4), embedding=8).double()
    waves = network.label(torch.tensor([0.3], dtype=torch.float64))
    expected = torch.tensor([0.3 * 10 ** (-4 * j / 3) for j in range(4)], dtype=torch.float64)
    torch.testing.assert_close(waves[0, :4], expected.sin(), rtol=1e-14, atol=0)
    torch.testing.assert_close(waves[0, 4:], expected.cos(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("normalization", [None, "group"])
def test_works_under_vmap(make, normalization, padding):
    network = louder(make(normalization=normalization, padding=padding)).double()
    x, label = image(3, 1, 8, 8), image(3)
    mapped = torch.func.vmap(lambda u, c: network(u[None], c[None])[0])(x, label)
    torch.testing.assert_close(mapped, network(x, label), rtol=1e-12, atol=1e-12)
    rows = torch.func.vmap(torch.func.jacrev(lambda u, c: network(u[None], c[None])[0]))(x, label)
    expected = jacobian(network, x, label)
    torch.testing.assert_close(rows.reshape(3, 64, 64), expected, rtol=1e-9, atol=1e-12)

"""Truths about NCSN++ in all its options, and about the parts that it is made of."""

import itertools
import re
import sys

import pytest
import torch

from scorefield import NCSNpp, differentiable
from scorefield.networks.blocks import Convolution, PixelAttention, Style
from scorefield.networks.resampling import Double, DoublingConv, Halve, HalvingConv, resample
from tests import processes

torch.set_num_threads(1)

SMALL = {"shape": (2, 8, 8), "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
# Every value of every option at least once, and every pair of the two progressive modes.
OPTIONS = [
    {
        "progressive": progressive,
        "progressive_input": progressive_input,
        "combine": ("sum", "cat")[k % 2],
        "fir": (k // 2) % 2 == 0,
        "block": ("biggan", "ddpm")[(k + k // 3) % 2],
        "resample_with_conv": k % 3 > 0,
        "skip_rescale": k % 4 > 1,
        "embedding": ("fourier", "positional")[(k // 3) % 2],
        "conditional": k % 5 > 0,
        "scale_by_sigma": k % 2 == 0,
        "activation": ("swish", "elu", "relu", "lrelu")[k % 4],
        "centered": k % 3 == 0,
        "fir_kernel": ((1, 3, 3, 1), (1, 2, 1), (1, 4, 6, 4, 1), (1, 1))[k % 4],
        "classes": (None, 3)[k % 3 == 1],
    }
    for k, (progressive, progressive_input) in enumerate(
        itertools.product(("none", "output_skip", "residual"), ("none", "input_skip", "residual"))
    )
]


def made(**options):
    """A network in float64 with weights of ordinary size, residual branches included."""
    network = NCSNpp(**{**SMALL, "dropout": 0.0, "init_scale": 1.0, **options}).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.1 * noise)
    return network


def inputs(network, batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, *network.event_shape, generator=generator, dtype=torch.float64)
    return x, torch.rand(batch, generator=generator, dtype=torch.float64) * 3 + 0.1


@pytest.fixture(params=range(len(OPTIONS)))
def network(request):
    return made(**OPTIONS[request.param])


def test_gradients_reach_every_parameter(network):
    x, label = inputs(network)
    y = network(x, label)
    assert y.shape == x.shape
    loss = (y * inputs(network, seed=1)[0]).sum()
    if network.conditioning is not None and network.conditioning.classes is not None:
        loss = loss + network(x, label, torch.tensor([0, 1, 2])).square().sum()
    loss.backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            # A constant in the keys changes no attention.
            assert name.endswith("key.bias") or parameter.grad.abs().amax() > 1e-12, name


def test_derivatives_of_every_kind(network):
    x, label = inputs(network)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def f(u):
        return network(u, label)

    with differentiable():
        y, tangent = torch.func.jvp(f, (x,), (v,))
        step = 1e-5
        differences = (f(x + step * v) - f(x - step * v)) / (2 * step)
        if not any(isinstance(m, torch.nn.ReLU | torch.nn.LeakyReLU) for m in network.modules()):
            torch.testing.assert_close(tangent, differences, rtol=1e-5, atol=1e-6)
        mapped = torch.func.vmap(lambda u, c: network(u[None], c[None])[0])(x, label)
        torch.testing.assert_close(mapped, y, rtol=1e-11, atol=1e-11)
        u = x.clone().requires_grad_()
        (g,) = torch.autograd.grad((f(u) * v).sum(), u, create_graph=True)
        (twice,) = torch.autograd.grad(g.square().sum(), u)
        assert torch.isfinite(twice).all()
        other = torch.func.jvp(f, (x,), (x.cos(),))[1]
        # <v, J cos x> = <J' v, cos x>
        torch.testing.assert_close((g * x.cos()).sum(), (v * other).sum())


@pytest.mark.parametrize("k", [0, 4, 8])
def test_the_order_of_memory_changes_nothing(k):
    network = made(**OPTIONS[k])
    x, label = inputs(network)
    expected = network(x, label)
    found = network(x.to(memory_format=torch.channels_last), label)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    network.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(network(x, label), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("k", [1, 5, 6])
def test_images_need_not_be_square(k):
    network = made(**{**OPTIONS[k], "shape": (2, 4, 12), "attention": (6,)})
    x, label = inputs(network)
    assert network(x, label).shape == x.shape
    assert len(network.down[0].attention) == 0
    assert len(network.down[1].attention) == 1


def test_rows_do_not_see_each_other():
    network = made()
    x, label = inputs(network)
    together = network(x, label)
    for k in range(len(x)):
        alone = network(x[k : k + 1], label[k : k + 1])
        torch.testing.assert_close(alone[0], together[k], rtol=1e-11, atol=1e-11)


def test_no_class_is_the_last_row():
    network = made(classes=3)
    x, label = inputs(network)
    nothing = torch.full((len(x),), 3)
    assert torch.equal(network(x, label), network(x, label, nothing))
    assert not torch.allclose(network(x, label), network(x, label, nothing - 1))


def test_the_output_is_divided_by_the_noise_level():
    levels = {"sigma_min": 0.02, "sigma_max": 30.0, "levels": 7}
    for embedding in ("fourier", "positional"):
        plain = made(embedding=embedding, scale_by_sigma=False)
        divided = made(embedding=embedding, scale_by_sigma=True, **levels)
        divided.load_state_dict(plain.state_dict())
        x, label = inputs(plain)
        sigma = label
        if embedding == "positional":
            label = torch.tensor([0, 3, 6])
            sigma = 30.0 * (0.02 / 30.0) ** (label.double() / 6)
        expected = plain(x, label) / sigma[:, None, None, None]
        torch.testing.assert_close(divided(x, label), expected, rtol=1e-12, atol=0)
        assert divided.float()(x.float(), label.float()).dtype == torch.float32


def test_weights_are_a_function_of_the_seed_and_have_their_law():
    one, same, other = (NCSNpp(**SMALL, seed=s, classes=2).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["first.weight"], other["first.weight"])
    weight = one["down.1.blocks.0.first.weight"]
    bound = (6 / (9 * (8 + 16))) ** 0.5
    assert 0.98 * bound < float(weight.abs().amax()) <= bound
    # The mean square of n uniforms deviates from a third of the square of their bound.
    deviation = float(weight.square().mean()) / (bound**2 / 3) - 1
    assert abs(deviation) < 5.5 * (0.8 / weight.numel()) ** 0.5
    quiet = one["down.1.blocks.0.second.weight"].abs().amax()
    assert 0 < float(quiet) < 1e-5
    key = one["down.1.attention.0.key.weight"].abs().amax()
    assert 0.9 * (0.6 / 32) ** 0.5 < float(key) <= (0.6 / 32) ** 0.5


@pytest.mark.parametrize(
    ("count", "options"),
    [
        (62_758_915, {}),
        (107_587_075, {"blocks": 8}),
        (62_693_251, {"embedding": "positional"}),
        (61_804_419, {"embedding": "positional", "fir": False, "progressive_input": "none"}),
        (
            65_574_549,
            {
                "shape": (3, 256, 256),
                "multipliers": (1, 1, 2, 2, 2, 2, 2),
                "blocks": 2,
                "progressive": "output_skip",
                "progressive_input": "input_skip",
            },
        ),
        (
            105_785_896,
            {
                "shape": (3, 1024, 1024),
                "channels": 16,
                "multipliers": (1, 2, 4, 8, 16, 32, 32, 32),
                "blocks": 1,
                "progressive": "output_skip",
                "progressive_input": "input_skip",
            },
        ),
    ],
)
def test_published_sizes(count, options):
    with torch.device("meta"):
        network = NCSNpp(**options)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8, 8)}, r"shape must be \(channels, height, width\), got \(8, 8\)"),
        ({"shape": (1, 7, 8)}, r"multiples of 2, got 7 x 8"),
        ({"channels": 2}, "channels >= 4"),
        ({"channels": 6}, "cannot be normalised"),
        ({"blocks": 0}, "blocks=0"),
        ({"multipliers": ()}, "multipliers"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"block": "resnet"}, "block is one of"),
        ({"progressive": "skip"}, "progressive is one of"),
        ({"combine": "mean"}, "combine is one of"),
        ({"embedding": "learned"}, "embedding is one of"),
        ({"activation": "tanh"}, "tanh"),
        ({"fir_kernel": (1, -1)}, "fir_kernel"),
        ({"embedding": "positional", "sigma_min": 0.0}, "sigma_min"),
    ],
)
def test_options_that_make_no_network_are_an_error(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        NCSNpp(**{**SMALL, **options})


def test_inputs_that_do_not_fit_are_an_error(unchecked):
    network = made(classes=3)
    x, label = inputs(network)
    indexed = made(embedding="positional", levels=10)
    for call, message in (
        (lambda: network(x[:, :1], label), r"x has shape \(batch, 2, 8, 8\)"),
        (lambda: network(x, label[:2]), r"label has shape \(3,\)"),
        (lambda: network(x, -label), "label must lie in"),
        (lambda: network(x, label, torch.tensor([0, 1, 4])), "classes must lie in"),
        (lambda: network(x, label, torch.tensor([0, 1])), "classes are 3 integers"),
        (lambda: indexed(x, torch.tensor([0, 1, 10])), "label must"),
        (lambda: indexed(x, torch.tensor([0, 1, -1])), "label must"),
        (lambda: indexed(x, label, torch.tensor([0, 1, 0])), "without classes"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("kernel", [None, (1, 1), (1, 2, 1), (1, 3, 3, 1), (1, 4, 6, 4, 1)])
def test_constant_images_stay_constant_inside(kernel):
    x = torch.full((1, 2, 12, 20), 3.0, dtype=torch.float64)
    for layer, size in ((Halve(kernel), (6, 10)), (Double(kernel), (24, 40))):
        y = layer(x)
        assert y.shape[2:] == size
        torch.testing.assert_close(y[..., 3:-3, 3:-3], torch.full_like(y[..., 3:-3, 3:-3], 3.0))


@pytest.mark.parametrize("kernel", [None, (1, 2, 1), (1, 3, 3, 1), (1, 2, 3, 2, 1), (1,)])
def test_convolutions_of_another_resolution_are_a_filter_and_a_convolution(kernel):
    """Inside an image, where neither sees its border."""
    x = torch.randn(1, 2, 12, 16, generator=torch.Generator().manual_seed(0)).double()
    double = DoublingConv(2, 3, kernel).double()
    expected = torch.nn.functional.conv2d(Double(kernel)(x), double.weight, double.bias, padding=1)
    found = double(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4])
    halve = HalvingConv(2, 3, kernel).double()
    assert halve(x).shape == (1, 3, 6, 8)


def test_resampling_is_its_equation():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 1, 5, generator=generator, dtype=torch.float64)
    kernel = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    up, down, before, after = 3, 2, 2, -1
    u = torch.zeros(5 * up, dtype=torch.float64)
    u[::up] = x[0, 0, 0]
    padded = torch.cat((torch.zeros(before), u))[: before + 5 * up + after]
    expected = [
        sum(padded[n + 3 - i] * kernel[0, i] for i in range(4))
        for n in range(0, len(padded) - 3, down)
    ]
    found = resample(x, kernel, (1, up), (1, down), (0, 0, before, after))
    torch.testing.assert_close(found[0, 0, 0], torch.stack(expected))


def test_few_pixels_are_convolved_as_many_are():
    layer = Convolution(5, 7).double()
    for shape in ((1, 5, 3, 4), (2, 5, 1, 1), (1, 5, 40, 40)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
        expected = torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
        torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


PEAK = """
import re, sys, torch
from pathlib import Path
from scorefield.networks.blocks import PixelAttention
from scorefield.networks.blocks import Style
layer = PixelAttention(32, Style(torch.nn.SiLU(), None, 0.0, True))
x = torch.randn(4, 32, 64, 64)
def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
layer(x[..., :8, :8])
before = peak()
layer(x).sum().backward()
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from Linux")
def test_attention_does_not_hold_all_pairs_of_pixels():
    # Four images' pairs alone would be 256 MiB.
    assert float(re.findall(r"[\d.]+", processes.python(PEAK))[-1]) < 64


def test_attention_is_its_equation():
    layer = PixelAttention(8, Style(torch.nn.SiLU(), None, 0.0, True)).double()
    x = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    h = layer.norm(x).flatten(2).mT
    weights = (layer.query(h) @ layer.key(h).mT / 8**0.5).softmax(dim=-1)
    out = layer.out(weights @ layer.value(h)).mT.reshape(x.shape)
    torch.testing.assert_close(layer(x), (x + out) / 2**0.5, rtol=1e-12, atol=1e-12)

"""Laws of the noise conditional score networks."""

import pytest
import torch

from scorefield.networks.embedding import NoiseTable
from scorefield.networks.ncsn import NCSN, NCSNv2

torch.set_num_threads(1)

NETWORKS = {
    "ncsn": lambda **k: NCSN((3, 4, 6), channels=4, levels=5, **k),
    "ncsn-centred": lambda **k: NCSN(
        (1, 6, 4), channels=3, levels=2, activation="swish", centered=True, **k
    ),
    "ncsnv2-64": lambda **k: NCSNv2((3, 4, 6), 64, channels=4, levels=5, **k),
    "ncsnv2-128": lambda **k: NCSNv2(
        (1, 8, 4), 128, channels=2, levels=5, activation="lrelu", centered=True, **k
    ),
    "ncsnv2-256": lambda **k: NCSNv2(
        (2, 16, 24), 256, channels=3, levels=5, normalization="VarianceNorm", **k
    ),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]().double()


def inputs(network, batch=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, *network.event_shape, generator=generator, dtype=torch.float64)
    return x, torch.arange(batch) % 2


def test_rows_do_not_see_each_other(network):
    x, label = inputs(network)
    together = network(x, label)
    for k in range(4):
        alone = network(x[k : k + 1], label[k : k + 1])
        torch.testing.assert_close(alone[0], together[k], rtol=1e-10, atol=1e-10)


def test_gradients_reach_every_parameter(network):
    x, label = inputs(network)
    (network(x, label) * x.roll(1, 0)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().amax() > 1e-10, name


def test_forward_mode_agrees_with_finite_differences(network):
    x, label = inputs(network)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, tangent = torch.func.jvp(lambda u: network(u, label), (x,), (v,))
    h = 1e-6
    difference = (network(x + h * v, label) - network(x - h * v, label)) / (2 * h)
    scale = tangent.abs().amax()
    torch.testing.assert_close(tangent / scale, difference / scale, rtol=1e-5, atol=1e-6)


def test_second_derivatives_agree_with_finite_differences(network):
    x, label = inputs(network, batch=2)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradient(u):
        u = u.detach().requires_grad_()
        (g,) = torch.autograd.grad(network(u, label).sin().sum(), u, create_graph=True)
        return u, g

    u, g = gradient(x)
    (second,) = torch.autograd.grad((g * v).sum(), u)
    h = 1e-6
    expected = (gradient(x + h * v)[1] - gradient(x - h * v)[1]) / (2 * h)
    scale = expected.abs().amax()
    torch.testing.assert_close(second / scale, expected / scale, rtol=1e-4, atol=1e-4)


def test_vmap_is_the_loop(network):
    x, label = inputs(network)
    one = torch.func.vmap(lambda u, i: network(u[None], i[None])[0])
    torch.testing.assert_close(one(x, label), network(x, label), rtol=1e-10, atol=1e-10)
    v = torch.randn(3, *x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tangents = torch.func.vmap(
        lambda w: torch.func.jvp(lambda u: network(u, label), (x,), (w,))[1]
    )(v)
    for k in range(3):
        alone = torch.func.jvp(lambda u: network(u, label), (x,), (v[k],))[1]
        torch.testing.assert_close(tangents[k], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seed_decides_the_weights(name):
    torch.manual_seed(1)
    a = NETWORKS[name]().state_dict()
    torch.manual_seed(2)
    b = NETWORKS[name]().state_dict()
    c = NETWORKS[name](seed=1).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_initial_weights_have_the_laws_of_torch():
    network = NCSN((3, 4, 4), channels=32, levels=20)
    weight = network.trunk.down[1][1].first.weight
    fan_in, n = 64 * 9, weight.numel()
    assert float(weight.detach().abs().amax()) <= fan_in**-0.5
    # The mean square of uniforms on ±b is b²/3, with a variance of 4 b⁴ / (45 n).
    deviation = 3 * fan_in * float(weight.detach().square().mean()) - 1
    assert abs(deviation) < 5.5 * (0.8 / n) ** 0.5
    scale, mean_scale, shift = network.last_norm.coefficients.weight.detach().chunk(3, dim=1)
    for part in (scale, mean_scale):
        assert abs(float(part.mean()) - 1) < 5.5 * 0.02 / part.numel() ** 0.5
        assert abs(float(part.std()) / 0.02 - 1) < 5.5 / (2 * part.numel()) ** 0.5
    assert torch.equal(shift, torch.zeros_like(shift))


def test_the_label_divides_by_the_noise_level():
    network = NCSNv2((1, 4, 4), channels=2, sigma_min=0.01, sigma_max=1.0, levels=3).double()
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64).expand(3, -1, -1, -1)
    y = network(x, torch.arange(3))
    torch.testing.assert_close(y[1], 10 * y[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(y[2], 100 * y[0], rtol=1e-12, atol=0)


def test_a_table_is_a_geometric_progression_whatever_the_dtype():
    table, index = NoiseTable(0.01, 348.0, 500), torch.arange(500)
    exact = table.at(index, torch.ones(500, 1, dtype=torch.float64))[:, 0]
    assert torch.allclose(exact[:2].log(), torch.tensor([348.0]).double().log(), atol=0.03)
    ratio = torch.full((499,), (0.01 / 348.0) ** (1 / 499), dtype=torch.float64)
    torch.testing.assert_close(exact[1:] / exact[:-1], ratio, rtol=1e-12, atol=0)
    single = table.at(index, torch.ones(500, 1))
    assert single.dtype == torch.float32
    assert torch.equal(single[:, 0], exact.float())


def test_whole_numbers_of_any_dtype_are_labels(network):
    x, label = inputs(network)
    assert torch.equal(network(x, label), network(x, label.float()))


@pytest.mark.parametrize("label", [[0, 5], [-1, 0], [0.5, 1.0], [float("nan"), 0.0]])
def test_refuses_labels_outside_of_the_table(label):
    network = NCSNv2((1, 4, 4), channels=2, levels=5)
    with pytest.raises(ValueError, match="label must hold whole numbers from 0 to 4"):
        network(torch.zeros(2, 1, 4, 4), torch.tensor(label))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (3, 5, 4)}, "shape must have sides that are multiples of 2"),
        ({"shape": (3, 2, 2)}, "more than 2 x 2 pixels"),
        ({"shape": (3, 4)}, "shape must be"),
        ({"channels": 1}, "channels must be"),
        ({"levels": 1}, "levels must be"),
        ({"activation": "tanh"}, "activation must be one of"),
    ],
)
@pytest.mark.parametrize("kind", [NCSN, NCSNv2])
def test_refuses_what_does_not_fit(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        kind(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (3, 12, 16), "size": 256}, "multiples of 8"),
        ({"shape": (3, 6, 8), "size": 128}, "multiples of 4"),
        ({"normalization": "GroupNorm"}, "normalization must be one of"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "0 < sigma_min < sigma_max"),
    ],
)
def test_version_2_refuses_what_does_not_fit(arguments, words):
    with pytest.raises(ValueError, match=words):
        NCSNv2(**arguments)


def test_refuses_images_that_do_not_fit():
    network = NCSNv2((1, 4, 4), channels=2, levels=5)
    label = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="x must have 1 channels"):
        network(torch.zeros(2, 3, 4, 4), label)
    with pytest.raises(ValueError, match="x must have sides"):
        network(torch.zeros(2, 1, 4, 5), label)
    assert network(torch.zeros(2, 1, 6, 10), label).shape == (2, 1, 6, 10)

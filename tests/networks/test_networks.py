"""Laws that every backbone keeps."""

import pytest
import torch

from scorefield import (
    EGNN,
    MLP,
    EquivariantMLP,
    MinimalResNet,
    MinimalUNet,
    SymmetrizedMLP,
    UNet,
    differentiable,
)

torch.set_num_threads(1)

BACKBONES = {
    "mlp": lambda: MLP(3, hidden=16, depth=2, embedding=8),
    "mlp-deep": lambda: MLP(2, hidden=8, depth=4, embedding=4),
    "symmetrized": lambda: SymmetrizedMLP((3, 2), (1.0, 2.5), 8, 2, harmonics=2, embedding=4),
    "symmetrized-one": lambda: SymmetrizedMLP((1, 2), 1.0, hidden=8, depth=1, embedding=4),
    "equivariant": lambda: EquivariantMLP((4, 2), (1.0, 2.5), 8, 3, harmonics=2, embedding=4),
    "equivariant-one": lambda: EquivariantMLP((1, 2), 1.0, hidden=8, depth=2, embedding=4),
    "egnn": lambda: EGNN((3, 2), hidden=8, depth=2, embedding=4),
    "unet": lambda: UNet((1, 8, 8), channels=8, attention=(4,)),
    "unet-wide": lambda: UNet((3, 4, 12), channels=12, multipliers=(1, 2, 3), attention=(4, 1)),
    "unet-one-level": lambda: UNet((2, 5, 3), channels=8, multipliers=(1,), blocks=2),
    "unet-patches": lambda: UNet((2, 4, 12), channels=8, attention=(2,), patch=2),
    "unet-heads": lambda: UNet((1, 4, 4), channels=32, attention=(4, 2)),
    "minimal": lambda: MinimalUNet(
        (1, 4, 4), (64, 64), normalization="group", embedding=8, last_norm=True
    ),
    "minimal-circular": lambda: MinimalUNet(
        (3, 4, 12), (4, 8), "circular", embedding=8, last_kernel_size=3
    ),
    "resnet": lambda: MinimalResNet((3, 4, 5), 24, 2, last_kernel_size=3),
    "resnet-circular": lambda: MinimalResNet((1, 5, 4), 16, 2, "circular", "group", add_one=False),
}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    """A backbone with weights of ordinary size: residual branches begin at nearly zero."""
    network = BACKBONES[request.param]()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = max(1, parameter[0].numel())
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / fan_in**0.5 + float(parameter.dim() == 1))
    return network


def inputs(backbone, batch=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *backbone.event_shape, generator=generator, dtype=torch.float64)
    label = torch.randn(batch, generator=generator, dtype=torch.float64)
    return x.to(dtype), label.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_shape_and_dtype(backbone, dtype):
    x, label = inputs(backbone, dtype=dtype)
    y = backbone.to(dtype)(x, label)
    assert y.shape == x.shape
    assert y.dtype == dtype


def test_rows_do_not_see_each_other(backbone):
    x, label = inputs(backbone)
    together = backbone(x, label)
    for k in range(x.shape[0]):
        alone = backbone(x[k : k + 1], label[k : k + 1])
        torch.testing.assert_close(alone[0], together[k], rtol=1e-5, atol=1e-5)


def test_depends_on_the_label(backbone):
    x, label = inputs(backbone)
    assert (backbone(x, label) - backbone(x, label + 0.1)).abs().amax() > 1e-4


def test_gradients_reach_every_parameter(backbone):
    backbone.double()
    x, label = inputs(backbone, dtype=torch.float64)
    (backbone(x, label) * inputs(backbone)[0].roll(1, 0)).sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().amax() > 1e-10, name


def test_forward_mode_agrees_with_finite_differences(backbone):
    backbone.double()
    x, label = inputs(backbone, dtype=torch.float64)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with differentiable():
        _, tangent = torch.func.jvp(lambda u: backbone(u, label), (x,), (v,))
    h = 1e-5
    difference = (backbone(x + h * v, label) - backbone(x - h * v, label)) / (2 * h)
    torch.testing.assert_close(tangent, difference, rtol=1e-6, atol=1e-7)


def test_second_derivatives_agree_with_finite_differences(backbone):
    backbone.double()
    x, label = inputs(backbone, batch=2, dtype=torch.float64)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    parameter = next(p for n, p in backbone.named_parameters() if n.endswith("weight"))

    def slope():
        """d/dx of the sum of squares, along v."""
        u = x.clone().requires_grad_()
        with differentiable():
            (g,) = torch.autograd.grad(backbone(u, label).square().sum(), u, create_graph=True)
        return (g * v).sum()

    (second,) = torch.autograd.grad(slope(), parameter)
    w = torch.randn(second.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    h, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(sign * h * w)
        ends.append(slope().detach())
        with torch.no_grad():
            parameter.sub_(sign * h * w)
    expected = (ends[0] - ends[1]) / (2 * h)
    torch.testing.assert_close((second * w).sum(), expected, rtol=1e-5, atol=1e-6)


def test_every_parameter_shapes_a_potential(backbone):
    # The inner head turns any backbone into a potential; its score is what is trained.
    backbone.double()
    x, label = inputs(backbone, dtype=torch.float64)
    x.requires_grad_()
    with differentiable():
        (score,) = torch.autograd.grad((x * backbone(x, label)).sum(), x, create_graph=True)
        score.square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().amax() > 1e-10, name


def test_state_round_trip(backbone, request):
    x, label = inputs(backbone)
    twin = BACKBONES[request.node.callspec.params["backbone"]]()
    twin.load_state_dict(backbone.state_dict())
    assert torch.equal(twin(x, label), backbone(x, label))


@pytest.mark.parametrize("name", BACKBONES)
def test_the_seed_decides_the_weights(name):
    torch.manual_seed(1)
    a = BACKBONES[name]().state_dict()
    torch.manual_seed(2)
    b = BACKBONES[name]().state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)

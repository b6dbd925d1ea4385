"""Every network, and the gradient of every potential, is one graph for batches of all sizes."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from scorefield import (
    DDPM,
    EDM,
    EGNN,
    MLP,
    NCSN,
    EDMScaling,
    EquivariantMLP,
    HybridField,
    MinimalResNet,
    MinimalUNet,
    NCSNpp,
    NCSNv2,
    PotentialField,
    PreconditionedField,
    SymmetrizedMLP,
    UNet,
    differentiable,
)
from scorefield.engine import Engine
from scorefield.fields.labels import LOG_NOISE, SigmaLabel, TimeLabel
from scorefield.interop import edm2
from scorefield.interop.edm.fresh import DhariwalNetwork, SongNetwork
from scorefield.interop.guided_diffusion import Flags, UNetModel
from scorefield.networks.classifier import Classifier, NoiseClassifier

IMAGE = (1, 4, 4)
TINY = {"shape": IMAGE, "channels": 8, "multipliers": (1, 2), "blocks": 1}


def drawn(module: nn.Module) -> nn.Module:
    """A network that is made for weights of a file, with some."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
    return module


FAST = {
    "mlp": lambda: MLP(2, hidden=8, depth=2),
    "mlp, classes": lambda: MLP(2, hidden=8, depth=2, classes=3),
    "classifier": lambda: Classifier(IMAGE, 3, channels=4, features=8),
}
SLOW = {
    "symmetrized": lambda: SymmetrizedMLP((3, 2), hidden=8, depth=2, embedding=4),
    "equivariant": lambda: EquivariantMLP((3, 2), hidden=8, depth=2, embedding=4),
    "egnn": lambda: EGNN((3, 2), hidden=8, depth=2, embedding=4),
    "unet": lambda: UNet(IMAGE, 8, (1, 2), attention=(2,)),
    "minimal unet": lambda: MinimalUNet(IMAGE, (8, 16)),
    "minimal resnet": lambda: MinimalResNet(IMAGE, 16, 1, "circular", "group"),
    "noise classifier": lambda: NoiseClassifier(IMAGE, 3, 1, 1, embedding=4),
    "ncsnpp": lambda: NCSNpp(**TINY, attention=(2,)),
    "ncsnpp, classes": lambda: NCSNpp(**TINY, classes=3),
    "ncsnpp, output_skip": lambda: NCSNpp(
        **TINY, progressive="output_skip", progressive_input="input_skip", combine="cat"
    ),
    "ncsnpp, residual": lambda: NCSNpp(**TINY, block="ddpm", progressive="residual"),
    "ddpmpp": lambda: NCSNpp(**TINY, embedding="positional", fir=False),
    "ddpm": lambda: DDPM(**TINY | {"channels": 32}, attention=(2,)),
    "song": lambda: SongNetwork(
        (1, 8, 8), "ddpmpp", channels=8, multipliers=(1, 2), blocks=1, attention=(4,), classes=3
    ),
    "song, ncsnpp": lambda: SongNetwork(
        (1, 8, 8), "ncsnpp", channels=8, multipliers=(1, 2), blocks=1, attention=(4,), classes=3
    ),
    "adm": lambda: DhariwalNetwork(
        (1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), classes=3
    ),
    "edm2": lambda: drawn(
        edm2.UNet(
            8,
            1,
            3,
            model_channels=16,
            channel_mult=(1, 2),
            num_blocks=1,
            attn_resolutions=(4,),
            channels_per_head=16,
        )
    ),
    "guided-diffusion": lambda: drawn(
        UNetModel(Flags(8, 32, 1, channel_mult="1,2", attention_resolutions="4"), 4)
    ),
    "ncsn": lambda: NCSN(IMAGE, 4),
    "ncsnv2": lambda: NCSNv2((1, 8, 8), channels=4, levels=9),
    "ncsnv2, variance": lambda: NCSNv2((1, 8, 8), 64, 4, levels=9, normalization="VarianceNorm"),
}
NETWORKS = FAST | SLOW
CASES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No graphs of other tests."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def alive(module: nn.Module) -> nn.Module:
    """A module whose branches do not begin at nearly zero, and without dropout."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def inputs(network: nn.Module, batch: int) -> tuple[torch.Tensor, ...]:
    """Points, the labels that a network takes, whole or not, and classes if it knows any."""
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, *network.event_shape, generator=generator)
    if isinstance(network, Classifier):
        return (x,)
    label = torch.randint(1, 9, (batch,), generator=generator).float()
    if isinstance(network, NoiseClassifier) or not getattr(network, "classes", None):
        return x, label
    return x, label, torch.randint(0, 4, (batch,), generator=generator)


def evaluated(function: nn.Module, given: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """The output, and the gradients of a function of it."""
    function.zero_grad()
    output = function(*given)
    output.square().mean().backward()
    gradients = [p.grad.flatten() for p in function.parameters() if p.grad is not None]
    return [output.detach(), torch.cat(gradients)]


def agree(one: list[torch.Tensor], other: list[torch.Tensor], rounding: float) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=rounding * float(b.abs().amax()))


def is_one_graph(module: nn.Module, rounding: float, backend: str = "aot_eager") -> None:
    """One graph with gradients and one without, of two batches of different sizes.

    Both are below 16, where torch's own convolutions change their algorithm on a processor.
    """
    counter = CompileCounterWithBackend(backend)
    eager, compiled = module, copy.deepcopy(module)
    compiled.compile(backend=counter, fullgraph=True)
    for batch in (3, 15):
        given = inputs(module, batch)
        expected = evaluated(eager, given)
        for tensor in given:
            torch._dynamo.mark_dynamic(tensor, 0)
        agree(evaluated(compiled, given), expected, rounding)
        assert counter.frame_count == 1


@pytest.mark.parametrize("name", CASES)
def test_a_network_is_one_graph_forward_and_backward(name):
    is_one_graph(alive(NETWORKS[name]()), 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "ncsnpp", "ddpm"])
def test_a_network_whose_channels_come_last_is_one_graph(name):
    is_one_graph(alive(NETWORKS[name]()).to(memory_format=torch.channels_last), 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "ncsnpp", "ncsn", "minimal unet"])
def test_a_network_whose_blocks_are_computed_again_is_one_graph(name):
    with Engine("cpu", recompute=True).running():
        is_one_graph(alive(NETWORKS[name]()), 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "unet", "ncsnpp"])
def test_compiled_code_is_the_network(name):
    is_one_graph(alive(NETWORKS[name]()), 1e-5, backend="inductor")


def potential(name: str) -> PotentialField:
    head, label = {"unet": ("inner", LOG_NOISE), "ncsnpp": ("denoising", SigmaLabel())}.get(
        name, ("sum", LOG_NOISE)
    )
    scaling = EDMScaling(0.5, label)
    return alive(PotentialField(NETWORKS[name](), EDM(), parametrization=scaling, head=head))


def hybrid() -> HybridField:
    high = PreconditionedField(alive(NETWORKS["mlp"]()), EDM(), 0.5)
    return HybridField(potential("mlp"), high, sigma_c=0.5)


FIELDS = {
    "mlp": lambda: potential("mlp"),
    "equivariant": lambda: potential("equivariant"),
    "symmetrized": lambda: potential("symmetrized"),
    "hybrid": hybrid,
    "unet": lambda: potential("unet"),
}


def points(field: nn.Module, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points, half of them of a low noise level."""
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, *field.domain.shape, generator=generator)
    return x, torch.tensor([0.3, 0.8])[torch.arange(batch) % 2]


@pytest.mark.slow
def test_a_compiled_potential_of_ncsnpp_has_the_gradients_of_the_plain_one():
    # Unlike the others, it takes a graph for each size of a batch.
    field = potential("ncsnpp")
    compiled = copy.deepcopy(field)
    compiled.compile(backend="aot_eager", fullgraph=True, dynamic=True)
    for batch in (6, 14):
        given = points(field, batch)
        agree(evaluated(compiled, given), evaluated(field, given), 2e-6)


@pytest.mark.parametrize(
    "name",
    ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in FIELDS if name != "mlp")],
)
def test_a_field_is_compiled_with_the_gradients_that_it_takes(name):
    field = FIELDS[name]()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = copy.deepcopy(field)
    compiled.compile(backend=counter, fullgraph=True, dynamic=True)
    for batch in (6, 14):
        given = points(field, batch)
        agree(evaluated(compiled, given), evaluated(field, given), 2e-6)
    parts = 2 if name == "hybrid" else 1
    assert counter.frame_count == parts
    with torch.no_grad():
        agree([compiled(*given)], [field(*given)], 2e-6)
    assert counter.frame_count == 2 * parts
    with torch.inference_mode():
        agree([compiled(*given)], [field(*given)], 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_compiled_code_is_the_potential(name):
    field = FIELDS[name]()
    compiled = copy.deepcopy(field)
    compiled.compile(fullgraph=True)
    given = points(field, 6)
    agree(evaluated(compiled, given), evaluated(field, given), 1e-5)


@pytest.mark.parametrize("make", [lambda: potential("mlp"), hybrid])
def test_a_compiled_field_is_differentiated_as_before(make):
    field = make()
    compiled = copy.deepcopy(field)
    counter = CompileCounterWithBackend("aot_eager")
    compiled.compile(backend=counter, fullgraph=True)
    x, t = points(field, 4)

    def derivative(of: nn.Module) -> torch.Tensor:
        with differentiable():
            return torch.func.jvp(lambda u: of(u, t), (x,), (torch.ones_like(x),))[1]

    torch.testing.assert_close(derivative(compiled), derivative(field))
    assert counter.frame_count == 0


def test_a_copy_of_a_compiled_field_has_weights_of_its_own():
    field = potential("mlp")
    names = list(field.state_dict())
    field.compile(backend="eager", fullgraph=True)
    given = points(field, 4)
    before = field(*given).detach()
    copied = copy.deepcopy(field)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(copied(*given).detach(), before)
    assert not torch.allclose(field(*given), before)
    assert list(field.state_dict()) == names


def test_many_models_are_compiled_in_one_process():
    with torch._dynamo.config.patch(recompile_limit=8):
        for width in range(1, 10):
            field = PreconditionedField(MLP(2, hidden=width, depth=1), EDM(), 0.5)
            Engine(device="cpu", compile=True).place(field)
            with torch.compiler.set_stance("default", force_backend="eager"):
                field(*points(field, 4))


@pytest.mark.parametrize("head", ["inner", "denoising"])
def test_a_potential_of_fused_attention_is_trained(head):
    network = DDPM((1, 4, 4), 32, (1, 2), 1, attention=(4,))
    scaling = EDMScaling(0.5, TimeLabel(999.0))
    field = alive(PotentialField(network, EDM(), parametrization=scaling, head=head))
    given = points(field, 2)
    found = evaluated(field, given)
    with differentiable():
        agree(found, evaluated(field, given), 1e-5)

"""Blocks that are computed again in the backward pass: the same gradients from fewer tensors."""

import pytest
import torch
from torch import Tensor

from scorefield import (
    DDPM,
    EDM,
    NCSN,
    Engine,
    HybridField,
    MinimalResNet,
    MinimalUNet,
    NCSNpp,
    NCSNv2,
    PotentialField,
    PreconditionedField,
    Protocol,
    UNet,
    exterior_derivative,
)
from scorefield.dropout import dropouts, set_keys
from scorefield.training.identity import of_module, translated

SHAPE = (1, 8, 8)
SMALL = {"shape": SHAPE, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "dropout": 0.3}
NETWORKS = {
    "unet": lambda: UNet(channels=8, **SMALL),
    "ncsnpp": lambda: NCSNpp(channels=8, **SMALL),
    "ddpm": lambda: DDPM(channels=32, **SMALL),
    "ncsn": lambda: NCSN(SHAPE, 4),
    "ncsnv2": lambda: NCSNv2(SHAPE, channels=4, levels=9),
    "minimal unet": lambda: MinimalUNet(SHAPE, (8, 16)),
    "minimal resnet": lambda: MinimalResNet(SHAPE, 16, 2),
}


def kept(function, recompute: bool) -> tuple[Tensor, int]:
    """The gradient of a training step, and the bytes that are kept for it."""
    seen: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage
        return tensor

    function.zero_grad()
    torch.manual_seed(0)
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    with Engine("cpu", recompute=recompute).running():
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = function(x, torch.tensor([1.0, 2.0, 3.0])).square().mean()
        loss.backward()
    gradients = [p.grad.flatten() for p in function.parameters() if p.grad is not None]
    weights = sum(p.nbytes for p in function.parameters())
    return torch.cat(gradients), sum(s.nbytes() for s in seen.values()) - weights


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_equal_and_less_is_kept(name):
    network = NETWORKS[name]()
    plain, much = kept(network, False)
    found, little = kept(network, True)
    assert float(plain.norm()) > 0
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))
    assert little < much / 2


def test_parts_of_a_batch_have_the_dropout_of_their_rows():
    halves = (PreconditionedField(NETWORKS["unet"](), EDM(), 0.5) for _ in range(2))
    field = HybridField(*halves, sigma_c=1.5)
    keys = torch.arange(3 * 2 * len(dropouts(field)), dtype=torch.int32).view(3, -1, 2)
    set_keys(dropouts(field), keys)
    (plain, _), (found, _) = (kept(field, recompute) for recompute in (False, True))
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))


def test_a_potential_keeps_its_blocks():
    # Their second derivatives need what a block would compute again.
    field = PotentialField(NETWORKS["unet"](), EDM(), 0.5, head="inner")
    plain, much = kept(field, False)
    found, as_much = kept(field, True)
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))
    assert as_much == much


def test_what_is_measured_keeps_its_blocks():
    field = PreconditionedField(UNet((1, 4, 4), 8, (1, 2)), EDM(), 0.5).eval()
    protocol, data = Protocol(sigmas=(0.5,), n=2), torch.rand(4, 1, 4, 4)
    plain = exterior_derivative(field, data, protocol)
    with Engine("cpu", recompute=True).running():
        assert exterior_derivative(field, data, protocol) == plain


def test_a_training_of_an_earlier_version_whose_network_knew_of_it_is_still_the_same():
    today = {**of_module("a", NETWORKS["ncsnpp"]()), **of_module("b", NETWORKS["ncsn"]())}
    then = {**today, "b.trunk.checkpointing": "False"}
    plans = {k: f"{v[:-1]}, checkpointing=False)" for k, v in today.items() if k.endswith(".plan")}
    assert plans
    assert translated(then | plans) == translated(today) == today

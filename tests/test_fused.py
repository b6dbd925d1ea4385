"""Compiled noise is noise: the same to the bit, by one graph a kind, and only where it pays."""

from contextlib import nullcontext

import pytest
import torch
from torch._dynamo.utils import counters
from torch._subclasses import FakeTensorMode

from scorefield import fused, noise
from scorefield.engine import Engine, exact
from scorefield.noise import Noise
from tests.elsewhere import ELSEWHERE, Notes, elsewhere

KINDS = ("normal", "uniform", "signs")


def draw(kind, dtype, n=64, shape=(3, 50), step=1, purpose="p", device="cpu"):
    index = torch.arange(n, device=device) + 2**33
    return getattr(Noise(5), kind)(purpose, shape, index, step, dtype)


@pytest.fixture
def always(monkeypatch):
    """Every draw is made by a compiled function."""
    monkeypatch.setattr(noise, "fused", lambda f, size, *inputs: fused.compiled(f)(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_draws_are_equal_to_the_bit_by_one_graph(kind, always, monkeypatch):
    calls = [
        {"n": n, "shape": shape, "step": step, "purpose": purpose}
        for n, shape in ((64, (3, 50)), (128, (700,)), (16, (2, 3, 70)))
        for step, purpose in ((1, "p"), (7, "another"))
    ]
    for dtype in (torch.float32, torch.float64):
        torch.compiler.reset()
        fused.compiled.cache_clear()
        counters.clear()
        for call in calls:
            found = draw(kind, dtype, **call)
            with monkeypatch.context() as eager:
                eager.setattr(noise, "fused", lambda f, size, *inputs: f(*inputs))
                assert torch.equal(found, draw(kind, dtype, **call))
        assert counters["stats"]["unique_graphs"] == 1
        assert not counters["graph_break"]


@pytest.mark.slow
def test_the_context_takes_no_graph_of_its_own():
    def told(x):
        return x * 3 + (1 if torch.compiler.is_compiling() else 0)

    call, x = fused.compiled(told), torch.arange(6)
    counters.clear()
    for context in (nullcontext(), exact(), Engine("cpu", "bfloat16").running(), torch.no_grad()):
        with context:
            assert torch.equal(call(x), 3 * x + 1)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_draws_do_not_wait(kind, always, monkeypatch):
    """What surrounds the graph, which is called as plain code here."""
    monkeypatch.setattr(torch, "compile", lambda function, **kwargs: function)
    fused.compiled.cache_clear()
    with elsewhere() as notes:
        found = draw(kind, torch.float32, device=ELSEWHERE)
        assert notes == Notes()
    monkeypatch.undo()
    fused.compiled.cache_clear()
    assert torch.equal(found.near, draw(kind, torch.float32))


@pytest.mark.parametrize(
    ("device", "size", "expected"),
    [("cuda", 2**16, True), ("cuda", 2**10, False), ("cpu", 2**20, False)],
)
def test_many_numbers_on_a_cuda_device_are_compiled(device, size, expected, monkeypatch):
    monkeypatch.setattr(fused, "compiled", lambda function: lambda *inputs: "compiled")
    with FakeTensorMode():
        inputs = (torch.float32, torch.zeros(3, device=device), (1, 2))
    assert fused.fused(lambda *inputs: "plain", size, *inputs) == (
        "compiled" if expected else "plain"
    )

"""A step that a CUDA graph could replay: its operations do not depend on the number of the step."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

import scorefield as sf
from scorefield.config.build import build_field, build_objective, build_source
from scorefield.config.resolve import load_config
from scorefield.noise import Noise
from scorefield.training.settings import TrainSettings
from scorefield.training.step import Stepper


class Operations(TorchDispatchMode):
    """Lists operations, with their plain arguments and the kinds of their tensors."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        constant = func is torch.ops.aten.lift_fresh.default

        def kind(tensor):
            return (tensor.shape, tensor.dtype, tensor.tolist() if constant else None)

        if func.namespace != "profiler":
            self.calls.append((func, *tree_map_only(Tensor, kind, (args, kwargs or {}))))
        return func(*args, **kwargs or {})


def stepper_of(preset, engine=None, snapshots=False, **settings):
    config = load_config(preset)
    source = build_source(config)
    field = build_field(config, source).train()
    optim = sf.Optim(warmup=10, decay="cosine", clip=0.5, weight_decay=0.01)
    given = TrainSettings(**{"batch_size": 8, "steps": 100, **settings})
    objective = build_objective(config, source)
    engine = engine or sf.Engine("cpu")
    return Stepper(field, source, objective, optim, given, Noise(0), engine, snapshots)


def recorded(stepper, step):
    """The operations of a step but for its draws, and its last numbers."""
    batch = stepper._batch(step)
    stepper._begin(step)
    with Operations() as found:
        stepper._advance(batch, step)
    return found.calls


SETTINGS = {
    **{preset: (preset, {}) for preset in ("toy/m0", "toy/m1", "toy/m2", "toy/m3")},
    "digits/m0": ("digits/m0", {}),
    "digits/m2": pytest.param("digits/m2", {}, marks=pytest.mark.slow),
    "atoms": ("atoms/no_regularizer", {}),
    "averages": ("toy/m0", {"snapshots": True, "ema_decay": None, "ema_halflife": 50.0}),
    "parts": ("toy/m0", {"accumulate": 2}),
    "loss scale": ("toy/m0", {"engine": sf.Engine("cpu", "float16")}),
}


@pytest.mark.parametrize(("preset", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_a_step_has_the_operations_of_the_step_before(preset, settings):
    stepper = stepper_of(preset, **settings)
    for step in range(2):
        stepper.take(step)
    assert not any(stepper.objective.due(step) for step in (2, 3, 5))
    first, *others = (recorded(stepper, step) for step in (2, 3, 5))
    assert len(first) > 20
    for other in others:
        assert other == first


class Graph:
    """A CUDA graph on a CPU: what is captured computes nothing, and a replay does the operations
    again, from the memory that they read to the memory that they wrote.
    """

    def __init__(self):
        self.calls, self.replays = [], 0

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_iter(out), tree_iter(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Capture(TorchDispatchMode):
    def __init__(self, graph):
        super().__init__()
        self.graph, self.made, self.found = graph, set(), {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for given in tree_iter((args, kwargs)):
            if isinstance(given, Tensor):
                place = given.untyped_storage().data_ptr()
                if place not in self.made | self.found.keys():
                    self.found[place] = (given, given.untyped_storage().clone())
        out = func(*args, **kwargs or {})
        tensors = [t for t in tree_iter(out) if isinstance(t, Tensor)]
        self.made |= {t.untyped_storage().data_ptr() for t in tensors} - self.found.keys()
        if func.namespace != "profiler":
            self.graph.calls.append((func, args, kwargs or {}, out))
        return out

    def restore(self):
        for given, storage in self.found.values():
            given.untyped_storage().copy_(storage)


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are made, on a CPU."""
    made = []

    def new():
        made.append(Graph())
        return made[-1]

    @contextmanager
    def capture(graph, capture_error_mode):
        with Capture(graph) as mode:
            yield
        mode.restore()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", new)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    return made


class OnCpu(sf.Engine):
    torch_device = torch.device("cpu")


@pytest.mark.parametrize("preset", ["toy/m0", "toy/m1", "toy/m2"])
def test_replayed_steps_are_steps(preset, graphs):
    def trained(engine):
        stepper = stepper_of(preset, engine, snapshots=True)
        batch_of = stepper._batch

        def batch(step):
            given = batch_of(step)
            # One step is skipped, on the device.
            return given._replace(x=given.x * torch.nan) if step == 6 else given

        stepper._batch = batch
        rows = [stepper.take(step) for step in range(12)]
        moments = [m for state in stepper.descent.optimizer.state.values() for m in state.values()]
        averages = [a for average in stepper._averages for a in average._average]
        return rows, [*stepper.field.parameters(), *averages, *moments, stepper.descent.last]

    rows, state = trained(sf.Engine("cpu"))
    found, replayed = trained(OnCpu(graphs=True))
    # Steps 0 and 8 of M1 have a regulariser, and three others come before the capture.
    assert [graph.replays for graph in graphs] == [7 if preset == "toy/m1" else 9]
    assert float(rows[6]["taken"]) == 0
    for row, other in zip(rows, found, strict=True):
        assert row.keys() == other.keys()
        assert all(torch.allclose(row[k], other[k], 0, 0, equal_nan=True) for k in row)
    assert all(map(torch.equal, state, replayed))


def test_a_step_that_cannot_be_captured_is_an_error_of_the_user(graphs, monkeypatch):
    @contextmanager
    def refuse(graph, capture_error_mode):
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    stepper = stepper_of("toy/m0", OnCpu(graphs=True))
    for step in range(3):
        stepper.take(step)
    with pytest.raises(ValueError, match=r"cannot be captured .* graphs=false \(operation not"):
        stepper.take(3)


def test_graphs_need_a_cuda_device():
    with pytest.raises(ValueError, match="graphs=true needs a CUDA device, and the device is cpu"):
        sf.Engine("cpu", graphs=True).check()

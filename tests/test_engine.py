"""The engine: what device it finds, what it does to networks, and what it does not."""

import threading
from contextlib import ExitStack

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import scorefield as sf
from scorefield import EDM, MLP, Engine, PotentialField, PreconditionedField, differentiable
from scorefield import engine as engine_module
from scorefield.engine import _tf32, exact, in_blocks, states_at_once
from scorefield.errors import UserError


def field(kind=PreconditionedField, **settings) -> PreconditionedField:
    return kind(MLP(dim=2, hidden=8, depth=1, embedding=4, **settings), EDM(), 1.0, shape=(2,))


@pytest.fixture
def cards(monkeypatch):
    """Pretends that there are CUDA devices, of a number and a compute capability."""

    def pretend(count, capability=(9, 0)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: count - 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    return pretend


@pytest.mark.parametrize(
    ("device", "count", "found"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:1"),
        ("cpu", 2, "cpu"),
        ("cuda", 2, "cuda:1"),
        ("cuda:0", 2, "cuda:0"),
    ],
)
def test_the_device_is_the_one_named_or_the_best(cards, device, count, found):
    cards(count)
    assert Engine(device).torch_device == torch.device(found)
    assert Engine(device).record()["device"] == found


@pytest.mark.parametrize(
    ("engine", "count", "words"),
    [
        (Engine("cuda"), 0, "device is cuda, but torch finds no CUDA device"),
        (Engine("cuda:9"), 2, "device is cuda:9, but the last one here is cuda:1"),
        (Engine("cpu", "tf32"), 2, "precision tf32 needs a CUDA device"),
        (Engine("auto", "tf32"), 0, "precision tf32 needs a CUDA device"),
    ],
)
def test_a_device_that_is_not_there_is_refused_when_it_is_needed(cards, engine, count, words):
    cards(count)
    for use in (lambda: engine.torch_device, engine.record, lambda: engine.place(field())):
        with pytest.raises(UserError, match=words):
            use()


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_a_card_without_a_precision_refuses_it(cards, precision):
    cards(1, (7, 5))
    with pytest.raises(UserError, match=f"cuda:0, a card of kind .* {precision}"):
        Engine("cuda", precision).record()


def test_words_that_are_no_device_or_precision_are_refused(unchecked):
    for device in ("gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "", 0, None, torch.device("cpu")):
        with pytest.raises(UserError, match="auto, cpu, cuda or cuda:N"):
            Engine(device)
    with pytest.raises(UserError, match="float32, tf32, bfloat16, float16"):
        Engine(precision="half")
    switches = "compile", "channels_last", "recompute", "deterministic", "graphs", "sharded"
    for name in switches:
        for value in ("no", 1, None):
            with pytest.raises(UserError, match=f"{name} must be True or False"):
                Engine(**{name: value})
    with pytest.raises(UserError, match="timeout must be at most"):
        Engine(timeout=1e300)


@pytest.mark.parametrize("engine", ["cpu", {"device": "cpu"}, Engine, torch.device("cpu")])
def test_a_training_on_what_is_no_engine_is_refused(unchecked, engine):
    field = sf.PreconditionedField(sf.MLP(dim=2), sf.EDM(), sigma_data=1.0)
    with pytest.raises(UserError, match="engine must be an Engine"):
        sf.fit(field, torch.randn(8, 2), steps=1, engine=engine)


def flags():
    return (
        torch.is_autocast_enabled("cpu"),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


@pytest.mark.parametrize(
    "engine",
    [Engine("cpu"), Engine("cpu", "bfloat16"), Engine("cpu", deterministic=True)],
)
def test_what_a_context_sets_it_sets_back(engine):
    before = flags()
    for context in (engine.running, exact, differentiable):
        with pytest.raises(ZeroDivisionError), context():
            raise ZeroDivisionError
        assert flags() == before


def test_half_precision_holds_for_running_and_ends_in_what_must_be_exact():
    torch.manual_seed(0)
    part, x = torch.nn.Linear(64, 64), torch.randn(32, 64)
    full = part(x)
    with Engine("cpu", "bfloat16").running():
        assert part(x).dtype == torch.bfloat16
        for context in (exact, differentiable):
            with context():
                assert torch.equal(part(x), full)
        assert part(x).dtype == torch.bfloat16
    assert part(x).dtype == torch.float32


@pytest.mark.parametrize("kind", [PreconditionedField, PotentialField])
def test_the_values_of_a_field_keep_the_dtype_of_its_points(kind):
    made, x = field(kind), torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    full = made.score(x, 0.5)
    with Engine("cpu", "bfloat16").running():
        half = made.score(x, 0.5)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


def test_weights_that_change_are_not_cast_once_for_all():
    part, x = torch.nn.Linear(4, 4), torch.randn(3, 4)
    with Engine("cpu", "bfloat16").running():
        first = part(x)
        with torch.no_grad():
            part.weight.mul_(2)
            part.bias.mul_(2)
        assert torch.equal(part(x), 2 * first)


@pytest.fixture
def tf32():
    """Allows TF32, as a user may for the whole process."""
    modules = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [module.allow_tf32 for module in modules]
    for module in modules:
        module.allow_tf32 = True
    yield
    for module, value in zip(modules, before, strict=True):
        module.allow_tf32 = value


def test_tf32_is_off_for_what_must_be_exact_and_comes_back(tf32):
    with exact(), differentiable():
        assert flags()[1:3] == (False, False)
    assert flags()[1:3] == (True, True)


def test_exactness_holds_until_the_last_thread_has_left(tf32):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with exact():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with exact():
        thread.start()
        entered.wait(10)
    assert not torch.backends.cudnn.allow_tf32
    leave.set()
    thread.join()
    assert torch.backends.cudnn.allow_tf32


def test_the_strictest_of_several_threads_prevails_until_it_leaves():
    """Contexts that overlap, as those of two threads do: who leaves first is not who came last."""
    before = torch.backends.cudnn.allow_tf32
    first, second, third = ExitStack(), ExitStack(), ExitStack()
    first.enter_context(_tf32((True, True)))
    assert torch.backends.cudnn.allow_tf32
    second.enter_context(exact())
    third.enter_context(_tf32((True, True)))
    assert not torch.backends.cudnn.allow_tf32
    first.close()
    assert not torch.backends.cudnn.allow_tf32
    second.close()
    assert torch.backends.cudnn.allow_tf32
    third.close()
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("kind", [PreconditionedField, PotentialField])
def test_the_weights_of_a_field_do_not_depend_on_the_engine(kind):
    plain, placed = field(kind), field(kind)
    Engine("cpu", "bfloat16", compile=True, channels_last=True).place(placed)
    one, other = plain.state_dict(), placed.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_compiled_networks_are_called_eagerly_where_every_derivative_is_needed():
    calls = []

    def backend(graph, inputs):
        def run(*given):
            calls.append(len(given))
            return graph(*given)

        return run

    made = field()
    made.compile(backend=backend, fullgraph=True)
    x = torch.randn(3, 2)
    compiled = made.score(x, 0.5)
    assert calls
    calls.clear()
    with differentiable():
        slope = torch.func.jvp(lambda u: made.score(u, 0.5), (x,), (x,))[1]
        assert torch.equal(made.score(x, 0.5), compiled)
    assert slope.isfinite().all()
    assert not calls


def test_rows_in_blocks_are_those_of_one_call():
    sizes = []

    def function(x, t, classes):
        sizes.append(len(x))
        return x * t[:, None, None] + (0 if classes is None else classes[:, None, None])

    x, t, classes = torch.randn(70, 64, 64), torch.rand(70), torch.arange(70)
    with torch.no_grad():
        assert torch.equal(in_blocks(function, x, t, classes), function(x, t, classes))
        assert torch.equal(in_blocks(function, x, t, None), function(x, t, None))
    assert sizes == [16, 16, 16, 16, 6, 70] * 2
    in_blocks(function, x, t, None)
    assert sizes[-1] == 70


def test_blocks_on_a_gpu_fit_its_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 20 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * 2**30)
    with FakeTensorMode():
        few, many = (torch.empty(n, 3, 64, 64, device="cuda") for n in (2, 1000))
    # 2¹³ times the 48 KiB of an image are 384 MiB, and 48 GiB are free.
    assert engine_module._rows(many) == 128
    assert engine_module._rows(few) >= 2
    # 64 states of 48 KiB are 3 MiB.
    cuda, size = few.device, 3 * 64 * 64
    assert states_at_once(10**6, size, torch.float32, cuda) == 16384
    assert states_at_once(50, size, torch.float32, cuda) >= 50
    assert states_at_once(10**6, size, torch.float64, cuda) == 8192


@pytest.mark.parametrize(("numbers", "rows"), [(2, 4096), (3 * 32 * 32, 1365), (10**9, 16)])
def test_states_suit_the_cache_of_a_cpu(numbers, rows):
    assert states_at_once(10**6, numbers, torch.float32, torch.device("cpu")) == rows

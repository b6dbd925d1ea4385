r"""What a trainer, an evaluation and a sampler run on: a device, a precision, and compilation.

Networks, objectives and diagnostics contain no device or precision code. Forward passes of training
and sampling run inside of :meth:`Engine.running`, in the engine's precision; what needs derivatives
of every kind, and all that is measured, runs inside of :func:`exact`, whatever the engine. Random
numbers, weights and checkpoints do not depend on the engine.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from threading import TIMEOUT_MAX
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scorefield.checks import check_count, check_positive
from scorefield.errors import UserError
from scorefield.rows import keyed
from scorefield.switches import ProcessWide, State, Switch
from scorefield.world import ALONE, World, joined

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Module = TypeVar("Module", bound=nn.Module)

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_AMPERE = (8, 0)
# Of the activations of images, which are some tens of times as large, blocks of so many numbers
# were the fastest on a CPU.
_BLOCK, _FEWEST = 2**16, 16
# What all layers of a large network for images make of a row, in units of its size, rounded up; and
# how many bytes of it every GPU has.
_ACTIVATIONS, _SMALL = 2**13, 2**28
# Of states: the most rows and numbers on a CPU; and how many tensors of them a method holds.
_MOST_ROWS, _NUMBERS, _STATES = 2**12, 2**22, 2**6
_GRAPHS = 128

_recompute = False


@dataclass(frozen=True)
class Engine:
    """What a trainer, an evaluation and a sampler run on.

    Arguments:
        device: ``auto`` for the current CUDA device, or else the CPU; ``cpu``, ``cuda``,
            ``cuda:N`` for the CUDA device of number N; ``mps`` is refused, since it has no float64.
        precision: That of forward passes. ``tf32`` rounds the factors of products and convolutions
            to 10 bits on a CUDA device; ``bfloat16`` and ``float16`` run them in these formats,
            and all else that is sensitive in float32. Weights, their gradients, the states of a
            sampler and the times are float32 always.
        compile: Whether networks are compiled, for up to minutes at their first call.
        channels_last: Whether the channels of images come last in memory in every network. Most
            of the package have them so anyway; it is for those of one's own, and for NCSN.
        recompute: Whether a training keeps what goes in and out of the blocks of networks of
            images, and computes again in the backward pass what is inside: less memory, a third
            more time.
        deterministic: Whether operations whose result may differ from call to call are replaced by
            slower ones that repeat it bit-exactly, or refused by torch where there is none.
        data_on_device: The number of bytes up to which training data lie on the device. Batches of
            larger ones are read from the host's memory, one ahead.
        graphs: Whether training steps without a regulariser are captured in a CUDA graph and
            replayed, which is for small networks.
        timeout: The seconds after which another process that does not answer is given up.
        sharded: Whether several processes share out the weights in training, with their gradients,
            moments and averages, rather than have all of them each: for networks that do not fit
            on a device, and denoising score matching alone.
        world: The processes that the work is shared out to; see :meth:`joined`.

    Raises:
        UserError: If a value is none of these.
    """

    device: str = "auto"
    precision: Precision = "float32"
    compile: bool = False
    channels_last: bool = False
    recompute: bool = False
    deterministic: bool = False
    data_on_device: int = 4_000_000_000
    graphs: bool = False
    timeout: float = 1800.0
    sharded: bool = False
    world: World = ALONE

    def __post_init__(self) -> None:
        known = isinstance(self.device, str)
        if not known or not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            raise UserError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}")
        if self.precision not in get_args(Precision):
            names = ", ".join(get_args(Precision))
            raise UserError(f"precision must be one of {names}, got {self.precision!r}")
        for name in (f.name for f in fields(self) if isinstance(f.default, bool)):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name in ("compile", "channels_last", "graphs") if self.sharded else ():
            if getattr(self, name):
                raise UserError(f"sharded=true needs {name}=false")
        check_count("data_on_device", self.data_on_device, 0)
        check_positive("timeout", self.timeout)
        if self.timeout > TIMEOUT_MAX:
            raise UserError(f"timeout must be at most {TIMEOUT_MAX:.4g} s, got {self.timeout!r}")

    @cached_property
    def torch_device(self) -> torch.device:
        """The device.

        Raises:
            UserError: If this machine does not have it, or it does not have the precision.
        """
        device = self._found()
        if self.precision == "tf32" and device.type != "cuda":
            raise UserError(f"precision tf32 needs a CUDA device, and the device is {device}")
        if self.graphs and device.type != "cuda":
            raise UserError(f"graphs=true needs a CUDA device, and the device is {device}")
        young = self.precision in ("tf32", "bfloat16") and device.type == "cuda"
        if young and torch.cuda.get_device_capability(device) < _AMPERE:
            name = torch.cuda.get_device_name(device)
            raise UserError(f"{device}, a card of kind {name}, has no precision {self.precision}")
        return device

    def check(self) -> None:
        """Raises what :attr:`torch_device` does."""
        _ = self.torch_device

    def _found(self) -> torch.device:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        kind, _, number = self.device.partition(":")
        if kind == "auto":
            kind = "cuda" if count else "cpu"
        if kind == "mps":
            raise UserError(
                "device is mps, which has no float64, of which addressed noise is made: take cpu"
            )
        if kind != "cuda":
            return torch.device(kind)
        if not count:
            raise UserError(
                f"device is {self.device}, but torch finds no CUDA device on this machine"
            )
        shared = self.world.size > 1
        own = self.world.local if shared else torch.cuda.current_device()
        index = int(number) if number else own
        if index >= count:
            raise UserError(f"device is {self.device}, but the last one here is cuda:{count - 1}")
        return torch.device("cuda", index)

    @contextmanager
    def joined(self) -> Iterator[Engine]:
        """This engine in each of the processes that torchrun has started, which then work together;
        the engine itself where there is one process only.

        Raises:
            UserError: If the processes do not find each other.
        """
        with joined(self.timeout, self._found().type == "cuda") as world:
            yield self if world is ALONE else replace(self, world=world)

    def place(self, module: Module) -> Module:
        """A module, moved to the device in place, in the memory layout, and compiled if wanted.

        Names and values of its parameters stay as they are.
        """
        module.to(self.torch_device)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compile:
            allow_graphs()
            module.compile(fullgraph=True)
        return module

    def wait(self) -> None:
        """Waits until the device has done what it was given."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize(self.torch_device)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The context of forward passes of training and sampling.

        It holds for the thread as to half precision, and for the process as to the rest, in which
        the strictest of its threads prevails.
        """
        device, half = self.torch_device, _HALF.get(self.precision)
        with ExitStack() as stack:
            if device.type == "cuda":
                stack.enter_context(_tf32((self.precision == "tf32",) * 2))
            if self.deterministic:
                stack.enter_context(_deterministic((True, True)))
            if self.recompute:
                stack.enter_context(recomputing(True))
            if half is not None:
                # Cached casts would outlive a step of the optimiser.
                stack.enter_context(torch.autocast(device.type, half, cache_enabled=False))
            yield

    def record(self) -> dict[str, Any]:
        """The engine as plain values, with the device that was found."""
        device = self.torch_device
        cuda = device.type == "cuda"
        name = torch.cuda.get_device_name(device) if cuda else device.type
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "world"}
        return {**settings, "device": str(device), "name": name, "processes": self.world.size}


def allow_graphs() -> None:
    """Lets all compiled modules and functions whose calls run the same code have many graphs
    together, for the shapes and settings that they are called with; by default they have 8.
    """
    torch._dynamo.config.recompile_limit = _GRAPHS


@contextmanager
def exact() -> Iterator[None]:
    """Compute in the precision of the numbers given, eagerly, whatever the engine: without TF32,
    without half precision, and with compiled modules called as they were before.

    Half precision returns with the end of the context for its thread, the rest for the process
    with the end of the last one.
    """
    with ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                # With the cache, as outside of autocast: compiled functions tell the difference.
                stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=True))
        stack.enter_context(_plain)
        yield


@contextmanager
def _without_shortcuts() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(_tf32((False, False)))
        stack.enter_context(recomputing(False))
        # Nothing is compiled before torch has imported its compiler, which takes seconds.
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def block(layer: nn.Module, *inputs: Any) -> Tensor:
    """The output of a block of a network; what is inside of it is kept for the backward pass, or
    not, see :class:`Engine`.
    """
    if _recompute and torch.is_grad_enabled():
        # By the backward pass, the numbers may be those of other rows; a graph has its own.
        function = layer if torch.compiler.is_compiling() else keyed(layer)
        output: Tensor = checkpoint(function, *inputs, use_reentrant=False)
        return output
    output = layer(*inputs)
    return output


def device_of(module: nn.Module) -> torch.device:
    """Where the parameters and buffers of a module are; the CPU if it has none."""
    found = (tensor.device for tensor in (*module.parameters(), *module.buffers()))
    return next(found, torch.device("cpu"))


def in_blocks(function: Callable[..., Tensor], x: Tensor, *others: Tensor | None) -> Tensor:
    """A function of rows, of ``others`` along with ``x``: where no gradients are recorded, at a few
    at a time, so that the activations of a network stay in the cache of a CPU, or in the memory of
    a GPU.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or len(x) <= (rows := _rows(x)):
        return function(x, *others)
    blocks = [slice(k, k + rows) for k in range(0, len(x), rows)]
    return torch.cat([function(x[b], *(o if o is None else o[b] for o in others)) for b in blocks])


def _rows(x: Tensor) -> int:
    """The number of rows of a block."""
    numbers = max(1, x.shape[1:].numel())
    if x.device.type == "cpu":
        return max(_FEWEST, _BLOCK // numbers)
    return _fitting(len(x), _ACTIVATIONS * numbers * x.element_size(), x.device)


def states_at_once(rows: int, numbers: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many of some rows a sampler or an integration carries along at once: as many as leave
    room for all that it holds of a row, of so many numbers, in the cache of a CPU or in the memory
    of a GPU. A network has blocks of its own, see :func:`in_blocks`.
    """
    if device.type == "cpu":
        return min(_MOST_ROWS, max(_FEWEST, _NUMBERS // max(1, numbers)))
    return _fitting(rows, _STATES * numbers * dtype.itemsize, device)


def _fitting(rows: int, needed: int, device: torch.device) -> int:
    """How many of some rows, each of which needs so many bytes, fit a device that is no CPU."""
    # To ask takes time.
    if device.type != "cuda" or rows * needed <= _SMALL:
        return rows
    free, _ = torch.cuda.mem_get_info(device)
    freed = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(_FEWEST, (free + freed) // needed)


@contextmanager
def recomputing(wanted: bool) -> Iterator[None]:
    """Whether every :func:`block` is computed again in the backward pass."""
    global _recompute
    before, _recompute = _recompute, wanted
    try:
        yield
    finally:
        _recompute = before


def _tf32_flags() -> State:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def _set_tf32(flags: State) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = flags


def _determinism() -> State:
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), not warn_only


def _set_determinism(state: State) -> None:
    if state[0]:
        # cuBLAS repeats itself only with a workspace of its own, which it makes at its first call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(state[0], warn_only=not state[1])


_plain = ProcessWide(_without_shortcuts)
_tf32 = Switch(_tf32_flags, _set_tf32, min)
_deterministic = Switch(_determinism, _set_determinism, max)

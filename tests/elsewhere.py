"""A device that computes, on a machine without one: the stand-in for a GPU.

Inside of :func:`elsewhere`, the device ``meta`` has numbers: its tensors are kept on the CPU behind
a wrapper that says where they are. As on a GPU, an operation on tensors of both devices is an
error. What a GPU would do quietly and slowly is noted:

* ``stray``: tensors made on the default device, by code that was given another. A number without
  dimensions is none: it travels with the call of a kernel.
* ``reads``: the host waits for numbers of the device, by ``item``, ``bool``, ``nonzero``, a copy;
* ``writes``: copies to the device, for which the host waits too, but for those from pinned memory
  that are asked not to.

Fused optimisers, which torch has for some devices only, run there too. A division by a plain number
is a product with its inverse, as torch's kernels for CUDA compute it, which rounds differently.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import _lru_cache_wrapper
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map_only

import scorefield
from scorefield.engine import Engine

ELSEWHERE = torch.device("meta")
_HERE = torch.device("cpu")
_PACKAGE = Path(scorefield.__file__).parent
_ATEN = torch.ops.aten
_READS = {
    _ATEN._local_scalar_dense.default,
    _ATEN.is_nonzero.default,
    _ATEN.equal.default,
    _ATEN.nonzero.default,
    _ATEN.masked_select.default,
    _ATEN._unique2.default,
    _ATEN.unique_dim.default,
    _ATEN.unique_consecutive.default,
    _ATEN.repeat_interleave.Tensor,
    _ATEN.bincount.default,
}
_INDEXED = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default}


class DeviceError(RuntimeError):
    """Tensors of two devices in one operation."""


@dataclass
class Notes:
    """What was done quietly: each kind the lines that did it, as ``calculus/paths.py:31``."""

    stray: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)

    def clear(self) -> None:
        for kind in (self.stray, self.reads, self.writes):
            kind.clear()


class Elsewhere(Engine):
    """The engine there."""

    torch_device = ELSEWHERE  # type: ignore[assignment]


class _Distant(Tensor):
    """A tensor elsewhere, whose numbers are here."""

    near: Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, near: Tensor) -> _Distant:
        made = Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=ELSEWHERE,
        )
        made.near = near
        return made

    def __repr__(self, **kwargs: Any) -> str:
        return f"elsewhere({self.near!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {}, Notes())


class _Operations(TorchDispatchMode):
    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.notes = notes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {}, self.notes)


class _Python(TorchFunctionMode):
    """What torch does between Python's numbers and its own, without calling an operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor and isinstance(args[0], _Distant):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(ELSEWHERE)
        if func is Tensor.tolist and isinstance(args[0], _Distant):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[Notes]:
    """Gives the device ``meta`` numbers, and notes what is done quietly."""
    _forget_tables()
    notes = Notes()
    fused = [*_get_fused_kernels_supported_devices(), ELSEWHERE.type]
    with (
        patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: fused),
        # Threads do not have the modes.
        patch.object(Tensor, "pin_memory", _pin),
        _Python(),
        _Operations(notes),
    ):
        yield notes


def _forget_tables() -> None:
    """What the package keeps by device: tables of the real device ``meta`` have no numbers."""
    for name, module in list(sys.modules.items()):
        if name.startswith("scorefield."):
            for value in vars(module).values():
                if isinstance(value, _lru_cache_wrapper):
                    value.cache_clear()


def _pin(tensor: Tensor) -> Tensor:
    assert not isinstance(tensor, _Distant), "only memory of the host is pinned"
    pinned = tensor.clone()
    pinned.pinned = True  # type: ignore[attr-defined]
    return pinned


def _call(func: Any, args: Any, kwargs: Any, notes: Notes) -> Any:
    given = [a for a in tree_iter((args, kwargs)) if isinstance(a, Tensor)]
    far = any(isinstance(t, _Distant) for t in given)
    near = any(not isinstance(t, _Distant) and t.dim() for t in given)
    there = far
    if func is _ATEN.copy_.default:
        there, source = (isinstance(t, _Distant) for t in args[:2])
        _note_copy(notes, source, there)
    elif func is _ATEN._to_copy.default:
        there = _wanted(kwargs, far)
        at_once = kwargs.get("non_blocking") and getattr(args[0], "pinned", False)
        _note_copy(notes, far, there, at_once)
    elif func in _INDEXED and isinstance(args[0], _Distant):
        # As on a GPU, indices of the host are copied there.
        here = [i for i in args[1] if i is not None and not isinstance(i, _Distant)]
        notes.writes.extend(_place() for _ in here)
    elif far and near:
        raise DeviceError(f"{func}: tensors on two devices, at {_place()}")
    elif "device" in kwargs:
        there = _wanted(kwargs, far)
    if far and (func in _READS or (func in _INDEXED and _by_mask(args[1]))):
        notes.reads.append(_place())
    if "device" in kwargs:
        kwargs = {**kwargs, "device": _HERE}
    # Zeros without storage have kernels of their own, which take no wrapper.
    run = _ATEN.zeros.default if func is _ATEN._efficientzerotensor.default else func
    if far and func is _ATEN.div.Tensor and isinstance(args[1], float | int):
        run, args = _ATEN.mul.Tensor, (args[0], 1 / args[1])
    bare_args, bare_kwargs = tree_map_only(_Distant, lambda t: t.near, (args, kwargs))
    out = run(*bare_args, **bare_kwargs)
    if there:
        wrapped = tree_map_only(Tensor, _Distant, out)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    if not given and any(isinstance(t, Tensor) and t.dim() for t in tree_iter(out)):
        notes.stray.append(_place())
    return out


def _wanted(kwargs: Any, otherwise: bool) -> bool:
    device = kwargs.get("device")
    return otherwise if device is None else torch.device(device) == ELSEWHERE


def _note_copy(notes: Notes, source: bool, there: bool, at_once: bool = False) -> None:
    if source and not there:
        notes.reads.append(_place())
    if there and not source and not at_once:
        notes.writes.append(_place())


def _by_mask(indices: Any) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _place() -> str:
    """The innermost line of the package; of a test, if there is none."""
    frames = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(_PACKAGE)]
    if not frames:
        return "outside of the package"
    return f"{Path(frames[-1].filename).relative_to(_PACKAGE)}:{frames[-1].lineno}"

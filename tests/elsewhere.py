"""A device that computes, on a machine without one: the stand-in for a GPU.

Inside of :func:`elsewhere`, the device ``meta`` has numbers: its tensors are kept on the CPU behind
a wrapper that says where they are. As on a GPU, an operation on tensors of both devices is an
error, and numbers reach Python only by being read. What a GPU would do quietly and slowly is noted:

* ``stray``: tensors made on the default device, by code that was given another. A number without
  dimensions is none: it travels with the call of a kernel.
* ``reads``: waits of the host for the device, by ``item``, ``bool``, ``nonzero``, or a copy;
* ``writes``: copies to the device, for which the host waits too.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map_only

ELSEWHERE = torch.device("meta")
_HERE = torch.device("cpu")
_ATEN = torch.ops.aten
_READ = {
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
_COPIES = {_ATEN._to_copy.default, _ATEN.copy_.default}
_INDEXED = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default}


class DeviceError(RuntimeError):
    """Tensors of two devices in one operation."""


class _Distant(Tensor):
    """A tensor elsewhere, whose numbers are here."""

    near: Tensor

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


@dataclass
class Notes:
    """What was done quietly, each with the line that did it."""

    stray: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)

    def clear(self) -> None:
        for kind in (self.stray, self.reads, self.writes):
            kind.clear()


def _call(func: Any, args: Any, kwargs: Any, notes: Notes) -> Any:
    tensors = [a for a in tree_iter((args, kwargs)) if isinstance(a, Tensor)]
    far = [t for t in tensors if isinstance(t, _Distant)]
    near = [t for t in tensors if not isinstance(t, _Distant) and t.dim()]
    device = kwargs.get("device")
    if far and near and func not in _COPIES:
        raise DeviceError(f"{func}: tensors on two devices\n{_place()}")
    if func in _READ or (
        func in _INDEXED
        and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    ):
        if far:
            notes.reads.append(f"{func} {_place()}")
    if func is _ATEN._to_copy.default:
        if far and device == _HERE:
            notes.reads.append(f"{func} {_place()}")
        if not far and device == ELSEWHERE:
            notes.writes.append(f"{func} {_place()}")
    if func is _ATEN.copy_.default:
        to, source = args[:2]
        if isinstance(to, _Distant) and not isinstance(source, _Distant) and source.dim():
            notes.writes.append(f"{func} {_place()}")
        if not isinstance(to, _Distant) and isinstance(source, _Distant):
            notes.reads.append(f"{func} {_place()}")
    there = device == ELSEWHERE if device is not None else bool(far)
    if func is _ATEN.copy_.default:
        there = isinstance(args[0], _Distant)
    if device is not None:
        kwargs = {**kwargs, "device": _HERE}
    bare = tree_map_only(_Distant, lambda t: t.near, (args, kwargs))
    # Tensors of zeros without storage have kernels of their own, which take no wrapper.
    run = _ATEN.zeros.default if func is _ATEN._efficientzerotensor.default else func
    out = run(*bare[0], **bare[1])
    if not there:
        if not tensors and any(isinstance(o, Tensor) and o.dim() for o in tree_iter(out)):
            notes.stray.append(f"{func} {_place()}")
        return out
    out = tree_map_only(Tensor, _Distant, out)
    return return_and_correct_aliasing(func, args, kwargs, out)


def _place() -> str:
    """The innermost lines of the package."""
    frames = [
        f
        for f in traceback.extract_stack()
        if "scorefield/" in f.filename and "/tests/" not in f.filename
    ]
    return " < ".join(
        f"{f.filename.split('scorefield/')[-1]}:{f.lineno}" for f in reversed(frames[-3:])
    )


class _Operations(TorchDispatchMode):
    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.notes = notes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {}, self.notes)


class _Constructors(TorchFunctionMode):
    """Makes tensors of Python's numbers here first, which torch would make without numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            return func(*args, **kwargs).to(device)
        if func is Tensor.tolist and isinstance(args[0], _Distant):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[Notes]:
    """Gives the device ``meta`` numbers, and notes what is done quietly."""
    notes = Notes()
    with _Constructors(), _Operations(notes):
        yield notes

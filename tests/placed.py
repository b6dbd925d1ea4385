"""Tests on another device than the CPU: ``pytest --device cuda``, or ``--device stand-in`` on a
machine without one, where :mod:`tests.elsewhere` takes its place.

It is the default device then, on which what is made without a word about its device is made. In the
package that is an error wherever a function was given tensors, or a module, that are there. What a
test gives to NumPy is fetched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

import scorefield
from tests.elsewhere import ELSEWHERE, DeviceError, elsewhere

_PACKAGE = str(Path(scorefield.__file__).parent)
_TESTS = str(Path(__file__).parent)
_FACTORIES = _device_constructors()


class Placed(TorchFunctionMode):
    """Makes a device the default one, and refuses it to code that was told a device.

    Arguments:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.numpy, Tensor.__array__):
            fetched = (
                args[0].cpu() if next(_frames()).f_code.co_filename.startswith(_TESTS) else args[0]
            )
            return func(fetched, *args[1:], **kwargs)
        given = bool(args) and isinstance(args[0], Tensor)
        if func not in _FACTORIES or given or kwargs.get("device") is not None:
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": self.device})
        # A number without dimensions travels with the call of a kernel.
        if isinstance(made, Tensor) and made.dim() and made.numel() and (place := self._told()):
            raise DeviceError(f"{func.__name__} on the default device, at {place}")
        return made

    def _told(self) -> str | None:
        """The innermost line of the package in a function that was given something there."""
        frames = list(_frames())
        made = [f.f_locals.get("self") for f in frames if f.f_code.co_name == "__init__"]
        for frame in frames:
            if not frame.f_code.co_filename.startswith(_PACKAGE):
                return None
            for value in _arguments(frame):
                if not any(value is each for each in made) and self._is_there(value):
                    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        return None

    def _is_there(self, value: object) -> bool:
        if isinstance(value, nn.Module):
            return any(map(self._is_there, (*value.parameters(), *value.buffers())))
        return isinstance(value, Tensor) and value.dim() > 0 and value.device == self.device


def _frames() -> Iterator[FrameType]:
    """The calls of tests and of the package that torch is in, from the innermost."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name != __file__ and name.startswith((_PACKAGE, _TESTS)):
            yield frame
        frame = frame.f_back


def _arguments(frame: FrameType) -> Iterator[object]:
    """What the function of a frame was called with."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return (frame.f_locals[name] for name in names if name in frame.f_locals)


@contextmanager
def placed(name: str) -> Iterator[torch.device]:
    """Makes the tensors of tests on the device of a name."""
    with ExitStack() as stack:
        if name == "stand-in":
            stack.enter_context(elsewhere())
        device = ELSEWHERE if name == "stand-in" else torch.device(name)
        stack.enter_context(Placed(torch.zeros((), device=device).device))
        yield device

"""Tests on another device than the CPU: ``pytest --device cuda``, or ``--device stand-in`` on a
machine without one, where :mod:`tests.elsewhere` takes its place.

What a test makes without naming a device is made there, layers that it builds included. The package
has no such default: what it makes on the default device although it was given tensors or a module
that are elsewhere is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

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
    """Makes tensors on a device: those of tests, and none of the package that does not say so.

    Arguments:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        converted = bool(args) and isinstance(args[0], Tensor)
        if func not in _FACTORIES or converted or kwargs.get("device") is not None:
            return func(*args, **kwargs)
        maker, told = _maker(sys._getframe(1), self._is_there)
        if maker == "test":
            return func(*args, **{**kwargs, "device": self.device})
        made = func(*args, **kwargs)
        # A number without dimensions travels with the call of a kernel.
        if told and isinstance(made, Tensor) and made.dim() and made.numel():
            raise DeviceError(f"{func.__name__} on the default device, at {told}")
        return made

    def _is_there(self, value: object) -> bool:
        if isinstance(value, nn.Module):
            # What is being built has nothing yet.
            values = vars(value).get("_parameters", {}) | vars(value).get("_buffers", {})
            return any(self._is_there(v) for v in values.values())
        return isinstance(value, Tensor) and value.dim() > 0 and value.device == self.device


def _maker(
    frame: FrameType | None, is_there: Callable[[object], bool]
) -> tuple[Literal["test", "package"], str]:
    """Who makes a tensor, which of a layer is who builds it; and the innermost line of the package
    in a function that was given something that is there.
    """
    while frame is not None and not frame.f_code.co_filename.startswith(_TESTS):
        if frame.f_code.co_filename.startswith(_PACKAGE):
            given = list(_arguments(frame))
            if any(is_there(value) for value in given):
                return "package", f"{frame.f_code.co_filename}:{frame.f_lineno}"
            if frame.f_code.co_name == "__init__" and isinstance(given[0], nn.Module):
                return "test", ""
        frame = frame.f_back
    return ("package" if frame is None else "test"), ""


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

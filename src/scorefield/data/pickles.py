"""The Python pickles of CIFAR, read without executing anything in them.

A pickle is a program that names what it calls. Here the names are those of plain arrays, and each
gets a stand-in that can do nothing else; any other name ends the reading.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from scorefield.errors import UserError
from scorefield.files import read_file

_LONGEST = 1 << 28


class _Array:
    """Stand in for an array of bytes while a pickle is read."""

    def __init__(self, *arguments: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def bytes(self) -> UInt8[np.ndarray, "..."]:
        """The array.

        Raises:
            ValueError, TypeError: If the state is not that of bytes in the usual order.
        """
        _, shape, dtype, fortran, content = self.state
        content = content.encode("latin-1") if isinstance(content, str) else content
        if not isinstance(dtype, _Type) or dtype.code not in ("u1", "uint8") or fortran:
            raise ValueError("not bytes in C order")
        if not isinstance(content, bytes) or math.prod(shape) != len(content):
            raise ValueError("not as many bytes as the shape states")
        return np.frombuffer(content, np.uint8).reshape(shape)


class _Type:
    """Stand in for ``numpy.dtype``."""

    def __init__(self, code: object, *arguments: object) -> None:
        self.code = code.decode("latin-1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None: ...


def _encode(text: object, coding: object) -> bytes:
    """Stand in for ``_codecs.encode``, which newer pickles of bytes call."""
    if not isinstance(text, str) or coding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("not bytes")
    return text.encode("latin-1")


_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise UserError(f"it refers to {module}.{name}, which a file of CIFAR does not")
        return _NAMES[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise UserError("it refers to something outside of itself")


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary of a pickle: numbers, texts, lists, and arrays of bytes.

    Raises:
        UserError: If it is none, is damaged, or names anything else; a clause about the file.
        OSError: If it cannot be read.
    """
    content = read_file(path, _LONGEST)
    try:
        _check_memo(content)
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        return {_text(key): _plain(value) for key, value in found.items()}
    except UserError:
        raise
    except Exception as error:
        # Damaged bytes can cause any error of the interpreter.
        raise UserError("it is damaged, or no pickle of a dictionary") from error


def _check_memo(content: bytes) -> None:
    """Refuses places of the memo that no file of this length needs: the interpreter would take
    memory for all up to the highest.
    """
    for code, argument, _ in pickletools.genops(content):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise UserError("it is damaged, or no pickle of a dictionary")


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _plain(value: object) -> object:
    return value.bytes() if isinstance(value, _Array) else value

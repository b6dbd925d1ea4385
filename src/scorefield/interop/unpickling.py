"""Read files of ``torch.save`` without executing anything in them.

A pickle is a program. Before torch's restricted interpreter runs it, every name in it is checked:
files that refer to anything but tensors and plain numbers are refused, with that name.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from scorefield import archives
from scorefield.checks import kind_of
from scorefield.errors import UserError
from scorefield.files import open_file, reason
from scorefield.interop.errors import ForeignCodeError, InteropError

_HARMLESS = {
    "_codecs.encode",
    "collections.OrderedDict",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "torch.Size",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    *(f"torch.{name}Storage" for name in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float")),
    *(f"torch.{name}Storage" for name in ("Half", "Int", "Long", "Short")),
}
_NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
# The first bytes of other kinds of files.
_OTHERS = {
    b"\x89HDF": "an HDF5 file",
    b"<!DOC": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a Git LFS pointer, in place of which `git lfs pull` puts the file",
}
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read(path: Path) -> Any:
    """The content of a file of ``torch.save``, with tensors on the CPU.

    Raises:
        InteropError: If it is no such file, is damaged, or refers to anything but tensors and
            plain numbers.
    """
    if path.is_dir():
        raise InteropError(f"{path} is a folder, not a checkpoint file")
    try:
        with open_file(path) as file:
            if not _is_zip(file):
                raise InteropError(f"{path} {_kind_of_file(path, file)}")
            return archives.load(file, _STAND_INS, lambda content: _refuse(path, content))
    except InteropError:
        raise
    except UserError as error:
        raise InteropError(f"{path} {error}") from error
    except OSError as error:
        raise InteropError(f"{path} cannot be read: {reason(error)}") from error


def read_state(path: Path, recipe: str) -> dict[str, Tensor]:
    """The tensors of a state dict, by their names.

    Arguments:
        path: The file.
        recipe: A clause on how to write such a file, which ends the sentence about one with code.

    Raises:
        InteropError: As of :func:`read`, or if the file holds something else.
    """
    try:
        content = read(path)
    except ForeignCodeError as error:
        raise InteropError(f"{error}; {recipe}") from None
    if not isinstance(content, Mapping):
        raise InteropError(f"{path} holds {kind_of(content)}, not a state dict")
    named = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    if not content or not named:
        raise InteropError(f"{path} is not a state dict: it is not a dictionary of named tensors")
    return {name: tensor.detach() for name, tensor in content.items()}


def _is_zip(file: BufferedReader) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:  # one of several volumes
        return True


def _kind_of_file(path: Path, file: BufferedReader) -> str:
    """The kind of a file that is no zip archive; refuses a pickle with forbidden names."""
    file.seek(0)
    content = file.read(archives.LONGEST)
    head = content[:64]
    if not head:
        return "is empty"
    for start, name in _OTHERS.items():
        if head.startswith(start):
            return f"is {name}, not a checkpoint"
    if head.startswith(b"PK"):
        return "is damaged: the end of the archive is missing"
    # A map of msgpack whose first key is a string.
    if head[0] in (*range(0x81, 0x90), 0xDE, 0xDF) and b"params_ema" in content:
        return (
            "is a flax checkpoint (msgpack) of the JAX code of score_sde; only those of the "
            "PyTorch code can be read"
        )
    # Not by tarfile, which tries to decompress whatever it is given, for ever where it is zeros.
    if content[257:262] == b"ustar":
        return "is a tar archive, not a checkpoint of torch 1.6 or later"
    try:
        _refuse(path, content)
    except InteropError:
        raise
    except Exception:
        # Bytes that are no pickle can cause any error of the disassembler.
        return "is not a checkpoint: it is neither a zip archive nor a pickle"
    if content.startswith(_LEGACY):
        return "is in the format of torch before 1.6: write it anew with a later torch.save"
    return "is a pickle that torch.save did not write"


def _names(content: bytes) -> Iterator[str]:
    """All names in a pickle, or in the first of several.

    Raises:
        ValueError: If the bytes are not a pickle.
    """
    strings: list[str] = []
    memo: dict[Any, str] = {}
    # Each pickle of a sequence ends with a full stop; those of old torch files begin with
    # three short ones.
    stream = io.BytesIO(content)
    for _ in range(5 if content.startswith(_LEGACY) else 1):
        for code, argument, _ in pickletools.genops(stream):
            if code.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif code.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:]) or "something without a name"
            elif code.name in ("EXT1", "EXT2", "EXT4"):
                yield f"extension {argument}"
            elif code.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                place = len(memo) if argument is None else argument
                memo[place] = strings[-1] if strings else ""
            elif code.name in ("GET", "BINGET", "LONG_BINGET"):
                strings.append(memo.get(argument, ""))
            elif isinstance(argument, str):
                strings.append(argument)


def _refuse(path: Path, content: bytes) -> None:
    """Refuses a pickle in which there is any name but those that are harmless."""
    for name in list(_names(content)):
        if name not in _HARMLESS:
            raise ForeignCodeError(path, name)


class _NumberType:
    """Stand in for ``numpy.dtype`` while a pickle is read."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if code not in _NUMBERS:
            raise UserError(f"it has a number of the unknown kind {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = "<" if state[1] == "|" else str(state[1])


def _number(kind: _NumberType, content: bytes) -> float | int | bool:
    """Stand in for NumPy's reconstruction of a scalar: returns a Python number."""
    value: float | int | bool = np.frombuffer(content, kind.order + kind.code)[0].item()
    return value


_STAND_INS: list[Any] = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
]

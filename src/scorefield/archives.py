"""Files of ``torch.save``: read without executing anything, and never larger than the file.

An archive can lie about its size: by compressed members, by entries that share their bytes, by
tensors that repeat one number along an axis. None of this is written by ``torch.save`` of plain
tensors, and all of it is refused, the first two before anything is read.
"""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable
from io import BufferedReader, BytesIO
from typing import Any

import torch
from torch import Tensor

from scorefield.errors import UserError

File = BytesIO | BufferedReader
LONGEST = 16 << 20
"""The most bytes of the pickle in an archive; the numbers of tensors are not in it."""


def load(file: File, kinds: Iterable[Any] = (), inspect: Callable[[bytes], object] = len) -> Any:
    """The content of an archive, with tensors on the CPU.

    Arguments:
        file: The archive.
        kinds: The classes that may be in it besides tensors and plain containers, each as
            :func:`torch.serialization.safe_globals` takes it.
        inspect: Called with the pickle before it is interpreted; may refuse it by an error.

    Raises:
        UserError: If the archive is damaged, or holds anything else; a clause whose subject is the
            file.
    """
    try:
        inspect(_pickle(file))
        file.seek(0)
        with torch.serialization.safe_globals(list(kinds)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        # torch's message would recommend to execute the file.
        told = "is damaged or not a checkpoint: its pickle cannot be interpreted"
        raise UserError(told) from error
    except Exception as error:
        # Damaged bytes can cause any error of the interpreter.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"is damaged: {reason}") from error
    for tensor in _tensors(content):
        if tensor.layout != torch.strided or tensor.is_meta:
            kind = "has no numbers" if tensor.is_meta else f"is {tensor.layout}"
            raise UserError(f"is no checkpoint: a tensor of shape {tuple(tensor.shape)} {kind}")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(
                f"is no checkpoint: a tensor of shape {tuple(tensor.shape)} repeats its numbers"
            )
    return content


def load_known(file: File) -> Any:
    """The content of a file whose hash is that of a published one, also in the format of torch
    before 1.6, with tensors on the CPU; no code in it is executed either.

    Raises:
        UserError: If it cannot be read; a clause whose subject is the file.
    """
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"is damaged: {reason}") from error


def _pickle(file: File) -> bytes:
    """The pickle of an archive whose members are whole, stored as they are, and apart."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        pickles = [i for i in members if i.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UserError("is a zip archive, but not one that torch.save wrote")
        if any(i.compress_type != zipfile.ZIP_STORED for i in members):
            raise UserError("is damaged: torch.save compresses nothing")
        if sum(i.file_size for i in members) > size:
            raise UserError("is damaged: its members are larger than the archive")
        if pickles[0].file_size > LONGEST:
            raise UserError(f"is no checkpoint: its pickle has over {LONGEST} bytes")
        damaged = archive.testzip()
        if damaged is not None:
            raise UserError(f"is damaged: the checksum of {damaged} is wrong")
        return archive.read(pickles[0])


def _tensors(content: Any) -> list[Tensor]:
    """All tensors in nested containers, each container visited once."""
    found: list[Tensor] = []
    seen: set[int] = set()
    left = [content]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple | set):
            left += value
    return found

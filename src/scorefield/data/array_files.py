"""NumPy's files of arrays, written whole or not at all, and read without executing anything and
without more memory than stated.

Headers are matched against the one form that NumPy writes, and sizes are checked before numbers are
read: a short file can stand for an array of any size.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from scorefield.errors import UserError
from scorefield.files import open_file, write_file

MOST = 4 << 30
"""The most bytes that one file takes in memory; a ``.npy`` file, which is mapped, may be larger."""

_HEADER = re.compile(
    r"\{'descr': '([<>|=]?[biufcSU]\d{1,9})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,18}, ?){0,32}(?:\d{1,18})?)\), \}\s*"
)
_VERSIONS = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
_MEMBERS = 1000
_PIECE = 16 << 20


class _Header(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str

    @property
    def size(self) -> int:
        """The number of bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def map_array(path: Path, mode: Literal["c", "r"] = "c") -> NDArray[Any]:
    """The array of a ``.npy`` file, read where it is needed; changes stay in memory, or in mode
    ``"r"``, which takes no memory for them, are an error.

    Raises:
        UserError: If it is no such file, or holds anything but numbers.
        OSError: If it cannot be read.
    """
    with open_file(path) as file:
        header, offset = _header(file), file.tell()
        if os.fstat(file.fileno()).st_size - offset != header.size:
            raise UserError("it is no NumPy array of numbers: its size is not that of its header")
        if header.size == 0:
            return np.empty(header.shape, header.dtype)
        order: Any = header.order
        return np.memmap(file, header.dtype, mode, offset, header.shape, order)


def array_of(content: bytes) -> NDArray[Any]:
    """The array of the content of a ``.npy`` file.

    Raises:
        UserError: If it is none, or holds anything but numbers and texts.
    """
    return _array(BytesIO(content))


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of a file of ``numpy.savez``, by name.

    Arguments:
        path: The file.
        names: The names of the arrays that are read, where they are there; all by default.

    Raises:
        UserError: If it is no such file, holds anything but arrays of numbers and texts, or takes
            more than :data:`MOST` bytes.
        OSError: If it cannot be read.
    """
    with open_file(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = [
                    member
                    for member in archive.infolist()
                    if names is None or member.filename.removesuffix(".npy") in names
                ]
                size = sum(member.file_size for member in members)
                if size > MOST:
                    raise UserError(
                        f"its arrays take {size} bytes, and at most {MOST} are read: a .npy file "
                        "may be larger"
                    )
                if len(members) > _MEMBERS:
                    raise UserError(f"it has {len(members)} arrays, and at most {_MEMBERS}")
                return {m.filename.removesuffix(".npy"): _member(archive, m) for m in members}
        except UserError:
            raise
        except Exception as error:
            # Damaged bytes can cause any error of the decompressors.
            raise UserError("it is no whole file of NumPy arrays of numbers") from error


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Writes a ``.npy`` file."""
    content = BytesIO()
    np.save(content, values, allow_pickle=False)
    write_file(path, content.getvalue())


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes arrays by name, as :func:`read_arrays` reads them."""
    content = BytesIO()
    np.savez(content, **arrays)
    write_file(path, content.getvalue())


def filled(stream: Any, size: int, shape: object) -> UInt8[np.ndarray, " bytes"]:
    """The rest of a stream, which must have so many bytes; ``shape`` is what they are for.

    Raises:
        UserError: If it has fewer or more, or they would take more than :data:`MOST` bytes.
    """
    if size > MOST:
        raise UserError(f"an array of {shape} takes {size} bytes, and at most {MOST} are read")
    # Memory that is not written to is not taken.
    content, done = np.empty(size, np.uint8), 0
    while done < size:
        piece = stream.read(min(_PIECE, size - done))
        if not piece:
            raise UserError(f"it has {done} bytes for an array of {shape}")
        content[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    if stream.read(1):
        raise UserError(f"it has more bytes than an array of {shape} takes")
    return content


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError("it is no whole file of NumPy arrays of numbers")
    with archive.open(member) as stream:
        return _array(stream)


def _array(stream: Any) -> NDArray[Any]:
    header: Any = _header(stream)
    content = filled(stream, header.size, header.shape)
    return content.view(header.dtype).reshape(header.shape, order=header.order)


def _header(stream: Any) -> _Header:
    magic = stream.read(8)
    length = _VERSIONS.get((magic[6], magic[7])) if magic[:6] == b"\x93NUMPY" else None
    if len(magic) < 8 or length is None:
        raise UserError("it is no NumPy array of numbers")
    text = stream.read(min(int.from_bytes(stream.read(length), "little"), 10_000))
    found = _HEADER.fullmatch(text.decode("latin-1"))
    if found is None:
        raise UserError("it is no NumPy array of numbers: its header is not one of plain numbers")
    try:
        dtype = np.dtype(found[1])
    except TypeError as error:
        raise UserError(f"it is no NumPy array of numbers, but of {found[1]}") from error
    if dtype.itemsize == 0:
        raise UserError("it is no NumPy array of numbers, but of empty texts")
    shape = tuple(map(int, re.findall(r"\d+", found[3])))
    return _Header(dtype, shape, "F" if found[2] == "True" else "C")

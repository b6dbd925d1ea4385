"""Sets of images in files of arrays: NumPy's, MNIST's, and the three distributions of CIFAR-10."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scorefield.data.array_files import filled, map_array, read_arrays
from scorefield.data.contents import TEST, ArrayRecords, Contents, Part
from scorefield.data.pickles import read_pickle
from scorefield.errors import UserError
from scorefield.files import open_file, read_file

_IDX_BYTES, _CIFAR_RECORD = 8, 1 + 3 * 32 * 32
_MOST_NAMES = 1 << 16
# What damaged bytes bring the decompressor to.
_DAMAGED = (ValueError, EOFError, OSError, zlib.error)


def of_numpy(path: Path, channels: int | None) -> Contents:
    """A ``.npy`` file, or the arrays of an ``.npz`` file: ``train`` and ``test``, or ``images``,
    with ``train_labels`` and ``test_labels``, or ``labels``, where there are classes.
    """
    if path.suffix == ".npy":
        part = Part(ArrayRecords(map_array(path), path.name, channels))
        return Contents("NumPy array", {"train": part}, state=state([path]))
    return of_arrays(read_arrays(path), path, "arrays of NumPy", channels)


class NamedArray(NamedTuple):
    """An array of a file, and that of its classes where there is one."""

    name: str
    values: NDArray[Any]
    labels: NDArray[Any] | None


def named(
    arrays: Mapping[str, NDArray[Any]], single: str
) -> tuple[dict[str, NamedArray], tuple[str, ...]]:
    """The arrays of a file by their part: ``train`` and ``test`` with ``train_labels`` and
    ``test_labels``, or one of the name ``single`` with ``labels``; and sentences about others.
    """
    names = {"train": "train_labels", "test": "test_labels"}
    if not names.keys() <= arrays.keys():
        names = {single: "labels"}
    if not names.keys() <= arrays.keys():
        raise UserError(
            f"the arrays must be called train and test, or {single}, and are called "
            f"{', '.join(arrays) or 'nothing'}"
        )
    found = {
        "train" if name == single else name: NamedArray(
            name, arrays[name], _integers(arrays[labels]) if labels in arrays else None
        )
        for name, labels in names.items()
    }
    others = arrays.keys() - names.keys() - set(names.values())
    return found, (f"the arrays {', '.join(sorted(others))} are not read",) if others else ()


def of_arrays(
    arrays: Mapping[str, NDArray[Any]], path: Path, layout: str, channels: int | None
) -> Contents:
    """Images in arrays, ``train`` and ``test``, or ``images``, as :func:`named`."""
    found, notes = named(arrays, "images")
    parts = {
        part: Part(ArrayRecords(one.values, f"{one.name} in {path.name}", channels), one.labels)
        for part, one in found.items()
    }
    return Contents(layout, parts, notes=notes, state=state([path]))


def _integers(labels: NDArray[Any]) -> NDArray[Any]:
    return labels.astype(np.int64) if np.issubdtype(labels.dtype, np.integer) else labels


def idx_names(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The idx files among the files of a folder, by part and content (``images``, ``labels``)."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(names):
        stem = name.removesuffix(".gz")
        for part in ("train", *TEST):
            for content in ("images", "labels"):
                if stem.startswith((f"{part}-{content}-idx", f"{part}-{content}.idx")):
                    found.setdefault("train" if part == "train" else "test", {}).setdefault(
                        content, name
                    )
    return found


def of_idx(folder: Path, channels: int | None) -> Contents:
    """The four files of MNIST, compressed or not."""
    names = idx_names(os.listdir(folder))
    parts, used = {}, []
    for part in ("train", "test"):
        start = {"train": "train", "test": "t10k"}[part]
        for content in ("images", "labels"):
            if content not in names.get(part, {}):
                raise UserError(f"there is no file whose name begins with {start}-{content}")
        images, labels = (names[part][content] for content in ("images", "labels"))
        pixels = _naming(images, partial(_read_idx, folder / images, 3))
        numbers = _naming(labels, partial(_read_idx, folder / labels, 1))
        parts[part] = Part(ArrayRecords(pixels, images, channels), numbers.astype(np.int64))
        used += [folder / images, folder / labels]
    return Contents("idx files of MNIST's kind", parts, state=state(used))


def _read_idx(path: Path, axes: int) -> NDArray[Any]:
    """An array in MNIST's format: two zeros, the type, the number of axes, their lengths."""
    with open_file(path) as file:
        stream: Any = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        head = stream.read(4 + 4 * axes)
        if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, _IDX_BYTES, axes)):
            raise UserError(f"it is not an idx file of {axes} axes of bytes")
        shape = np.frombuffer(head, ">u4", axes, 4).tolist()
        return filled(stream, math.prod(shape), shape).reshape(shape)


def cifar_kind(names: Sequence[str]) -> str | None:
    """The ending of the files of CIFAR-10 among those of a folder; ``None`` if there are none."""
    return next((e for e in (".bin", ".mat", "") for n in names if n == f"data_batch_1{e}"), None)


def of_cifar(folder: Path, ending: str, channels: int | None) -> Contents:
    """CIFAR-10's five batches and its held-out one: Python pickles (without an ending), binary or
    MATLAB files.

    Raises:
        UserError: If one is missing, or is not as published.
    """
    read = {".bin": _binary, ".mat": _matlab, "": _pickled}[ending]
    files = {
        "train": [f"data_batch_{k}{ending}" for k in range(1, 6)],
        "test": [f"test_batch{ending}"],
    }
    parts = {}
    for part, names in files.items():
        for name in names:
            if not (folder / name).exists():
                raise UserError(f"{name} is missing: CIFAR-10 has five batches and a test batch")
        batches = [_naming(name, partial(read, folder / name)) for name in names]
        rows, labels = (np.concatenate(some) for some in zip(*batches, strict=True))
        images = rows.reshape(-1, 3, 32, 32)
        parts[part] = Part(ArrayRecords(images, f"CIFAR-10's {part} images", channels), labels)
    used = [folder / name for names in files.values() for name in names]
    classes = _naming("the file of class names", partial(_class_names, folder, ending))
    kind = {".bin": "binary files", ".mat": "MATLAB files", "": "Python pickles"}[ending]
    return Contents(f"{kind} of CIFAR-10", parts, classes, state=state(used))


def _binary(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Records of a class and the three planes of an image."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0 or size % _CIFAR_RECORD:
            raise UserError(f"its size is no multiple of a record of {_CIFAR_RECORD} bytes")
        n = size // _CIFAR_RECORD
        rows = filled(file, size, f"{n} records").reshape(n, _CIFAR_RECORD)
    return rows[:, 1:], rows[:, 0].astype(np.int64)


def _pickled(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    batch = read_pickle(path)
    return _checked(batch.get("data"), batch.get("labels"))


def _matlab(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    from scipy.io import loadmat

    try:
        with open_file(path) as file:
            batch = loadmat(file, variable_names=("data", "labels"))
    except Exception as error:
        # Damaged bytes can cause any error of the reader.
        raise UserError("it is no MATLAB file that can be read") from error
    labels = batch.get("labels")
    return _checked(batch.get("data"), None if labels is None else np.ravel(labels).tolist())


def _checked(data: Any, labels: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    fits = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2
    if not fits or data.shape[1] != _CIFAR_RECORD - 1 or not len(data):
        raise UserError("its data are not rows of 3,072 bytes")
    known = isinstance(labels, list) and all(type(k) is int and 0 <= k < 256 for k in labels)
    if not known or len(labels) != len(data):
        raise UserError("its labels are not one number from 0 for each image")
    return data, np.array(labels, np.int64)


def _class_names(folder: Path, ending: str) -> tuple[str, ...] | None:
    if ending == ".bin" and (folder / "batches.meta.txt").exists():
        return tuple(read_file(folder / "batches.meta.txt", _MOST_NAMES).decode().split()) or None
    if ending == "" and (folder / "batches.meta").exists():
        names = read_pickle(folder / "batches.meta").get("label_names")
        if not isinstance(names, list) or not all(isinstance(n, str | bytes) for n in names):
            raise UserError("it has no list of names")
        return tuple(n.decode() if isinstance(n, bytes) else n for n in names)
    return None


def state(files: Sequence[Path]) -> str:
    """The sizes of files and when they were changed."""
    found = [os.stat(file) for file in files]
    return " ".join(f"{s.st_size}:{s.st_mtime_ns}" for s in found)


def _naming(name: str, read: Callable[[], Any]) -> Any:
    """What is read, or an error that names the file."""
    try:
        return read()
    except _DAMAGED as error:
        told = str(error) if isinstance(error, UserError) else f"it is damaged: {error}"
        raise UserError(f"{name}: {told}") from error

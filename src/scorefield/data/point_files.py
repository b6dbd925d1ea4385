"""Points in files of arrays: vectors, signals and grids of numbers, taken as they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from scorefield.data.array_files import MOST, map_array, read_arrays
from scorefield.data.array_sets import NamedArray, named
from scorefield.data.arrays import ArraySource, FiniteSource, LabelledSource
from scorefield.data.columns import hdf5_arrays
from scorefield.data.held_out import held_out
from scorefield.data.known import name_of
from scorefield.data.source import Split
from scorefield.errors import UserError
from scorefield.files import reason
from scorefield.progress import warn

_ENDINGS = (".npy", ".npz", ".h5", ".hdf5")


class _Found(NamedTuple):
    """The arrays of a file by part, and sentences about others."""

    parts: dict[str, NamedArray]
    remarks: tuple[str, ...] = ()


class PointFile(FiniteSource):
    """The points of a ``.npy``, ``.npz`` or HDF5 file, which are read on first use.

    An array holds floating-point numbers, of shape ``(n, D)`` for vectors, ``(n, C, L)`` for
    signals, which become points of shape ``(C, 1, L)``, or ``(n, C, H, W)``. Arrays of several are
    called ``train`` and ``test``, with classes in ``train_labels`` and ``test_labels``; or
    ``points``, with ``labels``, of which one of twenty is held out.

    Arguments:
        path: The file.
        dataset: The name of the points; that of the file by default.
        shape: The shape of a point; that of the array by default, which needs the file.
        classes: The number of classes; by default those that the file has, if ``shape`` is not
            given either.
        held_out_seed: As of :func:`~scorefield.data.held_out.held_out`.

    Raises:
        ValueError: If the file is missing or no such file, or has not what is given; names the
            argument. Of a file that is read later, on first use.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        dataset: str | None = None,
        shape: Sequence[int] | None = None,
        classes: int | None = None,
        held_out_seed: int = 0,
    ) -> None:
        if path is None:
            raise UserError(f"path is missing: give a file of points ({', '.join(_ENDINGS)})")
        self._path, self._seed = Path(path), held_out_seed
        if shape is None:
            shape = _event(self._found.parts["train"].values)
            classes = _count(self._found) if classes is None else classes
        self.name = dataset or name_of(self._path.expanduser().resolve().name)
        self.shape, self.classes = tuple(shape), classes

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self._points.mean

    @property
    def std(self) -> float:
        return self._points.std

    def stored(self, split: Split) -> Tensor:
        return self._points.stored(split)

    def stored_labels(self, split: Split) -> Int[Tensor, " n"] | None:
        return self._points.stored_labels(split)

    @cached_property
    def _found(self) -> _Found:
        try:
            return _arrays(self._path.expanduser())
        except (OSError, UserError) as error:
            told = reason(error) if isinstance(error, OSError) else error
            raise UserError(f"{self._path}: {told}") from error

    @cached_property
    def _points(self) -> ArraySource:
        try:
            points = self._read()
        except UserError as error:
            raise UserError(f"{self._path}: {error}") from error
        for remark in self._found.remarks:
            warn(f"{self._path}: {remark}")
        return points

    def _read(self) -> ArraySource:
        parts = {part: self._tensors(one) for part, one in self._found.parts.items()}
        if "test" not in parts:
            whole, labels = parts["train"]
            held = held_out(len(whole), labels, self._seed)
            kept = torch.ones(len(whole), dtype=torch.bool).index_fill(0, held, False)
            parts = {
                part: (whole[rows], None if labels is None else labels[rows])
                for part, rows in {"train": kept, "test": held}.items()
            }
        (train, train_labels), (test, test_labels) = parts["train"], parts["test"]
        if train_labels is None or test_labels is None:
            return ArraySource(train, test, self.name)
        return LabelledSource(train, test, train_labels, test_labels, self.name)

    def _tensors(self, array: NamedArray) -> tuple[Tensor, Tensor | None]:
        """The points of an array, and where they have classes these."""
        shape = _event(array.values)
        if shape != self.shape:
            raise UserError(f"shape is {self.shape}, and that of the points is {shape}")
        tensor = torch.from_numpy(array.values.reshape(-1, *shape))
        if self.classes is None:
            return tensor, None
        labels = array.labels
        if labels is None or labels.shape != (len(tensor),):
            raise UserError(f"{array.name} needs as many labels, integers from 0, as points")
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
            raise UserError(
                f"a label is a class from 0 to {self.classes - 1}, those of {array.name} are "
                f"{labels.min()} to {labels.max()}"
            )
        return tensor, torch.from_numpy(labels.astype(np.int64))


def _arrays(path: Path) -> _Found:
    """The arrays of a file, as numbers that torch takes."""
    if not path.exists():
        raise UserError("there is no such file")
    match path.suffix.lower():
        case ".npy":
            found = _Found({"train": NamedArray(path.name, map_array(path), None)})
        case ".npz":
            found = _Found(*named(read_arrays(path), "points"))
        case ".h5" | ".hdf5":
            found = _Found(*named(hdf5_arrays(path), "points"))
        case _:
            raise UserError(f"points are read from files ending in {', '.join(_ENDINGS)}")
    numbers = {part: one._replace(values=_numbers(one)) for part, one in found.parts.items()}
    return found._replace(parts=numbers)


def _numbers(array: NamedArray) -> NDArray[Any]:
    name, values = array.name, array.values
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        told = "; bytes are those of images (data.kind=images)" if values.dtype.kind in "iu" else ""
        raise UserError(f"{name} has {values.dtype}, and points are floating-point numbers{told}")
    if not 1 <= values.ndim <= 4 or 0 in values.shape:
        raise UserError(
            f"points are arrays of shape (n, D), (n, C, L) or (n, C, H, W), {name} has "
            f"{values.shape}"
        )
    if values.nbytes > MOST:
        raise UserError(
            f"{name} takes {values.nbytes} bytes in memory, and at most {MOST} are read"
        )
    # What torch takes: in the order of bytes of the machine.
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def _event(values: NDArray[Any]) -> tuple[int, ...]:
    """The shape of a point."""
    shape = values.shape[1:] or (1,)
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def _count(found: _Found) -> int | None:
    """The number of classes of all parts, if all have them."""
    labels = [one.labels for one in found.parts.values()]
    if any(some is None or some.ndim != 1 or not len(some) for some in labels):
        return None
    return 1 + max(int(some.max()) for some in labels if some is not None)

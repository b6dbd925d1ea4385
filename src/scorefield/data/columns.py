"""Sets of images in files that other libraries read: parquet, HDF5 and LMDB."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorefield.data.array_files import MOST
from scorefield.data.array_sets import of_arrays, state
from scorefield.data.contents import Contents, Part, Records, by_split, checked_size, chosen
from scorefield.errors import UserError

IMAGES, LABELS = ("image", "img", "images", "jpg", "png"), ("label", "labels", "cls", "fine_label")
"""What columns of images and of classes are called; the first that is there is read."""
_ABOUT = (b"length", b"num-samples")


def library(name: str, what: str) -> Any:
    """A library that is installed if its files are read.

    Raises:
        UserError: If it is not there.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"{what} are read by {name.partition('.')[0]}, which is not installed: pip install "
            f"{name.partition('.')[0]}"
        ) from error


class ParquetRecords(Records):
    """Pictures in a column of parquet files; a group of rows is in memory at a time."""

    def __init__(self, paths: tuple[Path, ...], column: str, ends: NDArray[np.int64]) -> None:
        # The groups of all files, one after the other: where each ends, its file, its number.
        self.paths, self.column, self.groups = paths, column, ends
        self._rows: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return int(self.groups[-1, 0])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}

    def name(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> bytes:
        group = int(np.searchsorted(self.groups[:, 0], index, side="right"))
        end, file, number = map(int, self.groups[group])
        if self._rows is None or self._rows[0] != group:
            parquet = library("pyarrow.parquet", "parquet files")
            try:
                with parquet.ParquetFile(self.paths[file]) as opened:
                    table = opened.read_row_group(number, columns=[self.column])
            except Exception as error:
                # Damaged bytes can cause any error of the reader.
                raise UserError(f"is in {self.paths[file].name}, which is damaged") from error
            self._rows = (group, table.column(0))
        rows = self._rows[1]
        try:
            value = rows[len(rows) - (end - index)].as_py()
        except ValueError as error:
            # Of a name in it that is no text.
            raise UserError(f"is in {self.paths[file].name}, which is damaged") from error
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise UserError("has no bytes of a picture in its row")
        checked_size(len(content))
        return content


def of_parquet(folder: Path, names: Sequence[str]) -> Contents:
    """The column of pictures of parquet files, as the Hugging Face hub stores them, by the parts
    that the names of the files begin with; with the column of classes and their names.
    """
    parquet = library("pyarrow.parquet", "parquet files")
    used, notes = chosen(by_split(names), "parquet files")
    parts: dict[str, Part] = {}
    classes: tuple[str, ...] | None = None
    left_out: Counter[str] = Counter()
    for part, files in used.items():
        groups: list[tuple[int, int, int]] = []
        labels: list[Any] = []
        image = label = None
        for k, name in enumerate(files):
            try:
                with parquet.ParquetFile(folder / name) as opened:
                    columns = opened.schema_arrow.names
                    image = _column(columns, IMAGES)
                    label = _column(columns, LABELS)
                    for number in range(opened.num_row_groups):
                        before = groups[-1][0] if groups else 0
                        group = opened.metadata.row_group(number)
                        _check_size(name, group.total_byte_size)
                        groups.append((before + group.num_rows, k, number))
                    if label is not None:
                        labels.append(opened.read(columns=[label]).column(0).to_numpy())
                    names_here = _names_of(opened.schema_arrow.metadata, label)
                    if None not in (classes, names_here) and names_here != classes:
                        raise UserError(f"{name} has other names of classes than those before it")
                    classes = classes or names_here
            except UserError:
                raise
            except Exception as error:
                # Damaged bytes can cause any error of the reader.
                raise UserError(f"{name} is no parquet file that can be read") from error
            if image is None:
                raise UserError(f"{name} has no column of images, it has {', '.join(columns)}")
            for column in set(columns) - {image, label}:
                left_out[f"columns called {column}"] += 1
        if not groups or not groups[-1][0]:
            raise UserError("there are no images in the parquet files")
        records = ParquetRecords(tuple(folder / n for n in files), str(image), np.array(groups))
        parts[part] = Part(records, np.concatenate(labels) if labels else None)
    paths = [folder / name for files in used.values() for name in files]
    return Contents("parquet files", parts, classes, left_out, tuple(notes), state(paths))


def _column(columns: Sequence[str], known: Sequence[str]) -> str | None:
    return next((name for name in known if name in columns), None)


def _names_of(metadata: Any, label: str | None) -> tuple[str, ...] | None:
    """The names of classes that the library ``datasets`` stores in a file."""
    try:
        about = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, about)) if isinstance(about, list) else None


def of_hdf5(path: Path, channels: int | None) -> Contents:
    """The images in the arrays of an HDF5 file, named as those of an ``.npz`` file."""
    return of_arrays(hdf5_arrays(path), path, "arrays of HDF5", channels)


def hdf5_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an HDF5 file, by name: of those that are not of numbers, and of groups, only
    that they are there.

    Raises:
        UserError: If it is no such file, or one of them is stored outside of it.
    """
    h5py = library("h5py", "HDF5 files")
    try:
        with h5py.File(path, "r") as file:
            return {name: _array(h5py, file, name) for name in file}
    except UserError:
        raise
    except Exception as error:
        # Damaged bytes can cause any error of the reader.
        raise UserError("it is no HDF5 file that can be read") from error


def _array(h5py: Any, file: Any, name: str) -> NDArray[Any]:
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise UserError(f"{name} is a link, which is not followed")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        return np.empty((), object)
    if found.dtype.kind not in "buif" or found.shape is None:
        # Has the type and the shape, and takes no memory.
        return np.broadcast_to(np.empty((), found.dtype), found.shape or ())
    if found.is_virtual or found.external:
        raise UserError(f"{name} is stored in other files, which are not read")
    _check_size(name, found.size * found.dtype.itemsize)
    values: NDArray[Any] = found[()]
    return values


def _check_size(name: str, size: int) -> None:
    if size > MOST:
        raise UserError(f"{name} takes {size} bytes in memory, and at most {MOST} are read")


class LmdbRecords(Records):
    """Pictures in the values of an LMDB, by the order of its keys."""

    def __init__(self, path: Path, keys: tuple[bytes, ...]) -> None:
        self.path, self.keys = path, keys

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        return f"{self.keys[index].decode(errors='replace')} in {self.path.name}"

    def read(self, index: int) -> bytes:
        try:
            # A process opens a database once.
            with _environment(self.path) as opened, opened.begin() as transaction:
                content = transaction.get(self.keys[index])
        except UserError:
            raise
        except Exception as error:
            # Damaged bytes can cause any error of the reader.
            raise UserError("is damaged") from error
        if content is None:
            raise UserError("is no longer there")
        checked_size(len(content))
        return bytes(content)


def of_lmdb(folders: Sequence[Path]) -> Contents:
    """The pictures of LSUN: one LMDB, or one for each part (``church_outdoor_train_lmdb``)."""
    named = {"train" if len(folders) == 1 else _part(folder): folder for folder in folders}
    used, notes = chosen({part: [str(folder)] for part, folder in named.items()}, "LMDB")
    left_out: Counter[str] = Counter()
    parts = {}
    for part, (folder,) in used.items():
        try:
            with _environment(Path(folder)) as opened, opened.begin() as transaction:
                keys = tuple(transaction.cursor().iternext(keys=True, values=False))
        except UserError:
            raise
        except Exception as error:
            # Damaged bytes can cause any error of the reader.
            raise UserError(f"{Path(folder).name} is no LMDB that can be read") from error
        about = {key for key in keys if key.startswith(b"__") or key in _ABOUT}
        left_out["entries about the set"] += len(about)
        parts[part] = Part(LmdbRecords(Path(folder), tuple(k for k in keys if k not in about)))
    files = [Path(folder) / "data.mdb" for (folder,) in used.values()]
    return Contents("LMDB of LSUN's kind", parts, None, +left_out, tuple(notes), state(files))


def _environment(path: Path) -> Any:
    size = os.stat(path / "data.mdb").st_size
    opened = library("lmdb", "LMDB files").open(
        str(path),
        readonly=True,
        lock=False,
        max_dbs=0,
        map_size=max(size, 1 << 20),
        readahead=False,
    )
    # The system ends a process that reads behind the end of a file that it has mapped.
    if size < (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]:
        opened.close()
        raise UserError("data.mdb is cut short, or damaged")
    return opened


def _part(folder: Path) -> str:
    words = folder.name.lower().removesuffix("_lmdb").split("_")
    return next((word for word in ("train", "test", "val") if word in words), "train")

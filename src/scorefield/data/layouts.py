"""What a file or folder of images is, by its names, and what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from scorefield.data.array_sets import cifar_kind, idx_names, of_cifar, of_idx, of_numpy
from scorefield.data.columns import of_hdf5, of_lmdb, of_parquet
from scorefield.data.contents import Contents
from scorefield.data.shards import of_shards
from scorefield.data.tree_sets import of_tree
from scorefield.data.trees import FolderTree, ZipTree
from scorefield.errors import UserError

_FILES: dict[str, Callable[[Path, int | None], Contents]] = {
    ".npy": of_numpy,
    ".npz": of_numpy,
    ".zip": lambda path, _: of_tree(ZipTree(path)),
    ".tar": lambda path, _: of_shards(path.parent, [path.name]),
    ".parquet": lambda path, _: of_parquet(path.parent, [path.name]),
    ".h5": lambda path, channels: of_hdf5(path, channels),
    ".hdf5": lambda path, channels: of_hdf5(path, channels),
}
# Where torchvision puts what it downloads, and archives what is in them, below a given folder.
_BELOW = (
    *("raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw", "data"),
    *("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-10-batches-mat"),
)


def contents_of(path: Path, channels: int | None = None) -> Contents:
    """The images of a file or folder.

    Arguments:
        path: The file or folder.
        channels: How many channels are wanted, where that is known; it decides which axis of an
            array they are.

    Raises:
        UserError: If it is not there, is nothing that is known, or is damaged; one sentence that
            names it.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: there is no such file or folder")
    try:
        if path.is_dir():
            return _of_folder(path, channels)
        if path.suffix.lower() in _FILES:
            return _FILES[path.suffix.lower()](path, channels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        at = "" if error.filename in (None, str(path)) else f"{error.filename}: "
        raise UserError(f"{path}: {at}{error.strerror or error}") from error
    raise UserError(f"{path}: it is neither a folder nor a file ending in {', '.join(_FILES)}")


def as_published(path: Path) -> bool:
    """Whether a folder holds idx files, CIFAR-10's or parquet files, where these are looked for."""
    return any(_is_set(folder) for folder in (path, *(path / below for below in _BELOW)))


def _of_folder(folder: Path, channels: int | None) -> Contents:
    with os.scandir(folder) as found:
        entries = sorted((entry.name, entry.is_dir()) for entry in found)
    files = [name for name, is_folder in entries if not is_folder and not name.startswith(".")]
    folders = [name for name, is_folder in entries if is_folder and not name.startswith(".")]
    if idx_names(files):
        return of_idx(folder, channels)
    kind = cifar_kind(files)
    if kind is not None:
        return of_cifar(folder, kind, channels)
    if "data.mdb" in files:
        return of_lmdb([folder])
    for ending, read in ((".parquet", of_parquet), (".tar", of_shards)):
        if any(name.endswith(ending) for name in files):
            return read(folder, [name for name in files if name.endswith(ending)])
    maps = [folder / name for name in folders if (folder / name / "data.mdb").is_file()]
    if maps:
        return of_lmdb(maps)
    for below in _BELOW:
        if _is_set(folder / below):
            return _of_folder(folder / below, channels)
    return of_tree(FolderTree(folder))


def _is_set(folder: Path) -> bool:
    """Whether this is a folder that holds idx files, CIFAR-10's or parquet files."""
    names: Sequence[str] = os.listdir(folder) if folder.is_dir() else ()
    parquet = any(name.endswith(".parquet") for name in names)
    return bool(idx_names(names)) or cifar_kind(names) is not None or parquet

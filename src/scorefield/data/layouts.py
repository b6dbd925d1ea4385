"""What a file or folder of images is, by its names, and what is in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from scorefield.data.array_sets import (
    cifar_kind,
    idx_names,
    of_cifar,
    of_idx,
    of_numpy,
    of_published_set,
)
from scorefield.data.columns import of_hdf5, of_lmdb, of_parquet
from scorefield.data.contents import Contents, kind_of
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
        return _beside(of_idx(folder, channels), _others(files), folders)
    kind = cifar_kind(files)
    if kind is not None:
        return _beside(of_cifar(folder, kind, channels), _others(files), folders)
    if "data.mdb" in files:
        return _beside(of_lmdb([folder]), [n for n in files if not n.endswith(".mdb")], folders)
    for ending, read in ((".parquet", of_parquet), (".tar", of_shards)):
        used = [name for name in files if name.endswith(ending)]
        if used:
            return _beside(read(folder, used), [n for n in files if n not in used], folders)
    maps = [name for name in folders if (folder / name / "data.mdb").is_file()]
    if maps:
        contents = of_lmdb([folder / name for name in maps])
        return _beside(contents, files, [name for name in folders if name not in maps])
    for below in _BELOW:
        if _is_set(folder / below):
            above = [name for name in folders if name != below.partition("/")[0]]
            return _beside(_of_folder(folder / below, channels), files, above)
    return of_tree(FolderTree(folder))


def _others(files: Sequence[str]) -> list[str]:
    """The files that are not of a published set."""
    return [name for name in files if not of_published_set(name)]


def _beside(contents: Contents, files: Sequence[str], folders: Sequence[str]) -> Contents:
    """Contents beside which there are files and folders that are not read."""
    left_out = Counter(map(kind_of, files)) + Counter(folders=len(folders))
    return replace(contents, left_out=contents.left_out + left_out)


def _is_set(folder: Path) -> bool:
    """Whether this is a folder that holds idx files, CIFAR-10's or parquet files."""
    names: Sequence[str] = os.listdir(folder) if folder.is_dir() else ()
    parquet = any(name.endswith(".parquet") for name in names)
    return bool(idx_names(names)) or cifar_kind(names) is not None or parquet

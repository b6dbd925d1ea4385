"""Pictures in the folders of a disk or of a zip archive."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from scorefield.data.array_files import array_of
from scorefield.data.contents import ArrayRecords, Records, checked_size
from scorefield.errors import UserError
from scorefield.files import TABLE, open_file, read_file

_SKIPPED = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")


class Tree(ABC):
    """Files in folders, by names with ``/``."""

    called: str
    state: str
    files: dict[str, tuple[int, int]]
    """The size of each file but those that are left out, and a number that changes with its content
    (when it was written, or a sum of its bytes), by name."""
    folders: set[str]
    left_out: Counter[str]

    @abstractmethod
    def content(self, name: str) -> bytes:
        """The content of a file."""

    @abstractmethod
    def records(self, names: Sequence[str]) -> Records:
        """The images of files."""


class FolderTree(Tree):
    """The files below a folder; links are followed, hidden files and folders are not read.

    Raises:
        OSError: If a folder in it cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.called = root, "folder"
        self.files, self.folders, self.left_out = {}, set(), Counter()
        digest = hashlib.sha256()
        for name, status in sorted(self._walk("", {os.path.realpath(root)})):
            self.files[name] = status.st_size, status.st_mtime_ns
            digest.update(
                f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="replace")
            )
        self.state = digest.hexdigest()

    def _walk(self, prefix: str, above: set[str]) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self.root / prefix) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_symlink() and not os.path.exists(entry.path):
                # Also one that leads to itself, of which it cannot be asked what it is.
                self.left_out["links to nothing"] += 1
            elif _hidden(entry.name):
                self.left_out["hidden folders" if entry.is_dir() else "hidden files"] += 1
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in above:
                    self.left_out["links to a folder that they are in"] += 1
                    continue
                self.folders.add(name)
                yield from self._walk(f"{name}/", above | {real})
            else:
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    yield name, status
                else:
                    self.left_out["pipes and devices"] += 1

    def content(self, name: str) -> bytes:
        return read_file(self.root / name, TABLE)

    def records(self, names: Sequence[str]) -> Records:
        return FileRecords(self.root, self, names)


class TreeRecords(Records):
    """Pictures of a tree, each in a file."""

    def __init__(self, place: Path, tree: Tree, names: Sequence[str]) -> None:
        self.place, self.names = place, tuple(names)
        self.marks = np.array([tree.files[name] for name in names], np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def mark(self, index: int) -> str:
        return f"{self.names[index]} {self.marks[index].tolist()}"


class FileRecords(TreeRecords):
    """Pictures in files of their own."""

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> bytes | UInt8[np.ndarray, "c h w"]:
        name = self.names[index]
        with open_file(self.place / name) as file:
            return _file(name, file.read(checked_size(os.fstat(file.fileno()).st_size)))


class ZipTree(Tree):
    """The files in a zip archive, stored or deflated.

    Raises:
        UserError: If it is damaged, encrypted, or compressed in another way.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.called = path, "zip archive"
        self.files, self.folders, self.left_out = {}, set(), Counter()
        with open_file(path) as file:
            status = os.fstat(file.fileno())
            self.state = f"{status.st_size} {status.st_mtime_ns}"
            with _archive(file) as archive:
                for member in archive.infolist():
                    self._add(member)

    def _add(self, member: zipfile.ZipInfo) -> None:
        name = member.filename
        parts = name.rstrip("/").split("/")
        if any(map(_hidden, parts)):
            below = member.is_dir() or any(map(_hidden, parts[:-1]))
            self.left_out["files in hidden folders" if below else "hidden files"] += 1
        elif member.is_dir():
            self.folders.add(name.rstrip("/"))
        elif member.flag_bits & 1 or member.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise UserError(f"{name} is encrypted, or neither stored nor deflated")
        elif name in self.files:
            raise UserError(f"{name} is in it twice")
        else:
            self.files[name] = member.file_size, member.CRC
            self.folders.update("/".join(parts[:k]) for k in range(1, len(parts)))

    def content(self, name: str) -> bytes:
        size = self.files[name][0]
        if size > TABLE:
            raise UserError(f"{name} has {size} bytes, and at most {TABLE} are read")
        with open_file(self.path) as file, _archive(file) as archive:
            return _member(archive, name)

    def records(self, names: Sequence[str]) -> Records:
        return ZipRecords(self.path, self, names)


class ZipRecords(TreeRecords):
    """Pictures in a zip archive, which every process opens for itself."""

    _open: zipfile.ZipFile | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def name(self, index: int) -> str:
        return f"{self.names[index]} in {self.place.name}"

    def read(self, index: int) -> bytes | UInt8[np.ndarray, "c h w"]:
        if self._open is None:
            self._open = _archive(open_file(self.place))
        name = self.names[index]
        checked_size(self._open.getinfo(name).file_size)
        return _file(name, _member(self._open, name))


def _file(name: str, content: bytes) -> bytes | UInt8[np.ndarray, "c h w"]:
    if not name.lower().endswith(".npy"):
        return content
    return ArrayRecords(array_of(content)[None], name, None).read(0)


def _archive(file: Any) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except Exception as error:
        # Damaged bytes can cause any error of the reader.
        raise UserError("it is no whole zip archive") from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except Exception as error:
        # Damaged bytes can cause any error of the decompressor.
        raise UserError("is damaged") from error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED or name.lower() in ("thumbs.db", "desktop.ini")

"""Files and folders that are written whole or not at all, and files that are read with care.

Everything is written under a temporary name beside its place, forced to the disk, and renamed. A
temporary name starts with a dot and carries the process and the host of its writer, so that what
a killed process left behind is removed by the next writer in the same folder, while the files of
living writers are left alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from scorefield.errors import RunError, UserError

DOCUMENT, TABLE = 16 << 20, 256 << 20
"""The most bytes that are read of a JSON or YAML document, and of a table."""

_WRITING, _COMMITTED, _REPLACED, _DELETING = "writing", "committed", "replaced", "deleting"
_TEMPORARY = re.compile(
    rf"\.({_WRITING}|{_COMMITTED}|{_REPLACED}|{_DELETING})"
    r"-([0-9]+)-[0-9a-f]{8}-([0-9a-f]{8})-(.+)"
)
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
# Of a process on another host nothing is known: what it has not touched for a day is litter.
_ABANDONED = 86_400.0  # seconds


def absence(path: Path) -> str:
    """Why a path is no folder, as the end of a sentence; empty where it is one."""
    if path.is_dir():
        return ""
    if path.exists():
        return ": it is a file, not a folder"
    if path.is_symlink():
        return f": it is a link to {os.readlink(path)}, where nothing is"
    return ": nothing is there"


def check_writable(folder: Path) -> None:
    """Checks before long work that files can be written into a folder, which need not exist.

    Raises:
        RunError: If they cannot.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"{folder} cannot be written: {there} is no folder that can be written to")


def open_file(path: Path) -> BufferedReader:
    """Opens a regular file for reading; does not wait for a writer of a pipe.

    Raises:
        OSError: If there is no such file, or it is a pipe, a device or a folder.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


def read_file(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        OSError: As of :func:`open_file`, or if the file is larger.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            reason = f"it has {size} bytes, and at most {most} are read"
            raise OSError(errno.EFBIG, reason, str(path))
        return file.read(size)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a regular file of any size, in hexadecimal digits.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error


def write_file(path: Path, content: bytes | str) -> None:
    """Writes or replaces a file: at every moment it has the old content, if any, or the new.

    Arguments:
        path: The file; its folder is made where there is none.
        content: The content; text is encoded as UTF-8.

    Raises:
        OSError: If that fails; it names the file, which is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path):
        clean(path.parent)
        temporary = _beside(path, _WRITING)
        try:
            _write(temporary, content)
            os.replace(temporary, path)
            _sync(path.parent)
        except BaseException:  # an interrupt too
            temporary.unlink(missing_ok=True)
            raise


def write_folder(
    path: Path, files: Mapping[str, bytes | str], overwrite: bool = False
) -> list[Path]:
    """Writes all files of a folder or none.

    Arguments:
        path: The folder, which is made.
        files: What is in it, by name; a name may have folders, as in ``"a/b.txt"``.
        overwrite: Whether the folder may exist; it is replaced then, with all that is in it.

    Returns:
        The files, in the order of their names in ``files``.

    Raises:
        OSError: If it cannot be written, or exists, is not empty, and is not to be replaced; it is
            as it was then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path):
        clean(path.parent)
        temporary, replaced = _beside(path, _WRITING), _beside(path, _REPLACED)
        try:
            temporary.mkdir()
            for name, content in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                _write(temporary / name, content)
            for folder in (temporary, *filter(Path.is_dir, temporary.rglob("*"))):
                _sync(folder)
            if overwrite and path.exists():
                os.rename(path, replaced)
            os.rename(temporary, path)
            _sync(path.parent)
        except BaseException:  # an interrupt too
            shutil.rmtree(temporary, ignore_errors=True)
            if replaced.exists() and not path.exists():
                os.rename(replaced, path)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    return [path / name for name in files]


def write_files(folder: Path, files: Mapping[str, bytes | str]) -> list[Path]:
    """Writes or replaces some files of a folder, all or none; others in it are left alone.

    They are written into a folder of a temporary name. Its renaming settles that they take their
    places; those that a killed process did not move, the next :func:`clean` of the folder does.

    Arguments:
        folder: The folder; it is made where there is none.
        files: The contents, by name.

    Returns:
        The files, in the order of ``files``.

    Raises:
        OSError: If that fails; it names the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _naming(folder):
        clean(folder)
        for name in files:
            if (folder / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary = _beside(folder / "files", _WRITING)
        committed = _beside(folder / "files", _COMMITTED)
        try:
            temporary.mkdir()
            for name, content in files.items():
                _write(temporary / name, content)
            _sync(temporary)
            os.rename(temporary, committed)
        except BaseException:  # an interrupt too
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(folder)
        _move_all(committed, folder)
    return [folder / name for name in files]


def delete_folder(path: Path) -> None:
    """Deletes a folder, which is there as a whole or not at all at every moment.

    Raises:
        OSError: If it cannot be deleted.
    """
    doomed = _beside(path, _DELETING)
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def append(path: Path, content: bytes) -> None:
    """Appends to a file, in one piece unless the disk is full.

    Raises:
        OSError: If that fails; it names the file.
    """
    with _naming(path), _opened(path, os.O_APPEND) as descriptor:
        _write_all(descriptor, content)


def clean(folder: Path) -> None:
    """Removes what killed processes left in a folder, puts back what they were replacing, and
    finishes what they had settled.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        found = [match for entry in entries if (match := _TEMPORARY.fullmatch(entry.name))]
    for match in found:
        leftover, (kind, process, host, name) = folder / match[0], match.groups()
        if _is_written(leftover, int(process), host):
            continue
        with suppress(OSError):  # another process cleans too, or the folder is another user's
            if kind == _COMMITTED:
                _move_all(leftover, folder)
            elif kind == _REPLACED and not (folder / name).exists():
                os.rename(leftover, folder / name)
            elif leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def reason(error: OSError) -> str:
    """What the operating system says, in words."""
    return (error.strerror or str(error)).lower()


def _move_all(committed: Path, folder: Path) -> None:
    """Moves complete files to their places."""
    for file in sorted(committed.iterdir()):
        os.replace(file, folder / file.name)
    _sync(folder)
    committed.rmdir()


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{kind}-{os.getpid()}-{secrets.token_hex(4)}-{_HOST}-{path.name}")


def _is_written(leftover: Path, process: int, host: str) -> bool:
    """Whether a temporary file or folder may have a living writer."""
    try:
        # Renaming changes this time, but not that of the last modification.
        if time.time() - leftover.stat().st_ctime > _ABANDONED:
            return False
        if host == _HOST:
            os.kill(process, 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _write(path: Path, content: bytes | str) -> None:
    """Writes a new file and waits until it is on the disk."""
    with _opened(path, os.O_EXCL) as descriptor:
        _write_all(descriptor, content.encode() if isinstance(content, str) else content)
        os.fsync(descriptor)


@contextmanager
def _opened(path: Path, flag: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Lets an error name the file or folder, in place of a temporary one or none."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise

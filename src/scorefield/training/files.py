"""Writing that is either done or not done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file and waits until it lies on the disk."""
    with _opened(path, os.O_TRUNC) as descriptor:
        _write(descriptor, content)
        os.fsync(descriptor)


def append(path: Path, content: bytes) -> None:
    """Appends to a file, in one piece unless the disk is full."""
    with _opened(path, os.O_APPEND) as descriptor:
        _write(descriptor, content)


def replace_file(path: Path, content: bytes) -> None:
    """Replaces a file: at every moment it has the old content or the new."""
    temporary = path.with_name(f".writing-{path.name}")
    try:
        write_durably(temporary, content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename, error.filename2 = str(path), None
        raise


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder lie on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason(error: OSError) -> str:
    """What the operating system says, in words."""
    return (error.strerror or str(error)).lower()


@contextmanager
def _opened(path: Path, flag: int) -> Iterator[int]:
    """A descriptor to write to; errors of writing, which name no file, then name this one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o644)
    try:
        yield descriptor
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]

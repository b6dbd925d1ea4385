"""Folders that are made over a long time, by commands that may be stopped and called again.

What is made grows in the folder ``.packing-NAME`` beside its place, and is renamed when whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from scorefield.errors import UserError
from scorefield.files import write_file

_PLAN, _LOCK = "plan.json", ".lock"
OnProgress = Callable[[int, int, float], None]
"""Called with the number of images done, of all, and of those per second."""


@contextmanager
def staged(out: Path, overwrite: bool, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """The folder that takes its place when the block ends; after an error it stays, for the same
    command to resume.

    Arguments:
        out: The place.
        overwrite: Whether what is there is replaced, where it is one of ``ours``.

    Raises:
        UserError: If the place is taken, or being made by another process.
    """
    if out.name in ("", ".."):
        raise UserError(f"{out} is there already: give another")
    folder, replaced = (out.with_name(f".{what}-{out.name}") for what in ("packing", "replaced"))
    if replaced.exists():
        # A process was killed before it put the new one in its place, or before it deleted the old.
        shutil.rmtree(replaced) if out.exists() else os.rename(replaced, out)
    _check_place(out, overwrite, ours)
    with _alone(folder, out):
        _check_place(out, overwrite, ours)
        yield folder
        for name in (_PLAN, _LOCK):
            (folder / name).unlink()
        if out.exists():
            os.rename(out, replaced)
        os.rename(folder, out)
    shutil.rmtree(replaced, ignore_errors=True)


def begin(folder: Path, plan: str, size: int) -> None:
    """Empties a staged folder unless it was begun by the same plan.

    Arguments:
        folder: The folder of :func:`staged`.
        plan: What is made of what.
        size: The bytes that it takes.

    Raises:
        UserError: If the disk has not so many.
    """
    if (folder / _PLAN).is_file() and (folder / _PLAN).read_text() == plan:
        return
    for file in folder.iterdir():
        if file.name != _LOCK:
            file.unlink()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(f"{folder.parent} has {free:,} bytes left, and {size:,} are needed")
    write_file(folder / _PLAN, plan)


def _check_place(out: Path, overwrite: bool, ours: Callable[[Path], bool]) -> None:
    if out.exists() and not (overwrite and ours(out)):
        told = "overwrite it, or give another" if ours(out) else "give another"
        raise UserError(f"{out} is there already: {told}")


@contextmanager
def _alone(folder: Path, out: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{out} is being made by another process: wait until it ends") from None
    try:
        yield
    finally:
        lock.release()

"""A folder of results, which is replaced only where it holds nothing but results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from scorefield.errors import RunError
from scorefield.files import write_folder


def check_free(folder: Path, overwrite: bool, ours: Callable[[str], bool]) -> None:
    """Checks that results may be written into a folder, before they are computed.

    Arguments:
        folder: The folder.
        overwrite: Whether it may exist.
        ours: Whether a file in it, named from there, is a result, which may be overwritten.

    Raises:
        RunError: If it exists and is not to be overwritten, holds other things than results, or
            lies where nothing can be written.
    """
    here = folder.absolute()
    # The root has no folder above it.
    above = next((place for place in here.parents if place.exists()), here)
    if not above.is_dir():
        raise RunError(f"{above} is no folder, and no results can lie in it")
    if not os.access(above, os.W_OK | os.X_OK):
        raise RunError(f"{above} cannot be written into: give another output directory")
    if not (folder.exists() or folder.is_symlink()):
        return
    if not overwrite:
        raise RunError(f"{folder} exists; overwrite it, or give another output directory")
    if folder.is_symlink() or not folder.is_dir():
        raise RunError(f"{folder} is no folder, and is not overwritten: remove it")
    # As they come: the folder may be a home, or a whole disk.
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if (file.is_symlink() or not file.is_dir()) and not ours(name):
            raise RunError(f"{folder} holds {name}, which is no result: it is not overwritten")


def write(
    folder: Path, files: Mapping[str, bytes], overwrite: bool, ours: Callable[[str], bool]
) -> list[Path]:
    """Writes all files of a folder or none.

    Arguments:
        folder: The folder, which is made.
        files: What is to be in it, by name; a name may have folders.
        overwrite: Whether it may exist; what is in it is gone then.
        ours: As of :func:`check_free`.

    Raises:
        RunError: As of :func:`check_free`.
        OSError: If a file cannot be written; nothing is changed then.
    """
    check_free(folder, overwrite, ours)
    return write_folder(folder, files, overwrite)

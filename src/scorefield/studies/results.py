"""The folder of a study's results, and tables, records and arrays as the content of its files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.errors import RunError

RECORD = "study.json"
"""The file with the settings of a study and the names of all its files."""


def check_free(folder: Path, overwrite: bool) -> None:
    """Checks that results may be written into a folder, before they are computed.

    Arguments:
        folder: The folder.
        overwrite: Whether it may exist.

    Raises:
        RunError: If it exists and is not to be overwritten, has files that are no results of a
            study, or is where nothing can be written.
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
    results = _results(folder)
    # As they come: the folder may be a home, or a whole disk.
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if (file.is_symlink() or not file.is_dir()) and name not in results:
            raise RunError(f"{folder} holds {name}, which is no result: it is not overwritten")


def json_bytes(record: Mapping[str, Any]) -> bytes:
    """A record as JSON."""
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


def csv_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Records as CSV under the names of the first; numbers read back as they are."""
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Arrays as a compressed npz without pickles."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _results(folder: Path) -> set[str]:
    """The names of the files of a study in its folder."""
    try:
        names = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return set(map(str, names)) if isinstance(names, list) else set()

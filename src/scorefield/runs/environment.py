"""Where a run was made: enough to make it again."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from scorefield.engine import Engine
from scorefield.files import DOCUMENT, read_file, write_file

_PACKAGES = ("scorefield", "torch", "numpy", "scipy", "scikit-learn", "safetensors", "pydantic")
_KINDS: dict[str, object] = {
    "created": str | None,
    "command": list[str],
    "python": str | None,
    "packages": dict[str, str | None],
    "platform": str | None,
    "processor": str | None,
    "cores": int | None,
    "threads": int | None,
    "cuda": str | None,
    "devices": list[str],
    "engines": list[dict[str, str | bool | int | float]],
}


def environment() -> dict[str, Any]:
    """Versions, machine, command line and time, as plain values."""
    devices = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "devices": devices,
    }


def record_engine(file: Path, engine: Engine) -> None:
    """Adds the engine of a training to those before it, unless it is the last of them.

    Raises:
        UserError: If the engine's device is not on this machine.
    """
    record, used = read_environment(file), engine.record()
    engines = record.get("engines", [])
    if engines[-1:] != [used]:
        write_file(file, json.dumps({**record, "engines": [*engines, used]}, indent=2) + "\n")


def read_environment(file: Path) -> dict[str, Any]:
    """The part of a file that could be of :func:`environment` and :func:`record_engine`; nothing
    of one that cannot be read.
    """
    try:
        record = json.loads(read_file(file, DOCUMENT))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(record, dict):
        return {}
    known = _KINDS.items()
    return {key: record[key] for key, kind in known if key in record and _fits(record[key], kind)}


def _fits(value: object, kind: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

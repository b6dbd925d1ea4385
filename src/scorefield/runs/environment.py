"""Where a run was made: enough to make it again."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_PACKAGES = ("scorefield", "torch", "numpy", "scipy", "scikit-learn", "safetensors", "pydantic")


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


def plausible(record: object) -> dict[str, Any]:
    """The part of a record read from a file that could be of :func:`environment`."""
    if not isinstance(record, dict):
        return {}
    return {key: record[key] for key, fits in _FITS.items() if key in record and fits(record[key])}


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


_FITS: dict[str, Callable[[object], bool]] = {
    "created": _is_text,
    "command": _is_list,
    "python": _is_text,
    "packages": _is_table,
    "platform": _is_text,
    "processor": _is_text,
    "cores": _is_number,
    "threads": _is_number,
    "cuda": _is_text,
    "devices": _is_list,
}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

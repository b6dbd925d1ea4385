"""Run folders: made, opened, trained, inspected.

The names below are imported when they are first used: listing the presets needs none of the
libraries that train.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorefield.runs.run import Run as Run

_HOMES = {
    "Run": "runs.run",
}

__all__ = [
    "Run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"scorefield.{_HOMES[name]}"), name)

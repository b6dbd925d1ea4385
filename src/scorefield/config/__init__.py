"""Configurations: sections, presets, overrides, and the objects they describe.

The names below are imported when they are first used: listing the presets needs none of the
libraries that train.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorefield.config.build import build_field as build_field
    from scorefield.config.build import build_objective as build_objective
    from scorefield.config.build import build_source as build_source
    from scorefield.config.build_sampling import build_sampler as build_sampler
    from scorefield.config.config import Config as Config
    from scorefield.config.resolve import load as load

_HOMES = {
    "build_field": "config.build",
    "build_objective": "config.build",
    "build_source": "config.build",
    "build_sampler": "config.build_sampling",
    "Config": "config.config",
    "load": "config.resolve",
}

__all__ = [
    "build_field",
    "build_objective",
    "build_source",
    "build_sampler",
    "Config",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"scorefield.{_HOMES[name]}"), name)

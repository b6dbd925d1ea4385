"""Experiments: configurations with names, and the folders in which they are run.

The names below are imported when they are first used: listing the presets needs none of the
libraries that train.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorefield.experiments.build import build_field as build_field
    from scorefield.experiments.build import build_objective as build_objective
    from scorefield.experiments.build import build_source as build_source
    from scorefield.experiments.build_sampling import build_sampler as build_sampler
    from scorefield.experiments.config import Config as Config
    from scorefield.experiments.errors import ConfigError as ConfigError
    from scorefield.experiments.errors import RunError as RunError
    from scorefield.experiments.resolve import load as load
    from scorefield.experiments.run import Run as Run

_HOMES = {
    "Config": "config",
    "load": "resolve",
    "build_source": "build",
    "build_field": "build",
    "build_objective": "build",
    "build_sampler": "build_sampling",
    "Run": "run",
    "ConfigError": "errors",
    "RunError": "errors",
}

__all__ = [
    "Config",
    "load",
    "build_source",
    "build_field",
    "build_objective",
    "build_sampler",
    "Run",
    "ConfigError",
    "RunError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

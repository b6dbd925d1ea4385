"""The published configurations of the score_sde code, by name."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from scorefield.interop.errors import InteropError

Config = dict[str, Any]
"""A configuration in the keys of the score_sde code: sections of settings."""

_NONE = object()


def value(config: Mapping[str, Any], key: str, default: Any = _NONE) -> Any:
    """The value at a path of keys, such as ``model.nf``.

    Raises:
        InteropError: If there is none, and no default.
    """
    found: Any = config
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            if default is _NONE:
                raise InteropError(f"the configuration lacks {key}")
            return default
        found = found[part]
    return found


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    text = files(__package__).joinpath("configurations.yaml").read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    return tables


def configuration_names() -> list[str]:
    """The names of all published configurations, such as ``ve/cifar10_ncsnpp_continuous``."""
    return list(_tables()["configurations"])


def configuration(name: str) -> Config:
    """A published configuration by the path of its file in the score_sde code; raises
    :class:`~.InteropError` if there is none.
    """
    tables = _tables()
    if name not in tables["configurations"]:
        near = get_close_matches(name, configuration_names(), n=1, cutoff=0.0)
        raise InteropError(f"there is no configuration {name!r}; the nearest is {near[0]!r}")
    own = dict(tables["configurations"][name])
    base = tables["defaults"][own.pop("defaults")]
    return merged(merged(base, tables["networks"][own.pop("network")]), own)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Config:
    """A configuration with its settings replaced by those of another."""
    result = deepcopy(dict(base))
    for key, value in over.items():
        if isinstance(value, Mapping):
            result[key] = merged(result.get(key, {}), value)
        else:
            result[key] = deepcopy(value)
    return result

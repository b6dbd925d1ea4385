"""Configurations in the keys of the score_sde code: nested sections, ``model.nf`` and the like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scorefield.interop.errors import InteropError

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

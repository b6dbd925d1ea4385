"""Layers of configuration: a preset, what it extends, and overrides from the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scorefield.config.document import parse
from scorefield.errors import ConfigError

Keys = Callable[[tuple[str, ...], str], frozenset[str]]


def merge(
    base: Mapping[str, Any],
    layer: Mapping[str, Any],
    keys: Keys,
    path: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A layer on top of another: mappings are merged, everything else is replaced.

    Where the layer changes the ``kind`` of a mapping, inherited keys that the new kind does not
    have are dropped: they were about another thing.

    Arguments:
        base: What lies below; not changed.
        layer: What wins.
        keys: The keys that a mapping at a path has when it is of a kind.
        path: Where the two mappings stand in the document.
    """
    merged = dict(base)
    old, new = base.get("kind"), layer.get("kind")
    if old is not None and isinstance(new, str) and new != old:
        known = keys(path, new)
        merged = {key: value for key, value in base.items() if key in known}
    for key, value in layer.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            below = below if isinstance(below, Mapping) else {}
            merged[key] = merge(below, value, keys, (*path, key))
        else:
            merged[key] = value
    return merged


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """The layer that overrides of the form ``a.b=c`` make; the value is YAML.

    Raises:
        ConfigError: If one is not of that form, or two contradict each other.
    """
    layer: dict[str, Any] = {}
    for override in overrides:
        dotted, equals, text = override.partition("=")
        path = dotted.strip().split(".")
        if not equals:
            raise ConfigError(f"the override {override!r} has no '=': write section.key=value")
        if not all(path):
            raise ConfigError(
                f"the override {override!r} has an empty key: write section.key=value"
            )
        if not text.strip():
            raise ConfigError(f"the override {override!r} has no value: null stands for none")
        _put(layer, path, parse(text, f"the value of the override {override!r}"))
    return layer


def _put(layer: dict[str, Any], path: Sequence[str], value: object) -> None:
    for depth, key in enumerate(path[:-1]):
        layer = layer.setdefault(key, {})
        if not isinstance(layer, dict):
            raise ConfigError(
                f"the overrides set both {'.'.join(path[: depth + 1])} and a key in it"
            )
    if path[-1] in layer:
        raise ConfigError(f"the overrides set {'.'.join(path)} more than once")
    layer[path[-1]] = value


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested document as dotted keys and their values."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> list[tuple[str, object, object]]:
    """The dotted keys at which two documents differ, with both values, ``None`` where missing."""
    a, b = flatten(one), flatten(other)
    return [(key, a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)]

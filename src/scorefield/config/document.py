"""YAML documents, read strictly, and layers of them: presets, files and overrides."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scorefield.errors import ConfigError
from scorefield.files import read_file, reason

Keys = Callable[[tuple[str, ...], str], frozenset[str]]

_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 50
_LONGEST = 2 << 20  # bytes


class _Loader(_SafeLoader):  # type: ignore[misc, valid-type]
    """The safe loader, but ``1e-3`` is a number, and a key that is given twice is an error, as is
    a number that YAML takes for an octal or a sexagesimal one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    digits = node.value.lstrip("+-").replace("_", "")
    if ":" in digits or re.fullmatch(r"0\d+", digits):
        raise yaml.constructor.ConstructorError(
            None, None, f"the number {shown(node.value)} is not a decimal one", node.start_mark
        )
    integer = node.tag.endswith(":int")
    number = loader.construct_yaml_int if integer else loader.construct_yaml_float
    value: int | float = number(node)
    return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _decimal)

# YAML 1.1 reads a number with an exponent but without a point as text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+|\d*\.\d+|\d+\.)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse(text: str, where: str) -> Any:
    """The value that a piece of YAML stands for, called ``where`` in an error.

    Raises:
        ConfigError: If it is not valid YAML, names the line; or if it has aliases, which can make
            a short text endless, or is nested very deeply.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                name = shown(event.anchor)
                raise ConfigError(f"{where} has an alias {name}: write out what it stands for")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ConfigError(f"{where} is nested more than {_DEEPEST} deep")
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where} is not valid YAML{place}: {error.problem}") from error
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{where} is not valid YAML: {reason}") from error
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        # A date that does not exist, a number of thousands of digits.
        raise ConfigError(f"{where} is not valid YAML: a value in it cannot be read") from error


def read(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: If the file cannot be read, is not valid YAML, or holds something else.
    """
    try:
        text = read_file(path, _LONGEST).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a YAML file: it is not text") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason(error)}") from error
    document = parse(text, str(path))
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, not {shown(document)}")
    return document


def dump(document: Mapping[str, Any]) -> str:
    """The document as YAML, in its own order."""
    return yaml.safe_dump(
        dict(document), sort_keys=False, allow_unicode=True, default_flow_style=None, width=96
    )


def shown(value: object) -> str:
    """A value as it appears in an error: as in YAML, on one line, and short."""
    plain = {None: "null", True: "true", False: "false"}
    text = plain[value] if value is None or isinstance(value, bool) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def merge(
    base: Mapping[str, Any], layer: Mapping[str, Any], keys: Keys, path: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A layer on top of another: mappings are merged, everything else is replaced.

    Where the layer changes the ``kind`` of a mapping, inherited keys that the new kind does not
    have are dropped; ``keys(path, kind)`` are those that it has.
    """
    merged = dict(base)
    old, new = base.get("kind"), layer.get("kind")
    if old is not None and isinstance(new, str) and new != old:
        known = keys(path, new)
        merged = {key: value for key, value in base.items() if key in known}
    for key, value in layer.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            below = below if isinstance(below, Mapping) else {}
            value = merge(below, value, keys, (*path, key))
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

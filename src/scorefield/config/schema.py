"""What keys a configuration has where, and errors of validation in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from scorefield.config.config import Config
from scorefield.config.custom import TRUST
from scorefield.config.document import shown
from scorefield.errors import ConfigError, closest, hint

_WANTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "finite_number": "finite",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "tuple_type": "a list",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}


def keys(path: tuple[str, ...], kind: str) -> frozenset[str]:
    """The keys of the mapping at a path when it is of a kind; none if there is no such thing."""
    model = _model_at(path, lambda here: kind if here == path else None)
    return frozenset() if model is None else frozenset(model.model_fields)


def validate(document: Mapping[str, Any], source: str, trust_code: bool = False) -> Config:
    """The configuration that a document describes.

    Arguments:
        document: The document.
        source: Where it is from, for the error.
        trust_code: Whether classes of the user's own that it names may be imported.

    Raises:
        ConfigError: If it is wrong; one sentence on the first mistake.
    """
    try:
        return Config.model_validate(document, context={TRUST: trust_code})
    except ValidationError as error:
        # A misspelt key tells more than the key that is then missing.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise ConfigError(f"{source}: {_sentence(first, document)}") from None


def _sentence(error: Any, document: Mapping[str, Any]) -> str:
    path = tuple(_without_tags(error["loc"], document))
    dotted = ".".join(map(str, path))
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(path, document)
        case "missing":
            return f"the key {dotted} is missing"
        case "value_error":
            return str(error["ctx"]["error"])
        case "union_tag_not_found":
            return f"the key {dotted}.kind is missing"
        case "union_tag_invalid":
            tags = [tag.strip("' ") for tag in error["ctx"]["expected_tags"].split(",")]
            given = error["input"]
            if isinstance(given, Mapping) and given.get("kind") is None:
                return f"the key {dotted}.kind is missing"
            tag = error["ctx"]["tag"]
            near = closest(tag, tags)
            return f"{dotted}.kind is {tag!r}, it must be one of {', '.join(tags)}" + (
                f"; the nearest is {near!r}" if near else ""
            )
    if path == ("name",) and error["type"] == "string_pattern_mismatch":
        return (
            f"name is {shown(error['input'])}, it must be family/member, both of letters, digits "
            f"and any of _+=.,@-; give another with name=family/member"
        )
    wanted = _WANTED.get(error["type"])
    if wanted is None:
        return f"{dotted} is {shown(error['input'])}: {error['msg']}"
    limits = {
        key: f"{value:g}" if isinstance(value, float) else value
        for key, value in error.get("ctx", {}).items()
    }
    return f"{dotted} is {shown(error['input'])}, it must be {wanted.format(**limits)}"


def _unknown_key(path: tuple[Any, ...], document: Mapping[str, Any]) -> str:
    parent = path[:-1]

    def kind(here: tuple[str, ...]) -> str | None:
        value: Any = document
        for key in here:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value.get("kind") if isinstance(value, Mapping) else None

    model = _model_at(parent, kind)
    known = [] if model is None else list(model.model_fields)
    section = ".".join(map(str, parent))
    return (
        f"there is no key {'.'.join(map(str, path))!r}; "
        f"{hint(path[-1], known, f'the keys of {section}' if section else 'the sections')}"
    )


def _without_tags(loc: Sequence[int | str], here: Any) -> Iterator[int | str]:
    """The place of an error in a document; pydantic names the chosen kind in between."""
    for part in loc:
        if isinstance(here, Mapping):
            if part not in here and part == here.get("kind"):
                continue
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            here = None
        yield part


def _model_at(path: Sequence[Any], kind: Any) -> type[BaseModel] | None:
    """The model of the mapping at a path, where ``kind(path)`` selects one of several."""
    candidates: list[type[BaseModel]] = [Config]
    for depth in range(len(path) + 1):
        here = tuple(path[:depth])
        if len(candidates) > 1:
            chosen = kind(here)
            # Where no kind is known, any variant that has the next key will do.
            candidates = [
                m
                for m in candidates
                if chosen in _kinds(m)
                or (chosen is None and depth < len(path) and path[depth] in m.model_fields)
            ]
        if not candidates:
            return None
        if depth < len(path):
            field = candidates[0].model_fields.get(path[depth])
            candidates = [] if field is None else list(_models(field.annotation))
    return candidates[0] if candidates else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models among the alternatives of an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    if get_origin(annotation) is tuple:
        return
    for part in get_args(annotation):
        yield from _models(part)


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("kind")
    if field is None or get_origin(field.annotation) is not Literal:
        return ()
    return get_args(field.annotation)

"""What keys a configuration has where, and errors of validation in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from scorefield.config.config import Config
from scorefield.config.custom import TRUST
from scorefield.config.document import shown
from scorefield.errors import ConfigError, nearest

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
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}


def keys(path: tuple[str, ...], kind: str) -> frozenset[str]:
    """The keys of the mapping at a path when it is of a kind; none if there is no such thing."""
    models = _resolved(path)[1]
    chosen = [m for m in models if len(models) == 1 or kind in _kinds(m)]
    return frozenset(chosen[0].model_fields if chosen else ())


def validate(document: Mapping[str, Any], source: str, trust_code: bool = False) -> Config:
    """The configuration that a document from a ``source`` describes; classes of the user's own that
    it names may be imported with ``trust_code`` only.

    Raises:
        ConfigError: If it is wrong; one sentence on the first mistake.
    """
    try:
        return Config.model_validate(document, context={TRUST: trust_code})
    except ValidationError as error:
        # A misspelt key tells more than the key that is then missing.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise ConfigError(f"{source}: {_sentence(first, document)}") from None


def stored(document: Mapping[str, Any], source: str, trust_code: bool = False) -> Config:
    """The configuration of a run or a checkpoint; arguments and errors are those of
    :func:`validate`. Runs that are older than a key have what was done before there was one.
    """
    data = document.get("data")
    if isinstance(data, Mapping) and data.get("kind") == "images":
        document = {**document, "data": {"held_out_seed": None, **data}}
    return validate(document, source, trust_code)


def _sentence(error: Any, document: Mapping[str, Any]) -> str:
    path, _ = _resolved(error["loc"])
    dotted = ".".join(map(str, path))
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(error["loc"], dotted, document)
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
            near = nearest(tag, tags)
            return f"{dotted}.kind is {tag!r}, it must be one of {', '.join(tags)}" + (
                f"; {near}" if near else ""
            )
    if dotted == "name" and error["type"] == "string_pattern_mismatch":
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


def _unknown_key(loc: Sequence[Any], dotted: str, document: Mapping[str, Any]) -> str:
    """The nearest key of the whole configuration helps: by its name and its place together."""
    place, models = _resolved(loc[:-1])
    parent = ".".join(map(str, place))

    def alike(known: str) -> float:
        return _similarity(str(loc[-1]), known.rpartition(".")[2])

    known_keys = _tree((Config,), document)
    near = max(known_keys, key=lambda known: alike(known) + _similarity(dotted, known))
    if alike(near) >= 0.5:
        above, _, name = near.rpartition(".")
        help_ = f"the nearest is {(name if above == parent else near)!r}"
    else:
        known = ", ".join(models[0].model_fields if models else ())
        help_ = f"the keys of {parent} are {known}" if parent else f"the sections are {known}"
    return f"there is no key {dotted!r}; {help_}"


def _similarity(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def _tree(models: Iterable[type[BaseModel]], value: object, prefix: str = "") -> Iterator[str]:
    """The dotted keys that a mapping, of the kind that it has, may hold at any depth."""
    values = value if isinstance(value, Mapping) else {}
    models = list(models)
    for model in [m for m in models if values.get("kind") in _kinds(m)] or models:
        for name, field in model.model_fields.items():
            yield f"{prefix}{name}"
            yield from _tree(_models(field.annotation), values.get(name), f"{prefix}{name}.")


def _resolved(loc: Sequence[Any]) -> tuple[list[Any], list[type[BaseModel]]]:
    """The path of a place in a document, and the models that it may have. In the place of an error,
    pydantic names the kind that is chosen from several; where none is, any that has the next key
    will do.
    """
    path: list[Any] = []
    models: list[type[BaseModel]] = [Config]
    for part in loc:
        chosen = [m for m in models if part in _kinds(m)]
        if len(models) > 1 and chosen:
            models = chosen
            continue
        path.append(part)
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = list(_models(fields[0].annotation)) if fields else []
    return path, models


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
    return () if field is None else get_args(field.annotation)

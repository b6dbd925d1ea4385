"""A field as plain data: the parts that it is made of and their arguments, without its weights.

A part is a mapping of its ``target``, ``module:name``, and its ``arguments``, which are numbers,
text, lists and parts in turn. Those of this package are made again by name and execute nothing
else. A module of the user's own has the ``sha256`` of its file too: it is imported only where the
reader trusts it, and only if the file is that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from inspect import Parameter, signature
from reprlib import repr as shortened
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from scorefield.checks import kind_of
from scorefield.code import FAULTS, fault, hash_of, source_of, trusted
from scorefield.domain import Domain
from scorefield.errors import CheckpointError, UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.labels import Label
from scorefield.fields.parametrization import Parametrization
from scorefield.fields.wrap import Wrapped
from scorefield.networks.network import Network
from scorefield.sde.base import SDE

_PACKAGE = "scorefield."
_PARTS = (ScoreField, Network, Wrapped, SDE, Parametrization, Label, Domain)
"""The classes of this package that a file may name."""
_MANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_LARGEST = 10**9
"""The largest number of a description, which is not trusted."""


def describe(field: ScoreField) -> dict[str, Any]:
    """The parts of a field. Arguments of a module of the user's own are its attributes of the same
    names, or the values of a mapping ``config`` of its own.

    Raises:
        UserError: If a part cannot be made again from plain data.
    """
    found: dict[str, Any] = _plain(field, type(field).__name__)
    return found


def rebuild(document: Any, where: str, trust_code: bool = False) -> ScoreField:
    """The field of a description, with weights as they are drawn at first.

    Arguments:
        document: What :func:`describe` gave, as JSON keeps it.
        where: The file that it was read from, for errors.
        trust_code: Whether modules of the user's own are imported.

    Raises:
        ConfigError: If it names code that is not trusted, not there, or not what it was.
        CheckpointError: If it is no description of a field.
    """
    try:
        field = _made(document, where, trust_code)
    except RecursionError as error:
        raise CheckpointError(f"{where} describes parts within parts without end") from error
    if not isinstance(field, ScoreField):
        raise CheckpointError(f"{where} describes {kind_of(field)}, not a field")
    return field


def _plain(part: Any, name: str) -> Any:
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, tuple | list):
        return [_plain(value, name) for value in part]
    if not isinstance(part, nn.Module) and not (is_dataclass(part) and isinstance(part, _PARTS)):
        raise UserError(
            f"{name} is {kind_of(part)}: only numbers, text and modules can be written into a file"
        )
    target = f"{type(part).__module__}:{type(part).__qualname__}"
    own = target.startswith(_PACKAGE)
    if own and not isinstance(part, _PARTS):
        raise UserError(f"{name} is {kind_of(part)}, which cannot be made again from a file")
    arguments = part.arguments if isinstance(part, Network) else _arguments(part, own)
    plain = {key: _plain(value, f"{type(part).__name__}.{key}") for key, value in arguments.items()}
    if own:
        return {"target": target, "arguments": plain}
    if "<locals>" in target or target.startswith("__main__:"):
        raise UserError(
            f"{name} is {kind_of(part)}, whose class cannot be imported: define it in a module, "
            "outside of functions"
        )
    return {"target": target, "arguments": plain, "sha256": hash_of(source_of(target, name))}


def _arguments(part: Any, own: bool) -> dict[str, Any]:
    """The arguments of a part, from its attributes."""
    kind, found = type(part), {}
    kept = getattr(part, "config", None)
    kept = kept if isinstance(kept, Mapping) else {}
    for name, parameter in signature(kind).parameters.items():
        if name in kept or hasattr(part, name):
            found[name] = kept[name] if name in kept else getattr(part, name)
        elif not own or parameter.default is Parameter.empty or parameter.kind in _MANY:
            raise UserError(
                f"{kind.__name__} does not keep its argument {name}: set self.{name} = {name} "
                "where it is made"
            )
    return found


def _made(document: Any, where: str, trust_code: bool) -> Any:
    if isinstance(document, list):
        return tuple(_made(value, where, trust_code) for value in document)
    if not isinstance(document, dict):
        return document
    target, arguments = document.get("target"), document.get("arguments")
    if not isinstance(target, str) or not isinstance(arguments, dict):
        raise CheckpointError(f"{where} does not describe a field: a part of it has no target")
    given = {key: _made(value, where, trust_code) for key, value in arguments.items()}
    if target.startswith(_PACKAGE):
        make = _own(target, where)
        kinds = get_type_hints(make.__init__)
        for key, value in given.items():
            if key in kinds and not _fits(value, kinds[key]):
                raise CheckpointError(
                    f"{where}: {key} of {target} is {shortened(arguments[key])}, which it cannot be"
                )
    else:
        sha256 = document.get("sha256")
        if trust_code and not isinstance(sha256, str):
            raise CheckpointError(f"{where} names {target} without the sha256 of its file")
        make = trusted(target, sha256, f"{where}: target", trust_code)
    try:
        return make(**given)
    except FAULTS as error:  # of arguments of any kind too
        raise CheckpointError(f"{where}: {target} cannot be made: {fault(error)}") from error


def _own(target: str, where: str) -> Any:
    module, _, name = target.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{where} needs {target}, which this version has not") from error
    if not (isinstance(found, type) and issubclass(found, _PARTS)):
        raise CheckpointError(f"{where} names {target}, which is no part of a field")
    return found


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the kind that an annotation states, and no number is too large."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in parts
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin in (Sequence, tuple):
        if not isinstance(value, tuple):
            return False
        each = parts[:1] * len(value) if origin is Sequence or ... in parts else parts
        return len(value) == len(each) and all(map(_fits, value, each))
    if kind in (int, float):
        real = type(value) is int or (kind is float and type(value) is float)
        return real and abs(value) <= _LARGEST
    return isinstance(value, origin or kind)

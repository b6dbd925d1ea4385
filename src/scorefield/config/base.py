"""What all sections of a configuration have in common, and how one becomes an object.

A section takes its defaults from the class that it describes. Importing that class takes seconds,
since it needs torch; parsing its file takes a millisecond.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from inspect import signature
from math import inf, isfinite
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    model_validator,
)

from scorefield.config.document import shown
from scorefield.errors import ConfigError, UserError, section_of

T = TypeVar("T")
_PACKAGE = Path(__file__).parent.parent

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
# Beyond these, squares overflow or vanish in single precision.
NoiseLevel = Annotated[float, Field(ge=1e-12, le=1e12)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**12)]
# What torch's generators take, and -1 - seed with it.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
# YAML has lists and no tuples.
Counts = Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)]
Positives = Annotated[tuple[Positive, ...], Strict(False), Field(min_length=1)]


class Section(BaseModel):
    """A part of a configuration: immutable, without unknown keys, with values of the exact type.

    A section lists the keys that a document may give and the values that they allow. A key
    without a default has that of the argument of the same name of what the section ``builds``;
    where that has none either, a document must give it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    builds: ClassVar[str] = ""
    """The class or function that the section describes, ``module:name``."""
    internal: ClassVar[tuple[str, ...]] = ("kind",)
    """The keys that are not arguments of it."""
    faults: ClassVar[tuple[type[Exception], ...]] = ()
    """What it may raise besides refusing a value, without being a bug of this package."""

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, values: Any) -> Any:
        if not cls.builds or not isinstance(values, Mapping):
            return values
        open_keys = {key for key, field in cls.model_fields.items() if field.is_required()}
        known = {k: v for k, v in defaults(cls.builds).items() if k in open_keys}
        return {**known, **values}

    def settings(self) -> dict[str, Any]:
        """The arguments that the section gives to what it builds."""
        return {key: value for key, value in self if key not in self.internal}

    def constructor(self, where: str) -> Callable[..., Any]:
        """What the section builds; ``where`` is its key, to be named in an error."""
        module, _, name = self.builds.partition(":")
        found: Callable[..., Any] = attrgetter(name)(import_module(module))
        return found


def section(**values: Any) -> Any:
    """The default of a key that holds a section: the section with these values."""
    return Field(default=values, validate_default=True)


def default_of(target: str, argument: str) -> Any:
    """The default of a key: that of an argument of another target than its section builds."""
    return Field(default_factory=lambda: defaults(target)[argument])


def build(section: Section, where: str, kind: Callable[..., T], **known: Any) -> T:
    """The object of a class that the section with the key ``where`` describes; ``known`` is what
    follows from the rest of the configuration, given where there is a parameter for it.

    Raises:
        ConfigError: If the constructor refuses its arguments, or makes something else.
    """
    constructor: Any = section.constructor(where)
    is_class = isinstance(constructor, type)
    with section_of(where, *section.faults, keys=section):
        # Of a class, `__new__` may take anything.
        call = signature(constructor.__init__ if is_class else constructor)
        given = {k: v for k, v in known.items() if k in call.parameters} | section.settings()
        try:
            call.bind(*(["self"] if is_class else []), **given)
        except TypeError as error:
            raise ConfigError(f"{where}: {_path(constructor)}: {error}") from error
        built: T = constructor(**given)
    if not isinstance(built, cast(type, kind)):
        raise ConfigError(
            f"{where}: {_path(constructor)} makes a {type(built).__name__}, it must make a "
            f"{kind.__name__}"
        )
    return built


def _path(constructor: Callable[..., Any]) -> str:
    return f"{constructor.__module__}:{constructor.__qualname__}"


def check_below(low: str, a: int | float, high: str, b: int | float) -> None:
    """Raises ``ValueError`` unless the value of one key is below that of another."""
    if not a < b:
        raise UserError(f"{low} is {a}, it must be below {high}, which is {b}")


def one_or_each(
    key: str, wanted: str, low: float = -inf, high: float = inf
) -> tuple[PlainValidator, PlainSerializer]:
    """How a value is read that is one number, or a list of one for each of several things;
    ``wanted`` is for the error.
    """

    def fits(value: object) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]

    def read(value: Any) -> float | tuple[float, ...]:
        if fits(value):
            return float(value)
        if isinstance(value, list | tuple) and value and all(map(fits, value)):
            return tuple(map(float, value))
        raise UserError(f"{key} is {shown(value)}, it must be {wanted}")

    def plain(value: float | tuple[float, ...]) -> float | list[float]:
        return list(value) if isinstance(value, tuple) else value

    return PlainValidator(read), PlainSerializer(plain, when_used="json")


@cache
def defaults(target: str) -> dict[str, Any]:
    """The plain defaults (numbers, text, lists, null) of the arguments of a class or function of
    this package, ``module:name`` or ``module:Class.method``, read from its source.
    """
    module, _, name = target.partition(":")
    tree: Any = _tree(module)
    for part in name.split("."):
        # Functions and classes.
        tree = next(node for node in tree.body if getattr(node, "name", None) == part)
    if isinstance(tree, ast.FunctionDef):
        return _of_function(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _of_function(node)
    # A dataclass.
    homes = _homes(module)
    found: dict[str, Any] = {}
    for base in tree.bases:
        if isinstance(base, ast.Name) and base.id in homes:
            found |= defaults(f"{homes[base.id]}:{base.id}")
    fields = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
    return found | _plain((ast.unparse(node.target), node.value) for node in fields)


@cache
def _tree(module: str) -> ast.Module:
    file = _PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _homes(module: str) -> dict[str, str]:
    """The modules of this package that the names in a module come from."""
    found: dict[str, str] = {}
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = module
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scorefield."):
            found |= {alias.name: str(node.module) for alias in node.names}
    return found


def _of_function(function: ast.FunctionDef) -> dict[str, Any]:
    arguments = function.args
    last = (arguments.posonlyargs + arguments.args)[::-1]
    pairs = [
        *zip(last, arguments.defaults[::-1], strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return _plain((argument.arg, value) for argument, value in pairs)


def _plain(pairs: Iterable[tuple[str, ast.expr | None]]) -> dict[str, Any]:
    """The values that are literals, by their names."""
    found: dict[str, Any] = {}
    for name, expression in pairs:
        if expression is not None:
            with suppress(ValueError):
                found[name] = ast.literal_eval(expression)
    return found

"""What all sections of a configuration have in common, and how one becomes an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from math import isfinite
from operator import attrgetter
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

from scorefield.config.defaults import defaults
from scorefield.config.document import shown
from scorefield.errors import ConfigError, UserError, section_of

S = TypeVar("S", bound="Section")
T = TypeVar("T")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
# Beyond these, squares overflow or vanish in single precision.
NoiseLevel = Annotated[float, Field(ge=1e-12, le=1e12)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**12)]
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
        return {key: value for key, value in self if key != "kind"}

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
    """The object that a section describes.

    Arguments:
        section: The section.
        where: Its key, to be named in an error.
        kind: The class that the object must be of.
        known: What follows from the rest of the configuration; the constructor gets what it has a
            parameter for.

    Raises:
        ConfigError: If the constructor refuses its arguments, or makes something else.
    """
    constructor: Any = section.constructor(where)
    is_class = isinstance(constructor, type)
    # Of a class, `__new__` may take anything.
    call = signature(constructor.__init__ if is_class else constructor)
    given = {k: v for k, v in known.items() if k in call.parameters} | section.settings()
    try:
        call.bind(*(["self"] if is_class else []), **given)
    except TypeError as error:
        raise ConfigError(f"{where}: {_path(constructor)}: {error}") from error
    with section_of(where):
        built: T = constructor(**given)
    if not isinstance(built, cast(type, kind)):
        raise ConfigError(
            f"{where}: {_path(constructor)} makes a {type(built).__name__}, it must make a "
            f"{kind.__name__}"
        )
    return built


def _path(constructor: Callable[..., Any]) -> str:
    return f"{constructor.__module__}:{constructor.__qualname__}"


def check_below(section: S, where: str, low: str, high: str) -> S:
    """The section, in which one value must be below another.

    Raises:
        ValueError: If it is not; names both by their keys.
    """
    a, b = getattr(section, low), getattr(section, high)
    if not a < b:
        raise UserError(f"{where}.{low} is {a}, it must be below {where}.{high}, which is {b}")
    return section


def one_or_each(
    key: str, wanted: str, fits: Callable[[float], bool] = isfinite
) -> tuple[PlainValidator, PlainSerializer]:
    """How a value is read that is one number, or a list of one for each of several things.

    Arguments:
        key: Its key, to be named in an error.
        wanted: What it must be, in words.
        fits: Whether a number is allowed.
    """

    def is_one(value: object) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and fits(float(value))  # type: ignore[arg-type]

    def read(value: object) -> float | tuple[float, ...]:
        if is_one(value):
            return float(value)  # type: ignore[arg-type]
        if isinstance(value, list | tuple) and value and all(map(is_one, value)):
            return tuple(float(v) for v in value)
        raise UserError(f"{key} is {shown(value)}, it must be {wanted}")

    def plain(value: float | tuple[float, ...]) -> float | list[float]:
        return list(value) if isinstance(value, tuple) else value

    return PlainValidator(read), PlainSerializer(plain, when_used="json")

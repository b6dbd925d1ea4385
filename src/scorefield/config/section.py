"""What all sections of a configuration have in common."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, Strict

from scorefield.config.document import shown
from scorefield.errors import UserError

S = TypeVar("S", bound="Section")

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
    """A part of a configuration: immutable, without unknown keys, with values of the exact type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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

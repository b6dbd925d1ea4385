"""What all sections of a configuration have in common."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict

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
        raise ValueError(f"{where}.{low} is {a}, it must be below {where}.{high}, which is {b}")
    return section

"""Arguments that hold several values, as Typer's parsers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from scorefield.errors import ConfigError, UserError

_OVERRIDE = re.compile(r"[\w.]*=")
_MOST = 1_000_000

Value = TypeVar("Value", int, float)


class Integers(tuple[int, ...]):
    """Integers, written as in ``8,18,32``."""


class Numbers(tuple[float, ...]):
    """Numbers, written as in ``1.5,2,5``."""


def integers(text: str | Integers) -> Integers:
    """Integers, each of them once; Typer parses defaults too, which are integers already."""
    return text if isinstance(text, Integers) else Integers(_distinct(text, int, "integers"))


def counts(text: str) -> Integers:
    """Integers from 1 to a million, each of them once."""
    values = integers(text)
    for value in values:
        if value < 1:
            raise UserError(f"it has {value}, each must be at least 1")
        if value > _MOST:
            raise UserError(f"it has {value}, each must be at most {_MOST}")
    return values


def positive_numbers(text: str | Numbers) -> Numbers:
    """Positive numbers, each of them once, in ascending order; a default is that already."""
    if isinstance(text, Numbers):
        return text
    return Numbers(sorted(_distinct(text, _positive, "positive numbers")))


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of configurations, at least one, and overrides ``a.b=c``, from a list of both."""
    overrides = [a for a in arguments if _OVERRIDE.match(a)]
    names = [a for a in arguments if a not in overrides]
    if not names:
        raise ConfigError("a sweep needs at least one preset or file")
    return names, overrides


def settings(texts: Sequence[str]) -> dict[str, int | str]:
    """Names and values, each written as in ``time=600``."""
    pairs = [text.partition("=") for text in texts]
    for text, (name, _, value) in zip(texts, pairs, strict=True):
        if not (name and value):
            raise UserError(f"a setting is written as in time=600, not {text!r}")
        if sum(other == name for other, *_ in pairs) > 1:
            raise UserError(f"{name} is set twice")
    return {
        name: int(value) if re.fullmatch(r"-?[0-9]+", value) else value for name, _, value in pairs
    }


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def _distinct(text: str, read: Callable[[str], Value], kind: str) -> list[Value]:
    try:
        values = [read(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"it must be {kind} with commas in between, not {text!r}") from None
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise UserError(f"it has {twice:g} twice")
    return values

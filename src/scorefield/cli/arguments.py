"""Arguments of the command line that hold several values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from scorefield.errors import ConfigError

_OVERRIDE = re.compile(r"[\w.]*=")


def integers(
    option: str, text: str, least: int | None = None, most: int | None = None
) -> tuple[int, ...]:
    """The integers of a list such as ``8,18,32``.

    Arguments:
        option: What the list is for, to be named in an error.
        text: The list.
        least: The least that each may be.
        most: The most that each may be.

    Raises:
        ConfigError: If there is none, or one is not an integer, out of bounds or given twice.
    """
    values: list[int] = []
    for part in text.split(","):
        try:
            value = int(part)
        except ValueError:
            raise ConfigError(
                f"{option} is {text!r}, it must be integers with commas in between"
            ) from None
        if least is not None and value < least:
            raise ConfigError(f"{option} has {value}, each must be at least {least}")
        if most is not None and value > most:
            raise ConfigError(f"{option} has {value}, each must be at most {most}")
        if value in values:
            raise ConfigError(f"{option} has {value} twice")
        values.append(value)
    return tuple(values)


def numbers(option: str, text: str) -> tuple[float, ...]:
    """The positive numbers of a list such as ``1.5,2,5``, ascending.

    Raises:
        ConfigError: If one is not a positive number, or given twice.
    """
    values: list[float] = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(
                f"{option} is {text!r}, it must be positive numbers with commas in between"
            )
        if value in values:
            raise ConfigError(f"{option} has {value:g} twice")
        values.append(value)
    return tuple(sorted(values))


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of configurations, and overrides ``a.b=c``, from a list of both.

    Raises:
        ConfigError: If there is no name.
    """
    overrides = [a for a in arguments if _OVERRIDE.match(a)]
    names = [a for a in arguments if a not in overrides]
    if not names:
        raise ConfigError("a sweep needs at least one preset or file")
    return names, overrides

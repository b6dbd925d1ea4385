"""Numbers as the page sets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from scorefield.estimate import Estimate, format_interval, format_uncertain
from scorefield.evaluation.records import Distance

DIFFERENT = 3.0
"""How many standard deviations of real pairs above their mean samples are distinguishable from real
ones: 0.1 % of real pairs are further apart."""


MOST_NAMED = 9
"""How many models a sentence names one by one."""


class Number(NamedTuple):
    """A number as it is set: ``value`` ± ``error``, times ten to the ``exponent``."""

    value: str
    error: str
    exponent: int | None = None


def number(estimate: Estimate) -> Number:
    """The number and its error, with two digits of the error."""
    if estimate.standard_error == 0:
        return Number(f"{estimate.value:.4g}".replace("e-0", "e-"), "")
    text = format_uncertain(estimate.value, estimate.standard_error)
    exponent = None
    if text.startswith("("):
        text, _, power = text[1:].partition(")e")
        exponent = int(power)
    value, _, error = text.partition(" ± ")
    return Number(value.replace("-", "−"), error, exponent)


def in_words(estimate: Estimate) -> str:
    """The number and its 95 % interval, as a sentence has it."""
    text = format_interval(replace(estimate, unit=""))
    return text.replace("e-0", "e-").replace("-", "−")


def slug(text: str) -> str:
    """A text as the name of a place on the page."""
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def listed(items: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def distinguishable(distance: Distance) -> bool:
    """Whether a distance to real samples is larger than those between two real sets."""
    return distance.excess is None or distance.excess > DIFFERENT

"""One colour and one symbol a model, the same everywhere on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Look(NamedTuple):
    """How a model is drawn: a colour, a marker of plotly's, and the dash of its line."""

    colour: str
    symbol: str
    dash: str


# The colours of Okabe and Ito, which keep apart under the common colour blindnesses; symbol
# and dash tell models apart without any colour.
_LOOKS = (
    Look("#0072B2", "circle", "solid"),
    Look("#E69F00", "square", "solid"),
    Look("#009E73", "diamond", "solid"),
    Look("#CC79A7", "triangle-up", "solid"),
    Look("#D55E00", "cross", "solid"),
    Look("#56B4E9", "star", "dash"),
    Look("#8C6D1F", "hexagon", "dash"),
    Look("#7A5195", "pentagon", "dash"),
)
EXACT = Look("#767676", "x-thin-open", "dot")
"""The exact field."""


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each label, in order; they repeat after eight, with other dashes."""
    dashes = ("", "dash", "dot", "dashdot")
    chosen = {}
    for k, label in enumerate(labels):
        turn, place = divmod(k, len(_LOOKS))
        look = _LOOKS[place]
        chosen[label] = look if turn == 0 else look._replace(dash=dashes[turn % 4] or look.dash)
    return chosen

"""The one palette of all figures, of files and of pages.

The colours of models are those of Okabe and Ito, distinguishable under the common colour
blindnesses; markers and dashes distinguish models without any colour.

References:
    Color universal design (Okabe and Ito, 2008).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Look(NamedTuple):
    """How a model is drawn: colour, marker of matplotlib, symbol and dash of plotly."""

    colour: str
    marker: str
    symbol: str
    dash: str

    def line(self, size: int | float = 5) -> dict[str, Any]:
        """Colour, marker and its size as arguments of matplotlib."""
        return {"color": self.colour, "marker": self.marker, "markersize": size}


MODELS = (
    Look("#0072B2", "o", "circle", "solid"),
    Look("#E69F00", "s", "square", "solid"),
    Look("#009E73", "D", "diamond", "solid"),
    Look("#CC79A7", "^", "triangle-up", "solid"),
    Look("#D55E00", "P", "cross", "solid"),
    Look("#56B4E9", "*", "star", "dash"),
    Look("#8C6D1F", "h", "hexagon", "dash"),
    Look("#7A5195", "p", "pentagon", "dash"),
)
"""The looks of models, in order."""
EXACT = Look("#5F5F5F", "x", "x-thin-open", "dot")
"""The look of the exact field and of real data."""

INK, GUIDE, PALE = "#333333", "#A6A6A6", "#DEDEDE"
"""Outlines and small print; guides such as grids and medians; areas of reference."""
DIFFERENCE = "#B2182B"
"""The colour of a difference of two fields."""
REGIONS = ("#F7F4EC", "#EFE7D2", "#E3D3AC", "#D0B97F")
"""The colours of regions of high density, of the largest mass first."""
REGION_EDGE = "#A08A52"
DIVERGING, SEQUENTIAL = "RdBu_r", "viridis"
"""The colour maps of numbers of both signs, and of positive numbers."""

_DASHES = ("", "dash", "dot", "dashdot")


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label, in order; they repeat after eight, with other dashes."""
    chosen = {}
    for k, label in enumerate(labels):
        turn, place = divmod(k, len(MODELS))
        look = MODELS[place]
        chosen[label] = look if turn == 0 else look._replace(dash=_DASHES[turn % 4] or look.dash)
    return chosen

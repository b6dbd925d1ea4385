"""One colour a model, the same in every picture of the atoms and on the report's page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from scorefield.studies.atoms_plane import MASSES, Plane, Relief

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUND = ("#F7F4EC", "#EFE7D2", "#E3D3AC", "#D0B97F")
"""The colours of the regions, of the largest mass first."""
OUTLINE = "#A08A52"

_DPI = 110


class Look(NamedTuple):
    """How a model is drawn: a colour and a marker."""

    colour: str
    marker: str


# The colours of Okabe and Ito, in the order of the report's.
_LOOKS = (
    Look("#0072B2", "o"),
    Look("#E69F00", "s"),
    Look("#009E73", "D"),
    Look("#CC79A7", "^"),
    Look("#D55E00", "P"),
    Look("#56B4E9", "*"),
    Look("#8C6D1F", "h"),
    Look("#7A5195", "p"),
)
EXACT = Look("#4D4D4D", "x")
"""The exact field."""


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for each label, in order; they repeat after eight."""
    return {label: _LOOKS[k % len(_LOOKS)] for k, label in enumerate(labels)}


def spread_ground(axes: Axes, relief: Relief) -> list[Any]:
    """Draws the regions of the exact density, if there are any, and returns what was drawn."""
    if relief.flat:
        return []
    top = max(float(relief.log_density.max()), relief.thresholds[-1] + 1e-12)
    levels = [*relief.thresholds, top]
    place = (relief.x, relief.y, relief.log_density)
    return [
        axes.contourf(*place, levels=levels, colors=GROUND),
        axes.contour(*place, levels=levels[:-1], colors=OUTLINE, linewidths=0.7, linestyles="-"),
    ]


def frame_plane(axes: Axes, plane: Plane) -> None:
    """Labels the axes of the plane, one period each."""
    (x, y), (a, b) = plane.periods, plane.labels
    axes.set_xlim(0, x)
    axes.set_ylim(0, y)
    axes.set_aspect("equal")
    axes.set_xlabel(a)
    axes.set_ylabel(b)


def masses_told() -> str:
    """What the regions are, in words."""
    told = [f"{100 * m:g}" for m in sorted(MASSES)]
    return f"smallest regions that hold {', '.join(told[:-1])} and {told[-1]} % of the exact law"


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()

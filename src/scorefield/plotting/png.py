"""Figures without a display, and the one way from a figure to a PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120
"""The dots per inch of figures in files."""


def new_figure(width: int | float, height: int | float, **settings: Any) -> Figure:
    """An empty figure of a size in inches, laid out so that no labels overlap unless ``settings``,
    arguments of ``matplotlib.figure.Figure``, have another layout.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **{"layout": "constrained", **settings})


def png(figure: Figure, dpi: int | None = None, colours: int | None = None) -> bytes:
    """The figure as a PNG, of :data:`DPI` dots per inch by default; reduced to so many ``colours``
    it takes about a fifth of the bytes.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI if dpi is None else dpi)
    if colours is None:
        return drawn.getvalue()
    from PIL import Image

    reduced = io.BytesIO()
    image = Image.open(drawn).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    image.save(reduced, "png", optimize=True)
    return reduced.getvalue()

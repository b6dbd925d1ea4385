"""Figures without a display, and the one way from a figure to a PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120
"""The dots per inch of figures in files."""


def new_figure(width: int | float, height: int | float, **settings: Any) -> Figure:
    """An empty figure, laid out so that no labels overlap unless ``settings`` say otherwise.

    Arguments:
        width: The width in inches.
        height: The height in inches.
        settings: Other arguments of ``matplotlib.figure.Figure``.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **{"layout": "constrained", **settings})


def png(figure: Figure, dpi: int | None = None, colours: int | None = None) -> bytes:
    """The figure as a PNG.

    Arguments:
        figure: The figure.
        dpi: The dots per inch; :data:`DPI` by default.
        colours: Reduce the image to so many colours, which takes about a fifth of the bytes.
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

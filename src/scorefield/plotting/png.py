"""Figures without a display, and the ways from a figure to the bytes of a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

DPI = 120
"""The dots per inch of figures in files."""


def new_figure(width: int | float, height: int | float, **settings: Any) -> Figure:
    """An empty figure of a size in inches, laid out so that no labels overlap unless ``settings``,
    arguments of ``matplotlib.figure.Figure``, have another layout.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **{"layout": "constrained", **settings})


def png(figure: Figure, dpi: int | None = None) -> bytes:
    """The figure as a PNG, of :data:`DPI` dots per inch by default."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI if dpi is None else dpi)
    return drawn.getvalue()


def webp(image: Figure | Image, dpi: int | None = None, quality: int | None = None) -> bytes:
    """A figure or an image as WebP, which takes a fifth of the bytes of a PNG; without loss where
    there is no ``quality`` in percent.
    """
    from PIL import Image

    if not isinstance(image, Image.Image):
        image = Image.open(io.BytesIO(png(image, dpi))).convert("RGB")
    content = io.BytesIO()
    kind = {"lossless": True} if quality is None else {"quality": quality}
    image.save(content, "webp", method=6, **kind)
    return content.getvalue()

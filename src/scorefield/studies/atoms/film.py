"""The film of the score's vector field, as an mp4."""

from __future__ import annotations

import logging
import math
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorefield import plotting
from scorefield.plotting.palette import INK, Look
from scorefield.studies.atoms.plane import draw_frame, draw_regions, format_masses
from scorefield.studies.atoms.scenes import Film, norm, panels
from scorefield.studies.frame import NotMade

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FPS = 10
"""The number of noise levels that are shown in a second."""

_DPI = 100
_COLUMNS = 3
_LONGEST = 1.6
"""The length of the longest arrow, in spacings of the grid."""


def mp4(film: Film, shown: Mapping[str, Look], title: str) -> bytes:
    """The film as an mp4, a noise level a frame.

    Arguments:
        film: The film.
        shown: Which of its models are drawn beside the exact field.
        title: The title.

    Raises:
        NotMade: If there is no encoder or it fails; with its last words.
    """
    n = len(panels(film.scenes[0], shown))
    columns = min(n, _COLUMNS)
    rows = math.ceil(n / columns)
    wide, high = film.plane.periods
    height = 4.6 * rows * min(max(high / wide, 0.3), 3) + 1.1
    sheet = plotting.new_figure(4.6 * columns, height)
    grid = sheet.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place < n:
            draw_frame(axes, film.plane)
        else:
            axes.set_axis_off()
    heading = sheet.suptitle(" ", fontsize=13)
    text = textwrap.fill(f"shaded: {format_masses()}", 60 * columns)
    sheet.supxlabel(text, fontsize=9, color=INK)
    spacing = float(min(film.x[1] - film.x[0], film.y[1] - film.y[0]))
    drawn: list[Any] = []

    def draw(frame: int) -> None:
        while drawn:
            drawn.pop().remove()
        scene = film.scenes[frame]
        heading.set_text(f"{title}\nt = {scene.t:.3f},  σ = {scene.sigma:.4f}")
        for axes, panel in zip(grid.flat, panels(scene, shown), strict=False):
            share = norm(panel.vectors) / panel.longest if panel.longest > 0 else 0.0
            longest = _LONGEST * spacing * share
            drawn.extend(draw_regions(axes, scene.relief))
            place = (axes, film.x, film.y, panel.vectors)
            drawn.append(plotting.quiver(*place, longest, panel.colour))
            axes.set_title("\n".join(panel.heading), fontsize=10)
        if frame == 0:
            # Laid out once, so that panels do not move.
            sheet.draw_without_rendering()
            sheet.set_layout_engine(None)

    return encode(sheet, draw, len(film.scenes))


def encode(sheet: Figure, draw: Callable[[int], None], frames: int) -> bytes:
    """Draws frame after frame and makes an mp4 of them.

    Arguments:
        sheet: The figure.
        draw: Draws a frame on it.
        frames: Their number.

    Raises:
        NotMade: If there is no encoder or it fails; nothing of the film is left then.
    """
    from matplotlib.animation import FFMpegWriter

    with tempfile.TemporaryDirectory() as folder, _encoder():
        file = Path(folder) / "film.mp4"
        try:
            writer = FFMpegWriter(fps=FPS, codec="h264")
            with writer.saving(sheet, str(file), _DPI):
                for frame in range(frames):
                    draw(frame)
                    writer.grab_frame()
            content = file.read_bytes()
        except subprocess.CalledProcessError as error:
            raise NotMade(f"the encoder failed: {_last_line(error)}") from error
        except OSError as error:
            # Of its own, that there is no film says enough.
            which = "" if error.filename in (None, str(file), file) else f"{error.filename}: "
            raise NotMade(f"the encoder failed: {which}{error.strerror or error}") from error
    if not content:
        raise NotMade("the encoder failed: it wrote nothing")
    return content


@contextmanager
def _encoder() -> Iterator[None]:
    """Has matplotlib use, silently, the encoder that comes with imageio-ffmpeg."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        path = get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise NotMade(
            "there is no encoder: install the extra 'film' of scorefield, which has imageio-ffmpeg"
        ) from None
    import matplotlib as mpl

    log = logging.getLogger("matplotlib.animation")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with mpl.rc_context({"animation.ffmpeg_path": path}):
            yield
    finally:
        log.setLevel(level)


def _last_line(error: subprocess.CalledProcessError) -> str:
    lines = [line.strip() for line in (error.stderr or "").splitlines() if line.strip()]
    return lines[-1] if lines else f"it said nothing, and ended with status {error.returncode}"

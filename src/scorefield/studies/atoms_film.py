r"""The film of the score's vector field, as an mp4."""

from __future__ import annotations

import logging
import math
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
from matplotlib.animation import FFMpegWriter
from matplotlib.figure import Figure

from scorefield.errors import RunError
from scorefield.studies.atoms_look import (
    EXACT,
    Look,
    frame_plane,
    masses_told,
    spread_ground,
)
from scorefield.studies.atoms_plane import Floats
from scorefield.studies.atoms_scenes import Film, Scene, norm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.quiver import Quiver

FPS = 10
"""The number of noise levels that are shown in a second."""

_DPI = 100
_COLUMNS = 3
_LONGEST = 1.6
"""The length of the longest arrow, in spacings of the grid."""


class FilmError(RunError):
    """A film that could not be made."""


class Panel(NamedTuple):
    """One picture of a scene: a heading, a colour, arrows, and the norm of the longest one."""

    heading: str
    colour: str
    vectors: Floats
    longest: float


def panels(scene: Scene, shown: Mapping[str, Look]) -> list[Panel]:
    """The pictures of a scene: the exact field, the models, and of a single model what it differs
    by.

    Fields have arrows of one scale, and a difference has its own.

    Arguments:
        scene: The scene.
        shown: The models, and how they are drawn.
    """
    fields = {"exact field": (scene.exact, EXACT.colour)}
    fields |= {name: (scene.models[name], look.colour) for name, look in shown.items()}
    longest = max(norm(vectors) for vectors, _ in fields.values())
    found = [
        Panel(f"{name}\nlargest |σs| = {norm(vectors):.3g}", colour, vectors, longest)
        for name, (vectors, colour) in fields.items()
    ]
    if len(shown) == 1:
        (name,) = shown
        error = scene.models[name] - scene.exact
        heading = f"{name} − exact\nlargest |σΔs| = {norm(error):.3g}, arrows of their own scale"
        found.append(Panel(heading, "#B2182B", error, norm(error)))
    return found


def mp4(film: Film, shown: Mapping[str, Look], title: str) -> bytes:
    """The film as an mp4, a noise level a frame.

    Arguments:
        film: The film.
        shown: Which of its models are seen beside the exact field.
        title: What stands above.

    Raises:
        FilmError: If there is no encoder or it fails; says what it said last.
    """
    first = panels(film.scenes[0], shown)
    columns = min(len(first), _COLUMNS)
    rows = math.ceil(len(first) / columns)
    wide, high = film.plane.periods
    size = (4.6 * columns, 4.6 * rows * min(max(high / wide, 0.3), 3) + 1.1)
    sheet = Figure(figsize=size, layout="constrained")
    grid = sheet.subplots(rows, columns, squeeze=False)
    for unused in grid.flat[len(first) :]:
        unused.set_axis_off()
    drawn = [_Drawing(axes, film, panel) for axes, panel in zip(grid.flat, first, strict=False)]
    heading = sheet.suptitle(" ", fontsize=13)
    told = textwrap.fill(f"shaded: {masses_told()}", 60 * columns)
    sheet.supxlabel(told, fontsize=9, color="0.35")

    def draw(frame: int) -> None:
        scene = film.scenes[frame]
        heading.set_text(f"{title}\nt = {scene.t:.3f},  σ = {scene.sigma:.4f}")
        for part, panel in zip(drawn, panels(scene, shown), strict=True):
            part.show(scene, panel)
        if frame == 0:
            # Laid out once, so that panels stand still.
            sheet.draw_without_rendering()
            sheet.set_layout_engine(None)

    return encode(sheet, draw, len(film.scenes))


class _Drawing:
    """A panel's axes, on which arrows stay and the ground changes."""

    def __init__(self, axes: Axes, film: Film, panel: Panel) -> None:
        self._axes = axes
        self._length = _LONGEST * film.spacing
        self._ground: list[Any] = []
        frame_plane(axes, film.plane)
        self._arrows: Quiver = axes.quiver(
            film.x,
            film.y,
            panel.vectors[..., 0],
            panel.vectors[..., 1],
            color=panel.colour,
            angles="xy",
            scale_units="xy",
            scale=1,
            pivot="mid",
            width=0.0035,
            headwidth=4,
            headlength=4.5,
            headaxislength=4,
            zorder=3,
        )

    def show(self, scene: Scene, panel: Panel) -> None:
        for part in self._ground:
            part.remove()
        self._ground = spread_ground(self._axes, scene.relief)
        scaled = panel.vectors * (self._length / panel.longest if panel.longest > 0 else 0.0)
        self._arrows.set_UVC(scaled[..., 0], scaled[..., 1])
        self._axes.set_title(panel.heading, fontsize=10)


def encode(sheet: Figure, draw: Callable[[int], None], frames: int) -> bytes:
    """Draws frame after frame and makes an mp4 of them.

    Arguments:
        sheet: The figure.
        draw: Draws a frame on it.
        frames: Their number.

    Raises:
        FilmError: If there is no encoder or it fails; nothing of the film is left then.
    """
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
            raise FilmError(f"the encoder failed: {_last_line(error)}") from error
        except OSError as error:
            # Of its own, that there is no film says enough.
            which = "" if error.filename in (None, str(file), file) else f"{error.filename}: "
            raise FilmError(f"the encoder failed: {which}{error.strerror or error}") from error
    if not content:
        raise FilmError("the encoder failed: it wrote nothing")
    return content


@contextmanager
def _encoder() -> Iterator[None]:
    """Has matplotlib use the encoder that comes with imageio-ffmpeg, which it tells nobody of."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        path = get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise FilmError(
            "there is no encoder: install the extra 'film' of scorefield, which has imageio-ffmpeg"
        ) from None
    log = logging.getLogger("matplotlib.animation")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with mpl.rc_context({"animation.ffmpeg_path": path}):
            yield
    finally:
        log.setLevel(level)


def _last_line(error: subprocess.CalledProcessError) -> str:
    lines: Sequence[str] = [line.strip() for line in (error.stderr or "").splitlines()]
    said = [line for line in lines if line]
    return said[-1] if said else f"it said nothing, and ended with status {error.returncode}"

"""The film of the score's vector field, as an mp4 and as one offline page of plotly."""

from __future__ import annotations

import html
import json
import logging
import math
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from scorefield import plotting
from scorefield.plotting.palette import INK, PALE, REGION_EDGE, Look
from scorefield.studies.atoms.plane import (
    Film,
    Panel,
    Relief,
    Scene,
    draw_frame,
    draw_regions,
    format_masses,
    norm,
    panels,
)
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
    """The film as an mp4, a noise level a frame."""
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
    """Draws frame after frame and makes an mp4 of them."""
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
    return lines[-1] if lines else f"no output, status {error.returncode}"


_TITLE = "The score of pseudo-atoms as a vector field"
_EVERY = 2
_POINTS = 31
_PANEL = 400  # pixels
_ARROW = 15.0  # pixels
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 24px auto; max-width: 1300px; color: {ink}; font: 16px/1.5 sans-serif; }}
h1 {{ font-size: 24px; }}
</style>
<script>{plotly}</script>
</head>
<body>
<h1>{title}</h1>
<p>{caption}</p>
<label>Shown: <select id="view">{options}</select></label>
<div id="film" role="img" aria-label="{caption}"></div>
<script type="application/json" id="figures">{figures}</script>
<script>
const figures = JSON.parse(document.getElementById("figures").textContent);
const config = {{displayModeBar: false}};
const show = (k) => Plotly.newPlot("film", {{...structuredClone(figures[k]), config}});
document.getElementById("view").addEventListener("change", (event) => show(event.target.value));
show(0);
</script>
</body>
</html>
"""


def page(film: Film, views: Mapping[str, Mapping[str, Look]]) -> str:
    """The page, on which a view is chosen, and moved by a slider or played."""
    low, high = film.scenes[-1].sigma, film.scenes[0].sigma
    caption = (
        f"Arrows are σ times the score, from σ = {high:g} to {low:g}; with one scale for all "
        f"fields of a view. Lines are the boundaries of the {format_masses()}."
    )
    figures = [json.loads(view(film, shown).to_json()) for shown in views.values()]
    names = [f'<option value="{k}">{html.escape(name)}</option>' for k, name in enumerate(views)]
    return _PAGE.format(
        title=_TITLE,
        caption=html.escape(caption),
        ink=INK,
        options="".join(names),
        plotly=get_plotlyjs(),
        # "<" would end the script element.
        figures=json.dumps(figures, separators=(",", ":")).replace("<", "\\u003c"),
    )


def view(film: Film, shown: Mapping[str, Look]) -> go.Figure:
    """The film of some models beside the exact field, as a plotly figure with a slider."""
    scenes = film.scenes
    count = len(panels(scenes[0], shown))
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    wide, high = film.plane.periods
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[" "] * count,
        horizontal_spacing=0.25 / columns,
        vertical_spacing=0.3 / rows,
        x_title=film.plane.labels[0],
        y_title=film.plane.labels[1],
    )
    places = [divmod(k, columns) for k in range(count)]
    for place, panel in zip(places, panels(scenes[0], shown), strict=True):
        for trace in _traces(film, scenes[0], panel):
            figure.add_trace(trace, place[0] + 1, place[1] + 1)
    figure.update_xaxes(range=[0, wide], showgrid=False, zeroline=False, mirror=True)
    figure.update_yaxes(range=[0, high], showgrid=False, zeroline=False, mirror=True)
    figure.update_xaxes(showline=True, linecolor=PALE, constrain="domain")
    figure.update_yaxes(showline=True, linecolor=PALE, constrain="domain")
    for k in range(count):
        figure.layout[f"yaxis{k + 1 if k else ''}"].scaleanchor = f"x{k + 1 if k else ''}"
    places_of = [note.to_plotly_json() for note in figure.layout.annotations]

    def layout(scene: Scene) -> dict[str, Any]:
        headings = ["<br>".join(panel.heading) for panel in panels(scene, shown)]
        notes = [
            note | ({"text": headings[k], "font": {"size": 13}} if k < count else {})
            for k, note in enumerate(places_of)
        ]
        title = {"text": f"t = {scene.t:.3f},  σ = {scene.sigma:.4g}", "x": 0.5}
        return {"annotations": notes, "title": title}

    figure.frames = [
        go.Frame(
            name=str(k),
            data=[t for panel in panels(scene, shown) for t in _traces(film, scene, panel)],
            layout=layout(scene),
        )
        for k, scene in enumerate(scenes)
    ]
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}}
    still["transition"] = {"duration": 0}
    moving = still | {"fromcurrent": True, "frame": {"duration": 1000 / FPS, "redraw": True}}
    play = {"label": "▶ play", "method": "animate", "args": [None, moving]}
    pause = {"label": "❚❚ pause", "method": "animate", "args": [[None], still]}
    steps = [
        {"label": f"{scene.sigma:.3g}", "method": "animate", "args": [[str(k)], still]}
        for k, scene in enumerate(scenes)
    ]
    height = 0.85 * rows * _PANEL * min(max(high / wide, 0.3), 3)
    below = -80 / height
    corner = {"y": below, "yanchor": "top"}
    menu = {"type": "buttons", "direction": "left", "buttons": [play, pause], "showactive": False}
    menu |= {**corner, "x": 0, "xanchor": "left", "pad": {"t": 20}}
    slider = {"steps": steps, "currentvalue": {"prefix": "σ = "}, "x": 0.18, "len": 0.82, **corner}
    figure.update_layout(
        layout(scenes[0]),
        width=_PANEL * columns + 80,
        height=height + 270,
        margin={"l": 70, "r": 10, "t": 100, "b": 170},
        plot_bgcolor="white",
        showlegend=False,
        updatemenus=[menu],
        sliders=[slider],
    )
    return figure


def _traces(film: Film, scene: Scene, panel: Panel) -> list[go.Scatter]:
    """The boundaries of the regions, and the arrows, whose lengths are sizes of markers."""
    outlines = _outlines(scene.relief)
    lines = go.Scatter(
        x=outlines[0], y=outlines[1], mode="lines", line={"color": REGION_EDGE, "width": 1}
    )
    vectors = panel.vectors[::_EVERY, ::_EVERY]
    x, y = np.meshgrid(film.x[::_EVERY], film.y[::_EVERY])
    lengths = np.linalg.norm(vectors, axis=-1) / (panel.longest or 1.0)
    # Clockwise from the second coordinate.
    angles = np.degrees(np.arctan2(vectors[..., 0], vectors[..., 1]))
    arrows = go.Scatter(
        x=x.ravel().astype(np.float32),
        y=y.ravel().astype(np.float32),
        mode="markers",
        marker={
            "symbol": "arrow",
            "angle": angles.ravel().round().astype(np.int16),
            "size": (_ARROW * lengths).ravel().astype(np.float32),
            "color": panel.colour,
            "opacity": 1,
            "line": {"width": 0},
        },
    )
    for trace in (lines, arrows):
        trace.hoverinfo = "skip"
    return [lines, arrows]


def _outlines(relief: Relief) -> npt.NDArray[np.float32]:
    """All boundaries as one broken line, a row a coordinate."""
    parts = [np.full((1, 2), np.nan)]
    for lines in relief.outlines():
        for line in lines:
            kept = np.unique(np.linspace(0, len(line) - 1, min(len(line), _POINTS)).round())
            parts += [line[kept.astype(int)], np.full((1, 2), np.nan)]
    return np.concatenate(parts).astype(np.float32).T

"""The film of the score's vector field as one offline page, with plotly's frames and sliders."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from scorefield.plotting.palette import INK, PALE, REGION_EDGE, Look
from scorefield.studies.atoms.film import FPS
from scorefield.studies.atoms.plane import Relief, format_masses
from scorefield.studies.atoms.scenes import Film, Panel, Scene, panels

_TITLE = "The score of pseudo-atoms as a vector field"
_EVERY = 2
_POINTS = 31
_COLUMNS = 3
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
    """The page, on which a view is chosen, and moved by a slider or played.

    Arguments:
        film: The film; every second of its arrows is drawn.
        views: The models that are drawn beside the exact field, by the name of the view.
    """
    low, high = film.scenes[-1].sigma, film.scenes[0].sigma
    caption = (
        f"Arrows are σ times the score, from σ = {high:g} to {low:g}; those of all fields of a "
        f"view have one scale. Lines are the boundaries of the {format_masses()}."
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
    buttons = {
        "type": "buttons",
        "direction": "left",
        "buttons": [play, pause],
        "showactive": False,
    }
    corner = {"y": below, "yanchor": "top"}
    slider = {"steps": steps, "currentvalue": {"prefix": "σ = "}, "x": 0.18, "len": 0.82, **corner}
    figure.update_layout(
        layout(scenes[0]),
        width=_PANEL * columns + 80,
        height=height + 270,
        margin={"l": 70, "r": 10, "t": 100, "b": 170},
        plot_bgcolor="white",
        showlegend=False,
        updatemenus=[
            {**buttons, **corner, "x": 0, "xanchor": "left", "pad": {"t": 20}, "showactive": False}
        ],
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

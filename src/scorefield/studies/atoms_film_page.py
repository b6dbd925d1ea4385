"""The film of the score's vector field as a page: everything that it shows is inside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from plotly.offline import get_plotlyjs

from scorefield.studies.atoms_film import FPS
from scorefield.studies.atoms_look import Look, masses_told
from scorefield.studies.atoms_plane import Floats, Relief
from scorefield.studies.atoms_scenes import Film, norm

_EVERY = 2
_DIGITS = 4
_RESOLUTION = 1000
_LINES = 60


def page(film: Film, views: Mapping[str, Sequence[str]], looks: Mapping[str, Look]) -> str:
    """The page, on which a view is chosen, and moved by a slider or played.

    Every second arrow is kept. Vectors are told in thousandths of the largest of their field and
    noise level; the page makes arrows of them.

    Arguments:
        film: The film.
        views: The models that are seen at once beside the exact field, by what that is called; the
            first is seen first.
        looks: How models are drawn.
    """
    data = {
        "periods": film.plane.periods,
        "labels": film.plane.labels,
        "fps": FPS,
        "x": _rounded(film.x[::_EVERY]),
        "y": _rounded(film.y[::_EVERY]),
        "views": [list(names) for names in views.values()],
        "colours": {name: look.colour for name, look in looks.items()},
        "frames": [
            {
                "sigma": scene.sigma,
                "t": scene.t,
                "outlines": _outlines(scene.relief),
                "exact": _field(scene.exact),
                "models": {name: _field(v) for name, v in scene.models.items()},
            }
            for scene in film.scenes
        ],
    }
    environment = Environment(
        loader=PackageLoader("scorefield.studies"),
        autoescape=select_autoescape(("html", "j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    low, high = film.scenes[-1].sigma, film.scenes[0].sigma
    return environment.get_template("atoms_film.html.j2").render(
        title="The score of pseudo-atoms as a vector field",
        caption=(
            f"Arrows are σ times the score, from σ = {high:g} to {low:g}; those of all fields of a "
            f"picture have one scale. Lines are the boundaries of the {masses_told()}."
        ),
        views=list(views),
        plotly=get_plotlyjs(),
        data=_embedded(data),
    )


def _embedded(data: dict[str, Any]) -> str:
    """Data as JSON that may stand in a script element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _field(vectors: Floats) -> dict[str, Any]:
    largest = norm(vectors)
    scaled = vectors[::_EVERY, ::_EVERY] * (_RESOLUTION / largest if largest > 0 else 0.0)
    return {"largest": largest, "v": np.rint(scaled).astype(int).ravel().tolist()}


def _outlines(relief: Relief) -> dict[str, list[float | None]]:
    """All boundaries as one broken line."""
    x: list[float | None] = []
    y: list[float | None] = []
    for lines in relief.outlines():
        for line in lines:
            kept = line[_thinned(len(line))]
            x += [*_rounded(kept[:, 0]), None]
            y += [*_rounded(kept[:, 1]), None]
    return {"x": x, "y": y}


def _thinned(n: int) -> Any:
    """Places along a line of so many points, its ends among them."""
    return np.unique(np.linspace(0, n - 1, min(n, _LINES)).round().astype(int))


def _rounded(values: Floats) -> list[float]:
    return [round(v, _DIGITS) for v in values.tolist()]

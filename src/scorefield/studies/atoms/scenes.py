r"""The vector fields of the film: arrows of :math:`\sigma s` over the exact density, noise level by
noise level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from scorefield.errors import DivergedError
from scorefield.fields import ScoreField, evaluation_mode
from scorefield.plotting.palette import DIFFERENCE, EXACT, Look
from scorefield.studies.atoms.compute import noise_levels
from scorefield.studies.atoms.plane import Floats, Plane, Relief
from scorefield.studies.work import Work


class Scene(NamedTuple):
    r"""One noise level.

    Arguments:
        sigma: The noise level.
        t: Its time.
        relief: The exact density.
        exact: The vectors :math:`\sigma s` of the exact field on the grid, of shape (places of the
            second coordinate, places of the first, 2).
        models: Those of the models by name.
    """

    sigma: float
    t: float
    relief: Relief
    exact: Floats
    models: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class Film:
    """The scenes, from the largest noise level to the smallest.

    Arguments:
        plane: The plane.
        x: The places of the arrows along the first coordinate.
        y: Those along the second.
        scenes: The scenes.
    """

    plane: Plane
    x: Floats
    y: Floats
    scenes: tuple[Scene, ...]


class Panel(NamedTuple):
    """One picture of a scene: a heading of two lines, a colour, vectors, and the norm of the
    longest arrow of their scale.
    """

    heading: tuple[str, str]
    colour: str
    vectors: Floats
    longest: float


def norm(vectors: Floats) -> float:
    """The largest norm of vectors."""
    return float(np.linalg.norm(vectors, axis=-1).max())


def panels(scene: Scene, shown: Mapping[str, Look]) -> list[Panel]:
    """The pictures of a scene: the exact field, the models, and of a single model its difference
    from the exact field.

    Fields have arrows of one scale, and a difference has its own.

    Arguments:
        scene: The scene.
        shown: The models, and how they are drawn.
    """
    fields = {"exact field": (scene.exact, EXACT.colour)}
    fields |= {name: (scene.models[name], look.colour) for name, look in shown.items()}
    longest = max(norm(vectors) for vectors, _ in fields.values())
    found = [
        Panel((name, f"largest |σs| = {norm(vectors):.3g}"), colour, vectors, longest)
        for name, (vectors, colour) in fields.items()
    ]
    if len(shown) == 1:
        (name,) = shown
        error = scene.models[name] - scene.exact
        scale = f"largest |σΔs| = {norm(error):.3g}, arrows of their own scale"
        found.append(Panel((f"{name} − exact", scale), DIFFERENCE, error, norm(error)))
    return found


def make_film(
    plane: Plane,
    fields: Mapping[str, ScoreField],
    frames: int,
    side: int,
    work: Work | None = None,
) -> Film:
    """Evaluates fields and the exact density over the plane, at noise levels from the process's
    largest to its smallest.

    Arguments:
        plane: The plane; its distribution has the process of the fields.
        fields: The fields by name.
        frames: The number of noise levels, two at least.
        side: The number of arrows along either coordinate; odd, so that every second is in the
            middle as well as all.
        work: Keeps the scenes that are done, and shows the progress.

    Raises:
        FloatingPointError: If a field is not finite; names it and the noise level.
    """
    work = Work() if work is None else work
    sde = plane.truth.sde
    # The middles of cells, so that no arrow is on the seam.
    x, y = ((np.arange(side) + 0.5) * period / side for period in plane.periods)
    scenes = []
    for done, sigma in enumerate(noise_levels(sde.sigma_min, sde.sigma_max, frames)):
        t = float(sde.time(torch.tensor(sigma, dtype=torch.float64)))
        evaluate = partial(_vectors, {"exact": plane.truth, **fields}, plane, x, y, sigma, t)
        vectors = dict(work.part(f"scene/{frames}/{sigma!r}", evaluate))
        exact = vectors.pop("exact")
        scenes.append(Scene(sigma, t, plane.relief(sigma), exact, vectors))
        work.show("vector fields", done + 1, frames)
    work.report(f"vector fields at {frames} noise levels")
    return Film(plane, x, y, tuple(scenes))


def _vectors(
    fields: Mapping[str, ScoreField], plane: Plane, x: Floats, y: Floats, sigma: float, t: float
) -> dict[str, Floats]:
    found = {}
    for name, field in fields.items():
        dtype = next((p.dtype for p in field.parameters()), torch.float64)
        with evaluation_mode(field), torch.no_grad():
            noise = field.predict_noise(plane.points(x, y).to(dtype), t)
        found[name] = -noise.double().reshape(len(y), len(x), 2).cpu().numpy()
        if not np.isfinite(found[name]).all():
            raise DivergedError(f"{name}: the score is not finite at noise level {sigma:.4g}")
    return found

r"""What the film of a score's vector field shows: arrows of :math:`\sigma s` over the exact
density, noise level by noise level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from scorefield.errors import DivergedError
from scorefield.fields import ScoreField, evaluation_mode
from scorefield.progress import Stages
from scorefield.studies.atoms_plane import Floats, Plane, Relief


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

    @property
    def largest(self) -> float:
        """The largest norm of an exact vector, by which all arrows are scaled."""
        return norm(self.exact)


@dataclass(frozen=True, eq=False)
class Film:
    """The scenes, from the largest noise level to the smallest.

    Arguments:
        plane: Where they take place.
        x: The places of the arrows along the first coordinate.
        y: Those along the second.
        scenes: The scenes.
    """

    plane: Plane
    x: Floats
    y: Floats
    scenes: tuple[Scene, ...]

    @property
    def spacing(self) -> float:
        """The distance of neighbouring arrows, the smaller of both directions."""
        return float(min(self.x[1] - self.x[0], self.y[1] - self.y[0]))


def norm(vectors: Floats) -> float:
    """The largest norm of vectors."""
    return float(np.linalg.norm(vectors, axis=-1).max())


def noise_levels(low: float, high: float, n: int) -> tuple[float, ...]:
    """So many noise levels from the high to the low one, evenly spaced in their logarithm."""
    levels = np.geomspace(high, low, n)
    # The ends themselves, not what a power rounds them to.
    levels[0], levels[-1] = high, low
    return tuple(levels.tolist())


def shoot(
    plane: Plane,
    fields: Mapping[str, ScoreField],
    frames: int,
    side: int,
    stages: Stages | None = None,
) -> Film:
    """Evaluates fields and the exact density over the plane, at noise levels from the process's
    largest to its smallest.

    Arguments:
        plane: The plane; its law has the process of the fields.
        fields: The fields by name.
        frames: The number of noise levels, two at least.
        side: The number of arrows along either coordinate; odd, so that every second stands in the
            middle as well as all.
        stages: Shows how far the work is.

    Raises:
        FloatingPointError: If a field is not finite; names it and the noise level.
    """
    sde = plane.law.sde
    # The middles of cells, so that no arrow stands on the seam.
    x, y = ((np.arange(side) + 0.5) * period / side for period in plane.periods)
    scenes = []
    for done, sigma in enumerate(noise_levels(sde.sigma_min, sde.sigma_max, frames)):
        t = float(sde.time(torch.tensor(sigma, dtype=torch.float64)))
        vectors = {
            name: _vectors(field, plane, x, y, sigma, t, name)
            for name, field in {"exact": plane.law, **fields}.items()
        }
        exact = vectors.pop("exact")
        scenes.append(Scene(sigma, t, plane.relief(sigma), exact, vectors))
        if stages is not None:
            stages.show("vector fields", done + 1, frames)
    if stages is not None:
        stages.say(f"vector fields at {frames} noise levels")
    return Film(plane, x, y, tuple(scenes))


def _vectors(
    field: ScoreField, plane: Plane, x: Floats, y: Floats, sigma: float, t: float, name: str
) -> npt.NDArray[np.float64]:
    dtype = next((p.dtype for p in field.parameters()), torch.float64)
    with evaluation_mode(field), torch.no_grad():
        noise = field.predict_noise(plane.points(x, y).to(dtype), t)
    vectors = -noise.double().reshape(len(y), len(x), 2).cpu().numpy()
    if not np.isfinite(vectors).all():
        raise DivergedError(f"{name}: the score is not finite at noise level {sigma:.4g}")
    return vectors

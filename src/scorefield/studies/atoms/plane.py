r"""The torus of two coordinates as a figure: its axes, and where the exact density is high.

A region of mass :math:`m` is the smallest set that holds the probability :math:`m`,
:math:`\{x : p_t(x) \ge c_m\}`. In an isolated normal well of the plane its boundary lies at the
fraction :math:`1 - m` of the greatest density.

References:
    Computing and graphing highest density regions (Hyndman, 1996).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from contourpy import contour_generator
from torch import Tensor

from scorefield.errors import DivergedError, UserError
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.plotting.palette import DIFFERENCE, EXACT, REGION_EDGE, REGIONS, Look
from scorefield.sde.exploding import EDM
from scorefield.studies.atoms.compute import noise_levels
from scorefield.studies.frame import Work
from scorefield.targets.atoms import PseudoAtoms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

MASSES = (0.99, 0.9, 0.5, 0.1)
"""The probabilities of the regions, the largest first."""

_LINES = 121
_NEAR, _REACH = 31, 5.0
_FLAT = 1e-9


class Relief(NamedTuple):
    """The exact density of one noise level over the plane."""

    x: Floats
    y: Floats
    log_density: Floats
    thresholds: tuple[float, ...]

    @property
    def flat(self) -> bool:
        """Whether the density is the same everywhere but for rounding."""
        return float(np.ptp(self.log_density)) < _FLAT

    def outlines(self) -> list[list[Floats]]:
        """The boundaries of each region, if there are any: lines of shape (points, 2)."""
        if self.flat:
            return [[] for _ in self.thresholds]
        generator = contour_generator(self.x, self.y, self.log_density)
        return [generator.lines(level) for level in self.thresholds]  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class Plane:
    """Two coordinates of a torus, and the exact distribution over them at any noise level."""

    truth: PseudoAtoms

    def __post_init__(self) -> None:
        if not drawable(self.truth):
            raise UserError(f"a plane has two coordinates, the atoms {self.truth.domain.dim}")

    @cached_property
    def _by_level(self) -> PseudoAtoms:
        # Under this process a time is a noise level, and 0 is the data's own.
        return self.truth.under(EDM())

    @property
    def periods(self) -> tuple[float, float]:
        """The periods of the two coordinates."""
        first, second = (
            self.truth.domain.periods(self.truth.positions)
            .expand(self.truth.domain.shape)
            .flatten()
            .tolist()
        )
        return first, second

    @property
    def labels(self) -> tuple[str, str]:
        """What the two coordinates are called."""
        if self.truth.domain.shape == (2, 1):
            names = ("position of atom 1", "position of atom 2")
        else:
            names = ("position x of the atom", "position y of the atom")
        a, b = (f"{name}  [period {p:g}]" for name, p in zip(names, self.periods, strict=True))
        return a, b

    @property
    def wells(self) -> list[tuple[float, float]]:
        """The configurations at which the data's density is greatest."""
        sites = self.truth.positions.flatten().tolist()
        found = [(sites[0], sites[1])]
        if self.truth.domain.shape == (2, 1) and sites[0] != sites[1]:
            found.append((sites[1], sites[0]))
        return found

    def points(self, x: Floats, y: Floats) -> Tensor:
        """The points of a grid, a row a place of the second coordinate, as one batch."""
        grid = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1))
        return grid.reshape(-1, *self.truth.domain.shape)

    def relief(
        self, sigma: float, window: tuple[tuple[float, float], tuple[float, float]] | None = None
    ) -> Relief:
        """The exact density at a noise level; 0 is that of the data."""
        x, y = (self._places(axis, sigma) for axis in range(2))
        density = self._log_density(x, y, sigma)
        thresholds = _thresholds(x, y, density)
        if window is None:
            return Relief(x, y, density, thresholds)
        x, y = (np.linspace(*bounds, _LINES) for bounds in window)
        return Relief(x, y, self._log_density(x, y, sigma), thresholds)

    def _log_density(self, x: Floats, y: Floats, sigma: float) -> Floats:
        points = self.truth.domain.wrap(self.points(x, y))
        return self._by_level.log_density(points, sigma).reshape(len(y), len(x)).numpy()

    def _places(self, axis: int, sigma: float) -> Floats:
        """A grid that resolves the wells, however narrow."""
        period = self.periods[axis]
        width = float(self._by_level.effective_width(sigma))
        column = axis if self.truth.domain.shape[1] == 2 else 0
        near = width * np.linspace(-_REACH, _REACH, _NEAR)
        places = [np.linspace(0, period, _LINES)]
        if 2 * _REACH * width < period / 2:
            places += [float(site) + near for site in self.truth.positions[:, column]]
        inside = np.unique(np.concatenate(places))
        return inside[(inside >= 0) & (inside <= period)]


def _thresholds(x: Floats, y: Floats, log_density: Floats) -> tuple[float, ...]:
    """The log-densities above which the masses lie, by the trapezoid rule."""
    mass = np.exp(log_density) * np.outer(_weights(y), _weights(x))
    order = np.argsort(log_density, axis=None)
    below = mass.ravel()[order].cumsum()
    return tuple(np.interp([1 - m for m in MASSES], below / below[-1], log_density.ravel()[order]))


def _weights(places: Floats) -> Floats:
    steps = np.diff(places)
    return 0.5 * (np.append(steps, 0) + np.append(0, steps))


def drawable(truth: PseudoAtoms) -> bool:
    """Whether there are two coordinates, which a figure can have for its axes."""
    return truth.domain.dim == 2


def draw_regions(axes: Axes, relief: Relief) -> list[Any]:
    """Draws the regions of the exact density, if there are any, and returns what was drawn."""
    if relief.flat:
        return []
    top = max(float(relief.log_density.max()), relief.thresholds[-1] + 1e-12)
    levels = [*relief.thresholds, top]
    place = (relief.x, relief.y, relief.log_density)
    line: dict[str, Any] = {"colors": REGION_EDGE, "linewidths": 0.7, "linestyles": "-"}
    return [
        axes.contourf(*place, levels=levels, colors=REGIONS),
        axes.contour(*place, levels=levels[:-1], **line),
    ]


def draw_frame(axes: Axes, plane: Plane) -> None:
    """Labels the axes of the plane, one period each."""
    (x, y), (a, b) = plane.periods, plane.labels
    axes.set_xlim(0, x)
    axes.set_ylim(0, y)
    axes.set_aspect("equal")
    axes.set_xlabel(a)
    axes.set_ylabel(b)


def format_masses() -> str:
    """What the regions are, in words."""
    parts = [f"{100 * m:g}" for m in sorted(MASSES)]
    masses = f"{', '.join(parts[:-1])} and {parts[-1]} %"
    return f"smallest regions that contain {masses} of the exact distribution"


class Scene(NamedTuple):
    r"""One noise level: its time, the exact density, and the vectors :math:`\sigma s` of the exact
    field and of models on the grid, of shape (places of the second coordinate, of the first, 2).
    """

    sigma: float
    t: float
    relief: Relief
    exact: Floats
    models: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class Film:
    """The scenes, from the largest noise level to the smallest."""

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
        scale = f"largest |σΔs| = {norm(error):.3g}, arrows on their own scale"
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
    """
    work = Work() if work is None else work
    sde = plane.truth.sde
    # The middles of cells, so that no arrow is on the seam.
    x, y = ((np.arange(side) + 0.5) * period / side for period in plane.periods)
    scenes = []
    for done, sigma in enumerate(noise_levels(*sde.level_range, frames)):
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

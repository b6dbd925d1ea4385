"""Circulation around loops and graph cycles: curl at a finite scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield.calculus.circulation import (
    Quadrature,
    circulation_and_error,
    find_cycles,
    in_blocks,
    nearest_neighbours,
    planes,
    quadrature,
    regular_polygons,
    squared_area,
    squared_curl,
)
from scorefield.calculus.derivatives import VectorField
from scorefield.checks import check_positive
from scorefield.diagnostics.exterior import UNITS
from scorefield.diagnostics.protocol import Points, Profile, Protocol, form, measure, precision_of
from scorefield.domain import Torus
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean, ratio, root
from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.classes import Classes, classes_at
from scorefield.fields.forms import Quantity
from scorefield.networks.features import Features
from scorefield.points import Given
from scorefield.targets.base import Target

_PROPOSALS, _LEAST = 8, 256
"""The number of proposed walks per measured cycle, and the smallest number in all."""

Draws = np.ndarray[Any, np.dtype[np.float64]]


class SquaredCurls(NamedTuple):
    r"""Independent draws of :math:`D(D-1)\,C^2`, of :math:`D(D-1)\,e^2` for the error :math:`e`
    that the quadrature makes in :math:`C`, and of :math:`|B|^2`.
    """

    circulation: Draws
    error: Draws
    area: Draws

    def root(self, unit: str) -> Estimate:
        r"""The root mean square curl :math:`\sqrt{D(D-1)\,\mathbb{E}\,C^2 / \mathbb{E}\,|B|^2}`.

        Its numerical error is the same root of :math:`\mathbb{E}\,e^2`, by the triangle
        inequality :math:`|\,\mathrm{rms}(C + e) - \mathrm{rms}(C)\,| \le \mathrm{rms}(e)`.
        """
        curl = root(ratio(self.circulation, self.area), unit)
        numerical = math.sqrt(float(self.error.mean() / self.area.mean()))
        return replace(curl, numerical_error=numerical)


def squared_curls(
    field: ScoreField,
    vertices: Tensor,
    t: Tensor,
    rule: Quadrature,
    quantity: Quantity,
    classes: Tensor | None,
) -> SquaredCurls:
    """Estimate the curl from the circulation around closed polygons, one draw per polygon."""
    domain = field.domain
    fn, precision = in_blocks(_turning(field, quantity)), precision_of(field, vertices.dtype)
    turn, error = circulation_and_error(fn, vertices, t, rule, domain, precision, classes)
    area = squared_area(vertices)
    draws = (squared_curl(c, area, domain.dim)[0] for c in (turn, error))
    return SquaredCurls(*(d.double().cpu().numpy() for d in (*draws, area)))


def loop_circulation(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    radius: float = 0.5,
    sides: int = 8,
    rule: str = "gauss-4",
    quantity: Quantity = "denoiser",
    classes: Classes = None,
) -> Profile:
    r"""The curl from the circulation around loops of a given radius, by noise level.

    .. math:: \sqrt{D (D - 1)\, \mathbb{E}\,C^2 / \mathbb{E}\,|B|^2}

    for the circulation :math:`C` around a regular polygon of area :math:`|B|` in a plane of random
    orientation, one loop per point. In the limit of small loops this is the
    :func:`~.exterior_derivative`, in the same unit. ``field``, ``data``, ``protocol`` and
    ``classes`` are those of :mod:`scorefield.diagnostics`.

    The circulation of a gradient is zero, up to the numerical error: the root mean square of the
    differences between the rule and its companion, in the same normalisation.

    Arguments:
        radius: The radius of the loops, in units of :math:`\sigma(t)`.
        sides: The number of sides of the polygons.

    Raises:
        ValueError: If the domain has fewer than two dimensions, or an argument is out of range.
    """
    _check_radius(radius)
    chosen = quadrature(rule)

    def at(points: Points) -> Estimate:
        loops = _loops(field, points, protocol, radius, sides)
        curls = squared_curls(field, loops, points.t, chosen, quantity, points.classes)
        return curls.root(UNITS[quantity])

    settings = {"quantity": quantity, "radius": radius, "sides": sides, "rule": rule}
    return measure(
        "loop_circulation", UNITS[quantity], at, field, data, protocol, classes, **settings
    )


def circulation_growth(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    radii: Sequence[float] = (0.25, 0.5, 1.0),
    sides: int = 8,
    rule: str = "gauss-4",
    quantity: Quantity = "denoiser",
    classes: Classes = None,
) -> Profile:
    r"""The growth of the loop curl with the radius, by noise level; a pure number.

    It is the slope :math:`\beta` of :math:`\log c(r)` against :math:`\log r` by least squares,
    where :math:`c(r)` is the :func:`loop_circulation` at the radius :math:`r`. The curl of an
    affine field is the same at all scales, :math:`\beta = 0`; where curl varies within a loop and
    cancels there, :math:`\beta < 0`; where loops reach curl that is not at their centre,
    :math:`\beta > 0`. ``field``, ``data``, ``protocol`` and ``classes`` are those of
    :mod:`scorefield.diagnostics`.

    The loops of all radii have common centres and planes, so that what their circulations share
    cancels: with :math:`\beta = \sum_k a_k \log c(r_k)` the standard error is, by the delta
    method, that of the mean over points :math:`i` of

    .. math:: \sum_k \frac{a_k}{2} \left( \frac{C_{ik}^2}{\overline{C_k^2}}
        - \frac{|B_{ik}|^2}{\overline{|B_k|^2}} \right).

    The numerical error is the sum of :math:`|a_k|` times the largest change of :math:`\log c(r_k)`
    by the numerical error of :math:`c(r_k)`.

    Arguments:
        radii: The radii of the loops, in units of :math:`\sigma(t)`, at least two.
        sides: The number of sides of the polygons.

    Raises:
        ValueError: If the curl at a radius does not exceed its numerical error.
    """
    for radius in radii:
        _check_radius(radius)
    if len(set(radii)) < 2:
        raise UserError(f"a growth rate needs at least two radii, got {list(radii)}")
    chosen = quadrature(rule)
    x = np.log(np.asarray(radii, dtype=np.float64))
    slope = (x - x.mean()) / np.square(x - x.mean()).sum()

    def at(points: Points) -> Estimate:
        value, numerical, influence = 0.0, 0.0, np.zeros(protocol.n)
        for a, radius in zip(slope.tolist(), radii, strict=True):
            loops = _loops(field, points, protocol, radius, sides)
            curls = squared_curls(field, loops, points.t, chosen, quantity, points.classes)
            curl = curls.root(UNITS[quantity])
            if not curl.value > curl.numerical_error:
                raise UserError(
                    f"loops of radius {radius:g} sigma have a curl of {curl.value:.1e}, which does "
                    f"not exceed its numerical error {curl.numerical_error:.1e}: the growth rate "
                    "is not defined"
                )
            value += a * math.log(curl.value)
            numerical -= abs(a) * math.log1p(-curl.numerical_error / curl.value)
            influence += 0.5 * a * curls.circulation / curls.circulation.mean()
            influence -= 0.5 * a * curls.area / curls.area.mean()
        return replace(mean(influence), value=value, numerical_error=numerical)

    settings = {"quantity": quantity, "radii": list(radii), "sides": sides, "rule": rule}
    return measure("circulation_growth", "", at, field, data, protocol, classes, **settings)


def cycle_circulation(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    lengths: Sequence[int] = (3,),
    neighbours: int = 4,
    cloud: int = 32,
    cycles: int = 64,
    reach: float | None = None,
    rule: str = "gauss-4",
    features: Features | None = None,
    quantity: Quantity = "denoiser",
    classes: Classes = None,
) -> Profile:
    r"""The curl from the circulation around cycles of the nearest-neighbour graph, by noise level.

    .. math:: \sqrt{D (D - 1) \sum C^2 / \sum |B|^2}

    for the circulation :math:`C` around cycles of area :math:`|B|`, flat or not. Cycles are
    weighted by their squared area, so that thin ones have little weight. Where the distribution of
    the points is isotropic, so are the cycles, and for an affine field this estimates :math:`\|J -
    J^\top\|_F` as :func:`~.exterior_derivative` does, in the same unit; elsewhere the planes along
    which the data spread have more weight.

    ``field``, ``data``, ``protocol`` and ``classes`` are those of
    :mod:`scorefield.diagnostics`. The noisy points of a level, or of each class, are split, in
    order, into disjoint clouds, each with a graph of its own; the rest is left out, as are clouds
    without a cycle. Clouds are
    independent: the estimate is a ratio over clouds, and its settings contain the numbers of
    ``clouds`` and ``cycles``. The circulations have long tails: with the eight clouds of 256 points
    95 % intervals cover 93 to 94 % (``docs/results/calibration.md``).

    On edges much longer than :math:`\sigma` the field bends too much for any fixed rule, and the
    numerical error, the difference between the rule and its companion, is large.

    Arguments:
        lengths: The numbers of corners of the cycles.
        neighbours: The number of nearest neighbours in the graph.
        cloud: The number of points of a cloud.
        cycles: The largest number of cycles per cloud and length; eight times as many walks are
            proposed, and at least 256.
        reach: The length of the longest edge, in units of :math:`\sigma(t)`; unlimited if not
            given.
        features: The features of the noisy points by whose distance neighbours are found; their
            coordinates by default.

    Raises:
        ValueError: If a level has too few points for two clouds, or fewer than two with a cycle.
    """
    check_field(field)
    domain = field.domain
    if domain.dim < 2:
        raise UserError(f"circulation needs two dimensions, the event shape is {domain.shape}")
    if not lengths or min(lengths) < 3 or cycles < 1 or not 1 <= neighbours < cloud:
        raise UserError(
            "cycle_circulation: lengths >= 3, cycles >= 1 and 1 <= neighbours < cloud must hold, "
            f"got lengths={list(lengths)}, cycles={cycles}, neighbours={neighbours}, cloud={cloud}"
        )
    if reach is not None:
        check_positive("cycle_circulation: reach", reach)
    integral = quadrature(rule)
    space = Features("coordinates", domain.embed) if features is None else features

    def at(points: Points) -> Estimate:
        longest = torch.inf if reach is None else reach * field.sde.sigma(points.t[0])
        whole = [rows[: len(rows) // cloud * cloud] for rows in points.by_class()]
        rows = [part for some in whole if len(some) for part in some.split(cloud)]
        clouds = len(rows)
        if clouds < 2:
            raise UserError(
                f"{protocol.n} points make {clouds} cloud of {cloud}, an error bar needs at least "
                "two"
            )
        parts = [points.noisy[some] for some in rows]
        graphs = [nearest_neighbours(space(part), neighbours) for part in parts]
        sums, found = np.zeros((3, clouds)), 0
        for length in lengths:
            draws = protocol.noise.uniform(
                f"diagnostics/walk-{length}",
                (length,),
                torch.arange(max(_PROPOSALS * cycles, _LEAST), device=points.noisy.device),
                step=torch.arange(clouds, device=points.noisy.device).unsqueeze(1),
                dtype=torch.float64,
            )
            polygons = [
                find_cycles(part, graph, walks, domain, longest)[:cycles]
                for part, graph, walks in zip(parts, graphs, draws, strict=True)
            ]
            home = np.repeat(np.arange(clouds), [len(p) for p in polygons])
            if not home.size:
                continue
            found += home.size
            first = torch.stack([some[0] for some in rows])[torch.from_numpy(home).to(rows[0])]
            times, known = points.t[first], classes_at(points.classes, first)
            curls = squared_curls(field, torch.cat(polygons), times, integral, quantity, known)
            for row, column in zip(sums, curls, strict=True):
                np.add.at(row, home, column)
        filled = sums[:, sums[2] > 0]
        if filled.shape[1] < 2:
            raise UserError(
                f"{filled.shape[1]} of {clouds} clouds of {cloud} points have a cycle of length "
                f"{' or '.join(map(str, lengths))}"
                + ("" if reach is None else f" with edges below {reach:g} sigma")
                + ", an error bar needs two"
            )
        estimate = SquaredCurls(*filled).root(UNITS[quantity])
        return replace(estimate, settings={"clouds": filled.shape[1], "cycles": found})

    settings = {
        "quantity": quantity,
        "lengths": list(lengths),
        "neighbours": neighbours,
        "cloud": cloud,
        "reach": "unlimited" if reach is None else reach,
        "rule": rule,
        "features": space.name,
    }
    return measure(
        "cycle_circulation", UNITS[quantity], at, field, data, protocol, classes, **settings
    )


def _turning(field: ScoreField, quantity: Quantity) -> VectorField:
    """The field in one of its parametrisations; on a torus minus the point itself, the part of the
    denoiser without curl that jumps where it is wrapped.
    """
    fn = form(field, quantity)
    if quantity != "denoiser" or not isinstance(field.domain, Torus):
        return fn
    return lambda x, t, *classes: fn(x, t, *classes) - x


def _check_radius(radius: float) -> None:
    if not radius > 0:
        raise UserError(f"the radius of a loop must be positive, got {radius}")


def _loops(
    field: ScoreField, points: Points, protocol: Protocol, radius: float, sides: int
) -> Tensor:
    """One polygon around each point, in a plane that is the same for all radii and levels."""
    plane = planes(
        protocol.noise, "diagnostics/plane", field.domain, points.indices, dtype=protocol.dtype
    )
    radii = radius * field.sde.sigma(points.t)
    return regular_polygons(points.noisy, radii, plane, sides)

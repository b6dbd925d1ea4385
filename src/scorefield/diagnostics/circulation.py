"""Circulation around loops: curl at a finite scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from scorefield.calculus import (
    Quadrature,
    VectorField,
    circulation_and_error,
    in_blocks,
    planes,
    quadrature,
    regular_polygons,
    squared_area,
    squared_curl,
)
from scorefield.diagnostics.exterior import UNITS
from scorefield.diagnostics.protocol import (
    Points,
    Profile,
    Protocol,
    form,
    measure,
    precision_of,
)
from scorefield.domain import Torus
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean, ratio, root
from scorefield.fields import Classes, ScoreField
from scorefield.fields.base import Quantity
from scorefield.targets import Target

Draws = np.ndarray[Any, np.dtype[np.float64]]


class SquaredCurls(NamedTuple):
    r"""Independent draws whose ratios of means are squared curls.

    Attributes:
        circulation: :math:`D(D-1)\,C^2`.
        error: :math:`D(D-1)\,e^2` for the error :math:`e` that the quadrature makes in :math:`C`.
        area: :math:`|B|^2`.
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
    """Estimate the curl from the circulation around closed polygons, one draw per polygon.

    Arguments:
        field: The field.
        vertices: The corners, of shape ``(batch, corners, *event)``.
        t: The time of each polygon.
        rule: The quadrature on each edge.
        quantity: The form of the field.
        classes: The class of each polygon's points.
    """
    domain = field.domain
    fn, precision = in_blocks(_turning(field, quantity)), precision_of(field, vertices.dtype)
    turn, error = circulation_and_error(fn, vertices, t, rule, domain, precision, classes)
    area = squared_area(vertices)
    draws = (squared_curl(c, area, domain.dim)[0] for c in (turn, error))
    return SquaredCurls(*(d.double().cpu().numpy() for d in (*draws, area)))


def loop_circulation(
    field: ScoreField,
    data: Target | Tensor,
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
    orientation, one loop a point. In the limit of small loops this is the root mean square of
    :math:`\|J - J^\top\|_F`, the number that
    :func:`~scorefield.diagnostics.exterior_derivative` gives, in the same unit.

    The circulation of a gradient is zero, up to the quadrature error. The numerical error, which
    widens the intervals, is the root mean square of the differences between the rule and its
    companion, in the same normalisation.

    Arguments:
        field: The field.
        data: Where the points come from.
        protocol: The noise levels and points.
        radius: The radius of the loops, in units of :math:`\sigma(t)`.
        sides: The number of sides of the polygons.
        rule: The quadrature on each side; see :func:`~scorefield.calculus.quadrature`.
        quantity: The form of the field.
        classes: The class of the points; see :meth:`Protocol.points() <.Protocol.points>`.

    Raises:
        ValueError: If the domain has fewer than two dimensions, an argument is out of range, or a
            value is not finite.
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
    data: Target | Tensor,
    protocol: Protocol,
    radii: Sequence[float] = (0.25, 0.5, 1.0),
    sides: int = 8,
    rule: str = "gauss-4",
    quantity: Quantity = "denoiser",
    classes: Classes = None,
) -> Profile:
    r"""The growth of the loop curl with the radius, by noise level; a pure number.

    It is the slope :math:`\beta` of :math:`\log c(r)` against :math:`\log r` by least squares,
    where :math:`c(r)` is the root mean square curl of
    :func:`~scorefield.diagnostics.loop_circulation` at the radius :math:`r`. The curl of an
    affine field is the same at all scales, :math:`\beta = 0`; where curl varies within a loop and
    cancels there, :math:`\beta < 0`; where loops reach curl that is not at their centre,
    :math:`\beta > 0`.

    The loops of all radii have common centres and planes, so that what their circulations share
    cancels: with :math:`\beta = \sum_k a_k \log c(r_k)` the standard error is, by the delta
    method, that of the mean over points :math:`i` of

    .. math:: \sum_k \frac{a_k}{2} \left( \frac{C_{ik}^2}{\overline{C_k^2}}
        - \frac{|B_{ik}|^2}{\overline{|B_k|^2}} \right).

    The numerical error adds up :math:`|a_k|` times the most that the numerical error of
    :math:`c(r_k)` can change its logarithm by.

    Arguments:
        field: The field.
        data: Where the points come from.
        protocol: The noise levels and points.
        radii: The radii of the loops, in units of :math:`\sigma(t)`, at least two.
        sides: The number of sides of the polygons.
        rule: The quadrature on each side; see :func:`~scorefield.calculus.quadrature`.
        quantity: The form of the field.
        classes: The class of the points; see :meth:`Protocol.points() <.Protocol.points>`.

    Raises:
        ValueError: If the domain has fewer than two dimensions, an argument is out of range, a
            value is not finite, or the curl at a radius does not exceed its numerical error: the
            growth rate of zero is not defined.
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
        error = mean(influence).standard_error
        return Estimate(value, error, protocol.n, numerical_error=numerical)

    settings = {"quantity": quantity, "radii": list(radii), "sides": sides, "rule": rule}
    return measure("circulation_growth", "", at, field, data, protocol, classes, **settings)


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

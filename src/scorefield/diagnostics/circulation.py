"""Is the field a gradient at a finite scale? Circulation around loops."""

from __future__ import annotations

from torch import Tensor

from scorefield.calculus import (
    circulation,
    planes,
    quadrature,
    regular_polygons,
    squared_area,
    squared_curl,
)
from scorefield.diagnostics.exterior import UNITS
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure
from scorefield.estimate import Estimate, ratio, root
from scorefield.fields import ScoreField
from scorefield.fields.base import Quantity
from scorefield.targets import Target


def loop_circulation(
    field: ScoreField,
    data: Target | Tensor,
    protocol: Protocol,
    radius: float = 0.5,
    sides: int = 8,
    rule: str = "gauss-2",
    quantity: Quantity = "denoiser",
) -> Profile:
    r"""The curl that loops of a given radius see, by noise level.

    .. math:: \sqrt{D (D - 1)\, \mathbb{E}\,C^2 / \mathbb{E}\,|B|^2}

    for the circulation :math:`C` around a regular polygon of area :math:`|B|` in a plane of random
    orientation, one loop a point. In the limit of small loops this is the root mean square of
    :math:`\|J - J^\top\|_F`, the number that
    :func:`~scorefield.diagnostics.exterior_derivative` gives, in the same unit.

    Arguments:
        field: The field.
        data: Where the points come from.
        protocol: The noise levels and points.
        radius: The radius of the loops, in units of :math:`\sigma(t)`.
        sides: The number of sides of the polygons.
        rule: The quadrature on each side; see :func:`~scorefield.calculus.quadrature`.
        quantity: The form of the field.

    Raises:
        ValueError: If the domain has fewer than two dimensions, an argument is out of range, or a
            value is not finite.
    """
    if not radius > 0:
        raise ValueError(f"the radius of a loop must be positive, got {radius}")
    chosen = quadrature(rule)
    domain = field.domain

    def fn(x: Tensor, t: Tensor) -> Tensor:
        return field.predict(x, t, quantity)

    def at(points: Points) -> Estimate:
        radii = radius * field.sde.sigma(points.t)
        plane = planes(
            protocol.noise, "diagnostics/plane", domain, points.indices, dtype=protocol.dtype
        )
        vertices = regular_polygons(points.noisy, radii, plane, sides, domain)
        turn = circulation(fn, vertices, points.t, chosen, domain)
        numerator, denominator = squared_curl(turn, squared_area(vertices, domain), domain.dim)
        return root(ratio(numerator.cpu().numpy(), denominator.cpu().numpy()), UNITS[quantity])

    settings = {"quantity": quantity, "radius": radius, "sides": sides, "rule": rule}
    return measure("loop_circulation", UNITS[quantity], at, field, data, protocol, **settings)

"""Circulation around cycles of a nearest-neighbour graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from scorefield.calculus import find_cycles, nearest_neighbours, quadrature
from scorefield.diagnostics.circulation import SquaredCurls, squared_curls
from scorefield.diagnostics.exterior import UNITS
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.fields import Classes, ScoreField
from scorefield.fields.base import Quantity
from scorefield.fields.classes import classes_at
from scorefield.networks import Features
from scorefield.targets import Target

_PROPOSALS = 8
"""The number of proposed walks per measured cycle."""


def cycle_circulation(
    field: ScoreField,
    data: Target | Tensor,
    protocol: Protocol,
    lengths: Sequence[int] = (3,),
    neighbours: int = 4,
    cloud: int = 64,
    cycles: int = 64,
    reach: float | None = None,
    rule: str = "gauss-4",
    features: Features | None = None,
    quantity: Quantity = "denoiser",
    classes: Classes = None,
) -> Profile:
    r"""The curl from the circulation around cycles of the nearest-neighbour graph, by noise level.

    .. math:: \sqrt{D (D - 1) \sum C^2 / \sum |B|^2}

    for the circulation :math:`C` around cycles of area :math:`|B|`, flat or not. Cycles count by
    their squared area, so that thin ones do no harm. Where the distribution of the points is
    isotropic, so are the cycles, and for an affine field this estimates :math:`\|J - J^\top\|_F` as
    :func:`~scorefield.diagnostics.exterior_derivative` does, in the same unit; elsewhere the
    planes that the data spreads in count for more.

    The noisy points of a level, or of each class, are split, in order, into disjoint clouds, each
    with a graph of its own; points that do not fill a cloud are left out. Cycles of one cloud share
    points, clouds are independent: the estimate is a ratio over clouds, and their number its number
    of draws. Clouds without a cycle are left out; each estimate tells how many ``clouds`` and
    ``cycles`` it rests on.

    An edge is as long as the distance of neighbours. On edges much longer than :math:`\sigma` the
    field bends too much for any fixed rule: the difference between the rule and its companion,
    which is the numerical error and widens the intervals, says so. Affine fields are integrated
    exactly by any rule of degree 1 or more.

    Arguments:
        field: The field.
        data: Where the points come from.
        protocol: The noise levels and points.
        lengths: The numbers of corners of the cycles.
        neighbours: The number of nearest neighbours in the graph.
        cloud: The number of points of a cloud.
        cycles: The largest number of cycles that are measured in a cloud, for each length; eight
            times as many walks are proposed.
        reach: The length of the longest edge, in units of :math:`\sigma(t)`; unlimited if not
            given.
        rule: The quadrature on each edge; see :func:`~scorefield.calculus.quadrature`.
        features: The space in which neighbours are found, of the noisy points; by default that of
            their coordinates.
        quantity: The form of the field.
        classes: The class of the points; see :meth:`Protocol.points() <.Protocol.points>`.

    Raises:
        ValueError: If the domain has fewer than two dimensions, an argument is out of range, the
            protocol has too few points for two clouds, fewer than two clouds of a level have a
            cycle, or a value is not finite.
    """
    domain = field.domain
    if domain.dim < 2:
        raise UserError(f"circulation needs two dimensions, the event shape is {domain.shape}")
    if not lengths or min(lengths) < 3 or cycles < 1 or not 1 <= neighbours < cloud:
        raise UserError(
            "cycle_circulation: lengths >= 3, cycles >= 1 and 1 <= neighbours < cloud must hold, "
            f"got lengths={list(lengths)}, cycles={cycles}, neighbours={neighbours}, cloud={cloud}"
        )
    if reach is not None and not reach > 0:
        raise UserError(f"cycle_circulation: reach must be positive, got {reach}")
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
                torch.arange(_PROPOSALS * cycles, device=points.noisy.device),
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

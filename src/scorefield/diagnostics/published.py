r"""Diagnostics as they were published, for comparison only.

Each of these has a defect that the diagnostics of this package do not have, stated in its
docstring. They differ from the published form in one way: they are evaluated at the noisy points of
a protocol, not at clean data, so that in a table the estimators differ and nothing else.
"""

from __future__ import annotations

import torch

from scorefield.calculus.circulation import (
    circulation,
    find_cycles,
    in_blocks,
    nearest_neighbours,
    quadrature,
)
from scorefield.calculus.derivatives import vjp
from scorefield.checks import check_count, check_positive
from scorefield.diagnostics.exterior import UNITS
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure
from scorefield.estimate import Estimate, mean, root
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes, classes_at
from scorefield.points import Given
from scorefield.targets.base import Target

_PROPOSALS = 16
"""The number of proposed walks per measured cycle."""


def left_cycle_circulation(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    neighbours: int = 4,
    length: int = 3,
    cycles: int = 256,
    classes: Classes = None,
) -> Profile:
    r"""The mean square circulation :math:`\mathbb{E}\,C^2` of the score around cycles of the
    nearest-neighbour graph, by the left-endpoint rule, in nats².

    .. math:: C = \sum_i s(x_i) \cdot (x_{i+1} - x_i)

    Defects, of which :func:`~.cycle_circulation` has none:

    * The rule is not exact for affine fields. On a gradient it gives
      :math:`C = -\frac12 \sum_i \Delta x_i^\top H \Delta x_i`, with the Hessian :math:`H` of
      the log-density, far more than any circulation: the sharper the density, the worse the true
      score looks.
    * Nothing divides by the area of a cycle, so that the number depends on the number of points, on
      the noise level and on the dimension.
    * Cycles share points and edges; the standard error takes them for independent.
    """
    rule = quadrature("left")

    def at(points: Points) -> Estimate:
        index = torch.arange(_PROPOSALS * cycles, device=points.noisy.device)
        draws = protocol.noise.uniform("published/walk", (length,), index, dtype=torch.float64)
        turns = []
        for rows in points.by_class():
            graph = nearest_neighbours(field.domain.embed(points.noisy[rows]), neighbours)
            vertices = find_cycles(points.noisy[rows], graph, draws, field.domain)[:cycles]
            first = rows[:1].expand(len(vertices))
            at = vertices, points.t[first], rule, field.domain, classes_at(points.classes, first)
            turns.append(circulation(field.score, *at))
        return mean(torch.cat(turns).square().cpu().numpy(), "nats²")

    settings = {"neighbours": neighbours, "length": length, "rule": "left"}
    return measure(
        "left_cycle_circulation", "nats²", at, field, data, protocol, classes, **settings
    )


def path_variance(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    paths: int = 8,
    segments: int = 12,
    pairs: int = 64,
    classes: Classes = None,
) -> Profile:
    """The variance of line integrals of the score over random paths between two points, in nats²;
    the mean over pairs that share their start, the first point of a level or of a class.

    A path is cut at random knots, and each piece is integrated by its midpoint.

    Defect: the knots lie on the chord, so that all paths are the same straight line, cut
    differently. Their integrals differ by the error of the quadrature alone. A rotation of any
    strength gives exactly zero, and a gradient does not. :func:`~.path_gap` compares paths that
    differ.
    """
    check_count("path_variance: paths", paths, 2)
    check_count("path_variance: segments", segments)

    def at(points: Points) -> Estimate:
        # The points of a class share the first of these as their start.
        rows = [(some[:1].expand(len(some) - 1), some[1:]) for some in points.by_class()]
        start, end = (torch.cat(part)[:pairs] for part in zip(*rows, strict=True))
        ends = points.noisy[end]
        index = torch.arange(len(ends), device=ends.device)
        inner = protocol.noise.uniform(
            "published/knot", (paths, segments - 1), index, dtype=protocol.dtype
        )
        border = inner.new_zeros(len(ends), paths, 1)
        knots = torch.cat((border, inner.sort(dim=2).values, border + 1), dim=2)
        middle, width = (knots[:, :, 1:] + knots[:, :, :-1]) / 2, knots.diff(dim=2)
        chord = (ends - points.noisy[start]).flatten(1)
        x = points.noisy[start].flatten(1).unsqueeze(1)
        x = x + middle.reshape(len(ends), -1, 1) * chord.unsqueeze(1)
        home = start.repeat_interleave(x.shape[1])
        x = x.reshape(-1, *field.domain.shape)
        values = in_blocks(field.score)(x, points.t[home], classes_at(points.classes, home))
        values = values.reshape(len(ends), -1, chord.shape[1])
        along = (values * chord.unsqueeze(1)).sum(dim=2).reshape(middle.shape)
        integrals = (along * width).sum(dim=2)
        return mean(integrals.var(dim=1).cpu().numpy(), "nats²")

    settings = {"paths": paths, "segments": segments, "rule": "midpoint"}
    return measure("path_variance", "nats²", at, field, data, protocol, classes, **settings)


def finite_difference_asymmetry(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    probes: int = 1,
    step: float = 1e-3,
    classes: Classes = None,
) -> Profile:
    r"""The root mean square of :math:`\|J - J^\top\|_F` of the score by normal probes, with a
    one-sided difference in float32 in place of :math:`Jv`.

    .. math:: \Big|\frac{s(x + h v) - s(x)}{h} - J^\top v\Big|^2

    Defect: the step :math:`h` is the same at every noise level, whereas a score changes over the
    distance :math:`\sigma`. With float32's precision :math:`\epsilon`, rounding :math:`x` and
    :math:`s` adds about :math:`\epsilon\,(|J| |x| + |s|) / h`, far more than the curl of a trained
    field at small :math:`\sigma`; a one-sided difference adds :math:`\frac{h}{2} |\nabla^2 s|`.
    Both are there on a gradient too. :func:`~.exterior_derivative` takes
    :math:`Jv` by forward mode.

    Arguments:
        probes: The number of probes per point.
        step: The step :math:`h`, in units of the data.
    """
    check_count("finite_difference_asymmetry: probes", probes)
    check_positive("finite_difference_asymmetry: step", step)

    def at(points: Points) -> Estimate:
        x, t, known = points.noisy.float(), points.t.float(), points.classes
        base = field.score(x, t, known)
        total = torch.zeros_like(t)
        for k in range(probes):
            v = protocol.noise.normal(
                "published/probe", field.domain.shape, points.indices, step=k, dtype=x.dtype
            )
            forward = (field.score(x + step * v, t, known) - base) / step
            total += (forward - vjp(field.score, x, t, v, known)).flatten(1).square().sum(dim=1)
        return root(mean((total / probes).cpu().numpy()), UNITS["score"])

    settings = {"quantity": "score", "probes": probes, "step": step}
    name = "finite_difference_asymmetry"
    return measure(name, UNITS["score"], at, field, data, protocol, classes, **settings)

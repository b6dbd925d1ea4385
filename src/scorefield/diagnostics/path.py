r"""Log-density ratios by line integrals of the score, in nats.

The line integral of a score from :math:`a` to :math:`b` is :math:`\log p(b) - \log p(a)` along
any path. The ends are two noisings of one clean point with independent noise,
:math:`a = \alpha x_0 + \sigma\varepsilon` and :math:`b = \alpha x_0 + \sigma\varepsilon'`. Both are
draws from the noisy density, and the points between them, at a distance of the order of
:math:`\sigma` from either, are where a field is trained and used; the chord between noisings of two
different points crosses, at low noise, a region without data.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from scorefield.calculus import LineIntegrals, Paths, detours, in_blocks, line_integrals
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure, precision_of
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean, root
from scorefield.fields import Classes, ScoreField
from scorefield.targets import Target


def path_gap(
    field: ScoreField,
    data: Target | Tensor,
    protocol: Protocol,
    bend: float = 0.5,
    tolerance: float = 1e-6,
    panels: int = 64,
    classes: Classes = None,
) -> Profile:
    r"""The gap between two paths from :math:`a` to :math:`b`, by noise level, in nats.

    The paths are :math:`\gamma_\pm(\tau) = a + \tau e \pm \sin(\pi\tau)\, h |e|\, w` with the chord
    :math:`e = b - a` and a unit vector :math:`w` of random direction at a right angle to it: they
    enclose an area in a random plane. The gap is the root mean square over pairs :math:`(a, b)` of
    the difference between the integrals of the score along the two, which is zero for a
    gradient. A skew part :math:`A = J - J^\top` that is the same everywhere makes the difference
    :math:`-\frac{4h}{\pi}\, |e|\, w^\top A\, e`, whose mean square is

    .. math:: \frac{64\, h^2 \sigma^4}{\pi^2}\, \frac{D + 2}{D - 1}\, \|A\|_F^2 .

    In few dimensions, and where the curl lies in few planes, the differences have long tails, and
    an interval needs a thousand pairs: with 64, the coverage of 95 % intervals is 90 %.

    The quadrature is refined until each integral settles to the tolerance; the numerical error is
    the root mean square of the last changes. For a field in low precision, rounding is the limit,
    not the tolerance. The settings of each estimate contain the number of paths that are
    ``unresolved`` at the largest number of panels.

    Arguments:
        field: The field.
        data: Where the clean points come from.
        protocol: The noise levels and points.
        bend: The distance :math:`h` of the middle of a path from that of its chord, in units of
            the chord's length.
        tolerance: The tolerance of the integrals, in nats.
        panels: The largest number of panels that a path is cut into.
        classes: The class of the points; see :meth:`Protocol.points() <.Protocol.points>`.

    Raises:
        ValueError: If the domain has fewer than two dimensions, where there is no second path, an
            argument is out of range, or a value is not finite.
    """
    _check(bend)
    if field.domain.dim < 2:
        raise UserError(
            f"a second path needs two dimensions, the event shape is {field.domain.shape}"
        )

    def at(points: Points) -> Estimate:
        first, second = (
            _integrals(field, _paths(field, points, protocol, h), points, tolerance, panels)
            for h in (bend, -bend)
        )
        unresolved = int((~first.resolved).sum() + (~second.resolved).sum())
        return _rms(first.value - second.value, first.error + second.error, unresolved)

    settings = {"bend": bend, "tolerance": tolerance, "panels": panels}
    return measure("path_gap", "nats", at, field, data, protocol, classes, **settings)


def potential_gap(
    field: ScoreField,
    data: Target | Tensor,
    protocol: Protocol,
    bend: float = 0.5,
    tolerance: float = 1e-6,
    panels: int = 64,
    classes: Classes = None,
) -> Profile:
    r"""The gap between line integrals of the score and the potential, by noise level, in nats.

    It is the root mean square over pairs :math:`(a, b)` of
    :math:`\int s \cdot \mathrm{d}\gamma - (\phi(b) - \phi(a))` along the path on one side of
    :func:`~scorefield.diagnostics.path_gap`; in one dimension along the chord, as there is no
    other way. It is zero if and only if the score is the gradient of the potential where the
    paths run.

    To the numerical error of the integrals adds what rounding can change a difference of
    potentials by: at either end :math:`\epsilon\,(|\phi| + |s|\,|x|)` in the precision of the
    field, and :math:`\epsilon\,|x|^2 / \sigma^2` in that of the points, since closed forms are
    differences of such squares.

    Arguments and errors are those of :func:`~scorefield.diagnostics.path_gap`.

    Raises:
        ValueError: If the field has no potential, an argument is out of range, or a value is not
            finite.
    """
    _check(bend)
    if not field.has_potential:
        raise UserError(
            f"{type(field).__name__} has no potential for its line integrals to be compared with"
        )
    epsilon, finest = precision_of(field, protocol.dtype), torch.finfo(protocol.dtype).eps
    score, potential = in_blocks(field.score), in_blocks(field.potential)

    def at(points: Points) -> Estimate:
        t, paths = points.t, _paths(field, points, protocol, bend)
        integral = _integrals(field, paths, points, tolerance, panels)
        start, end = paths.start, field.domain.wrap(paths.start + paths.chord)
        low, high = potential(start, t, points.classes), potential(end, t, points.classes)
        error = integral.error + epsilon * (low.abs() + high.abs())
        for x in (start, end):
            size = _length(x)
            error = error + epsilon * _length(score(x, t, points.classes)) * size
            error = error + finest * (size / field.sde.sigma(t)) ** 2
        gap = integral.value - (high - low)
        return _rms(gap, error, int((~integral.resolved).sum()))

    settings = {"bend": bend, "tolerance": tolerance, "panels": panels}
    return measure("potential_gap", "nats", at, field, data, protocol, classes, **settings)


def _check(bend: float) -> None:
    if not (math.isfinite(bend) and bend > 0):
        raise UserError(f"the bend of a path must be positive, got {bend}")


def _paths(field: ScoreField, points: Points, protocol: Protocol, bend: float) -> Paths:
    """The path of each pair on one side, or with a negative bend on the other; in one dimension
    the chord.
    """
    z = protocol.noise.normal(
        "diagnostics/other noise", field.domain.shape, points.indices, dtype=protocol.dtype
    )
    end = field.sde.perturb(points.clean, points.t, z, field.domain)
    chord = field.domain.displacement(points.noisy, end)
    if field.domain.dim < 2:
        return Paths(points.noisy, chord, torch.zeros_like(chord))
    w = detours(protocol.noise, "diagnostics/detour", chord, points.indices)
    h = bend * _length(chord).reshape(-1, *(1,) * (chord.dim() - 1))
    return Paths(points.noisy, chord, h * w)


def _integrals(
    field: ScoreField, paths: Paths, points: Points, tolerance: float, panels: int
) -> LineIntegrals:
    return line_integrals(
        field.score,
        paths,
        points.t,
        field.domain,
        tolerance,
        epsilon=precision_of(field, points.t.dtype),
        # The score of a density blurred by sigma changes by its own size over a length sigma.
        steepness=field.sde.sigma(points.t) ** -2,
        panels=panels,
        classes=points.classes,
    )


def _rms(gap: Tensor, error: Tensor, unresolved: int) -> Estimate:
    rms = root(mean(gap.double().square().cpu().numpy()), "nats")
    numerical = math.sqrt(float(error.double().square().mean()))
    return replace(rms, numerical_error=numerical, settings={"unresolved": unresolved})


def _length(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).norm(dim=1)

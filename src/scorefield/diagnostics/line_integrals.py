r"""Line integrals of the score, in nats: log-density ratios, and circulation around a torus.

The line integral of a score from :math:`a` to :math:`b` is :math:`\log p(b) - \log p(a)` along
any path. The ends are two noisings of one clean point with independent noise,
:math:`a = \alpha x_0 + \sigma\varepsilon` and :math:`b = \alpha x_0 + \sigma\varepsilon'`. Both are
draws from the noisy density, and the points between them, at a distance of the order of
:math:`\sigma` from either, are where a field is trained and used; the chord between noisings of two
different points crosses, at low noise, a region without data.

A field without curl is a gradient in flat space. On a torus it may still wind: its circulation
around a non-contractible loop may be non-zero, which affects samples and likelihood, not the curl.

All integrals are refined until each settles to the tolerance, in nats. The numerical error is the
root mean square of their quadrature errors. For a field in low precision, rounding is the limit,
not the tolerance. Each estimate's settings contain the number of ``unresolved`` integrals: at noise
levels at which the score jumps between modes over a width that the nodes cannot resolve, they are
many and the interval is wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.calculus.circulation import in_blocks
from scorefield.calculus.paths import LineIntegrals, Paths, detours, line_integrals
from scorefield.calculus.winding import straight_loops
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure, precision_of
from scorefield.domain import Torus
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean, root
from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.classes import Classes
from scorefield.points import Given
from scorefield.targets.base import Target


def path_gap(
    field: ScoreField,
    data: Target | Given,
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

    In few dimensions, and where the curl is in few planes, the differences have long tails: with
    256 pairs 95 % intervals cover 93 to 95 %, and nearly all that miss lie below.

    Arguments:
        bend: The distance :math:`h` of the middle of a path from that of its chord, in units of
            the chord's length.
        tolerance: The tolerance of the integrals, in nats.
        panels: The largest number of panels that a path is cut into.

    Raises:
        ValueError: If the domain has fewer than two dimensions, where there is no second path.
    """
    check_field(field)
    _check(bend)
    if field.domain.dim < 2:
        raise UserError(
            f"a second path needs two dimensions, the event shape is {field.domain.shape}"
        )

    def at(points: Points) -> Estimate:
        first, second = (
            _integrals(line_integrals, field, paths, points, tolerance, panels)
            for paths in (_paths(field, points, protocol, h) for h in (bend, -bend))
        )
        unresolved = int((~first.resolved).sum() + (~second.resolved).sum())
        return _rms(first.value - second.value, first.error + second.error, unresolved)

    settings = {"bend": bend, "tolerance": tolerance, "panels": panels}
    return measure("path_gap", "nats", at, field, data, protocol, classes, **settings)


def potential_gap(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    bend: float = 0.5,
    tolerance: float = 1e-6,
    panels: int = 64,
    classes: Classes = None,
) -> Profile:
    r"""The gap between line integrals of the score and the potential, by noise level, in nats.

    It is the root mean square over pairs :math:`(a, b)` of :math:`\int s \cdot \mathrm{d}\gamma -
    (\phi(b) - \phi(a))` along the path on one side of :func:`path_gap`; in one dimension along the
    chord, the only path. It is zero if and only if the score is the gradient of the potential where
    the paths run. The differences have long tails: with 256 pairs 95 % intervals cover 94 %,
    and nearly all that miss lie below.

    To the numerical error of the integrals adds what rounding can change a difference of
    potentials by: at either end :math:`\epsilon\,(|\phi| + |s|\,|x|)` in the precision of the
    field, and :math:`\epsilon\,|x|^2 / \sigma^2` in that of the points, since closed forms are
    differences of such squares. Arguments are those of :func:`path_gap`.

    Raises:
        ValueError: If the field has no potential.
    """
    check_field(field)
    _check(bend)
    if not field.has_potential:
        raise UserError(
            f"{type(field).__name__} has no potential for its line integrals to be compared with"
        )
    epsilon, finest = precision_of(field, protocol.dtype), torch.finfo(protocol.dtype).eps
    score, potential = in_blocks(field.score), in_blocks(field.potential)

    def at(points: Points) -> Estimate:
        t, paths = points.t, _paths(field, points, protocol, bend)
        integral = _integrals(line_integrals, field, paths, points, tolerance, panels)
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


def winding(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    tolerance: float = 1e-6,
    nodes: int = 1024,
    classes: Classes = None,
) -> Profile:
    r"""The circulation of the score around the straight loops through noisy points, by noise level,
    in nats.

    .. math:: \Big(\tfrac1D\,\mathbb{E} \sum_k C_k(x)^2\Big)^{1/2}, \qquad
        C_k(x) = \int_0^{L_k} s_k(x + u\,e_k)\,\mathrm{d}u,

    the root mean square over points and directions. It is zero for the gradient of a periodic
    potential. A constant vector :math:`c` on top of one makes it :math:`L |c| / \sqrt D` with the
    one period :math:`L`. Curl makes :math:`C_k` depend on the point, so that a field with curl
    has a winding too; what is left of it in the mean over the torus is :func:`harmonic_part`.

    Arguments:
        tolerance: The tolerance of the integrals, in nats.
        nodes: The largest number of nodes on a loop.

    Raises:
        ValueError: If the field is not on a torus.
    """
    check_field(field)
    _check_torus(field)

    def at(points: Points) -> Estimate:
        loops = _integrals(straight_loops, field, points.noisy, points, tolerance, nodes)
        return _rms(loops.value, loops.error, int((~loops.resolved).sum()))

    settings = {"tolerance": tolerance, "nodes": nodes}
    return measure("winding", "nats", at, field, data, protocol, classes, **settings)


def harmonic_part(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    tolerance: float = 1e-6,
    nodes: int = 1024,
    classes: Classes = None,
) -> Profile:
    r"""The harmonic part of the score, by noise level, in nats per turn.

    In the Hodge decomposition :math:`s = \nabla\psi + v + h` of a field on a torus the harmonic
    part is the constant :math:`h = \frac{1}{\mathrm{vol}} \int s\,\mathrm{d}x`, which neither a
    periodic potential nor a curl contains. It is reported as

    .. math:: \Big(\tfrac1D \sum_k (L_k h_k)^2\Big)^{1/2}, \qquad L_k h_k = \mathbb{E}\,C_k(x),

    with the circulations :math:`C_k` of :func:`winding` through points that are uniform on the
    torus: for a field without curl, each of them equals :math:`L_k h_k` exactly.
    The square is estimated without bias, by the products of different points.

    Arguments and errors are those of :func:`winding`; of the protocol's points, only their number
    is used.

    References:
        Foundations of differentiable manifolds and Lie groups (Warner, 1983), theorem 6.8.
    """
    check_field(field)
    domain = _check_torus(field)

    def at(points: Points) -> Estimate:
        noise, purpose = protocol.noise, "diagnostics/winding"
        x = domain.uniform(noise, purpose, points.indices, dtype=protocol.dtype)
        loops = _integrals(straight_loops, field, x, points, tolerance, nodes)
        rms = root(_squared_mean(loops.value.double()), "nats")
        numerical = float(loops.error.double().mean(dim=0).square().mean().sqrt())
        settings = {"unresolved": int((~loops.resolved).sum())}
        return replace(rms, numerical_error=numerical, settings=settings)

    settings = {"tolerance": tolerance, "nodes": nodes}
    return measure("harmonic_part", "nats", at, field, data, protocol, classes, **settings)


def _check(bend: float) -> None:
    if not (math.isfinite(bend) and bend > 0):
        raise UserError(f"the bend of a path must be positive, got {bend}")


def _check_torus(field: ScoreField) -> Torus:
    if not isinstance(field.domain, Torus):
        raise UserError(
            f"a winding needs a torus, on which there are loops that cannot be contracted; the "
            f"field is on {field.domain}"
        )
    return field.domain


def _paths(field: ScoreField, points: Points, protocol: Protocol, bend: float) -> Paths:
    """The path of each pair, on the other side for a negative bend; in one dimension the chord."""
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
    integrate: Callable[..., LineIntegrals],
    field: ScoreField,
    along: Paths | Tensor,
    points: Points,
    tolerance: float,
    most: int,
) -> LineIntegrals:
    """The integrals of the score along paths, or around the loops through points."""
    t, epsilon = points.t, precision_of(field, points.t.dtype)
    # The score of a density blurred by sigma changes by its own size over a length sigma.
    limits = tolerance, epsilon, field.sde.sigma(t) ** -2, most
    return integrate(field.score, along, t, field.domain, *limits, points.classes)


def _rms(gap: Tensor, error: Tensor, unresolved: int) -> Estimate:
    square = gap.double().square().reshape(len(gap), -1).mean(dim=1)
    numerical = math.sqrt(float(error.double().square().mean()))
    settings = {"unresolved": unresolved}
    return replace(
        root(mean(square.cpu().numpy()), "nats"), numerical_error=numerical, settings=settings
    )


def _squared_mean(v: Float[Tensor, "n dim"]) -> Estimate:
    r"""The mean over coordinates of the squared mean :math:`|\mu|^2 / D` of independent vectors,
    without bias.

    .. math:: \frac{1}{D} \Big(|\bar v|^2 - \frac{\mathrm{tr}\,\hat\Sigma}{n}\Big), \qquad
        \mathrm{se}^2 = \frac{1}{D^2} \Big(\frac{4}{n}\,\bar v^\top \hat\Sigma\,\bar v
        + \frac{2}{n (n - 1)}\,\mathrm{tr}\,\hat\Sigma^2\Big),

    the two parts of Hoeffding's decomposition.
    """
    n, dim = v.shape
    centre = v.mean(dim=0)
    deviation = v - centre
    gram = deviation @ deviation.T if n < dim else deviation.T @ deviation
    trace, square = float(gram.trace()) / (n - 1), float(gram.square().sum()) / (n - 1) ** 2
    along = float((deviation @ centre).square().sum()) / (n - 1)
    variance = 4 * along / n + 2 * square / (n * (n - 1))
    value = float(centre.square().sum()) - trace / n
    return Estimate(value / dim, math.sqrt(variance) / dim, n)


def _length(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).norm(dim=1)

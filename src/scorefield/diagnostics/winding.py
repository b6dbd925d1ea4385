r"""Winding: circulation around the non-contractible loops of a torus.

A field without curl is a gradient in flat space. On a torus it may still wind: its circulation
around a non-contractible loop may be non-zero, which no periodic potential allows. Samples and
likelihood are affected, the curl is not.
"""

from __future__ import annotations

import math
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from scorefield.calculus import Windings, straight_loops
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure, precision_of
from scorefield.domain import Torus
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean, root
from scorefield.fields import Classes, ScoreField
from scorefield.targets import Target


def winding(
    field: ScoreField,
    data: Target | Tensor,
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

    The numerical error is the root mean square of the quadrature error of each loop; see
    :func:`~scorefield.calculus.straight_loops`. At noise levels at which the score jumps between
    modes over a width that the nodes cannot resolve, it is large, and so is the interval. Each
    estimate's settings contain the number of ``unresolved`` loops.

    Arguments:
        field: The field, on a torus.
        data: Where the clean points come from.
        protocol: The noise levels and points.
        tolerance: The tolerance of the integrals, in nats.
        nodes: The largest number of nodes on a loop.
        classes: The class of the points; see :meth:`Protocol.points() <.Protocol.points>`.

    Raises:
        ValueError: If the field is not on a torus, an argument is out of range, or a value is not
            finite.
    """
    domain = _torus(field)

    def at(points: Points) -> Estimate:
        loops = _loops(field, domain, points.noisy, points, tolerance, nodes)
        square = loops.value.square().mean(dim=1)
        rms = root(mean(square.double().cpu().numpy()), "nats")
        numerical = math.sqrt(float(loops.error.double().square().mean()))
        return replace(rms, numerical_error=numerical, settings=_settings(loops))

    settings = {"tolerance": tolerance, "nodes": nodes}
    return measure("winding", "nats", at, field, data, protocol, classes, **settings)


def harmonic_part(
    field: ScoreField,
    data: Target | Tensor,
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

    Arguments and errors are those of :func:`winding`; of the points the number matters only.

    References:
        Foundations of differentiable manifolds and Lie groups (Warner, 1983), theorem 6.8.
    """
    domain = _torus(field)

    def at(points: Points) -> Estimate:
        x = domain.uniform(
            protocol.noise, "diagnostics/winding", points.indices, dtype=protocol.dtype
        )
        loops = _loops(field, domain, x, points, tolerance, nodes)
        rms = root(_squared_mean(loops.value.double()), "nats")
        numerical = float(loops.error.double().mean(dim=0).square().mean().sqrt())
        return replace(rms, numerical_error=numerical, settings=_settings(loops))

    settings = {"tolerance": tolerance, "nodes": nodes}
    return measure("harmonic_part", "nats", at, field, data, protocol, classes, **settings)


def _torus(field: ScoreField) -> Torus:
    if not isinstance(field.domain, Torus):
        raise UserError(
            f"a winding needs a torus, on which there are loops that cannot be shrunk; the field "
            f"is on {field.domain}"
        )
    return field.domain


def _loops(
    field: ScoreField, domain: Torus, x: Tensor, points: Points, tolerance: float, nodes: int
) -> Windings:
    return straight_loops(
        field.score,
        x,
        points.t,
        domain,
        tolerance,
        epsilon=precision_of(field, x.dtype),
        # The score of a density blurred by sigma changes by its own size over a length sigma.
        steepness=field.sde.sigma(points.t) ** -2,
        nodes=nodes,
        classes=points.classes,
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


def _settings(loops: Windings) -> dict[str, int]:
    return {"unresolved": int((~loops.resolved).sum())}

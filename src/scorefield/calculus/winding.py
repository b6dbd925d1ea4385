r"""Circulation around the non-contractible loops of a torus.

On a torus a field can have no curl anywhere and still not be a gradient: a constant field gains
the same with every turn. With the period :math:`L_k` and the unit vector :math:`e_k` of coordinate
:math:`k`, the circulation around the straight loop through :math:`x` is

.. math:: C_k(x) = \int_0^{L_k} s_k(x + u\,e_k)\,\mathrm{d}u .

Every non-contractible loop is composed of these. Where the field has no curl, :math:`C_k` is the
same at every :math:`x`; its mean over the torus, :math:`L_k` times the mean of :math:`s_k`, is that
of the harmonic part in the Hodge decomposition, the constant :math:`h` in
:math:`s = \nabla\psi + v + h` with :math:`\nabla \cdot v = 0`.

References:
    Foundations of differentiable manifolds and Lie groups (Warner, 1983), theorem 6.8.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.calculus.derivatives import VectorField, evaluate
from scorefield.calculus.paths import LineIntegrals
from scorefield.checks import check_count, check_positive
from scorefield.domain import Torus
from scorefield.fields.classes import classes_at

_LEAST = 64
_COORDINATES = 2**18
"""The number of coordinates evaluated at once, which bounds the memory."""


def straight_loops(
    fn: VectorField,
    x: Float[Tensor, "batch *event"],
    t: Float[Tensor, " batch"],
    domain: Torus,
    tolerance: float,
    epsilon: float,
    steepness: Float[Tensor, " batch"],
    nodes: int = 1024,
    classes: Int[Tensor, " batch"] | None = None,
) -> LineIntegrals:
    r"""The circulations :math:`C_k(x)` around the straight loops through points, one per
    coordinate.

    They are means over equidistant nodes, which on a closed loop converge faster than any power of
    their number where the field is smooth. Each node belongs to one of four rules with a quarter
    of the nodes; the root mean square of the differences of these four from the whole is the error
    of the whole. (Two rules can agree on what is wrong where a field jumps twice.)

    The number of nodes, 64 at first, is doubled for those loops alone that need it, until that is
    no more than the tolerance. Rounding adds at most
    :math:`\epsilon\,L_k\,(\overline{|s_k|} + S L_k)` to the tolerance and to the error.

    Arguments:
        tolerance: The error that ends the refinement, in the unit of the integral.
        steepness: The size :math:`S` of the Jacobian of ``fn`` at each time.
        nodes: The largest number of nodes, at least 64.

    References:
        The exponentially convergent trapezoidal rule (Trefethen and Weideman, 2014), section 3.
    """
    check_positive("the tolerance of a line integral", tolerance)
    check_count("nodes", nodes, _LEAST)
    periods = domain.periods(x).expand(domain.shape).reshape(-1)

    def along(lines: Tensor, turns: Tensor) -> Tensor:
        """The field along loops at fractions of a turn; loop i * dim + k is along k through i."""
        parts = []
        for some in lines.split(max(1, _COORDINATES // (len(turns) * domain.dim))):
            point, k = some // domain.dim, some % domain.dim
            points = x[point].flatten(1).unsqueeze(1).repeat(1, len(turns), 1)
            axis = k.reshape(-1, 1, 1).expand(-1, len(turns), 1)
            points.scatter_add_(2, axis, (periods[k, None] * turns).unsqueeze(2))
            home = point.repeat_interleave(len(turns))
            points = domain.wrap(points.reshape(-1, *domain.shape))
            values = evaluate(fn, points, t[home], classes_at(classes, home))
            parts.append(values.reshape(len(some), len(turns), -1).gather(2, axis).squeeze(2))
        return torch.cat(parts)

    parts = []
    at_once = max(1, _COORDINATES // nodes)
    for lines in torch.arange(len(x) * domain.dim, device=x.device).split(at_once):
        steep, length = steepness[lines // domain.dim], periods[lines % domain.dim]
        parts.append(_refine(along, lines, length, tolerance, epsilon, steep, nodes))
    value, error, resolved = (torch.cat(v).reshape(len(x), -1) for v in zip(*parts, strict=True))
    return LineIntegrals(value, error, resolved)


def _refine(
    along: Callable[[Tensor, Tensor], Tensor],
    lines: Tensor,
    length: Tensor,
    tolerance: float,
    epsilon: float,
    steepness: Tensor,
    nodes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    active, count = torch.arange(len(length), device=length.device), _LEAST
    turns = torch.arange(count, dtype=length.dtype, device=length.device) / count
    values = along(lines, turns)
    value, error = torch.zeros_like(length), torch.zeros_like(length)
    resolved = torch.zeros_like(length, dtype=torch.bool)
    while True:
        own = length[active]
        quarters = own.unsqueeze(1) * values.reshape(len(active), -1, 4).mean(dim=1)
        rounding = epsilon * own * (values.abs().mean(dim=1) + steepness[active] * own)
        value[active] = quarters.mean(dim=1)
        scatter = (quarters - value[active].unsqueeze(1)).square().mean(dim=1).sqrt()
        error[active] = scatter + rounding
        resolved[active] = scatter <= tolerance + rounding
        count *= 2
        left = ~resolved[active]
        if count > nodes or not bool(left.any()):
            return value, error, resolved
        active = active[left]
        turns = (torch.arange(count // 2, dtype=own.dtype, device=own.device) + 0.5) / (count // 2)
        between = along(lines[active], turns)
        values = torch.stack((values[left], between), dim=2).flatten(1)

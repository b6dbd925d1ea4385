r"""Line integrals of a field along polygons, and their relation to curl.

The circulation :math:`C = \oint s \cdot \mathrm{d}l` of a gradient vanishes on every loop. For an
affine field, :math:`C = -\sum_{i<j} A_{ij} B_{ij}` with the skew part :math:`A = J - J^\top` and
the loop's bivector :math:`B = \frac12 \oint x \wedge \mathrm{d}x` of area :math:`|B|`; over planes
of uniformly random orientation :math:`\mathbb{E}\,C^2 = |B|^2 \|A\|_F^2 / (D(D-1))`, so that

.. math:: D (D - 1)\,C^2 / |B|^2

estimates the same squared curl :math:`\|J - J^\top\|_F^2` as the Jacobian does.

A line integral over an edge is a :class:`Quadrature`. Rules of degree at least 1 integrate an
affine field exactly, and so give exactly zero on a quadratic potential; the published
left-endpoint rule has degree 0 and does not. On other fields the error of a rule is
estimated by the difference from a less accurate *companion* rule.

The corners of a polygon are points of flat space, each joined to the next by a straight edge. Flat
space covers a torus, and points are wrapped where the field is evaluated: a loop of any size
encloses an area.

Cycles of the nearest-neighbour graph of a cloud of points are polygons too. Random walks of a fixed
length along its directed edges close into cycles where the last vertex points back to the first.
Those that do not close are marked, not redrawn, so that a draw is a fixed function of its address.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scorefield.calculus.derivatives import VectorField, evaluate
from scorefield.domain import Domain
from scorefield.errors import UserError
from scorefield.fields.classes import classes_at
from scorefield.noise import Noise


@dataclass(frozen=True)
class Quadrature:
    r"""A rule :math:`\int_0^1 f \approx \sum_q w_q f(c_q)`, with nodes :math:`c_q` in [0, 1] and
    weights :math:`w_q` that sum to 1.

    Attributes:
        degree: The largest degree of the polynomials that are integrated exactly; cut into ever
            smaller pieces, an integral converges with order ``degree + 1``.
        companion: The name of the rule whose difference from this one estimates this one's error.
    """

    name: str
    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    degree: int
    companion: str


def quadrature(name: str) -> Quadrature:
    """The rule of a name: ``left``, ``midpoint``, ``trapezoid``, ``simpson``, or ``gauss-n``
    with n Gauss–Legendre nodes.

    A companion is the rule of the next lower degree: of ``gauss-n`` the one with a node less, of
    ``simpson`` the ``trapezoid``. The rules of degree 1 are each other's, as their errors have
    opposite signs; ``gauss-1`` is the midpoint rule and has its companion. The error of ``left`` is
    estimated to leading order by the ``trapezoid``.
    """
    match name.split("-"):
        case ["left"]:
            return Quadrature(name, (0.0,), (1.0,), 0, "trapezoid")
        case ["midpoint"]:
            return Quadrature(name, (0.5,), (1.0,), 1, "trapezoid")
        case ["trapezoid"]:
            return Quadrature(name, (0.0, 1.0), (0.5, 0.5), 1, "midpoint")
        case ["simpson"]:
            return Quadrature(name, (0.0, 0.5, 1.0), (1 / 6, 2 / 3, 1 / 6), 3, "trapezoid")
        case ["gauss", n] if n.isdecimal() and int(n) > 0:
            nodes, weights = np.polynomial.legendre.leggauss(int(n))
            return Quadrature(
                name,
                tuple((0.5 + nodes / 2).tolist()),
                tuple((weights / 2).tolist()),
                2 * int(n) - 1,
                f"gauss-{int(n) - 1}" if int(n) > 1 else "trapezoid",
            )
    raise UserError(
        f"quadrature is left, midpoint, trapezoid, simpson or gauss-n (n = 1, 2, …), not {name!r}"
    )


def circulation(
    fn: VectorField,
    vertices: Float[Tensor, "batch corners *event"],
    t: Float[Tensor, " batch"],
    rule: Quadrature,
    domain: Domain,
    classes: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch"]:
    r"""The circulation :math:`\oint s \cdot \mathrm{d}l` around closed polygons.

    ``vertices`` are the corners in order, of which the last is joined to the first; each polygon
    has a time and a class. A corner that several edges share is evaluated once.
    """
    edges, values = _along_edges(fn, vertices, t, classes, rule.nodes, domain)
    return _integral(rule, {c: (v * edges).flatten(1).sum(dim=1) for c, v in values.items()})


def circulation_and_error(
    fn: VectorField,
    vertices: Float[Tensor, "batch corners *event"],
    t: Float[Tensor, " batch"],
    rule: Quadrature,
    domain: Domain,
    precision: float,
    classes: Int[Tensor, " batch"] | None = None,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    r"""The :func:`circulation`, and a bound on its error: the difference from the companion rule,
    plus rounding.

    Rounding of the corners is the same at all nodes of an edge and adds at most
    :math:`\epsilon \oint |s|\, |\mathrm{d}l|` in their dtype. That of the field's values, of the
    relative ``precision`` :math:`\epsilon'`, is independent at each node q of an edge k and in each
    coordinate i, and sums in quadrature to

    .. math:: \epsilon' \Big(\sum_{k, q, i} w_q^2\, s_{kqi}^2\, \Delta_{ki}^2\Big)^{1/2} .
    """
    companion = quadrature(rule.companion)
    nodes = rule.nodes + companion.nodes
    edges, values = _along_edges(fn, vertices, t, classes, nodes, domain)
    along = {c: (v * edges).flatten(1).sum(dim=1) for c, v in values.items()}
    lengths = edges.flatten(2).norm(dim=2)
    sizes = {c: (v.flatten(2).norm(dim=2) * lengths).sum(dim=1) for c, v in values.items()}
    turn, rounding = _integral(rule, along), _integral(rule, sizes)
    error = (turn - _integral(companion, along)).abs()
    squares = [
        (w * values[c] * edges).square().flatten(1).sum(dim=1)
        for c, w in zip(rule.nodes, rule.weights, strict=True)
    ]
    scatter = torch.stack(squares).sum(dim=0).sqrt()
    return turn, error + torch.finfo(vertices.dtype).eps * rounding + precision * scatter


def _along_edges(
    fn: VectorField,
    vertices: Tensor,
    t: Tensor,
    classes: Tensor | None,
    nodes: Sequence[float],
    domain: Domain,
) -> tuple[Tensor, dict[float, Tensor]]:
    """The edges of closed polygons, and the field on each at the nodes."""
    batch, corners, *event = vertices.shape
    edges = vertices.roll(-1, dims=1) - vertices
    # On a closed polygon the end of an edge is the start of the next.
    inner = sorted({c % 1.0 for c in nodes})
    points = torch.stack([domain.wrap(vertices + c * edges) for c in inner], dim=2)
    home = torch.arange(batch, device=t.device).repeat_interleave(corners * len(inner))
    values = evaluate(fn, points.reshape(-1, *event), t[home], classes_at(classes, home))
    values = values.reshape(points.shape)
    found = {c: values[:, :, inner.index(c % 1.0)] for c in nodes}
    return edges, {c: v.roll(-1, dims=1) if c == 1.0 else v for c, v in found.items()}


def _integral(rule: Quadrature, at: dict[float, Tensor]) -> Tensor:
    total = torch.zeros_like(at[rule.nodes[0]])
    for c, w in zip(rule.nodes, rule.weights, strict=True):
        total = total + w * at[c]
    return total


def in_blocks(fn: VectorField, coordinates: int = 2**18) -> VectorField:
    """A field evaluated at a few points at a time, of ``coordinates`` in all, to save memory."""

    def blockwise(x: Tensor, t: Tensor, classes: Tensor | None = None) -> Tensor:
        rows = max(1, coordinates // max(1, x.shape[1:].numel()))
        blocks = torch.arange(len(x), device=x.device).split(rows)
        return torch.cat([evaluate(fn, x[b], t[b], classes_at(classes, b)) for b in blocks])

    return blockwise


def squared_area(vertices: Float[Tensor, "batch corners *event"]) -> Float[Tensor, " batch"]:
    r"""The squared area :math:`|B|^2` of closed polygons, flat or not.

    :math:`B = \frac12 \sum_k a_k \wedge b_k` over the triangles that fan out from the first
    corner, and :math:`\langle a \wedge b, c \wedge d\rangle
    = (a \cdot c)(b \cdot d) - (a \cdot d)(b \cdot c)`.
    """
    spokes = (vertices[:, 1:] - vertices[:, :1]).flatten(2)
    gram = spokes @ spokes.mT
    aa, bb, ab = gram[:, :-1, :-1], gram[:, 1:, 1:], gram[:, :-1, 1:]
    return 0.25 * (aa * bb - ab * ab.mT).sum(dim=(1, 2)).clamp(min=0)


def planes(
    noise: Noise,
    purpose: str,
    domain: Domain,
    index: Tensor,
    step: int | Tensor = 0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*address 2 *event"]:
    """Two orthonormal directions for each address, of uniformly random orientation."""
    if domain.dim < 2:
        raise UserError(f"circulation needs two dimensions, the event shape is {domain.shape}")
    z = noise.normal(purpose, (2, domain.dim), index, step, dtype=torch.float64)
    first, second = z.unbind(dim=-2)
    first = first / first.norm(dim=-1, keepdim=True)
    second = second - (second * first).sum(dim=-1, keepdim=True) * first
    second = second / second.norm(dim=-1, keepdim=True)
    plane = torch.stack((first, second), dim=-2).to(dtype)
    return plane.reshape(*plane.shape[:-1], *domain.shape)


def regular_polygons(
    centres: Float[Tensor, "batch *event"],
    radii: Float[Tensor, " batch"],
    plane: Float[Tensor, "batch 2 *event"],
    sides: int,
) -> Float[Tensor, "batch sides *event"]:
    """Regular polygons around the centres, with corners at the given radii."""
    if sides < 3:
        raise UserError(f"a loop needs at least three sides, got {sides}")
    angle = torch.arange(sides, dtype=centres.dtype, device=centres.device) * (math.tau / sides)
    turn = torch.stack((angle.cos(), angle.sin()), dim=1)
    offsets = torch.einsum("sk,bk...->bs...", turn, plane)
    radii = radii.reshape(-1, *(1,) * (offsets.dim() - 1))
    return centres.unsqueeze(1) + radii * offsets


def squared_curl(
    circulation: Float[Tensor, " batch"], squared_area: Float[Tensor, " batch"], dim: int
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    r"""Numerators and denominators whose ratio of means estimates :math:`\|J - J^\top\|_F^2`:
    :math:`D(D-1)\,C^2` and :math:`|B|^2`.
    """
    return dim * (dim - 1) * circulation**2, squared_area


def nearest_neighbours(
    features: Float[Tensor, "points features"], k: int
) -> Int[Tensor, "points k"]:
    """The indices of the k nearest other points (Euclidean), nearest first."""
    n = features.shape[0]
    if not 1 <= k < n:
        raise UserError(f"{n} points have 1 to {n - 1} nearest neighbours, not {k}")
    distances = torch.cdist(features, features)
    distances.fill_diagonal_(torch.inf)
    return distances.topk(k, largest=False).indices


def propose_cycles(
    neighbours: Int[Tensor, "points k"], draws: Float[Tensor, "proposals length"]
) -> tuple[Int[Tensor, "proposals length"], Bool[Tensor, " proposals"]]:
    """Random walks along the graph, and which of them are cycles: those of distinct vertices whose
    last has the first among its neighbours. The first draw of a walk chooses its start, the others
    its edges.
    """
    points, k = neighbours.shape
    length = draws.shape[1]
    if length < 3:
        raise UserError(f"a cycle needs at least three vertices, got {length}")
    walk = [(draws[:, 0] * points).to(torch.int64).clamp(max=points - 1)]
    for i in range(1, length):
        edge = (draws[:, i] * k).to(torch.int64).clamp(max=k - 1)
        walk.append(neighbours[walk[-1], edge])
    vertices = torch.stack(walk, dim=1)
    distinct = (vertices.sort(dim=1).values.diff(dim=1) > 0).all(dim=1)
    closes = (neighbours[vertices[:, -1]] == vertices[:, :1]).any(dim=1)
    return vertices, distinct & closes


def find_cycles(
    points: Float[Tensor, "points *event"],
    neighbours: Int[Tensor, "points k"],
    draws: Float[Tensor, "proposals length"],
    domain: Domain,
    reach: float | Tensor = torch.inf,
) -> Float[Tensor, "cycles length *event"]:
    """The corners of those walks that are cycles without an edge longer than ``reach``, in the
    order of the draws, which are those of :func:`propose_cycles`.

    They are points of flat space; on a torus, cycles that wind around it are omitted, as they
    bound no surface.
    """
    walks, closed = propose_cycles(neighbours, draws)
    vertices, contractible = domain.unroll(points[walks])
    edges = (vertices.roll(-1, dims=1) - vertices).flatten(2)
    # Their number is the one thing for which the host waits.
    return vertices[closed & contractible & (edges.norm(dim=2) <= reach).all(dim=1)]

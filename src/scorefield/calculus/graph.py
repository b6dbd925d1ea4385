r"""Cycles in the nearest-neighbour graph of a cloud of points.

Random walks of a fixed length along directed nearest-neighbour edges close into cycles where
the last vertex points back to the first. All proposals are made at once; those that do not
close are marked, not redrawn, so that a draw is a fixed function of its address.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scorefield.domain import Domain
from scorefield.errors import UserError


def nearest_neighbours(
    features: Float[Tensor, "points features"], k: int
) -> Int[Tensor, "points k"]:
    """The indices of the k nearest other points (Euclidean), nearest first.

    Raises:
        ValueError: Unless ``1 <= k < points``.
    """
    n = features.shape[0]
    if not 1 <= k < n:
        raise UserError(f"{n} points have 1 to {n - 1} nearest neighbours, asked for {k}")
    distances = torch.cdist(features, features)
    distances.fill_diagonal_(torch.inf)
    return distances.topk(k, largest=False).indices


def propose_cycles(
    neighbours: Int[Tensor, "points k"], draws: Float[Tensor, "proposals length"]
) -> tuple[Int[Tensor, "proposals length"], Bool[Tensor, " proposals"]]:
    """Random walks along the graph, and which of them are cycles.

    A walk is a cycle if its vertices are distinct and its last vertex has its first among its
    neighbours.

    Arguments:
        neighbours: The graph.
        draws: Uniforms in [0, 1): the first of a walk chooses its start, the others its edges.

    Raises:
        ValueError: For fewer than three vertices.
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
    """The corners of those walks that are cycles without a long edge, in the order of the draws.

    They are points of flat space; on a torus, cycles that wind around it are omitted, as they
    bound no surface.

    Arguments:
        points: The points.
        neighbours: Their graph.
        draws: Uniforms in [0, 1), one walk per row; see :func:`propose_cycles`.
        domain: The domain of the points.
        reach: The length of the longest edge.
    """
    walks, closed = propose_cycles(neighbours, draws)
    vertices, contractible = domain.unroll(points[walks[closed]])
    edges = (vertices.roll(-1, dims=1) - vertices).flatten(2)
    return vertices[contractible & (edges.norm(dim=2) <= reach).all(dim=1)]

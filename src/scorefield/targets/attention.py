r"""Softmax-weighted means over many keys, of which only a block is held at a time.

For queries :math:`q`, keys :math:`y_j` and features :math:`f_j`,

.. math:: \bar f(q) = \sum_j w_j f_j, \qquad
    w = \mathrm{softmax}_j \Big(-\frac{|q - \alpha y_j|^2}{2\sigma^2}\Big),

which is attention: with :math:`|y|^2` and 1 as two more coordinates of a key, all logits of a block
are one product of matrices. They are worked out a tile at a time that fits into a cache, and no
tile is gone over more often than it takes to exponentiate it and to weigh the features.

Where logits span so little that no weight can underflow, they are exponentiated as they are.
Otherwise they are taken relative to the largest one so far, and keys whose weight is below rounding
are passed over. Where float32 would leave the weights with less than four digits, the products are
float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_FLAT = 80.0
"""Logits in this range have weights that are normal numbers, in float32 as well."""
_SINGLE = 1024.0
"""Logits up to this size have float32 errors below 1e-4."""
_RISE = 20.0
"""How far a logit may exceed the one that weights are relative to, before that one is raised."""
_TILE = {"cpu": 1 << 20}
"""The logits at once, by the kind of device: on processors, those that fit into a cache."""
_LARGE_TILE = 1 << 26
_QUERIES = 1024


class Block(NamedTuple):
    """Some of the keys, by groups, and their features, whose first is the constant 1."""

    keys: Float[Tensor, "groups dim keys"]
    features: Float[Tensor, "groups keys features"]


def precise(largest: float, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which logits up to some size are known to four digits after the point.

    Arguments:
        largest: A bound on the size of the logits.
        dtype: The dtype of the points.
    """
    if dtype == torch.float64 or largest > _SINGLE:
        return torch.float64
    return torch.float32


def lift_keys(keys: Float[Tensor, "groups dim keys"]) -> None:
    """Fills the last two coordinates of keys: their squared norms and 1."""
    torch.sum(keys[:, :-2].square(), dim=1, out=keys[:, -2])
    keys[:, -1] = 1.0


def weighted_means(
    queries: Float[Tensor, "groups queries dim"],
    alpha: Float[Tensor, " queries"],
    sigma: Float[Tensor, " queries"],
    blocks: Iterable[Block],
    largest: float,
    count: int,
) -> Float[Tensor, "groups queries features"]:
    r"""The means of the features that keys of the same group have.

    Arguments:
        queries: The queries, of each group as many.
        alpha: The coefficient :math:`\alpha` of each.
        sigma: The noise :math:`\sigma` of each.
        blocks: The keys, with two more coordinates; see :func:`lift_keys`.
        largest: A bound on the size of the logits.
        count: The number of keys, at least.
    """
    lifted = _lift_queries(queries, alpha, sigma)
    cutoff = math.log(torch.finfo(queries.dtype).eps / count)
    sums: Tensor | None = None
    started = False
    for block in blocks:
        if sums is None:
            sums = queries.new_zeros(*queries.shape[:2], block.features.shape[2])
        for rows, columns in _tiles(lifted, block):
            if largest <= _FLAT:
                _add(sums[:, rows], lifted[:, rows], block, columns)
            else:
                first = not started and columns.start == 0
                _add_relative(sums[:, rows], lifted[:, rows], block, columns, cutoff, first)
        started = True
    if sums is None:
        raise ValueError("there is no key to compare with")
    return sums[:, :, 1:] / sums[:, :, :1]


def _lift_queries(queries: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Queries whose products with lifted keys are the logits."""
    scale = (0.5 / sigma**2).expand(queries.shape[:2])
    square = queries.square().sum(dim=2)
    return torch.cat(
        (
            queries * (2 * alpha * scale)[:, :, None],
            (-(alpha**2) * scale)[:, :, None],
            (-square * scale)[:, :, None],
        ),
        dim=2,
    )


def _tiles(lifted: Tensor, block: Block) -> Iterator[tuple[slice, slice]]:
    groups, queries, _ = lifted.shape
    keys = block.keys.shape[2]
    entries = _TILE.get(lifted.device.type, _LARGE_TILE)
    high = max(1, min(queries, _QUERIES, entries // groups))
    wide = max(1, entries // (groups * high))
    for row in range(0, queries, high):
        for column in range(0, keys, wide):
            yield slice(row, row + high), slice(column, column + wide)


def _add(sums: Tensor, queries: Tensor, block: Block, columns: slice) -> None:
    """Adds the features of some keys with their weights."""
    weights = torch.bmm(queries, block.keys[:, :, columns]).exp_()
    sums.baddbmm_(weights, block.features[:, columns])


def _add_relative(
    sums: Tensor, queries: Tensor, block: Block, columns: slice, cutoff: float, first: bool
) -> None:
    """Adds the features of some keys with their weights relative to the largest so far, whose
    logit the last coordinate of the queries has been lowered by.
    """
    logits = torch.bmm(queries, block.keys[:, :, columns])
    rise = logits.amax(dim=2)
    highest = float(rise.max())
    if highest < cutoff and not first:
        return
    if first or highest > _RISE:
        shift = rise if first else rise.clamp(min=0)
        queries[:, :, -1] -= shift
        if not first:
            sums *= (-shift).exp_().unsqueeze(2)
        logits -= shift.unsqueeze(2)
        rise -= shift
    features = block.features[:, columns]
    rows = (rise >= cutoff).any(dim=0).nonzero().squeeze(1)
    if 2 * len(rows) < logits.shape[1]:
        # Far below zero, exp is many times slower than elsewhere.
        weights = logits[:, rows].clamp_(min=-_FLAT).exp_()
        sums[:, rows] += torch.bmm(weights, features)
    else:
        sums.baddbmm_(logits.clamp_(min=-_FLAT).exp_(), features)

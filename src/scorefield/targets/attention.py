r"""Softmax-weighted means over many keys, with only one block of keys in memory.

For queries :math:`q`, keys :math:`y_j` and features :math:`f_j`,

.. math:: \bar f(q) = \sum_j w_j f_j, \qquad
    w = \mathrm{softmax}_j \Big(-\frac{|q - \alpha y_j|^2}{2\sigma^2}\Big),

which is attention: with :math:`|y|^2` and 1 as two more coordinates of a key, all logits of a block
are one product of matrices, computed a tile that fits into a cache at a time.

Where the range of the logits excludes underflow, they are exponentiated directly. Otherwise they
are relative to the largest one so far, and keys whose weight is below rounding are skipped. Where
float32 would leave the weights with less than four digits, the products are float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_REFERENCE = -60.0
"""What logits are first taken relative to: none is positive, so that no sum of weights is too large
for float32."""
_FLAT = 140.0
"""Logits down to its negative have weights that are normal numbers, relative to the reference."""
_LEAST = -80.0
"""Below, weights are as good as none; further down, ``exp`` is many times slower than elsewhere."""
_SINGLE = 2048.0
"""Logits up to this size have float32 errors of about 1e-4 at most."""
_RISE = 20.0
"""How far a logit may exceed the one that weights are relative to, before that one is raised."""
_TILE = 1 << 18
"""The logits at once for each thread of a processor: 1 MiB, which fits into its cache."""
_LARGE_TILE = 1 << 26
"""The logits at once on other devices."""
_QUERIES = 512


class Block(NamedTuple):
    """Some of the keys, by groups, each followed by its squared norm and 1; and their features, of
    which the first is 1.
    """

    keys: Float[Tensor, "groups dim keys"]
    features: Float[Tensor, "groups features keys"]


def precise(largest: float, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which logits up to some size are known to four digits after the point."""
    return torch.float32 if dtype != torch.float64 and largest <= _SINGLE else torch.float64


def weighted_means(
    queries: Float[Tensor, "groups queries dim"],
    alpha: Float[Tensor, " queries"],
    sigma: Float[Tensor, " queries"],
    blocks: Iterable[Block],
    count: int,
) -> Float[Tensor, "groups features queries"]:
    """The means of the features that keys of the same group have, of at least ``count`` keys;
    queries are equally many for each group.
    """
    length = queries.square().sum(dim=2).amax(dim=0).sqrt()
    lifted = _lift_queries(queries, alpha, sigma)
    cutoff = math.log(torch.finfo(queries.dtype).eps / count)
    sums, flat = queries.new_empty(0), True
    for number, block in enumerate(blocks):
        if number == 0:
            sums = queries.new_zeros(len(queries), block.features.shape[1], queries.shape[1])
        longest = block.keys[:, -2].max().sqrt()
        narrow = float(((length + alpha * longest) / sigma).max()) ** 2 <= 2 * _FLAT
        if flat and not narrow and number > 0:
            _refer(sums, lifted, sums[:, 0].log())
        flat = flat and narrow
        for rows, columns in _tiles(lifted, block):
            part = lifted[:, rows], block.keys[:, :, columns], block.features[:, :, columns]
            if flat:
                _add(sums[:, :, rows], *part)
            else:
                first = number == 0 and columns.start == 0
                _add_relative(sums[:, :, rows], *part, cutoff, first)
    return sums[:, 1:] / sums[:, :1]


def _lift_queries(queries: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Queries whose products with lifted keys are the logits, less the reference."""
    scale = (0.5 / sigma**2).expand(queries.shape[:2])
    square = queries.square().sum(dim=2)
    return torch.cat(
        (
            queries * (2 * alpha * scale)[:, :, None],
            (-(alpha**2) * scale)[:, :, None],
            (-square * scale - _REFERENCE)[:, :, None],
        ),
        dim=2,
    )


def _tiles(lifted: Tensor, block: Block) -> Iterator[tuple[slice, slice]]:
    groups, queries, _ = lifted.shape
    keys = block.keys.shape[2]
    on_processor = lifted.device.type == "cpu"
    entries = _TILE * torch.get_num_threads() if on_processor else _LARGE_TILE
    high = max(1, min(queries, _QUERIES, math.isqrt(entries // groups)))
    wide = max(1, entries // (groups * high))
    for row in range(0, queries, high):
        for column in range(0, keys, wide):
            yield slice(row, row + high), slice(column, column + wide)


def _refer(sums: Tensor, queries: Tensor, shift: Tensor) -> None:
    """Raise the reference of the logits."""
    queries[:, :, -1] -= shift
    sums *= (-shift).exp_().unsqueeze(1)


def _add(sums: Tensor, queries: Tensor, keys: Tensor, features: Tensor) -> None:
    """Add the features of some keys with their weights."""
    weights = torch.bmm(queries, keys).exp_()
    sums += torch.bmm(features, weights.mT)


def _add_relative(
    sums: Tensor, queries: Tensor, keys: Tensor, features: Tensor, cutoff: float, first: bool
) -> None:
    """Adds the features of some keys with their weights relative to the largest so far."""
    logits = torch.bmm(queries, keys)
    rise = logits.amax(dim=2)
    # Work is saved by looking at numbers. On a GPU, to wait for them costs more than the work.
    looking = logits.device.type == "cpu"
    if first or not looking or not float(rise.max()) <= _RISE:
        shift = rise if first else rise.clamp(min=0)
        if first:
            queries[:, :, -1] -= shift
        else:
            _refer(sums, queries, shift)
        logits -= shift.unsqueeze(2)
        rise = rise - shift
    rows = (rise >= cutoff).any(dim=0).nonzero().squeeze(1) if looking else None
    if rows is not None and 2 * len(rows) < logits.shape[1]:
        weights = logits[:, rows].clamp_(min=_LEAST).exp_()
        sums[:, :, rows] += torch.bmm(features, weights.mT)
    else:
        sums += torch.bmm(features, logits.clamp_(min=_LEAST).exp_().mT)

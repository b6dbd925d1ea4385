r"""Sums over all assignments of :math:`n` items to :math:`n` places.

The permanent :math:`\mathrm{perm}\,A = \sum_\pi \prod_i A_{i\pi(i)}` of positive numbers is the
normaliser of the distribution of permutations with probabilities proportional to the products.
Adding one row at a time, over the sets of places that are taken,

.. math:: F_0(\emptyset) = 1, \qquad F_{i+1}(S) = \sum_{j \in S} A_{ij}\,F_i(S \setminus j),

takes :math:`2^{n-1} n` terms in place of :math:`n!`, all positive, so that nothing cancels. The
same backwards, :math:`G_i(S) = \sum_{j \notin S} A_{ij}\,G_{i+1}(S \cup j)`, gives the probability
:math:`P_{ij} \propto A_{ij} \sum_{S \not\ni j} F_i(S)\,G_{i+1}(S \cup j)` that item :math:`i` is at
place :math:`j`. Everything is computed in logarithms.

References:
    Combinatorial mathematics (Ryser, 1963), chapter 2, for permanents.

    A tutorial on hidden Markov models and selected applications in speech recognition (Rabiner,
    1989), section III.A, for the two passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import UserError

MOST = 16
"""The largest number of items: beyond, there are too many sets."""


class _Layer(NamedTuple):
    """The ways from the sets of one size to those of the next: for each larger set the smaller ones
    and the places between, for each smaller set the larger ones and the free places.
    """

    back: Tensor
    place: Tensor
    forth: Tensor
    free: Tensor


def log_permanent(log_weight: Float[Tensor, "batch n n"]) -> Float[Tensor, " batch"]:
    r"""The logarithm of the permanent of :math:`A = e^{\text{log\_weight}}`; raises ``ValueError``
    for more than 16 rows.
    """
    return _forward(log_weight)[-1].squeeze(1)


def assignment(log_weight: Float[Tensor, "batch n n"]) -> Float[Tensor, "batch n n"]:
    """The probabilities :math:`P_{ij}` that row :math:`i` is assigned to column :math:`j`: the
    derivatives of :func:`log_permanent`; raises ``ValueError`` for more than 16 rows.
    """
    batch, n, _ = log_weight.shape
    forward = _forward(log_weight)
    backward = [torch.zeros_like(forward[-1])]
    layers = _layers(n, log_weight.device)
    for i in reversed(range(1, n)):
        layer = layers[i]
        ways = log_weight[:, i][:, layer.free] + backward[-1][:, layer.forth]
        backward.append(ways.logsumexp(dim=2))
    rows = []
    for i, (layer, after) in enumerate(zip(layers, reversed(backward), strict=True)):
        ways = forward[i][:, layer.back] + log_weight[:, i][:, layer.place] + after.unsqueeze(2)
        share = torch.exp(ways - forward[-1].unsqueeze(2)).flatten(1)
        rows.append(share.new_zeros(batch, n).index_add(1, layer.place.flatten(), share))
    return torch.stack(rows, dim=1)


def _forward(log_weight: Tensor) -> list[Tensor]:
    batch, n, _ = log_weight.shape
    passes = [log_weight.new_zeros(batch, 1)]
    for i, layer in enumerate(_layers(n, log_weight.device)):
        ways = passes[-1][:, layer.back] + log_weight[:, i][:, layer.place]
        passes.append(ways.logsumexp(dim=2))
    return passes


@lru_cache(maxsize=8)
def _layers(n: int, device: torch.device) -> tuple[_Layer, ...]:
    if n > MOST:
        raise UserError(f"the assignments of {n} things are too many, {MOST} is the most")
    # The first call may be in inference mode, the next may need a gradient.
    with torch.inference_mode(False), torch.device("cpu"):
        return tuple(_Layer(*(table.to(device) for table in tables)) for tables in _tables(n))


def _tables(n: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    # A set is the binary number of its places.
    places = torch.arange(n)
    taken = (torch.arange(2**n).unsqueeze(1) >> places) % 2 == 1
    sets = [(taken.sum(dim=1) == size).nonzero().squeeze(1) for size in range(n + 1)]
    number = torch.empty(2**n, dtype=torch.int64)
    for layer in sets:
        number[layer] = torch.arange(len(layer))
    for i, (smaller, larger) in enumerate(pairwise(sets)):
        place = places.expand(len(larger), n)[taken[larger]].reshape(-1, i + 1)
        free = places.expand(len(smaller), n)[~taken[smaller]].reshape(-1, n - i)
        back, forth = larger.unsqueeze(1) - 2**place, smaller.unsqueeze(1) + 2**free
        yield number[back], place, number[forth], free

"""Which points of a set without a held-out part are held out."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from scorefield.data.order import places
from scorefield.errors import UserError
from scorefield.noise import Noise

HELD_OUT = 20
"""One point of so many is held out."""
_PURPOSE = "held out"


def held_out(n: int, classes: Int[Tensor, " n"] | None, seed: int | None) -> Int[Tensor, " m"]:
    """The numbers, in order, of one in twenty points, at least one: drawn by a permutation of the
    seed, of each class in proportion where there are classes; for ``None`` the last ones.

    Raises:
        ValueError: If there are fewer than two.
    """
    if n < 2:
        raise UserError("a set has at least two items, one of them held out")
    count = max(1, n // HELD_OUT)
    if seed is None:
        return torch.arange(n - count, n)
    if classes is None:
        held = places(Noise(seed), n, 0, torch.arange(count), _PURPOSE)
    else:
        held = torch.cat(_stratified(classes, count, seed))
    return held.sort().values


def _stratified(classes: Tensor, count: int, seed: int) -> list[Tensor]:
    """Which are held out of each class: the parts of the whole, largest remainders rounded up."""
    kinds, sizes = classes.unique(return_counts=True)
    shares = sizes.to(torch.float64) * count / len(classes)
    quotas = shares.floor().long()
    left = count - int(quotas.sum())
    quotas[torch.argsort(shares - quotas, descending=True, stable=True)[:left]] += 1
    return [
        (classes == kind).nonzero()[:, 0][
            places(Noise(seed), size, k, torch.arange(quota), _PURPOSE)
        ]
        for k, (kind, size, quota) in enumerate(
            zip(kinds.tolist(), sizes.tolist(), quotas.tolist(), strict=True)
        )
    ]

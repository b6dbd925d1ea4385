r"""The order of the points of a finite set: a function of the seed, the epoch and the position.

Up to :data:`MOST_IN_MEMORY` points the permutation of an epoch is made once and kept. Beyond that,
each place is computed by itself, at any size and without memory, by a Feistel network: a
permutation of :math:`\{0, \dots, 2^{2b} - 1\} \supseteq \{0, \dots, n - 1\}`, in whose cycles one
walks on until the place is below :math:`n`. As :math:`2^{2b} < 4 n`, that takes less than four
steps on average.

References:
    Black and Rogaway, Ciphers with arbitrary finite domains, 2002; Luby and Rackoff, 1988.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from scorefield.noise import Noise

MOST_IN_MEMORY = 1 << 24
"""The most points of a permutation that is kept in memory."""
_ROUNDS = 6


def places(
    noise: Noise, n: int, epoch: int, offset: Int[Tensor, "..."], purpose: str = "order"
) -> Int[Tensor, "..."]:
    """Which of ``n`` points are at offsets, from 0 to before ``n``, of an epoch's permutation;
    every purpose has its own.
    """
    if n <= MOST_IN_MEMORY:
        return _permutation(noise, purpose, n, epoch)[offset]
    half = ((n - 1).bit_length() + 1) // 2
    keys = noise.integers(purpose, 1 << 53, (_ROUNDS,), torch.tensor(epoch)).tolist()
    found = _feistel(offset, half, keys)
    while bool((outside := found >= n).any()):
        found = torch.where(outside, _feistel(found, half, keys), found)
    return found


@lru_cache(maxsize=8)
def _permutation(noise: Noise, purpose: str, n: int, epoch: int) -> Tensor:
    return noise.permutation(purpose, n, epoch)


def _feistel(x: Tensor, half: int, keys: list[int]) -> Tensor:
    mask = (1 << half) - 1
    left, right = x >> half, x & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << half) | right


def _mixed(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64, on integers modulo 2⁶⁴."""
    x = (x ^ _shifted(x, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ _shifted(x, 27)) * (0x94D049BB133111EB - (1 << 64))
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills with zeros, which torch's own does not."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)

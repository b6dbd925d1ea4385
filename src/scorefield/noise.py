r"""Random numbers with addresses.

Every random number of the library is a pure function of its *address*

.. math:: (\text{seed},\ \text{purpose},\ \text{sample index},\ \text{step},\ \text{component}),

so that sample 17 draws the same numbers alone, in a batch of 64, on one process or on
several, before and after a resume.

Construction
    ``blake2b(seed, purpose)`` gives a 64-bit key; ``(block, step, index mod 2³², index div 2³²)``
    is a 128-bit counter, where block :math:`b` holds components :math:`4b \dots 4b+3`.
    Philox-4x32-10 maps key and counter to four 32-bit words; for a fixed key it is a bijection
    of the counter, so that two addresses of one (seed, purpose) never share a block. Two
    (seed, purpose) pairs share a key with probability :math:`2^{-64}`.

Exactness
    Numbers are bit-exact on all processors, in float64 too, and in any batch; see
    :mod:`~scorefield.philox`.

Limits
    Normals have 32 bits of resolution and lie within 6.77 standard deviations (a normal
    exceeds that with probability :math:`1.3 \cdot 10^{-11}`). The draw for event shape
    ``(4,)`` is a prefix of the draw for ``(8,)`` at the same address: give different things
    different purposes.

References:
    Parallel random numbers: as easy as 1, 2, 3 (Salmon, Moraes, Dror and Shaw, 2011), section 3.

    A note on the generation of random normal deviates (Box and Muller, 1958), equation 1.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.checks import check_count, inspect
from scorefield.errors import UnsupportedError, UserError
from scorefield.fused import fused
from scorefield.philox import Kind, in_blocks, normals, signs, uniforms, words

_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Noise:
    r"""Normals, uniforms, signs and integers as functions of their address.

    ``index`` and ``step`` are broadcast against each other; a draw has their common shape
    followed by the event shape.

    Arguments:
        seed: Any integer, of any size and sign.

    Example:
        >>> noise = Noise(seed=0)
        >>> batch = noise.normal("prior", (2,), index=torch.arange(64))
        >>> alone = noise.normal("prior", (2,), index=torch.tensor([17]))
        >>> torch.equal(batch[17], alone[0])
        True
    """

    seed: int

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise UnsupportedError(f"seed must be an integer, got {self.seed!r}")

    def normal(
        self,
        purpose: str,
        shape: Sequence[int],
        index: Tensor,
        step: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw standard normals.

        Arguments:
            purpose: The use of the numbers; part of the address.
            shape: The event shape.
            index: The sample indices, non-negative integers of shape :math:`(*)`.
            step: The step or steps, integers in ``[0, 2³²)``.
            dtype: The dtype to which the float64 value is rounded.

        Returns:
            Independent :math:`N(0, 1)` draws of shape ``(*, *shape)`` on the device of ``index``.

        Raises:
            ValueError: If an index is negative, or a step is not in ``[0, 2³²)``. Indices and steps
                on a GPU are not looked at.
        """
        return self._draw(normals, 4, purpose, shape, index, step, dtype)

    def uniform(
        self,
        purpose: str,
        shape: Sequence[int],
        index: Tensor,
        step: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw uniforms in the half-open interval [0, 1), with 53 bits before rounding.

        Arguments and errors are those of :meth:`normal`. In float64 the value is never 0.
        """
        return self._draw(uniforms, 2, purpose, shape, index, step, dtype)

    def signs(
        self,
        purpose: str,
        shape: Sequence[int],
        index: Tensor,
        step: int | Tensor = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw Rademacher signs, -1 or +1 with equal probability.

        Arguments and errors are those of :meth:`normal`.
        """
        return self._draw(signs, 128, purpose, shape, index, step, dtype)

    def integers(
        self,
        purpose: str,
        high: int,
        shape: Sequence[int],
        index: Tensor,
        step: int | Tensor = 0,
    ) -> Tensor:
        """Draw int64 integers uniformly from ``0 … high - 1`` (bias below ``high · 2⁻⁵³``).

        Arguments and errors are those of :meth:`normal`; also raises ``ValueError`` if
        ``high`` is not positive.
        """
        check_count("high", high)
        draws = self.uniform(purpose, shape, index, step, dtype=torch.float64)
        return draws.mul_(high).floor_().to(torch.int64)

    def permutation(self, purpose: str, n: int, step: int = 0) -> Tensor:
        """Draw a permutation of ``0 … n - 1`` (by sorting one 62-bit key per element)."""
        index, steps, _ = _addresses(torch.arange(n, device="cpu"), step)
        found = words(torch.arange(1, device="cpu"), steps, index, self._key(purpose))
        return torch.argsort((found[0, :, 0] << 30) + (found[1, :, 0] >> 2), stable=True)

    def _draw(
        self,
        kind: Kind,
        each: int,
        purpose: str,
        shape: Sequence[int],
        index: Tensor,
        step: int | Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """Numbers of a kind, of which a block has ``each``."""
        size = math.prod(shape)
        index, steps, batch = _addresses(index, step)
        block = torch.arange(-(-size // each), device=index.device)
        # A short draw needs half of the block only.
        half = 2 * size <= each <= 4
        total = len(index) * size
        values = fused(in_blocks, total, kind, half, block, steps, index, self._key(purpose), dtype)
        return values[:, :size].reshape((*batch, *shape))

    def _key(self, purpose: str) -> tuple[int, int]:
        digest = hashlib.blake2b(f"{self.seed}\0{purpose}".encode(), digest_size=8).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def _addresses(index: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """Indices and steps in columns, and their common shape."""
    if index.is_floating_point():
        raise UnsupportedError(f"sample indices are integers, got {index.dtype}")
    index = index.to(torch.int64)
    inspect(index, _check_index)
    if isinstance(step, Tensor):
        steps = step.to(index)
        inspect(steps, _check_steps)
    else:
        _check_step(step)
        # Filled in: a copy of the number would be waited for.
        steps = index.new_full((), step)
    index, steps = torch.broadcast_tensors(index, steps)
    return index.reshape(-1, 1), steps.reshape(-1, 1), index.shape


def _check_index(index: Tensor) -> None:
    if int(index.min()) < 0:
        raise UserError(f"sample indices and steps must not be negative, got {int(index.min())}")


def _check_steps(steps: Tensor) -> None:
    for step in steps.aminmax():
        _check_step(int(step))


def _check_step(step: int) -> None:
    if not 0 <= step <= _MASK:
        raise UserError(f"a step must not be negative and be below 2³², got {step}")


class Lookahead:
    """Draws of many steps made in one call, returned one step at a time: a draw costs about as much
    for one step as for a hundred.

    ``draw``, a pure function, maps steps of shape ``(span, 1)``, on the device, to tensors whose
    first dimension is ``span``. Chunks are aligned, so that the draws of a step do not depend on
    where a run began.
    """

    def __init__(
        self,
        draw: Callable[[Tensor], tuple[Tensor, ...]],
        span: int = 64,
        device: torch.device | None = None,
    ) -> None:
        check_count("span", span)
        self._draw, self._span, self._device = draw, span, device
        self._chunk: int | None = None
        self._values: tuple[Tensor, ...] = ()

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        """The draws of one step."""
        chunk, offset = divmod(step, self._span)
        if chunk != self._chunk:
            first = chunk * self._span
            steps = torch.arange(first, first + self._span, device=self._device)
            self._values = self._draw(steps.unsqueeze(1))
            self._chunk = chunk
        return tuple(value[offset] for value in self._values)

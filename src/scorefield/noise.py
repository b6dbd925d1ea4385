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
    Words become numbers through IEEE-exact operations only (additions, products, quotients,
    square roots, in float64). Library logarithms and sines are avoided on purpose: their last
    bit may depend on an element's position in a vector register, hence on the batch.

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

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_LOG_SERIES = tuple(2.0 / (2 * k + 1) for k in range(11))
_SIN_SERIES = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(8))
_COS_SERIES = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))


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
        size = math.prod(shape)
        words, batch = self._words(purpose, -(-size // 4), index, step)
        # A short draw needs half of the block only.
        values = _box_muller(words if size > 2 else words[:2])
        return _assemble(values, batch, size, shape).to(dtype)

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
        size = math.prod(shape)
        words, batch = self._words(purpose, -(-size // 2), index, step)
        words = words if size > 1 else words[:2]
        high, low = words[0::2] >> 5, words[1::2] >> 6
        values = ((high << 26) + low).to(torch.float64).add_(0.5).mul_(2.0**-53)
        values = _assemble(values, batch, size, shape).to(dtype)
        return values.clamp_(max=1.0 - torch.finfo(dtype).eps / 2)

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
        size = math.prod(shape)
        words, batch = self._words(purpose, -(-size // 128), index, step)
        shifts = torch.arange(32, device=words.device).view(32, 1, 1, 1)
        bits = (words.unsqueeze(0) >> shifts) & 1
        return _assemble(bits.flatten(0, 1), batch, size, shape).to(dtype).mul_(2).sub_(1)

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
        words, _ = self._words(purpose, 1, torch.arange(n), step)
        return torch.argsort((words[0, :, 0] << 30) + (words[1, :, 0] >> 2), stable=True)

    def _words(
        self, purpose: str, blocks: int, index: Tensor, step: int | Tensor
    ) -> tuple[Tensor, torch.Size]:
        """Philox words as (4, batch, block), and the batch shape."""
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
        batch = index.shape
        index, steps = index.reshape(-1, 1), steps.reshape(-1, 1)
        block = torch.arange(blocks, device=index.device)
        counter = torch.broadcast_tensors(block, steps, index & _MASK, index >> 32)
        digest = hashlib.blake2b(f"{self.seed}\0{purpose}".encode(), digest_size=8).digest()
        key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little"))
        return philox(torch.stack(counter), key), batch


def _check_index(index: Tensor) -> None:
    if int(index.min()) < 0:
        raise UserError(f"sample indices and steps must not be negative, got {int(index.min())}")


def _check_steps(steps: Tensor) -> None:
    for step in steps.aminmax():
        _check_step(int(step))


def _check_step(step: int) -> None:
    if not 0 <= step <= _MASK:
        raise UserError(f"a step must not be negative and be below 2³², got {step}")


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """The Philox-4x32-10 block cipher on 32-bit words held in int64: from counters of shape
    ``(4, *)`` to random words of that shape (Salmon et al., 2011, section 3.2).
    """
    x0, x1, x2, x3 = counter.unbind()
    for r in range(10):
        k0, k1 = ((key[i] + r * _WEYL[i]) & _MASK for i in (0, 1))
        # The products overflow int64, but their 64 bits are correct. Only the low halves
        # of x1 and x3 count, so that their high halves may stay until the next mask.
        p0, p1 = x0 * _MULTIPLIERS[0], x2 * _MULTIPLIERS[1]
        x0 = (p1 >> 32).bitwise_xor_(x1).bitwise_xor_(k0).bitwise_and_(_MASK)
        x2 = (p0 >> 32).bitwise_xor_(x3).bitwise_xor_(k1).bitwise_and_(_MASK)
        x1, x3 = p1, p0
    return torch.stack((x0, x1 & _MASK, x2, x3 & _MASK))


def _assemble(values: Tensor, batch: torch.Size, size: int, shape: Sequence[int]) -> Tensor:
    """(component in block, batch, block) -> (*batch, *shape), components in block order."""
    return values.permute(1, 2, 0).flatten(1)[:, :size].reshape((*batch, *shape))


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value.mul_(x).add_(c)
    return value


def _log(u: Tensor) -> Tensor:
    """ln u for u in (0, 1): exponent and the series 2 artanh z, z = (m-1)/(m+1)."""
    mantissa, exponent = torch.frexp(u)
    small = mantissa < math.sqrt(0.5)
    mantissa = torch.where(small, mantissa * 2, mantissa)
    exponent = (exponent - small.to(exponent.dtype)).to(u.dtype)
    z = (mantissa - 1) / (mantissa + 1)
    return _horner(_LOG_SERIES, z * z).mul_(z).add_(exponent * math.log(2.0))


def _box_muller(words: Tensor) -> Tensor:
    """Pairs of words -> pairs of standard normals, stacked in front."""
    radius_word, angle_word = words[0::2], words[1::2]
    radius = _log(radius_word.to(torch.float64).add_(0.5).mul_(2.0**-32)).mul_(-2).sqrt_()
    # The two top bits choose a quadrant, the rest an angle in (-pi/4, pi/4).
    fraction = (angle_word & 0x3FFFFFFF).to(torch.float64).add_(0.5).mul_(2.0**-30).sub_(0.5)
    angle = fraction.mul_(math.pi / 2)
    square = angle * angle
    sine = _horner(_SIN_SERIES, square).mul_(angle)
    cosine = _horner(_COS_SERIES, square)
    swap = (angle_word & (1 << 30)).bool()
    flip = radius * (1 - 2 * (angle_word >> 31)).to(torch.float64)
    first = torch.where(swap, -sine, cosine) * flip
    second = torch.where(swap, cosine, sine) * flip
    return torch.stack((first, second), dim=1).flatten(0, 1)


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

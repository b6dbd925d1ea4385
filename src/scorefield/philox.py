r"""Numbers from counters and a key: Philox-4x32-10, and what is made of its words.

Counters and words are 32-bit numbers held in int64. Words become numbers through IEEE-exact
operations only (additions, products, quotients, square roots, in float64). Library logarithms,
sines and square roots are avoided on purpose: their last bit may depend on the processor, or on
an element's position in a vector register, hence on the batch.

References:
    Parallel random numbers: as easy as 1, 2, 3 (Salmon, Moraes, Dror and Shaw, 2011), section 3.

    A note on the generation of random normal deviates (Box and Muller, 1958), equation 1.

    A floating-point technique for extending the available precision (Dekker, 1971), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Kind = Callable[[Tensor, torch.dtype], Tensor]
"""From words, of shape ``(4 or 2, *)``, to numbers, of shape ``(number in block, *)``."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_LOG_SERIES = tuple(2.0 / (2 * k + 1) for k in range(11))
_SIN_SERIES = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(8))
_COS_SERIES = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))


def philox(counter: Tensor, key: Sequence[int] | Tensor) -> Tensor:
    """The Philox-4x32-10 block cipher on 32-bit words held in int64: from counters of shape
    ``(4, *)`` and two words of a key to random words of that shape (Salmon et al., 2011,
    section 3.2).
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


def words(block: Tensor, steps: Tensor, index: Tensor, key: Sequence[int] | Tensor) -> Tensor:
    """Random words as (4, batch, block)."""
    counter = torch.broadcast_tensors(block, steps, index & _MASK, index >> 32)
    return philox(torch.stack(counter), key)


def in_blocks(
    kind: Kind,
    half: bool,
    block: Tensor,
    steps: Tensor,
    index: Tensor,
    key: Sequence[int] | Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """The numbers of a kind in blocks or their first halves, as (batch, number)."""
    found = words(block, steps, index, key)
    values = kind(found[:2] if half else found, dtype)
    return values.permute(1, 2, 0).flatten(1)


def normals(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normals, one a word."""
    return _box_muller(words).to(dtype)


def uniforms(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Uniforms in [0, 1), one of two words."""
    high, low = words[0::2] >> 5, words[1::2] >> 6
    values = ((high << 26) + low).to(torch.float64).add_(0.5).mul_(2.0**-53)
    return values.to(dtype).clamp_(max=1.0 - torch.finfo(dtype).eps / 2)


def signs(words: Tensor, dtype: torch.dtype) -> Tensor:
    """The signs -1 and +1, 32 a word."""
    shifts = torch.arange(32, device=words.device).view(32, 1, 1, 1)
    bits = (words.unsqueeze(0) >> shifts) & 1
    return bits.flatten(0, 1).to(dtype).mul_(2).sub_(1)


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value.mul_(x).add_(c)
    return value


def _log(u: Tensor) -> Tensor:
    """ln u for u in (0, 1): exponent and the series 2 artanh z, z = (m-1)/(m+1)."""
    # The parts of a float64: eleven bits of the exponent, 52 of the mantissa.
    bits = u.view(torch.int64)
    exponent = (bits >> 52) - 1022
    mantissa = (bits & (2**52 - 1) | (1022 << 52)).view(u.dtype)
    small = mantissa < math.sqrt(0.5)
    mantissa = torch.where(small, mantissa * 2, mantissa)
    exponent = exponent.to(u.dtype) - small.to(u.dtype)
    z = (mantissa - 1) / (mantissa + 1)
    return _horner(_LOG_SERIES, z * z).mul_(z).add_(exponent * math.log(2.0))


def _sqrt(x: Tensor) -> Tensor:
    """The square root, correctly rounded; of torch's, the last bit depends on the processor."""
    root = x.sqrt()
    # The error of the square of the root, exactly: the root in halves of 26 bits.
    high = root * (2.0**27 + 1)
    high = high - (high - root)
    low = root - high
    square = root * root
    error = (high * high).sub_(square).add_(2 * high * low).add_(low * low)
    return (x - square).sub_(error).div_(2 * root).add_(root)


def _box_muller(words: Tensor) -> Tensor:
    """Pairs of words -> pairs of standard normals, stacked in front."""
    radius_word, angle_word = words[0::2], words[1::2]
    square = _log(radius_word.to(torch.float64).add_(0.5).mul_(2.0**-32)).mul_(-2)
    radius = _sqrt(square)
    # The two top bits choose a quadrant, the rest an angle in (-pi/4, pi/4).
    fraction = (angle_word & 0x3FFFFFFF).to(torch.float64).add_(0.5).mul_(2.0**-30).sub_(0.5)
    angle = fraction.mul_(math.pi / 2)
    squared = angle * angle
    sine = _horner(_SIN_SERIES, squared).mul_(angle)
    cosine = _horner(_COS_SERIES, squared)
    swap = (angle_word & (1 << 30)).bool()
    flip = radius * (1 - 2 * (angle_word >> 31)).to(torch.float64)
    first = torch.where(swap, -sine, cosine) * flip
    second = torch.where(swap, cosine, sine) * flip
    return torch.stack((first, second), dim=1).flatten(0, 1)

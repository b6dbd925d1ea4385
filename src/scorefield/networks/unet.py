r"""A small U-Net for images of any size.

References:
    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), appendix B.

    Diffusion models beat GANs on image synthesis (Dhariwal and Nichol, 2021), section 3.

    Improving diffusion model efficiency through patching (Luhman and Luhman, 2022), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.checks import check_fraction
from scorefield.dropout import Dropout
from scorefield.engine import block
from scorefield.errors import UserError
from scorefield.networks.blocks import Normalization, Pointwise, attend
from scorefield.networks.checks import image_shape
from scorefield.networks.embedding import ClassEmbedding, LevelEmbedding, embedded
from scorefield.networks.initial import initialize
from scorefield.networks.network import Network

_SMALL = 1e-5


class ResidualBlock(nn.Module):
    r"""Two convolutions around a modulation by the noise level.

    .. math:: h = C_1\,\mathrm{SiLU}(N_1(x)), \qquad
        y = S x + C_2\,\mathrm{SiLU}((1 + a(c))\,N_2(h) + b(c)),

    with group normalisations :math:`N`, :math:`3 \times 3` convolutions :math:`C`, and
    :math:`S` the identity, or a :math:`1 \times 1` convolution where the channels change.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.first_norm = _norm(inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.level = nn.Linear(embedding, 2 * outputs)
        self.second_norm = _norm(outputs)
        self.dropout = Dropout(dropout)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.first(F.silu(self.first_norm(x)))
        scale, shift = self.level(level)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.second_norm(h) * (1 + scale) + shift)
        output: Tensor = self.skip(x) + self.second(self.dropout(h))
        return output


class Attention(nn.Module):
    r"""Self-attention between pixels, with one head for each 32 channels where 32 divides them.

    .. math:: y = x + O\,\mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{d}}\Big) V, \qquad
        (Q, K, V) = W N(x).

    :math:`W` has no bias: a constant in the keys changes no attention, so that its gradient
    would be zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // 32 if channels % 32 == 0 else 1
        self.norm = _norm(channels)
        self.qkv = Pointwise(channels, 3 * channels, bias=False)
        self.out = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        # -> (qkv, batch, head, pixel, channel of the head), whose channels come last in memory: so
        # fused attention wants them.
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)
        query, key, value = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(query, key, value).transpose(1, 2).flatten(2)
        output: Tensor = x + self.out(attended.transpose(1, 2).unflatten(2, x.shape[2:]))
        return output


class UNet(Network):
    r"""A U-Net of an image and a noise label.

    The image passes down through levels of halved resolution and up again, each level on the
    way up seeing what its counterpart on the way down had. Halving averages
    :math:`2 \times 2` pixels; doubling repeats them. A side of one pixel is left as it is: a signal
    of length :math:`L` is an image of shape :math:`(C, 1, L)`.

    With ``patch`` pixels a side, the first layer sees patches of :math:`p \times p` pixels as the
    channels of one, and the last returns them: all else has :math:`p^2` times fewer pixels.

    Every layer has second derivatives and forward mode, attention inside of
    :func:`~.differentiable` only.

    Arguments:
        shape: The event shape :math:`(C, H, W)`.
        channels: The width of the first level; other levels are wide by its multiples.
        multipliers: The width of each level in units of ``channels``; their number is the
            number of levels.
        blocks: The residual blocks of a level on the way down; one more on the way up.
        attention: The resolutions (the shorter side, in pixels) at which pixels attend to
            each other.
        dropout: The probability of dropout, in [0, 1).
        classes: The number of classes, if the network is to know them; the vector of a class is
            added to the embedded label.
        seed: The seed of the initial weights.
        patch: The side of a patch, which divides those of the image, but for sides of one pixel.

    Raises:
        ValueError: If a size is not positive, an image side cannot be halved often enough, or
            there is no level of a resolution in ``attention``.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 8, 8),
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        dropout: float = 0.0,
        classes: int | None = None,
        seed: int = 0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        image_shape(shape)
        if not multipliers or min(*multipliers, channels, blocks, patch) < 1:
            raise UserError(
                "a U-Net has positive channels, multipliers, blocks and patch, got "
                f"channels={channels}, multipliers={tuple(multipliers)}, blocks={blocks}, "
                f"patch={patch}"
            )
        check_fraction("dropout", dropout)
        # A side of one pixel, as of a signal, stays.
        self.patch = tuple(1 if side == 1 else patch for side in shape[1:])
        if any(side % p for side, p in zip(shape[1:], self.patch, strict=True)):
            raise UserError(f"a patch of {patch} pixels does not divide images of {shape[1:]}")
        sides = [side // p for side, p in zip(shape[1:], self.patch, strict=True)]
        deepest = 2 ** (len(multipliers) - 1)
        long = [side > 1 for side in shape[1:]]
        halved = [side if many else deepest for side, many in zip(sides, long, strict=True)]
        image_shape([shape[0], *halved], len(multipliers))
        self.event_shape = tuple(shape)
        self.halves = tuple(2 if many else 1 for many in long)
        shorter = min((side for side, many in zip(sides, long, strict=True) if many), default=1)
        planes = shape[0] * math.prod(self.patch)
        resolutions = [shorter // 2**k for k in range(len(multipliers))]
        if missing := sorted(set(attention) - set(resolutions)):
            raise UserError(
                f"attention is possible at the resolutions {resolutions}, got {missing[0]}"
            )
        widths = [channels * m for m in multipliers]
        embedding = 4 * channels
        self.classes = classes
        self.level = nn.Sequential(LevelEmbedding(64, embedding, embedding), nn.SiLU())
        self.class_embedding = None if classes is None else ClassEmbedding(classes, embedding)
        self.first = nn.Conv2d(planes, widths[0], 3, padding=1)

        width, skips = widths[0], [widths[0]]
        self.down = nn.ModuleList()
        for resolution, outputs in zip(resolutions, widths, strict=True):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(_Unit(width, outputs, embedding, dropout, resolution in attention))
                width = outputs
                skips.append(width)
            self.down.append(stage)
        self.middle = _Unit(width, width, embedding, dropout, resolutions[-1] in attention)
        self.up = nn.ModuleList()
        for resolution, outputs in zip(resolutions[::-1], widths[::-1], strict=True):
            stage = nn.ModuleList()
            for _ in range(blocks):
                inputs = width + skips.pop()
                stage.append(_Unit(inputs, outputs, embedding, dropout, resolution in attention))
                width = outputs
            self.up.append(stage)
        self.join = _Unit(width + skips.pop(), width, embedding, dropout, False)
        self.last_norm = _norm(width)
        self.last = nn.Conv2d(width, planes, 3, padding=1)
        initialize(self, seed)
        self._quieten()

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        label: Float[Tensor, " batch"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        embedding, activation = self.level
        level = activation(embedded(embedding(label), self.class_embedding, classes))
        h = self.first(_to_planes(x, self.patch))
        skips = [h]
        for k, stage in enumerate(self.down):
            if k:
                h = F.avg_pool2d(h, self.halves)
            for unit in cast(nn.ModuleList, stage):
                h = block(unit, h, level)
                skips.append(h)
        h = block(self.middle, h, level)
        for k, stage in enumerate(self.up):
            if k:
                h = F.interpolate(h, scale_factor=self.halves, mode="nearest")
            for unit in cast(nn.ModuleList, stage):
                h = block(unit, torch.cat((h, skips.pop()), dim=1), level)
        h = block(self.join, torch.cat((h, skips.pop()), dim=1), level)
        return _to_pixels(self.last(F.silu(self.last_norm(h))), self.patch)

    @torch.no_grad()
    def _quieten(self) -> None:
        """Starts every residual branch, and the output, at nearly zero.

        Nearly: at exactly zero, no gradient would reach the layers before.
        """
        quiet = [self.last]
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                quiet.append(module.second)
            elif isinstance(module, Attention):
                quiet.append(module.out)
        for layer in quiet:
            for parameter in layer.parameters():
                parameter.mul_(_SMALL)


class _Unit(nn.Module):
    """A residual block, optionally followed by attention."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, dropout: float, attention: bool
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, outputs, embedding, dropout)
        self.attention = Attention(outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h: Tensor = self.attention(self.block(x, level))
        return h


def _to_planes(x: Tensor, patch: tuple[int, ...]) -> Tensor:
    """The pixels of each patch as channels of one."""
    if max(patch) == 1:
        return x
    rows, columns = patch
    cut = x.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))
    return cut.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def _to_pixels(planes: Tensor, patch: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`_to_planes`."""
    if max(patch) == 1:
        return planes
    rows, columns = patch
    cut = planes.unflatten(1, (-1, rows, columns))
    return cut.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def _norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with groups of at least four channels, where they divide."""
    groups = math.gcd(channels, 32)
    while groups > 1 and channels // groups < 4:
        groups //= 2
    return Normalization(groups, channels)

r"""The layers of EDM's networks: changes of resolution, blocks, and waves of the label.

Attributes have the names of the published code, so that its state dicts fit.

References:
    Elucidating the design space of diffusion-based generative models (Karras, Aittala, Aila and
    Laine, 2022), published code, ``training/networks.py`` at commit 008a4e5.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.dropout import Dropout
from scorefield.networks.blocks import Normalization, attend

Change = Literal["up", "down"] | None


def halved(
    x: Float[Tensor, "batch channels height width"], kernel: Float[Tensor, "1 1 taps taps"]
) -> Float[Tensor, "batch channels rows columns"]:
    """Images of half the side: every second pixel of the filtered ones."""
    channels, border = x.shape[1], (kernel.shape[-1] - 1) // 2
    weight = kernel.expand(channels, -1, -1, -1)
    return F.conv2d(x, weight, stride=2, padding=border, groups=channels)


def doubled(
    x: Float[Tensor, "batch channels height width"], kernel: Float[Tensor, "1 1 taps taps"]
) -> Float[Tensor, "batch channels rows columns"]:
    """Images of twice the side: zeros between pixels, filtered."""
    channels, border = x.shape[1], (kernel.shape[-1] - 1) // 2
    weight = 4 * kernel.expand(channels, -1, -1, -1)
    return F.conv_transpose2d(x, weight, stride=2, padding=border, groups=channels)


class Convolution(nn.Module):
    """A change of resolution, then a convolution; either may be absent.

    Arguments:
        inputs: The channels of its input.
        outputs: The channels of its output.
        kernel: The side of the kernel; 0 for no convolution.
        change: Whether images are doubled or halved.
        taps: The number of taps of the filter, whose values are in the state dict.
        late: Whether images are halved after the convolution.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        change: Change = None,
        taps: int = 2,
        late: bool = False,
    ) -> None:
        super().__init__()
        self.change, self.late = change, late
        shape = (outputs, inputs, kernel, kernel)
        self.weight = nn.Parameter(torch.empty(shape)) if kernel else None
        self.bias = nn.Parameter(torch.empty(outputs)) if kernel else None
        if change is not None:
            self.register_buffer("resample_filter", torch.empty(1, 1, taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        if self.change == "up":
            x = doubled(x, self.resample_filter)
        elif self.change == "down" and not self.late:
            x = halved(x, self.resample_filter)
        if self.weight is None:
            return x
        border = self.weight.shape[-1] // 2
        if not self.late:
            return F.conv2d(x, self.weight, self.bias, padding=border)
        # The filter sees what the kernel makes of the zeros around the image, and no zeros itself.
        kernel, channels = self.resample_filter, len(self.weight)
        x = F.conv2d(x, self.weight, self.bias, padding=border + (kernel.shape[-1] - 1) // 2)
        return F.conv2d(x, kernel.expand(channels, -1, -1, -1), stride=2, groups=channels)


class Block(nn.Module):
    r"""Two convolutions with the condition between them, a shortcut, and attention.

    Arguments:
        inputs: The channels of its input.
        outputs: The channels of its output.
        condition: The width of the embedded noise level and class.
        change: Whether images are doubled or halved.
        heads: The heads of the attention; 0 for none.
        dropout: The probability of dropout.
        scale: The factor of sums of two branches.
        eps: The number that is added to variances.
        taps: The number of taps of the filter.
        project: Whether the shortcut of a change of resolution has weights.
        adaptive: Whether the condition scales and shifts, or is added.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        change: Change = None,
        heads: int = 0,
        dropout: float | int = 0.0,
        scale: float | int = 1.0,
        eps: float = 1e-5,
        taps: int = 2,
        project: bool = False,
        adaptive: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.scale, self.adaptive = heads, scale, adaptive
        self.norm0 = normalization(inputs, eps)
        self.conv0 = Convolution(inputs, outputs, 3, change, taps)
        self.affine = nn.Linear(condition, outputs * (2 if adaptive else 1))
        self.norm1 = normalization(outputs, eps)
        self.dropout = Dropout(float(dropout))
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip: nn.Module | None = None
        if inputs != outputs or change is not None:
            kernel = 1 if project or inputs != outputs else 0
            self.skip = Convolution(inputs, outputs, kernel, change, taps)
        if heads:
            self.norm2 = normalization(outputs, eps)
            self.qkv = nn.Conv2d(outputs, 3 * outputs, 1)
            self.proj = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        level = self.affine(condition)[:, :, None, None]
        if self.adaptive:
            scale, shift = level.chunk(2, dim=1)
            h = shift + self.norm1(h) * (scale + 1)
        else:
            h = self.norm1(h + level)
        h = self.conv1(self.dropout(F.silu(h)))
        x = (h + (x if self.skip is None else self.skip(x))) * self.scale
        if self.heads:
            x = (x + self.proj(self._attended(self.qkv(self.norm2(x))))) * self.scale
        return x

    def _attended(self, qkv: Tensor) -> Tensor:
        # -> (query or key or value, batch, head, pixel, channel)
        parts = qkv.flatten(2).unflatten(1, (self.heads, -1, 3)).permute(3, 0, 1, 4, 2)
        attended = attend(*parts.unbind(0)).transpose(2, 3)
        return attended.flatten(1, 2).unflatten(2, qkv.shape[2:])


def normalization(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Group normalisation of at least four channels a group."""
    return Normalization(min(32, channels // 4), channels, eps=eps)


class Waves(nn.Module):
    """Cosines and sines of a label: of geometrically falling frequencies, the last of which is
    :math:`10^{-4}` with ``endpoint``, or, with ``random`` ones, of those in the state dict.
    """

    freqs: Tensor

    def __init__(self, channels: int, endpoint: bool = False, random: bool = False) -> None:
        super().__init__()
        self.count, self.last, self.random = channels // 2, int(endpoint), random
        if random:
            self.register_buffer("freqs", torch.empty(self.count))

    def forward(self, label: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        if self.random:
            frequencies = 2 * math.pi * self.freqs
        else:
            place = torch.arange(self.count, dtype=label.dtype, device=label.device)
            frequencies = (1 / 10_000) ** (place / (self.count - self.last))
        phase = label[:, None] * frequencies
        return torch.cat((phase.cos(), phase.sin()), dim=1)

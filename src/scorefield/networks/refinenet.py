r"""The trunk of the noise conditional score networks: a dilated residual network on the way
down, and a refinement of its coarse results by its finer ones on the way up.

References:
    RefineNet: multi-path refinement networks for high-resolution semantic segmentation (Lin,
    Milan, Shen and Reid, 2017), section 3.

    Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
    appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.engine import block
from scorefield.errors import UserError
from scorefield.networks.checks import image_shape
from scorefield.networks.instance_norm import InstanceNormPlus
from scorefield.noise import Noise

Normalization = Callable[[int], nn.Module]
"""From a number of channels to a normalisation, called as ``norm(x, index)``."""
Pooling = Literal["max", "average"]

_SPREAD = 0.02


@dataclass(frozen=True)
class Stage:
    """Two residual blocks on the way down.

    Attributes:
        width: The channels of the output.
        halves: Whether the first block halves the sides of the image.
        dilation: The distance between the pixels that a convolution looks at.
    """

    width: int
    halves: bool = False
    dilation: int = 1


class ResidualBlock(nn.Module):
    r"""Two convolutions beside a shortcut.

    .. math:: y = S x + D\,C_2\,a(N_2\,C_1\,a(N_1 x)),

    with normalisations :math:`N`, dilated :math:`3 \times 3` convolutions :math:`C`, and
    :math:`D` the average over :math:`2 \times 2` pixels where the block halves. The shortcut
    :math:`S` is a convolution in the first block of a stage that halves (then
    :math:`1 \times 1`, and :math:`D`) or is dilated (then :math:`3 \times 3` and dilated too).

    A block that halves or changes the channels is the ``first`` of its stage.
    """

    def __init__(
        self, inputs: int, stage: Stage, first: bool, normalization: Normalization, act: nn.Module
    ) -> None:
        super().__init__()
        self.act = act
        self.halves = first and stage.halves
        self.first_norm = normalization(inputs)
        self.first = _conv(inputs, inputs, stage.dilation)
        self.second_norm = normalization(inputs)
        self.second = _conv(inputs, stage.width, stage.dilation)
        self.skip: nn.Module = nn.Identity()
        if self.halves:
            self.skip = nn.Conv2d(inputs, stage.width, 1)
        elif first and stage.dilation > 1:
            self.skip = _conv(inputs, stage.width, stage.dilation)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        h = self.first(self.act(self.first_norm(x, index)))
        h = self.second(self.act(self.second_norm(h, index)))
        if self.halves:
            # A 1 × 1 convolution and the average commute: the average goes first.
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        output: Tensor = self.skip(x) + h
        return output


class ConvolutionUnits(nn.Module):
    r"""Residual convolution units: each adds :math:`C\,a\,N\,C\,a\,N x` to :math:`x`."""

    def __init__(
        self, channels: int, units: int, normalization: Normalization, act: nn.Module
    ) -> None:
        super().__init__()
        self.act = act
        self.norms = nn.ModuleList(normalization(channels) for _ in range(2 * units))
        self.convs = nn.ModuleList(_conv(channels, channels, bias=False) for _ in range(2 * units))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        h = x
        for k, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            h = conv(self.act(norm(h, index)))
            if k % 2:
                x = h = x + h
        return x


class Fusion(nn.Module):
    """Multi-resolution fusion: the sum of all inputs, each normalised, convolved, and enlarged
    (bilinearly, corners on corners) to the size of the first.
    """

    def __init__(self, inputs: Sequence[int], outputs: int, normalization: Normalization) -> None:
        super().__init__()
        self.norms = nn.ModuleList(normalization(channels) for channels in inputs)
        self.convs = nn.ModuleList(_conv(channels, outputs) for channels in inputs)

    def forward(self, xs: Sequence[Tensor], index: Tensor) -> Tensor:
        size = xs[0].shape[2:]
        parts = []
        for x, norm, conv in zip(xs, self.norms, self.convs, strict=True):
            h = conv(norm(x, index))
            if h.shape[2:] != size:
                h = F.interpolate(h, size=size, mode="bilinear", align_corners=True)
            parts.append(h)
        return reduce(torch.add, parts)


class ChainedPooling(nn.Module):
    r"""Chained residual pooling: :math:`y = p_0 + p_1 + p_2` with :math:`p_0 = a(x)` and
    :math:`p_{k + 1} = C_k\,P\,N_k\,p_k`, where :math:`P` takes the maximum of
    :math:`5 \times 5` pixels, or their average (with zeros around the image).
    """

    def __init__(
        self, channels: int, pooling: Pooling, normalization: Normalization, act: nn.Module
    ) -> None:
        super().__init__()
        self.act = act
        pool = nn.MaxPool2d if pooling == "max" else nn.AvgPool2d
        self.pool = pool(5, stride=1, padding=2)
        self.norms = nn.ModuleList(normalization(channels) for _ in range(2))
        self.convs = nn.ModuleList(_conv(channels, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        x = path = self.act(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(self.pool(norm(path, index)))
            x = x + path
        return x


class Refinement(nn.Module):
    """A stage on the way up: convolution units on each input, their fusion, chained pooling,
    and further ``units``.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        outputs: int,
        units: int,
        pooling: Pooling,
        normalization: Normalization,
        act: nn.Module,
    ) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(ConvolutionUnits(n, 2, normalization, act) for n in inputs)
        if len(inputs) > 1:
            self.fusion = Fusion(inputs, outputs, normalization)
        self.pooling = ChainedPooling(outputs, pooling, normalization, act)
        self.units = ConvolutionUnits(outputs, units, normalization, act)

    def forward(self, xs: Sequence[Tensor], index: Tensor) -> Tensor:
        hs = [adapt(x, index) for adapt, x in zip(self.adapt, xs, strict=True)]
        h = self.fusion(hs, index) if len(hs) > 1 else hs[0]
        output: Tensor = self.units(self.pooling(h, index), index)
        return output


class RefineNet(nn.Module):
    """Stages down, the first of which keeps the channels and the size, and as many refinements up:
    features in, features of the same shape out.
    """

    def __init__(
        self,
        channels: int,
        stages: Sequence[Stage],
        pooling: Pooling,
        normalization: Normalization,
        refining: Normalization,
        act: nn.Module,
    ) -> None:
        super().__init__()
        self.down, width = nn.ModuleList(), channels
        for k, stage in enumerate(stages):
            first = ResidualBlock(width, stage, k > 0, normalization, act)
            second = ResidualBlock(stage.width, stage, False, normalization, act)
            self.down.append(nn.ModuleList((first, second)))
            width = stage.width
        self.up = nn.ModuleList()
        finer = [channels, *(stage.width for stage in stages[:-1])]
        coarser: list[int] = []
        for stage, outputs in zip(reversed(stages), reversed(finer), strict=True):
            units = 3 if len(self.up) == len(stages) - 1 else 1
            inputs = [stage.width, *coarser]
            self.up.append(Refinement(inputs, outputs, units, pooling, refining, act))
            coarser = [outputs]

    def forward(self, h: Tensor, index: Tensor) -> Tensor:
        skips = []
        for stage in self.down:
            for layer in stage:  # type: ignore[attr-defined]
                h = block(layer, h, index)
            skips.append(h)
        h = block(self.up[0], [skips.pop()], index)
        for refinement in self.up[1:]:
            h = block(refinement, [skips.pop(), h], index)
        return h


@torch.no_grad()
def initialize(network: nn.Module, seed: int) -> None:
    r"""Draws the weights of a noise conditional score network.

    With :math:`n` the number of inputs that an output of a convolution sums over, its weights
    and biases are uniform on :math:`\pm 1/\sqrt{n}`. Scales of normalisations are normal with
    mean 1 and standard deviation 0.02; shifts are zero. On the device ``meta`` nothing is drawn.
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    noise, one = Noise(seed), torch.arange(1, device="cpu")
    for name, layer in network.named_modules():
        for key, parameter in layer.named_parameters(recurse=False):
            purpose, shape = f"weights/{name}.{key}", tuple(parameter.shape)
            if isinstance(layer, nn.Conv2d):
                bound = 1 / math.sqrt(math.prod(layer.weight.shape[1:]))
                draws = noise.uniform(purpose, shape, one, dtype=torch.float64)
                parameter.copy_((2 * draws[0] - 1) * bound)
            else:
                parameter.copy_(1 + _SPREAD * noise.normal(purpose, shape, one)[0])
        if isinstance(layer, InstanceNormPlus):
            layer.shift.zero_()
        elif isinstance(layer, nn.Embedding):
            layer.weight.chunk(3, dim=1)[2].zero_()


def check_images(
    shape: Sequence[int], channels: int, halvings: int, name: str
) -> tuple[int, int, int]:
    """The shape of an image that can be halved often enough; raises ``ValueError`` otherwise."""
    factor = 2**halvings
    image_shape(shape, name=name)
    if channels != shape[0]:
        raise UserError(f"{name} must have {channels} channels, got the shape {tuple(shape)}")
    height, width = shape[1:]
    if height % factor or width % factor or height * width < 2 * factor**2:
        raise UserError(
            f"{name} must have sides that are multiples of {factor}, and more than {factor} x "
            f"{factor} pixels, got {height} x {width}"
        )
    return channels, height, width


def _conv(inputs: int, outputs: int, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """A 3 × 3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=bias)

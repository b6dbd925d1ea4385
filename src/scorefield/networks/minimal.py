r"""Networks of convolutions and rectifiers, as small as a U-Net and a ResNet can be.

References:
    U-Net: convolutional networks for biomedical image segmentation (Ronneberger, Fischer and Brox,
    2015), section 2.

    Deep residual learning for image recognition (He, Zhang, Ren and Sun, 2016), section 3.

    An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli, 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError
from scorefield.networks.initial import initialize
from scorefield.networks.minimal_parts import (
    LabelVector,
    MinimalBlock,
    MinimalLayer,
    Normalization,
    Padding,
    check,
    convolution,
    level_of,
    norm,
)

_SMALL = 1e-5


class MinimalUNet(nn.Module):
    r"""A U-Net without attention, residual branches or dropout.

    On the way down each block is followed by the maximum over :math:`2 \times 2` pixels; on the
    way up a transposed convolution doubles the sides and halves the channels, and a block sees its
    output after (in channels) what the same level had on the way down. Without normalisation it
    is a piecewise linear map of the image, whose Jacobian no layer smooths.

    Up to 32 channels, group normalisation normalises each channel on its own and so removes what
    is the same at all pixels: the biases before it, and with circular padding the label too.

    Arguments:
        shape: The event shape :math:`(C, H, W)`.
        fsizes: The channels of each level, the last being those at the bottom.
        padding: What lies outside the image: zeros, or the image again (``circular``).
        normalization: ``group`` for group normalisations of up to 32 groups behind the
            convolutions of the blocks, or none.
        embedding: The number of waves that the label is spread over.
        kernel_size: The side of the convolutions on the way down and at the bottom; it is 3 on the
            way up.
        last_kernel_size: The side of the last convolution.
        last_norm: Whether a group normalisation stands before the last convolution.
        classes: The number of classes, if the network is to know them.
        unlabelled: Whether it can be asked without a class; one vector more stands for none.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a size is not positive, a kernel has no middle, an image side cannot be
            halved often enough or is shorter than what is wrapped around it, or channels cannot be
            split into groups.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        fsizes: Sequence[int] = (32, 64, 128),
        padding: Padding = "zeros",
        normalization: Normalization | None = None,
        embedding: int = 256,
        kernel_size: int = 3,
        last_kernel_size: int = 1,
        last_norm: bool = False,
        classes: int | None = None,
        unlabelled: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        smallest = _smallest(shape, fsizes)
        check(shape, padding, normalization, (kernel_size, last_kernel_size), smallest)
        self.event_shape = tuple(shape)
        self.padding, self.classes, self.unlabelled = padding, classes, unlabelled
        self.label = LabelVector(embedding, classes, unlabelled)
        widths = (shape[0], *fsizes[:-1])
        self.down = nn.ModuleList(
            MinimalBlock(n, m, embedding, kernel_size, padding, normalization)
            for n, m in pairwise(widths)
        )
        self.bottom = MinimalBlock(
            widths[-1], fsizes[-1], embedding, kernel_size, padding, normalization
        )
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(m, n, 2, stride=2) for m, n in pairwise(fsizes[::-1])
        )
        self.up = nn.ModuleList(
            MinimalBlock(2 * n, n, embedding, 3, padding, normalization) for n in fsizes[-2::-1]
        )
        self.last_level = nn.Linear(embedding, fsizes[0])
        self.last_norm = norm(fsizes[0], min(32, fsizes[0]), "group" if last_norm else None)
        self.last = convolution(fsizes[0], shape[0], last_kernel_size, padding)
        initialize(self, seed)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        label: Float[Tensor, " batch"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        level = F.relu(self.label(label, classes))
        h, skips = x, []
        for block in self.down:
            h = block(h, level)
            skips.append(h)
            h = F.max_pool2d(h, 2)
        h = self.bottom(h, level)
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            h = block(torch.cat((skips.pop(), enlarge(h)), dim=1), level)
        h = h + self.last_level(level)[:, :, None, None]
        output: Tensor = self.last(self.last_norm(h))
        return output


class MinimalResNet(nn.Module):
    r"""Convolutions of one width, one after another, none of which changes the resolution.

    .. math:: h_0 = C_0 x, \qquad h_{\ell + 1} = h_\ell + \mathrm{ReLU}(N C_\ell (h_\ell + e_\ell)),
        \qquad y = C_L N (h_L + e_L),

    where :math:`e_\ell = \mathrm{ReLU}(G A_\ell e)` embeds the label, and :math:`G` normalises in 8
    groups. An output sees :math:`1 + (L + 1)(k - 1)` pixels along each side, and :math:`k' - 1`
    more through a last convolution of side :math:`k'`: it is local, and with circular padding
    equivariant. Images of any size fit.

    Arguments:
        shape: The event shape :math:`(C, H, W)`.
        channels: The width, and the number of waves that the label is spread over; a multiple of
            8, and at least 16.
        layers: The number :math:`L` of residual layers.
        padding: What lies outside the image: zeros, or the image again (``circular``).
        normalization: ``group`` for group normalisations :math:`N` of 8 groups behind the
            convolutions of the layers and before the last one, or none.
        kernel_size: The side :math:`k` of the convolutions but the last.
        last_kernel_size: The side :math:`k'` of the last.
        add_one: Whether the label is embedded once more, as :math:`e_L`; otherwise :math:`h_L` is
            doubled.
        classes: The number of classes, if the network is to know them.
        unlabelled: Whether it can be asked without a class; one vector more stands for none.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a size is not positive, a kernel has no middle, an image side is shorter
            than what is wrapped around it, or channels cannot be split into groups.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        channels: int = 128,
        layers: int = 6,
        padding: Padding = "zeros",
        normalization: Normalization | None = None,
        kernel_size: int = 3,
        last_kernel_size: int = 1,
        add_one: bool = True,
        classes: int | None = None,
        unlabelled: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(
                f"a ResNet takes images of shape (channels, height, width), got {shape}"
            )
        if channels < 16 or channels % 8:
            raise UserError(f"the channels must be a multiple of 8 from 16 on, got {channels}")
        if layers < 1:
            raise UserError(f"a ResNet has a positive number of layers, got {layers}")
        check(shape, padding, normalization, (kernel_size, last_kernel_size), min(shape[1:]))
        self.event_shape = tuple(shape)
        self.padding, self.classes, self.unlabelled = padding, classes, unlabelled
        self.label = LabelVector(channels, classes, unlabelled)
        self.first = convolution(shape[0], channels, kernel_size, padding)
        self.layers = nn.ModuleList(
            MinimalLayer(channels, kernel_size, padding, normalization) for _ in range(layers)
        )
        self.last_level = level_of(channels) if add_one else None
        self.last_norm = norm(channels, 8, normalization)
        self.last = convolution(channels, shape[0], last_kernel_size, padding)
        initialize(self, seed)
        # The features grow with every layer; from nearly zero, the output is soon the right one.
        with torch.no_grad():
            for parameter in self.last.parameters():
                parameter.mul_(_SMALL)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        label: Float[Tensor, " batch"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        level = self.label(label, classes)
        h = self.first(x)
        for layer in self.layers:
            h = layer(h, level)
        h = h + (h if self.last_level is None else self.last_level(level)[:, :, None, None])
        output: Tensor = self.last(self.last_norm(h))
        return output


def _smallest(shape: Sequence[int], fsizes: Sequence[int]) -> int:
    """The shortest side at the lowest level of a U-Net."""
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"a U-Net takes images of shape (channels, height, width), got {shape}")
    if not fsizes or min(fsizes) < 1:
        raise UserError(f"a U-Net has a positive number of channels a level, got {list(fsizes)}")
    factor = 2 ** (len(fsizes) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise UserError(
            f"a U-Net of {len(fsizes)} levels fits images whose sides are multiples of {factor}, "
            f"got {shape[1]} x {shape[2]}"
        )
    return min(shape[1:]) // factor

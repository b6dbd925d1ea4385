r"""Networks of convolutions and rectifiers, as small as a U-Net and a ResNet can be.

None has a batch normalisation: with it the value at a point would depend on the batch that the
point is in, so that there were no field, and averaged weights would meet the statistics of others.

References:
    U-Net: convolutional networks for biomedical image segmentation (Ronneberger, Fischer and Brox,
    2015), section 2.

    Deep residual learning for image recognition (He, Zhang, Ren and Sun, 2016), section 3.

    An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli, 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.engine import block
from scorefield.errors import UserError
from scorefield.networks import blocks
from scorefield.networks.checks import check_sizes, image_shape
from scorefield.networks.embedding import (
    ClassEmbedding,
    check_even,
    embedded,
    positional_features,
)
from scorefield.networks.initial import initialize
from scorefield.networks.network import Network

Padding = Literal["zeros", "circular"]
Normalization = Literal["group"]

_SMALL = 1e-5


class MinimalUNet(Network):
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
        unlabelled: Whether it can be called without a class; one vector more stands for none.
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
        if not fsizes or min(fsizes) < 1:
            raise UserError(
                f"a U-Net has a positive number of channels a level, got {list(fsizes)}"
            )
        self.event_shape = image_shape(shape, len(fsizes))
        smallest = min(shape[1:]) // 2 ** (len(fsizes) - 1)
        _check(shape, padding, normalization, (kernel_size, last_kernel_size), smallest)
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
        self.last_norm = _norm(fsizes[0], min(32, fsizes[0]), "group" if last_norm else None)
        self.last = _convolution(fsizes[0], shape[0], last_kernel_size, padding)
        initialize(self, seed)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        label: Float[Tensor, " batch"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        level = F.relu(self.label(label, classes))
        h, skips = x, []
        for layer in self.down:
            h = block(layer, h, level)
            skips.append(h)
            h = F.max_pool2d(h, 2)
        h = block(self.bottom, h, level)
        for enlarge, layer in zip(self.enlarge, self.up, strict=True):
            h = block(layer, torch.cat((skips.pop(), enlarge(h)), dim=1), level)
        h = h + self.last_level(level)[:, :, None, None]
        output: Tensor = self.last(self.last_norm(h))
        return output


class MinimalResNet(Network):
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
        classes: As of :class:`MinimalUNet`, like ``unlabelled`` and ``seed``.

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
        self.event_shape = image_shape(shape)
        if channels < 16 or channels % 8:
            raise UserError(f"the channels must be a multiple of 8 from 16 on, got {channels}")
        check_sizes("a ResNet", layers=layers)
        _check(shape, padding, normalization, (kernel_size, last_kernel_size), min(shape[1:]))
        self.padding, self.classes, self.unlabelled = padding, classes, unlabelled
        self.label = LabelVector(channels, classes, unlabelled)
        self.first = _convolution(shape[0], channels, kernel_size, padding)
        self.layers = nn.ModuleList(
            MinimalLayer(channels, kernel_size, padding, normalization) for _ in range(layers)
        )
        self.last_level = _level_of(channels) if add_one else None
        self.last_norm = _norm(channels, 8, normalization)
        self.last = _convolution(channels, shape[0], last_kernel_size, padding)
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
            h = block(layer, h, level)
        h = h + (h if self.last_level is None else self.last_level(level)[:, :, None, None])
        output: Tensor = self.last(self.last_norm(h))
        return output


class LabelVector(nn.Module):
    """The :func:`~.positional_features` of a label, as it is given,
    plus the vector of the class.
    """

    def __init__(self, features: int, classes: int | None = None, unlabelled: bool = True) -> None:
        super().__init__()
        check_even(features)
        self.features = features
        self.classes = None if classes is None else ClassEmbedding(classes, features, unlabelled)

    def forward(
        self, label: Float[Tensor, " batch"], classes: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch features"]:
        waves = positional_features(label, self.features).to(label.dtype)
        return embedded(waves, self.classes, classes)


class MinimalBlock(nn.Module):
    r"""Two convolutions of an image that is first shifted by the embedded label.

    .. math:: h = x + A\,\mathrm{ReLU}(e), \qquad
        y = \mathrm{ReLU}(N_2 C_2\,\mathrm{ReLU}(N_1 C_1 h)),

    with convolutions :math:`C` and normalisations :math:`N` of up to 32 groups, if any.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        kernel: int,
        padding: Padding,
        normalization: Normalization | None,
    ) -> None:
        super().__init__()
        groups = min(32, outputs)
        self.level = nn.Linear(embedding, inputs)
        self.first = _convolution(inputs, outputs, kernel, padding)
        self.first_norm = _norm(outputs, groups, normalization)
        self.second = _convolution(outputs, outputs, kernel, padding)
        self.second_norm = _norm(outputs, groups, normalization)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = x + self.level(level)[:, :, None, None]
        h = F.relu(self.first_norm(self.first(h)), inplace=True)
        return F.relu(self.second_norm(self.second(h)), inplace=True)


class MinimalLayer(nn.Module):
    r"""One convolution around which the features go on unchanged.

    .. math:: y = h + \mathrm{ReLU}(N C (h + e_\ell)), \qquad
        e_\ell = \mathrm{ReLU}(G A e),

    with a convolution :math:`C`, a normalisation :math:`N`, if any, and a group normalisation
    :math:`G`, both of 8 groups.
    """

    def __init__(
        self, channels: int, kernel: int, padding: Padding, normalization: Normalization | None
    ) -> None:
        super().__init__()
        self.level = _level_of(channels)
        self.convolution = _convolution(channels, channels, kernel, padding)
        self.norm = _norm(channels, 8, normalization)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        shifted = h + self.level(level)[:, :, None, None]
        return h + F.relu(self.norm(self.convolution(shifted)), inplace=True)


def _level_of(channels: int) -> nn.Sequential:
    r"""The map :math:`e \mapsto \mathrm{ReLU}(G A e)` of :class:`MinimalLayer`."""
    return nn.Sequential(nn.Linear(channels, channels), nn.GroupNorm(8, channels), nn.ReLU())


def _convolution(inputs: int, outputs: int, kernel: int, padding: Padding) -> nn.Conv2d:
    """A convolution that keeps the sides of an image."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode=padding)


def _norm(channels: int, groups: int, normalization: Normalization | None) -> nn.Module:
    """A normalisation, or the identity."""
    if normalization is None:
        return nn.Identity()
    if channels % groups:
        raise UserError(f"{channels} channels cannot be normalised in {groups} groups")
    return blocks.Normalization(groups, channels)


def _check(
    shape: Sequence[int],
    padding: Padding,
    normalization: Normalization | None,
    kernels: tuple[int, int],
    smallest: int,
) -> None:
    """Check the settings of a network whose first convolutions see sides of ``smallest`` pixels."""
    if padding not in get_args(Padding):
        raise UserError(f"a minimal network pads with zeros or circular, not {padding!r}")
    if normalization not in (None, *get_args(Normalization)):
        raise UserError(
            f"a minimal network normalises by group or not at all, not {normalization!r}"
        )
    if any(k < 1 or k % 2 == 0 for k in kernels):
        raise UserError(f"kernels have an odd number of pixels a side, got {list(kernels)}")
    for kernel, side in ((kernels[0], smallest), (kernels[1], min(shape[1:]))):
        if padding == "circular" and kernel // 2 > side:
            raise UserError(
                f"circular padding of {kernel // 2} pixels needs sides as long, of images of "
                f"{shape[1]} x {shape[2]} the network sees one of {side}"
            )

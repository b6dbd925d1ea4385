r"""A plain U-Net of convolutions and rectifiers, as small as a U-Net can be.

References:
    U-Net: convolutional networks for biomedical image segmentation (Ronneberger, Fischer and Brox,
    2015), section 2.

    An analytic theory of creativity in convolutional diffusion models (Kamb and Ganguli, 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.networks.initial import initialize

Padding = Literal["zeros", "circular"]
Normalization = Literal["group"]


class LabelWaves(nn.Module):
    r"""Sines and cosines of a label, of wave lengths from :math:`2\pi` to :math:`2\pi \cdot 10^4`.

    .. math:: e_j = \sin(\omega_j c), \qquad e_{d + j} = \cos(\omega_j c), \qquad
        \omega_j = 10^{-4 j / (d - 1)}, \qquad j = 0 \dots d - 1.

    The argument is the label as given; nothing scales it.

    Arguments:
        features: The number :math:`2d` of features, even and at least 4.
    """

    frequencies: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        exponents = torch.linspace(0, -4, features // 2, dtype=torch.float64)
        # Derived, so it is not part of the weights; float64, so that a float64 network sees it
        # to all digits.
        self.register_buffer("frequencies", 10.0**exponents, persistent=False)

    def forward(self, label: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        phase = label[:, None] * self.frequencies.to(label.dtype)
        return torch.cat((phase.sin(), phase.cos()), dim=1)


class MinimalBlock(nn.Module):
    r"""Two convolutions of an image that is first shifted by the embedded label.

    .. math:: h = x + A\,\mathrm{ReLU}(e), \qquad
        y = \mathrm{ReLU}(N_2 C_2\,\mathrm{ReLU}(N_1 C_1 h)),

    with convolutions :math:`C` and normalisations :math:`N`, where there are any.

    Arguments:
        inputs: The channels of :math:`x`.
        outputs: The channels of :math:`y`.
        embedding: The width of the embedding :math:`e`.
        kernel: The side of the convolutions, in pixels.
        padding: What lies outside the image.
        normalization: The kind of the normalisations.
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
        self.level = nn.Linear(embedding, inputs)
        self.first = _convolution(inputs, outputs, kernel, padding)
        self.first_norm = _norm(outputs, normalization)
        self.second = _convolution(outputs, outputs, kernel, padding)
        self.second_norm = _norm(outputs, normalization)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = x + self.level(level)[:, :, None, None]
        h = F.relu(self.first_norm(self.first(h)))
        return F.relu(self.second_norm(self.second(h)))


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
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(shape, fsizes, padding, normalization, embedding, (kernel_size, last_kernel_size))
        self.event_shape = tuple(shape)
        self.waves = LabelWaves(embedding)
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
        self.last_norm = _norm(fsizes[0], "group" if last_norm else None)
        self.last = _convolution(fsizes[0], shape[0], last_kernel_size, padding)
        initialize(self, seed)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], label: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        level = F.relu(self.waves(label))
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


def _convolution(inputs: int, outputs: int, kernel: int, padding: Padding) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode=padding)


def _norm(channels: int, normalization: Normalization | None) -> nn.Module:
    if normalization is None:
        return nn.Identity()
    groups = min(32, channels)
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be normalised in {groups} groups")
    return nn.GroupNorm(groups, channels)


def _check(
    shape: Sequence[int],
    fsizes: Sequence[int],
    padding: Padding,
    normalization: Normalization | None,
    embedding: int,
    kernels: tuple[int, int],
) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"a U-Net takes images of shape (channels, height, width), got {shape}")
    if not fsizes or min(fsizes) < 1:
        raise ValueError(f"a U-Net has a positive number of channels a level, got {list(fsizes)}")
    if padding not in get_args(Padding):
        raise ValueError(f"a minimal U-Net pads with zeros or circular, not {padding!r}")
    if normalization not in (None, *get_args(Normalization)):
        raise ValueError(
            f"a minimal U-Net normalises by group or not at all, not {normalization!r}"
        )
    if embedding < 4 or embedding % 2:
        raise ValueError(f"an embedding has an even number >= 4 of features, got {embedding}")
    if any(k < 1 or k % 2 == 0 for k in kernels):
        raise ValueError(f"kernels have an odd number of pixels a side, got {list(kernels)}")
    factor = 2 ** (len(fsizes) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise ValueError(
            f"a U-Net of {len(fsizes)} levels fits images whose sides are multiples of {factor}, "
            f"got {shape[1]} x {shape[2]}"
        )
    smallest = min(shape[1:]) // factor
    if padding == "circular" and max(kernels[0] // 2, 1) > smallest:
        raise ValueError(
            f"circular padding of {kernels[0] // 2} pixels needs a side as long, the lowest level "
            f"of {shape[1]} x {shape[2]} has {smallest}"
        )

r"""Halving and doubling the sides of images.

With a kernel :math:`k`, an image is filtered before every second pixel is kept, or after zeros
have been put between its pixels; without one, pixels are averaged or repeated. Filters run as
one depthwise convolution, transposed for doubling, so that they have derivatives of every order
and need no compiled extension.

References:
    Making convolutional networks shift-invariant again (Zhang, 2019), section 3.

    Analyzing and improving the image quality of StyleGAN (Karras et al., 2020), appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError


def normalized(kernel: Sequence[float | int]) -> Float[Tensor, "rows columns"]:
    r"""The kernel :math:`k k^\top / (\sum_i k_i)^2` of an image, from the taps :math:`k` of a row;
    raises ``ValueError`` if their sum is zero.
    """
    total = sum(kernel)
    if total == 0:
        raise UserError(f"fir_kernel needs weights with a sum that is not zero, got {kernel}")
    row = torch.tensor([tap / total for tap in kernel], dtype=torch.float64)
    return torch.outer(row, row).float()


def resample(
    x: Float[Tensor, "batch channels height width"],
    kernel: Float[Tensor, "rows columns"],
    up: tuple[int, int] = (1, 1),
    down: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Float[Tensor, "batch channels rows_out columns_out"]:
    r"""Puts zeros between pixels, pads, filters, and keeps every few pixels.

    .. math:: y_n = \sum_m u_m\, k_{n d + K - 1 - p - m}, \qquad u_{m r} = x_m,
        \quad u = 0 \text{ elsewhere},

    along each axis, with :math:`K` taps, where :math:`r` is ``up``, :math:`d` is ``down`` and
    :math:`p` the leading padding. ``padding`` counts the zeros at the top, bottom, left and right;
    negative ones cut off.
    """
    channels, (rows, columns) = x.shape[1], kernel.shape
    kernel = kernel.to(x.dtype)
    top, bottom, left, right = padding
    if up == (1, 1):
        weight = kernel.flip(0, 1).expand(channels, 1, rows, columns)
        if top == bottom >= 0 and left == right >= 0:
            return F.conv2d(x, weight, stride=down, padding=(top, left), groups=channels)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, weight, stride=down, groups=channels)
    # The transposed convolution has all that the filter makes of the pixels; what of it lies
    # beyond the padding is cut off, as much as possible before it is computed.
    full = (rows - 1, rows - up[0], columns - 1, columns - up[1])
    cut = [have - want for have, want in zip(full, padding, strict=True)]
    inner = (max(0, min(cut[:2])), max(0, min(cut[2:])))
    weight = kernel.expand(channels, 1, rows, columns)
    y = F.conv_transpose2d(x, weight, stride=up, padding=inner, groups=channels)
    rest = (inner[1] - cut[2], inner[1] - cut[3], inner[0] - cut[0], inner[0] - cut[1])
    if any(rest):
        y = F.pad(y, rest)
    return y if down == (1, 1) else y[:, :, :: down[0], :: down[1]]


class _Filtered(nn.Module):
    """What changes the resolution of images, with the taps of a filter or none."""

    kernel: Tensor
    scale = 1

    def __init__(self, kernel: Sequence[float | int] | None = None) -> None:
        super().__init__()
        taps = None if kernel is None else self.scale * normalized(kernel)
        self.register_buffer("kernel", taps, persistent=False)


class Halve(_Filtered):
    r"""Images of half the side; without a filter, :math:`2 \times 2` pixels are averaged."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel is None:
            return F.avg_pool2d(x, 2)
        spare = self.kernel.shape[0] - 2
        pad = ((spare + 1) // 2, spare // 2)
        return resample(x, self.kernel, down=(2, 2), padding=pad + pad)


class Double(_Filtered):
    """Images of twice the side; without a filter, pixels are repeated."""

    # Three in four pixels that are filtered are zeros.
    scale = 4

    def forward(self, x: Tensor) -> Tensor:
        return self.padded(x, 0)

    def padded(self, x: Tensor, border: int) -> Tensor:
        """The images with a border of what the filter makes of the zeros around them."""
        if self.kernel is None:
            return F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (border,) * 4)
        spare = self.kernel.shape[0] - 2
        pad = ((spare + 1) // 2 + 1 + border, spare // 2 + border)
        return resample(x, self.kernel, up=(2, 2), padding=pad + pad)


class HalvingConv(nn.Conv2d):
    r"""A :math:`3 \times 3` convolution to images of half the side.

    With a filter, images are filtered, and the convolution takes strides of two; without, it
    takes strides of two over images that have a row and a column of zeros at their end.
    """

    kernel: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: Sequence[float | int] | None = None
    ) -> None:
        super().__init__(inputs, outputs, 3, stride=2)
        taps = None if kernel is None else normalized(kernel)
        self.register_buffer("kernel", taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel is None:
            return super().forward(F.pad(x, (0, 1, 0, 1)))
        pad = (self.kernel.shape[0] + 1) // 2, self.kernel.shape[0] // 2
        return super().forward(resample(x, self.kernel, padding=pad + pad))


class DoublingConv(nn.Conv2d):
    r"""A :math:`3 \times 3` convolution of images of twice the side.

    The convolution sees, beyond the images' border, what the filter makes of the zeros there;
    without a filter it sees zeros.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: Sequence[float | int] | None = None
    ) -> None:
        super().__init__(inputs, outputs, 3)
        self.grow = Double(kernel)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.grow.padded(x, 1))

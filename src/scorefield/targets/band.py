r"""Derivatives of a posterior mean over windows.

The derivative of the posterior mean of a pixel by its window is a covariance,

.. math:: \frac{\partial \hat x_c(p)}{\partial x_{c'}(p + o)}
    = \frac{\alpha}{\sigma^2}\,\mathrm{Cov}_w\big[y_c,\ Y_{c'}(o)\big],

and zero outside: the Jacobian is banded, and given by the window's second moments.

References:
    Tweedie's formula and selection bias (Efron, 2011), equation 2.8, for the posterior covariance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from scorefield.targets.windows import Padding, padded

Moments = Callable[[Tensor, bool], tuple[Tensor, Tensor]]
"""Posterior means of images and, if requested, the bands of their Jacobians."""


def differentiable_mean(
    moments: Moments, x: Float[Tensor, "batch channels height width"], padding: Padding
) -> Float[Tensor, "batch channels height width"]:
    """The posterior means, with a derivative where one is recorded."""
    recorded = torch.is_grad_enabled() and x.requires_grad
    if recorded or forward_ad.unpack_dual(x).tangent is not None:
        mean, _ = _Mean.apply(x, moments, padding)  # type: ignore[no-untyped-call]
    else:
        mean, _ = moments(x, False)
    return mean


def dense(
    band: Float[Tensor, "batch height width channels dim"], padding: Padding
) -> Float[Tensor, "batch _ _"]:
    """The whole matrix of a band, over the coordinates of flattened images."""
    batch, height, width, channels, _ = band.shape
    size = _side(band)
    offset = torch.arange(size, device=band.device) - size // 2
    row = torch.arange(height, device=band.device)[:, None, None, None] + offset[:, None]
    column = torch.arange(width, device=band.device)[None, :, None, None] + offset
    if padding == "zeros":
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    else:
        row, column = row % height, column % width
        inside = torch.ones(1, dtype=torch.bool, device=band.device)
    seen, inside = torch.broadcast_tensors(row * width + column, inside)
    place, offsets = inside.reshape(height * width, size**2).nonzero(as_tuple=True)
    seen = seen.reshape(height * width, size**2)[place, offsets]
    entries = band.reshape(batch, height * width, channels, channels, size**2)
    whole = band.new_zeros(batch, channels, height * width, channels, height * width)
    whole.permute(2, 4, 0, 1, 3)[place, seen] = entries.permute(1, 4, 0, 2, 3)[place, offsets]
    return whole.reshape(batch, channels * height * width, channels * height * width)


class _Mean(torch.autograd.Function):
    """Posterior means, with the products of their Jacobians and its transpose."""

    @staticmethod
    def forward(x: Tensor, moments: Moments, padding: Padding) -> tuple[Tensor, Tensor]:
        return moments(x, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        band = output[1]
        ctx.padding = inputs[2]
        ctx.mark_non_differentiable(band)
        ctx.save_for_backward(band, inputs[0])
        ctx.save_for_forward(band)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        band, x = ctx.saved_tensors
        product = _transposed(band, grads[0], ctx.padding)
        once = _Once.apply(forward_ad.unpack_dual(x).primal)  # type: ignore[no-untyped-call]
        return product + once, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None]:
        (band,) = ctx.saved_tensors
        return _product(band, tangents[0], ctx.padding), None


class _Once(torch.autograd.Function):
    """Zero, of points that what it is added to depends on, but has no derivative by."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise RuntimeError("a score of patches can be differentiated once, not twice")


def _product(band: Tensor, v: Tensor, padding: Padding) -> Tensor:
    """The band times images."""
    size = _side(band)
    columns = F.unfold(padded(v.to(band.dtype), size // 2, padding), size)
    columns = columns.unflatten(2, v.shape[2:])
    return torch.einsum("bhwcd,bdhw->bchw", band, columns).to(v.dtype)


def _transposed(band: Tensor, v: Tensor, padding: Padding) -> Tensor:
    """The band's transpose times images."""
    reach = _side(band) // 2
    height, width = v.shape[2:]
    columns = torch.einsum("bhwcd,bchw->bdhw", band, v.to(band.dtype)).flatten(2)
    image = F.fold(columns, (height + 2 * reach, width + 2 * reach), 2 * reach + 1)
    if padding != "zeros":
        for axis, length in ((2, height), (3, width)):
            before = image.narrow(axis, 0, reach)
            image.narrow(axis, length, reach).add_(before)
            behind = image.narrow(axis, length + reach, reach)
            image.narrow(axis, reach, reach).add_(behind)
    return image[:, :, reach : reach + height, reach : reach + width].to(v.dtype)


def _side(band: Tensor) -> int:
    return round((band.shape[4] // band.shape[3]) ** 0.5)

r"""The nonlinearities, residual blocks and attention of the score networks.

References:
    Score-based generative modeling through stochastic differential equations (Song et al.,
    2021), appendix H.1.

    Large scale GAN training for high fidelity natural image synthesis (Brock, Donahue and
    Simonyan, 2019), appendix B.2.

    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), appendix B.

    Self-attention does not need O(n²) memory (Rabe and Staats, 2021), section 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.dropout import Dropout
from scorefield.errors import UserError
from scorefield.fields.gradient import is_differentiable
from scorefield.networks.linear import RowLinear, linear
from scorefield.networks.resampling import Double, Halve

# Up to which a product of matrices was not slower than a convolution, at 256 and 512 channels.
_FEW_PIXELS = 128

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "lrelu": lambda: nn.LeakyReLU(0.2),
    "swish": nn.SiLU,
}


def activation(name: str) -> nn.Module:
    """The nonlinearity of a name; raises ``ValueError`` if there is none."""
    if name not in _ACTIVATIONS:
        raise UserError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]()


@dataclass(frozen=True)
class Style:
    r"""What all blocks of a network have in common.

    Arguments:
        act: The nonlinearity.
        condition: The width of the vector that says the noise level and the class; none where
            there is neither.
        dropout: The probability with which a value is dropped before a block's last layer.
        rescale: Whether a sum of two branches is divided by :math:`\sqrt 2`.
        groups: The number of groups of a group normalisation; by default, a quarter of the
            channels, and at most 32.
    """

    act: nn.Module
    condition: int | None
    dropout: float
    rescale: bool
    groups: int | None = None

    def norm(self, channels: int) -> nn.GroupNorm:
        """The group normalisation of channels; raises ``ValueError`` if none divides them."""
        groups = min(channels // 4, 32) if self.groups is None else self.groups
        if groups == 0 or channels % groups:
            raise UserError(
                f"channels: a layer of {channels} channels cannot be normalised in "
                f"{groups} equal groups"
            )
        return Normalization(groups, channels, eps=1e-6)


def merged(x: Tensor, h: Tensor, rescale: bool) -> Tensor:
    r"""The sum of two branches, divided by :math:`\sqrt 2` to keep its variance, or not.

    ``h`` is fresh from a linear map; without gradients, the sum takes its memory.
    """
    total = x + h if torch.is_grad_enabled() else h.add_(x)
    return total.mul_(math.sqrt(0.5)) if rescale else total


def activated(act: nn.Module, h: Tensor) -> Tensor:
    """The nonlinearity of a fresh ``h``; without gradients, in its memory."""
    if isinstance(act, nn.SiLU) and not torch.is_grad_enabled():
        return F.silu(h, inplace=True)
    return act(h)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of queries to keys, of shape ``(..., pixels, channels)``; inside of
    :func:`~.differentiable` by plain operations.

    PyTorch's softmax there overwrites what a gradient of its forward mode needs.
    """
    if not is_differentiable():
        return F.scaled_dot_product_attention(query, key, value)
    logits = query @ key.mT / math.sqrt(query.shape[-1])
    weights = (logits - logits.amax(dim=-1, keepdim=True).detach()).exp()
    return (weights / weights.sum(dim=-1, keepdim=True)) @ value


class Normalization(nn.GroupNorm):
    """Group normalisation, with forward mode inside of
    :func:`~.differentiable`.

    PyTorch's own has none where channels come last in memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous() if is_differentiable() else x)


def _few_pixels(x: Tensor) -> bool:
    """Whether a processor sees so few pixels that a product is faster than a convolution.

    Never while a graph is compiled, which is one for batches of all sizes.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return x.shape[0] * x.shape[2] * x.shape[3] <= _FEW_PIXELS


class Convolution(nn.Conv2d):
    r"""A :math:`3 \times 3` convolution that keeps the size of an image.

    Where a processor sees few pixels, it is computed as one product of matrices: a convolution
    there takes most of its time, above all its derivatives, to rearrange the weights.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if not _few_pixels(x):
            return super().forward(x)
        height, width = x.shape[2:]
        bordered = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        patches = [bordered[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
        rows = torch.cat(patches, dim=-1)
        y = F.linear(rows, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)
        return y.permute(0, 3, 1, 2)


class Pointwise(nn.Conv2d):
    r"""A :math:`1 \times 1` convolution, as a product of matrices."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return y.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    r"""Two convolutions, the noise level between them, and a shortcut.

    .. math:: h = C_1\,R\,\varphi(N_1(x)) + L c, \qquad
        y = S R x + C_2\,\varphi(N_2(h)),

    with group normalisations :math:`N`, :math:`3 \times 3` convolutions :math:`C`, the
    nonlinearity :math:`\varphi`, the embedded noise level :math:`c`, a change :math:`R` of the
    resolution, and :math:`S` the identity, or a :math:`1 \times 1` convolution where channels or
    resolution change; divided by :math:`\sqrt 2` if the style says so.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: Style,
        resampling: Halve | Double | None = None,
    ) -> None:
        super().__init__()
        self.act, self.rescale = style.act, style.rescale
        self.first_norm = style.norm(inputs)
        self.resampling = resampling
        self.first = Convolution(inputs, outputs)
        self.level = None if style.condition is None else nn.Linear(style.condition, outputs)
        self.second_norm = style.norm(outputs)
        self.dropout = Dropout(style.dropout)
        self.second = Convolution(outputs, outputs)
        changed = inputs != outputs or resampling is not None
        self.shortcut = Pointwise(inputs, outputs) if changed else None

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = activated(self.act, self.first_norm(x))
        if self.resampling is not None:
            h, x = self.resampling(h), self.resampling(x)
        h = self.first(h)
        if self.level is not None:
            h = h + self.level(condition)[:, :, None, None]
        h = self.second(self.dropout(activated(self.act, self.second_norm(h))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        return merged(x, h, self.rescale)


class PixelAttention(nn.Module):
    r"""Self-attention between pixels, with one head of all :math:`C` channels.

    .. math:: y = x + O\,\mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{C}}\Big) V, \qquad
        Q = W_Q N(x), \quad K = W_K N(x), \quad V = W_V N(x),

    with a group normalisation :math:`N`; divided by :math:`\sqrt 2` if the style says so.
    Memory grows with the number of pixels and not with its square, except with the
    mathematical backend of ``scaled_dot_product_attention``, which alone has second
    derivatives and forward mode.
    """

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.rescale = style.rescale
        self.norm = style.norm(channels)
        self.query = RowLinear(channels, channels)
        self.key = RowLinear(channels, channels)
        self.value = RowLinear(channels, channels)
        self.out = RowLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        # -> (batch, head, pixel, channel)
        h = self.norm(x).flatten(2).transpose(1, 2).unsqueeze(1)
        h = attend(self.query(h), self.key(h), self.value(h))
        h = self.out(h).squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return merged(x, h, self.rescale)


class Combine(nn.Module):
    r"""An image, after a :math:`1 \times 1` convolution to the width of features, added to them
    or put before them.
    """

    def __init__(self, inputs: int, outputs: int, combine: Literal["sum", "cat"]) -> None:
        super().__init__()
        self.cat = combine == "cat"
        self.convolution = Pointwise(inputs, outputs)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        h = self.convolution(image)
        return torch.cat((h, features), dim=1) if self.cat else h + features

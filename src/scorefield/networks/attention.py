r"""Attention between the pixels of an image.

References:
    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), appendix B.

    Self-attention does not need O(n²) memory (Rabe and Staats, 2021), section 2.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.networks.blocks import Style, merged


class PixelAttention(nn.Module):
    r"""Self-attention between pixels, with one head of all channels.

    .. math:: y = x + O\,\mathrm{softmax}\Big(\frac{Q K^\top}{\sqrt{C}}\Big) V, \qquad
        Q = W_Q N(x), \quad K = W_K N(x), \quad V = W_V N(x),

    with a group normalisation :math:`N`; divided by :math:`\sqrt 2` if the style says so.
    Memory grows with the number of pixels and not with its square, except with the
    mathematical backend of ``scaled_dot_product_attention``, which alone has second
    derivatives and forward mode.

    Arguments:
        channels: The channels :math:`C` of :math:`x`.
        style: How normalisations and sums are done.
    """

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.rescale = style.rescale
        self.norm = style.norm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        # -> (batch, head, pixel, channel)
        h = self.norm(x).flatten(2).transpose(1, 2).unsqueeze(1)
        h = F.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h))
        h = self.out(h).squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return merged(x, h, self.rescale)

r"""The vision transformers of DINOv2, with the names of their published weights.

An image of 224 pixels is cut into patches of 14, whose linear images :math:`p` and one learned
token, with learned positions, pass through blocks

.. math:: h \leftarrow h + \gamma_1\,A(N_1 h), \qquad h \leftarrow h + \gamma_2\,M(N_2 h)

of attention :math:`A` with heads of 64 features and perceptrons :math:`M`, with layer norms
:math:`N` and learned scales :math:`\gamma`. The features are those of the token, normalised.
Positions were learned on a grid of 37 and are interpolated, bicubic, to that of 16, with the
published offset of a tenth of a patch.

Images are resized by a bicubic filter that widens where the image shrinks, and rounded to bytes, as
Fréchet distances on these features were published.

References:
    DINOv2: learning robust visual features without supervision (Oquab et al., 2023), section 5.

    Exposing flaws of generative model evaluation metrics and their unfair treatment of diffusion
    models (Stein et al., 2023), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError

SIDE = 224
"""The height and width that images are resized to."""
_PATCH, _HEAD, _OFFSET, _EPS = 14, 64, 0.1, 1e-6
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DinoV2(nn.Module):
    """A network in evaluation mode.

    Arguments:
        dim: The number of features.
        depth: The number of blocks.
        grid: The height and width of the grid of learned positions, in patches.
        gated: Whether perceptrons are gated, as in the largest network.
        hidden: The width of the perceptrons.
    """

    kind = "dinov2"
    resizing = f"bicubic-{SIDE}-antialiased"
    """How images are brought to its size."""

    def __init__(self, dim: int, depth: int, grid: int, hidden: int, gated: bool = False) -> None:
        super().__init__()
        self.sizes = {"features": dim}
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, _PATCH, _PATCH)})
        self.blocks = nn.ModuleList(_Block(dim, hidden, gated) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.eval().requires_grad_(False)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> DinoV2:
        """A network of the sizes of a state dict.

        Raises:
            ValueError: If it is not one of these networks.
        """
        try:
            dim = state["cls_token"].shape[2]
            depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
            grid = math.isqrt(state["pos_embed"].shape[1] - 1)
            gated = "blocks.0.mlp.w12.weight" in state
            hidden = len(state[f"blocks.0.mlp.{'w12' if gated else 'fc1'}.weight"])
        except (LookupError, ValueError) as error:
            raise UserError("its tensors are not those of DINOv2") from error
        if dim % _HEAD:
            raise UserError(f"its {dim} features are no multiple of {_HEAD}")
        return cls(dim, depth, grid, hidden // 2 if gated else hidden, gated)

    def forward(self, images: UInt8[Tensor, "n 3 height width"]) -> dict[str, Float[Tensor, "n _"]]:
        """The features of images in bytes."""
        dtype = self.cls_token.dtype
        mean, std = (torch.tensor(v, dtype=dtype, device=images.device) for v in (_MEAN, _STD))
        x = images.to(dtype)
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True)
            x = x.round().clamp(0, 255)
        x = (x / 255 - mean[:, None, None]) / std[:, None, None]
        patches = self.patch_embed["proj"](x).flatten(2).mT
        h = torch.cat((self.cls_token.expand(len(x), -1, -1), patches), dim=1) + self._positions()
        for block in self.blocks:
            h = block(h)
        return {"features": self.norm(h[:, 0])}

    def _positions(self) -> Tensor:
        token, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        n, side = math.isqrt(grid.shape[1]), SIDE // _PATCH
        if n == side:
            return self.pos_embed
        grid = grid.mT.reshape(1, -1, n, n)
        # The factor is that of the published code, and not the ratio of the sizes.
        factor = (side + _OFFSET) / n
        grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat((token, grid.flatten(2).mT), dim=1)


class _Block(nn.Module):
    def __init__(self, dim: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=_EPS), nn.LayerNorm(dim, eps=_EPS)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.ls1, self.ls2 = (
            nn.ParameterDict({"gamma": nn.Parameter(torch.ones(dim))}) for _ in range(2)
        )
        names = {"w12": (dim, 2 * hidden), "w3": (hidden, dim)}
        plain = {"fc1": (dim, hidden), "fc2": (hidden, dim)}
        layers = names if gated else plain
        self.mlp = nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in layers.items()})

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.ls1["gamma"] * self._attended(self.norm1(h))
        return h + self.ls2["gamma"] * self._perceived(self.norm2(h))

    def _attended(self, h: Tensor) -> Tensor:
        n, tokens, dim = h.shape
        parts = self.attn["qkv"](h).reshape(n, tokens, 3, dim // _HEAD, _HEAD)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.attn["proj"](mixed.transpose(1, 2).reshape(n, tokens, dim))

    def _perceived(self, h: Tensor) -> Tensor:
        if "w12" in self.mlp:
            gate, value = self.mlp["w12"](h).chunk(2, dim=-1)
            return self.mlp["w3"](F.silu(gate) * value)
        return self.mlp["fc2"](F.gelu(self.mlp["fc1"](h)))

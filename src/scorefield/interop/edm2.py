r"""Models of EDM2: magnitude-preserving networks, under the convention of EDM.

.. math:: D(x; \sigma) = c_{skip}\,x + c_{out}\,F(c_{in}\,x;\ \tfrac14 \ln\sigma),

with ``sigma_data`` 0.5. Weights are divided by their norm at every call, so that a network keeps
the magnitude of its activations. The head ``logvar`` of the uncertainty is not part of the field.

Networks of 64 × 64 × 4 have latents: :math:`z \mapsto 0.5\,(z - m) / s` of the latents :math:`z` of
the autoencoder of Stable Diffusion (``sd-vae-ft-mse``, unscaled), with the means :math:`m` = (5.81,
3.25, 0.12, -2.15) and the deviations :math:`s` = (4.17, 4.62, 3.71, 3.28) of its channels.

References:
    Analyzing and improving the training dynamics of diffusion models (Karras, Aittala, Lehtinen,
    Hellsten, Aila and Laine, 2024), appendix B and figure 21; published code,
    ``training/networks_edm2.py`` and ``training/encoders.py`` at commit 4bf8162.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.dropout import Dropout
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.interop.edm.blocks import Change, doubled, halved
from scorefield.interop.edm.load import RECIPE
from scorefield.interop.folder import Backbone, arguments, filled, loaded, split_class
from scorefield.networks.resampling import normalized
from scorefield.sde.exploding import EDM

CLASS = "Precond"
"""The published class, whose arguments a configuration has."""

_LATENTS = (
    "0.5 (z − m) / s of the latents z of Stable Diffusion, with m (5.81, 3.25, 0.12, −2.15) and s "
    "(4.17, 4.62, 3.71, 3.28)"
)


def load(folder: str | Path) -> PreconditionedField:
    """The field of a model of EDM2, in evaluation mode.

    Arguments:
        folder: A folder that :data:`~scorefield.interop.edm.load.RECIPE` wrote: ``model.json`` with
            the class ``Precond`` and its arguments, ``model.pt`` or ``model.safetensors`` with its
            state.

    Raises:
        InteropError: If it is no such folder, a file in it has code or is damaged, or the
            configuration and the weights do not fit.
    """
    return loaded(Path(folder), RECIPE, field_of)


def field_of(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> PreconditionedField:
    """The field of a configuration and a state dict, in evaluation mode.

    A network with classes needs them: it was trained on points of known classes only.

    Arguments:
        config: The arguments of the published class, and its name under ``class``.
        state: The state dict of that class.

    Raises:
        InteropError: If an argument is missing, unknown or of another type, or a weight is missing,
            surplus or of another shape.
        ValueError: If a value does not fit.
    """
    _, given = split_class(config, (CLASS,))
    settings = arguments(CLASS, UNet, given)
    weights = {key.removeprefix("unet."): weight for key, weight in state.items()}
    network = filled(lambda: UNet(**settings), weights)
    sigma_data = float(settings.get("sigma_data", 0.5))
    points = network.words() + (f"; these are {_LATENTS}" if network.latents else "")
    network.convention = (
        "Precond of EDM2: D(x, σ) = c_skip x + c_out F(c_in x, ln(σ) / 4) with x = x₀ + σ ε and "
        f"σ_data = {sigma_data:g}; {points}"
    )
    return PreconditionedField(network, EDM(0.002, 80.0), sigma_data).eval()


class UNet(Backbone):
    r"""The network of EDM2, with the arguments of its preconditioner too.

    Arguments:
        img_resolution: The side of an image.
        img_channels: Its channels.
        label_dim: The number of classes.
        use_fp16: Without effect.
        sigma_data: The deviation of the data, of which the network itself knows nothing.
        logvar_channels: The width of the head of the uncertainty, which is not made.
        model_channels: The width of the first level.
        channel_mult: The width of each level, in units of ``model_channels``.
        channel_mult_noise: The width of the waves of the label, in these units; by default that of
            the first level.
        channel_mult_emb: The width of the embedding; by default that of the widest level.
        num_blocks: The blocks of a level on the way down; one more on the way up.
        attn_resolutions: The sides of images at which pixels attend to each other.
        label_balance: The share of the class in the embedding.
        concat_balance: The share of a skip where it is joined.
        resample_filter: The taps of the filter.
        channels_per_head: The channels of a head of the attention.
        dropout: The probability of dropout.
        res_balance: The share of the residual branch of a block.
        attn_balance: The share of its attention.
        clip_act: The largest activation of a block.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        use_fp16: bool = True,
        sigma_data: float | int = 0.5,
        logvar_channels: int = 128,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: int | None = None,
        channel_mult_emb: int | None = None,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        label_balance: float | int = 0.5,
        concat_balance: float | int = 0.5,
        resample_filter: Sequence[float | int] = (1, 1),
        channels_per_head: int = 64,
        dropout: float | int = 0,
        res_balance: float | int = 0.3,
        attn_balance: float | int = 0.3,
        clip_act: float | int | None = 256,
    ) -> None:
        shape = (img_channels, img_resolution, img_resolution)
        super().__init__(shape, len(channel_mult), num_blocks, label_dim or None)
        self.latents = img_channels == 4
        self.unused = {
            "logvar_fourier.freqs": (logvar_channels,),
            "logvar_fourier.phases": (logvar_channels,),
            "logvar_linear.weight": (1, logvar_channels),
        }
        widths = [model_channels * multiplier for multiplier in channel_mult]
        waves = widths[0] if channel_mult_noise is None else model_channels * channel_mult_noise
        width = max(widths) if channel_mult_emb is None else model_channels * channel_mult_emb
        self.label_balance, self.concat_balance = label_balance, concat_balance
        self.out_gain = nn.Parameter(torch.empty(()))
        self.emb_fourier = Waves(waves)
        self.emb_noise = Weights(waves, width)
        self.emb_label = Weights(label_dim, width) if label_dim else None

        bound = None if clip_act is None else float(clip_act)

        def block(
            inputs: int,
            outputs: int,
            side: int = 0,
            change: Change = None,
            attention: bool = False,
            up: bool = False,
        ) -> Block:
            attended = attention or side in attn_resolutions
            heads = outputs // channels_per_head if attended else 0
            balances = (float(res_balance), float(attn_balance))
            taps = tuple(float(tap) for tap in resample_filter)
            return Block(
                inputs, outputs, width, up, change, taps, heads, float(dropout), balances, bound
            )

        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        inputs, skips = img_channels + 1, list[int]()
        for level, outputs in enumerate(widths):
            side = img_resolution >> level
            at = f"{side}x{side}"
            if level == 0:
                self.enc[f"{at}_conv"] = Weights(inputs, outputs, 3)
                inputs = outputs
            else:
                self.enc[f"{at}_down"] = block(inputs, inputs, change="down")
            skips.append(inputs)
            for k in range(num_blocks):
                self.enc[f"{at}_block{k}"] = block(inputs, outputs, side)
                inputs = outputs
                skips.append(inputs)
        for level, outputs in reversed(list(enumerate(widths))):
            side = img_resolution >> level
            at = f"{side}x{side}"
            if level == len(widths) - 1:
                self.dec[f"{at}_in0"] = block(inputs, inputs, attention=True, up=True)
                self.dec[f"{at}_in1"] = block(inputs, inputs, up=True)
            else:
                self.dec[f"{at}_up"] = block(inputs, inputs, change="up", up=True)
            for k in range(num_blocks + 1):
                self.dec[f"{at}_block{k}"] = block(inputs + skips.pop(), outputs, side, up=True)
                inputs = outputs
        self.out_conv = Weights(inputs, img_channels, 3)

    def forward(
        self,
        x: Num[Tensor, "..."],
        label: Float[Tensor, " batch"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        condition = self.emb_noise(self.emb_fourier(label))
        if self.emb_label is not None:
            row = self.one_hot(classes, label) * math.sqrt(self.classes or 1)
            condition = mixed(condition, self.emb_label(row), self.label_balance)
        condition = silu(condition)
        x = torch.cat((x, torch.ones_like(x[:, :1])), dim=1)
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            x = layer(x) if name.endswith("conv") else layer(x, condition)
            skips.append(x)
        for name, layer in self.dec.items():
            if "block" in name:
                x = joined(x, skips.pop(), self.concat_balance)
            x = layer(x, condition)
        return self.out_conv(x, self.out_gain)


class Block(nn.Module):
    """A residual block, on the way down or up, with attention where there are ``heads``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        up: bool,
        change: Change,
        taps: tuple[float, ...],
        heads: int,
        dropout: float,
        balances: tuple[float, float],
        bound: float | None,
    ) -> None:
        super().__init__()
        self.up, self.change, self.taps = up, change, taps
        self.heads, self.balances, self.bound = heads, balances, bound
        self.emb_gain = nn.Parameter(torch.empty(()))
        self.conv_res0 = Weights(inputs if up else outputs, outputs, 3)
        self.emb_linear = Weights(condition, outputs)
        self.dropout = Dropout(dropout)
        self.conv_res1 = Weights(outputs, outputs, 3)
        self.conv_skip = Weights(inputs, outputs, 1) if inputs != outputs else None
        if heads:
            self.attn_qkv = Weights(outputs, 3 * outputs, 1)
            self.attn_proj = Weights(outputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        if self.change is not None:
            kernel = normalized(self.taps).to(x)[None, None]
            x = (doubled if self.change == "up" else halved)(x, kernel)
        if not self.up:
            x = unit(x if self.conv_skip is None else self.conv_skip(x), 1)
        level = self.emb_linear(condition, self.emb_gain) + 1
        h = silu(self.conv_res0(silu(x)) * level[:, :, None, None])
        h = self.conv_res1(self.dropout(h))
        if self.up and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mixed(x, h, self.balances[0])
        if self.heads:
            attended = self.attn_proj(self._attended(self.attn_qkv(x)))
            x = mixed(x, attended, self.balances[1])
        return x if self.bound is None else x.clamp(-self.bound, self.bound)

    def _attended(self, qkv: Tensor) -> Tensor:
        # -> (batch, head, channel, query or key or value, pixel)
        parts = unit(qkv.flatten(2).unflatten(1, (self.heads, -1, 3)), 2)
        query, key, value = parts.unbind(3)
        weight = (query.mT @ key / math.sqrt(key.shape[2])).softmax(dim=3)
        return (value @ weight.mT).flatten(1, 2).unflatten(2, qkv.shape[2:])


class Weights(nn.Module):
    """A matrix, or a convolution with kernels of a side, whose rows have the norm of one."""

    def __init__(self, inputs: int, outputs: int, side: int | None = None) -> None:
        super().__init__()
        kernel = () if side is None else (side, side)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel))

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        weight = unit(self.weight, *range(1, self.weight.dim()))
        weight = weight * ((1 if gain is None else gain) / math.sqrt(weight[0].numel()))
        if weight.dim() == 2:
            return x @ weight.T
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class Waves(nn.Module):
    """Cosines of a label, with the frequencies and phases of the state dict."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(channels))
        self.register_buffer("phases", torch.empty(channels))

    def forward(self, label: Float[Tensor, " batch"]) -> Float[Tensor, "batch channels"]:
        return (label[:, None] * self.freqs + self.phases).cos() * math.sqrt(2)


def unit(x: Tensor, *dims: int) -> Tensor:
    """A tensor divided by its root mean square along some axes, and a little more."""
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True)
    return x / (1e-4 + norm * math.sqrt(norm.numel() / x.numel()))


def silu(x: Tensor) -> Tensor:
    """The nonlinearity, of unit variance for standard normal numbers."""
    return F.silu(x) / 0.596


def mixed(a: Tensor, b: Tensor, share: float | int) -> Tensor:
    """The sum of two independent parts in proportion, of the variance that each has."""
    return (a + share * (b - a)) / math.hypot(1 - share, share)


def joined(a: Tensor, b: Tensor, share: float | int) -> Tensor:
    """Channels beside each other, which contribute in proportion and not by their number."""
    n, m = a.shape[1], b.shape[1]
    scale = math.sqrt(n + m) / math.hypot(1 - share, share)
    weights = scale * (1 - share) / math.sqrt(n), scale * share / math.sqrt(m)
    return torch.cat((weights[0] * a, weights[1] * b), dim=1)

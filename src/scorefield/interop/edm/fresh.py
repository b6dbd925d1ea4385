r"""EDM's networks with initial weights, to be trained: DDPM++, NCSN++ and ADM.

They are those of :mod:`~scorefield.interop.edm.networks`, in which published state dicts fit, with
the initial distributions of the published training. Points of any class, which it had none of, have
the class label of zeros.

References:
    Elucidating the design space of diffusion-based generative models (Karras, Aittala, Aila and
    Laine, 2022), table 7; published code, ``training/networks.py`` at commit 008a4e5.

    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    section 4.1 and appendix H.

    Diffusion models beat GANs on image synthesis (Dhariwal and Nichol, 2021), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from scorefield.errors import UserError
from scorefield.interop.edm.blocks import Convolution, Waves
from scorefield.interop.edm.networks import DhariwalUNet, SongUNet
from scorefield.networks.augmentation import LABELS, AugmentationEmbedding
from scorefield.networks.initial import normal_, uniform_
from scorefield.networks.network import Network

Variant = Literal["ddpmpp", "ncsnpp"]

_WEIGHTED = nn.Linear | nn.Conv2d | Convolution | AugmentationEmbedding

_QUIET = 1e-5
_ATTENTION = math.sqrt(0.2)
# NCSN++: random waves, residual inputs at each resolution, and a filter of four taps.
_VARIANTS: dict[Variant, dict[str, Any]] = {
    "ddpmpp": {},
    "ncsnpp": {
        "embedding_type": "fourier",
        "encoder_type": "residual",
        "channel_mult_noise": 2,
        "resample_filter": (1, 3, 3, 1),
    },
}


class SongNetwork(Network, SongUNet):
    r"""DDPM++ or NCSN++.

    Weights are uniform with variance :math:`2 s^2 / (n + m)`, of :math:`n` inputs and :math:`m`
    outputs; :math:`s` is 1, :math:`\sqrt{0.2}` in attention, and :math:`10^{-5}` in the last layer
    of a branch and of the network. Biases are zero.

    Arguments:
        shape: The shape :math:`(C, H, H)` of an image.
        variant: ``ddpmpp`` or ``ncsnpp``.
        channels: The width of the first level.
        multipliers: The width of each level, in units of ``channels``.
        blocks: The blocks of a level on the way down; one more on the way up.
        attention: The sides of images at which pixels attend to each other.
        dropout: The probability of dropout.
        classes: The number of classes, if the network is to know them.
        seed: The seed of the initial weights.
        augmented: Whether the network receives the labels of an :class:`~.Augmentation`.

    Raises:
        ValueError: If the image is not square or cannot be halved so often, or the variant is
            unknown.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        variant: Variant = "ddpmpp",
        channels: int = 128,
        multipliers: Sequence[int] = (2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        dropout: float = 0.13,
        classes: int | None = None,
        seed: int = 0,
        augmented: bool = False,
    ) -> None:
        if variant not in _VARIANTS:
            raise UserError(f"variant is {', '.join(_VARIANTS)}, not {variant!r}")
        planes, side = _square(shape)
        super().__init__(
            side,
            planes,
            planes,
            classes or 0,
            LABELS if augmented else 0,
            channels,
            multipliers,
            num_blocks=blocks,
            attn_resolutions=attention,
            dropout=dropout,
            label_dropout=1.0,
            **_VARIANTS[variant],
        )
        _fill_filters(self, _VARIANTS[variant].get("resample_filter", (1, 1)), seed)
        for name, layer, scale in _layers(self):
            inputs, outputs = _fans(layer)
            gain = {"attention": _ATTENTION, "last": _QUIET}.get(scale, 1.0)
            bound = gain * math.sqrt(6 / (inputs + outputs))
            uniform_(layer.weight, seed, f"{name}.weight", bound)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)


class DhariwalNetwork(Network, DhariwalUNet):
    r"""ADM.

    Weights and biases are uniform on :math:`\pm 1/\sqrt n` with :math:`n` inputs; the last layers
    of a branch and of the network are so times :math:`10^{-5}`.

    Arguments that are not listed are those of :class:`SongNetwork`.

    Arguments:
        embedding: The width of the embedded noise level, in units of ``channels``.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 64, 64),
        channels: int = 192,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        embedding: int = 4,
        classes: int | None = None,
        seed: int = 0,
        augmented: bool = False,
    ) -> None:
        planes, side = _square(shape)
        super().__init__(
            side,
            planes,
            planes,
            classes or 0,
            LABELS if augmented else 0,
            channels,
            multipliers,
            embedding,
            blocks,
            attention,
            dropout,
            label_dropout=1.0,
        )
        _fill_filters(self, (1, 1), seed)
        for name, layer, scale in _layers(self):
            inputs, _ = _fans(layer)
            bound = (_QUIET if scale == "last" else 1.0) / math.sqrt(inputs)
            if name == "map_label":
                bound = math.sqrt(3.0)
            elif name == "map_augment":
                bound *= _QUIET
            uniform_(layer.weight, seed, f"{name}.weight", bound)
            if getattr(layer, "bias", None) is not None:
                uniform_(layer.bias, seed, f"{name}.bias", bound)


def _square(shape: Sequence[int]) -> tuple[int, int]:
    """The channels and the side of a square image."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UserError(f"the networks of EDM take square images (C, H, H), got {tuple(shape)}")
    return shape[0], shape[1]


def _fill_filters(network: nn.Module, taps: Sequence[int], seed: int) -> None:
    """Sets what is neither trained nor drawn anew: filters, and the frequencies of waves."""
    line = torch.tensor(taps, dtype=torch.float32)
    kernel = torch.outer(line, line) / line.sum() ** 2
    for name, layer in network.named_modules():
        if isinstance(layer, Convolution) and layer.change is not None:
            layer.resample_filter.copy_(kernel)
        elif isinstance(layer, Waves) and layer.random:
            normal_(layer.freqs, seed, f"{name}.freqs", 16.0)


def _layers(network: nn.Module) -> list[tuple[str, Any, str]]:
    """Layers with weights: their names, and whether one is of attention, or the last of a branch or
    of the network.
    """
    found: list[tuple[str, Any, str]] = []
    for name, layer in network.named_modules():
        if not isinstance(layer, _WEIGHTED) or layer.weight is None:
            continue
        leaf = name.rpartition(".")[2]
        last = leaf in ("conv1", "proj", "out_conv") or leaf.endswith("_aux_conv")
        found.append((name, layer, "attention" if leaf == "qkv" else "last" if last else ""))
    return found


def _fans(layer: Any) -> tuple[int, int]:
    """The numbers of inputs and outputs, each with the taps of a kernel."""
    outputs, inputs, *taps = layer.weight.shape
    return inputs * math.prod(taps), outputs * math.prod(taps)

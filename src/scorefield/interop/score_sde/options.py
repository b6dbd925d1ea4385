"""The options of an ``ncsnpp`` or a ``ddpm`` in a configuration of the score_sde code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.keys import value
from scorefield.networks.ddpm import DDPM
from scorefield.networks.ncsnpp import NCSNpp

MODELS = ("ncsnpp", "ddpm")
"""The names of the two networks in the score_sde code."""


@dataclass(frozen=True)
class Options:
    """The options of a network; a missing key has the published default for CIFAR-10.

    The names are those of :class:`~scorefield.networks.NCSNpp`, except:

    Arguments:
        ddpm: Whether the network is a ``ddpm``.
        side: The side of the images, in pixels.
        colors: The channels of the images.
        biggan: Whether residual blocks change the resolution themselves.
        convolve: Whether layers that change the resolution are convolutions.
    """

    ddpm: bool
    side: int
    colors: int
    centered: bool
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    dropout: float
    conditional: bool
    convolve: bool
    activation: str
    scale_by_sigma: bool
    sigma_min: float
    sigma_max: float
    levels: int
    fourier: bool = False
    fourier_scale: float = 16.0
    fir: bool = False
    fir_kernel: tuple[float, ...] = (1, 3, 3, 1)
    biggan: bool = False
    skip_rescale: bool = False
    progressive: str = "none"
    progressive_input: str = "none"
    combine: str = "sum"
    init_scale: float = 0.0

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each level."""
        return tuple(self.channels * m for m in self.multipliers)

    @property
    def attended(self) -> tuple[bool, ...]:
        """The levels with attention."""
        return tuple(self.side // 2**k in self.attention for k in range(len(self.multipliers)))

    @property
    def convolution(self) -> str:
        """The published name of a convolution that changes the resolution."""
        return "Conv2d_0" if self.fir else "Conv_0"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Options:
        """The options of a configuration.

        Raises:
            InteropError: If the model is neither of the two, an option is invalid, or Fourier
                features are set without continuous labels.
        """
        name = value(config, "model.name")
        if name not in MODELS:
            raise InteropError(f"model.name must be one of {', '.join(MODELS)}, got {name!r}")
        ddpm = name == "ddpm"

        def model(key: str, default: Any) -> Any:
            return value(config, f"model.{key}", default)

        def choice(key: str, default: str, *choices: str) -> str:
            chosen = str(model(key, default)).lower()
            if chosen not in choices:
                raise InteropError(
                    f"model.{key} must be one of {', '.join(choices)}, got {chosen!r}"
                )
            return chosen

        common = cls(
            ddpm=ddpm,
            side=int(value(config, "data.image_size", 32)),
            colors=int(value(config, "data.num_channels", 3)),
            centered=bool(value(config, "data.centered", False)),
            channels=int(model("nf", 128)),
            multipliers=tuple(int(m) for m in model("ch_mult", (1, 2, 2, 2))),
            blocks=int(model("num_res_blocks", 2 if ddpm else 4)),
            attention=tuple(int(r) for r in model("attn_resolutions", (16,))),
            dropout=float(model("dropout", 0.1)),
            conditional=bool(model("conditional", True)),
            convolve=bool(model("resamp_with_conv", True)),
            activation=choice("nonlinearity", "swish", "swish", "elu", "relu", "lrelu"),
            scale_by_sigma=bool(model("scale_by_sigma", not ddpm)),
            sigma_min=float(model("sigma_min", 0.01)),
            sigma_max=float(model("sigma_max", 50.0)),
            levels=int(model("num_scales", 1000)),
        )
        if ddpm:
            return common
        fourier = choice("embedding_type", "fourier", "fourier", "positional") == "fourier"
        if fourier and not value(config, "training.continuous", True):
            raise InteropError(
                "model.embedding_type 'fourier' takes noise levels, which are labels only where "
                "training.continuous is true"
            )
        stages = ("none", "residual")
        return cls(
            **{
                **vars(common),
                "fourier": fourier,
                "fourier_scale": float(model("fourier_scale", 16.0)),
                "fir": bool(model("fir", True)),
                "fir_kernel": tuple(float(tap) for tap in model("fir_kernel", (1, 3, 3, 1))),
                "biggan": choice("resblock_type", "biggan", "biggan", "ddpm") == "biggan",
                "skip_rescale": bool(model("skip_rescale", True)),
                "progressive": choice("progressive", "none", *stages, "output_skip"),
                "progressive_input": choice("progressive_input", "residual", *stages, "input_skip"),
                "combine": choice("progressive_combine", "sum", "sum", "cat"),
                "init_scale": float(model("init_scale", 0.0)),
            }
        )

    def network(self, seed: int) -> nn.Module:
        """The network of these options, with initial weights from a seed."""
        common: dict[str, Any] = {
            "shape": (self.colors, self.side, self.side),
            "channels": self.channels,
            "multipliers": self.multipliers,
            "blocks": self.blocks,
            "attention": self.attention,
            "dropout": self.dropout,
            "conditional": self.conditional,
            "resample_with_conv": self.convolve,
            "activation": self.activation,
            "centered": self.centered,
            "scale_by_sigma": self.scale_by_sigma,
            "sigma_min": self.sigma_min,
            "sigma_max": self.sigma_max,
            "levels": self.levels,
            "seed": seed,
        }
        if self.ddpm:
            return DDPM(**common)
        return NCSNpp(
            **common,
            embedding="fourier" if self.fourier else "positional",
            fir=self.fir,
            fir_kernel=self.fir_kernel,
            block="biggan" if self.biggan else "ddpm",
            skip_rescale=self.skip_rescale,
            progressive=self.progressive,  # type: ignore[arg-type]
            progressive_input=self.progressive_input,  # type: ignore[arg-type]
            combine=self.combine,  # type: ignore[arg-type]
            fourier_scale=self.fourier_scale,
            init_scale=self.init_scale,
        )

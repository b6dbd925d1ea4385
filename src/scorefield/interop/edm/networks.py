r"""The networks of EDM: ``SongUNet`` (DDPM++ and NCSN++) and ``DhariwalUNet`` (ADM).

Attributes have the names of the published code, so that its state dicts fit: the layers of a
resolution are ``{side}x{side}_block{k}`` and the like, in the dictionaries ``enc`` and ``dec``.

References:
    Elucidating the design space of diffusion-based generative models (Karras, Aittala, Aila and
    Laine, 2022), published code, ``training/networks.py`` at commit 008a4e5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError
from scorefield.interop.edm.blocks import Block, Change, Convolution, Waves, normalization
from scorefield.interop.folder import Backbone
from scorefield.networks.augmentation import AugmentationEmbedding


class UNet(Backbone):
    """Blocks of halved resolutions, and with skips of these, blocks of doubled resolutions."""

    def _make_layers(
        self,
        block: Callable[..., Block],
        widths: Sequence[int],
        first: int,
        blocks: int,
        attended: Callable[[int, int], bool],
    ) -> None:
        """Makes the layers of both ways; ``attended`` of a side and the number of a block up."""
        channels, side, _ = self.event_shape
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        self.enc[f"{side}x{side}_conv"] = nn.Conv2d(channels, first, 3, padding=1)
        width, skips = first, [first]
        for level, outputs in enumerate(widths):
            at = f"{side >> level}x{side >> level}"
            if level:
                self.enc[f"{at}_down"] = block(width, width, change="down")
                self._add_input(at, width)
                skips.append(width)
            for k in range(blocks):
                # Pixels attend to each other in all blocks on the way down.
                heads = attended(side >> level, blocks)
                self.enc[f"{at}_block{k}"] = block(width, outputs, attention=heads)
                width = outputs
                skips.append(width)
        last = len(widths) - 1
        for level in range(last, -1, -1):
            at = f"{side >> level}x{side >> level}"
            if level == last:
                self.dec[f"{at}_in0"] = block(width, width, attention=True)
                self.dec[f"{at}_in1"] = block(width, width)
            else:
                self.dec[f"{at}_up"] = block(width, width, change="up")
            for k in range(blocks + 1):
                heads = attended(side >> level, k)
                joined = width + skips.pop()
                self.dec[f"{at}_block{k}"] = block(joined, widths[level], attention=heads)
                width = widths[level]
            self._add_output(at, width, top=level == last, bottom=level == 0)

    def _add_input(self, at: str, width: int) -> None:
        """Layers by which the input enters at a lower resolution; none by default."""

    def _add_output(self, at: str, width: int, top: bool, bottom: bool) -> None:
        """Layers that make the output of a resolution; none by default."""

    def _run(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The features of the last block, and the sum of the outputs that were made, if any."""
        image = x
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            match name.partition("_")[2]:
                case "aux_down":
                    image = layer(image)
                case "aux_skip":
                    x = skips[-1] = x + layer(image)
                case "aux_residual":
                    x = skips[-1] = image = (x + layer(image)) * math.sqrt(0.5)
                case "conv":
                    skips.append(x := layer(x))
                case _:
                    skips.append(x := layer(x, condition))
        made = normalized = torch.zeros_like(x[:, :0])
        for name, layer in self.dec.items():
            match name.partition("_")[2]:
                case "aux_up":
                    made = layer(made)
                case "aux_norm":
                    normalized = layer(x)
                case "aux_conv":
                    output = layer(F.silu(normalized))
                    made = output if made.shape[1] == 0 else made + output
                case "in0" | "in1" | "up":
                    x = layer(x, condition)
                case _:
                    x = layer(torch.cat((x, skips.pop()), dim=1), condition)
        return x, made

    def _predicted(self, output: Tensor) -> Tensor:
        """The prediction; what follows it is a learned variance."""
        return output[:, : self.event_shape[0]]


class SongUNet(UNet):
    r"""DDPM++ and NCSN++ as EDM has them: the label is embedded with the class.

    Arguments:
        img_resolution: The side of an image.
        in_channels: The channels of an image.
        out_channels: The channels of the output.
        label_dim: The number of classes.
        augment_dim: The number of augmentation labels, which are zero but in training.
        model_channels: The width of the first level.
        channel_mult: The width of each level, in units of ``model_channels``.
        channel_mult_emb: The width of the embedding, in these units.
        num_blocks: The blocks of a level on the way down; one more on the way up.
        attn_resolutions: The sides of images at which pixels attend to each other.
        dropout: The probability of dropout.
        label_dropout: The share of points that had no class in training.
        embedding_type: The waves of the label.
        channel_mult_noise: Their number, in units of ``model_channels``.
        encoder_type: How the input enters at lower resolutions.
        decoder_type: Whether each resolution adds to the output.
        resample_filter: The taps of the filter.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float | int = 0.10,
        label_dropout: float | int = 0.0,
        embedding_type: Literal["positional", "fourier"] = "positional",
        channel_mult_noise: int = 1,
        encoder_type: Literal["standard", "skip", "residual"] = "standard",
        decoder_type: Literal["standard", "skip"] = "standard",
        resample_filter: Sequence[float | int] = (1, 1),
    ) -> None:
        shape = (in_channels, img_resolution, img_resolution)
        levels = len(channel_mult)
        super().__init__(shape, levels, num_blocks, label_dim or None, label_dropout > 0)
        if len(resample_filter) % 2:
            raise UserError(
                f"resample_filter must have an even number of taps, got {resample_filter}"
            )
        self.outputs, self.taps = out_channels, len(resample_filter)
        self.encoder, self.decoder, self.pyramid = encoder_type, decoder_type, in_channels
        waves, width = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        self.map_noise = Waves(waves, endpoint=True, random=embedding_type == "fourier")
        self.map_label = nn.Linear(label_dim, waves) if label_dim else None
        self.map_layer0, self.map_layer1 = nn.Linear(waves, width), nn.Linear(width, width)
        self.map_augment = AugmentationEmbedding(augment_dim, waves) if augment_dim else None

        def block(
            inputs: int, outputs: int, change: Change = None, attention: bool = False
        ) -> Block:
            return Block(
                inputs,
                outputs,
                width,
                change,
                heads=int(attention),
                dropout=dropout,
                scale=math.sqrt(0.5),
                eps=1e-6,
                taps=self.taps,
                project=True,
                adaptive=False,
            )

        def attended(side: int, k: int) -> bool:
            return side in attn_resolutions and k == num_blocks

        widths = [model_channels * multiplier for multiplier in channel_mult]
        self._make_layers(block, widths, model_channels, num_blocks, attended)

    def _add_input(self, at: str, width: int) -> None:
        pyramid = self.pyramid
        if self.encoder == "skip":
            self.enc[f"{at}_aux_down"] = Convolution(pyramid, pyramid, 0, "down", self.taps)
            self.enc[f"{at}_aux_skip"] = nn.Conv2d(pyramid, width, 1)
        elif self.encoder == "residual":
            late = Convolution(pyramid, width, 3, "down", self.taps, late=True)
            self.enc[f"{at}_aux_residual"], self.pyramid = late, width

    def _add_output(self, at: str, width: int, top: bool, bottom: bool) -> None:
        if self.decoder == "standard" and not bottom:
            return
        if self.decoder == "skip" and not top:
            self.dec[f"{at}_aux_up"] = Convolution(self.outputs, self.outputs, 0, "up", self.taps)
        self.dec[f"{at}_aux_norm"] = normalization(width, 1e-6)
        self.dec[f"{at}_aux_conv"] = nn.Conv2d(width, self.outputs, 3, padding=1)

    def forward(
        self,
        x: Num[Tensor, "..."],
        label: Float[Tensor, " batch"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        # Sines before cosines.
        condition = torch.cat(self.map_noise(label).chunk(2, dim=1)[::-1], dim=1)
        if self.map_label is not None:
            count = self.map_label.in_features
            condition = condition + self.map_label(self.one_hot(classes, label) * math.sqrt(count))
        if self.map_augment is not None:
            condition = self.map_augment(condition)
        condition = F.silu(self.map_layer1(F.silu(self.map_layer0(condition))))
        return self._predicted(self._run(x, condition)[1])


class DhariwalUNet(UNet):
    r"""ADM as EDM has it, whose attention has heads of 64 channels.

    Arguments are those of the same names of :class:`SongUNet`.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float | int = 0.10,
        label_dropout: float | int = 0.0,
    ) -> None:
        shape = (in_channels, img_resolution, img_resolution)
        levels = len(channel_mult)
        super().__init__(shape, levels, num_blocks, label_dim or None, label_dropout > 0)
        width = model_channels * channel_mult_emb
        self.map_noise = Waves(model_channels)
        self.map_layer0, self.map_layer1 = nn.Linear(model_channels, width), nn.Linear(width, width)
        self.map_label = nn.Linear(label_dim, width, bias=False) if label_dim else None
        self.map_augment = None
        if augment_dim:
            self.map_augment = AugmentationEmbedding(augment_dim, model_channels)

        def block(
            inputs: int, outputs: int, change: Change = None, attention: bool = False
        ) -> Block:
            heads = outputs // 64 if attention else 0
            return Block(inputs, outputs, width, change, heads, dropout)

        def attended(side: int, k: int) -> bool:
            return side in attn_resolutions

        widths = [model_channels * multiplier for multiplier in channel_mult]
        self._make_layers(block, widths, widths[0], num_blocks, attended)
        self.out_norm = normalization(widths[0])
        self.out_conv = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(
        self,
        x: Num[Tensor, "..."],
        label: Float[Tensor, " batch"],
        classes: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        waves = self.map_noise(label)
        if self.map_augment is not None:
            waves = self.map_augment(waves)
        condition = self.map_layer1(F.silu(self.map_layer0(waves)))
        if self.map_label is not None:
            condition = condition + self.map_label(self.one_hot(classes, label))
        features, _ = self._run(x, F.silu(condition))
        return self._predicted(self.out_conv(F.silu(self.out_norm(features))))

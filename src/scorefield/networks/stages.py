r"""One level of a score network: its way down, and its way up.

References:
    Score-based generative modeling through stochastic differential equations (Song et al.,
    2021), appendix H.1.

    Analyzing and improving the image quality of StyleGAN (Karras et al., 2020), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from scorefield.engine import block
from scorefield.networks.blocks import Combine, PixelAttention, ResidualBlock, Style, merged
from scorefield.networks.resampling import Double, DoublingConv, Halve, HalvingConv

Progressive = Literal["none", "output_skip", "residual"]
ProgressiveInput = Literal["none", "input_skip", "residual"]


@dataclass(frozen=True)
class Plan:
    r"""What the levels of a network have in common.

    Arguments:
        style: How blocks are made.
        channels: The channels of the images.
        blocks: The residual blocks of a level on the way down; one more on the way up.
        resampling: Whether a residual block changes the resolution, or a layer of its own.
        kernel: The taps of the filter of all changes of resolution, or none.
        convolve: Whether a layer that changes the resolution is a convolution.
        progressive: What of the output is made at each level.
        progressive_input: What of the input is seen at each level.
        combine: How the input joins the features, with ``input_skip``.
    """

    style: Style
    channels: int
    blocks: int
    resampling: Literal["block", "layer"]
    kernel: tuple[float, ...] | None
    convolve: bool
    progressive: Progressive = "none"
    progressive_input: ProgressiveInput = "none"
    combine: Literal["sum", "cat"] = "sum"


def run(layer: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    """A layer's output, under the condition if it takes one."""
    return block(layer, x, condition) if isinstance(layer, ResidualBlock) else block(layer, x)


class _Level(nn.Module):
    """Residual blocks of one resolution."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def resampling(self, channels: int, change: type[Halve | Double]) -> nn.Module:
        """The step to the next level."""
        plan = self.plan
        if plan.resampling == "block":
            return ResidualBlock(channels, channels, plan.style, change(plan.kernel))
        if plan.convolve:
            convolution = HalvingConv if change is Halve else DoublingConv
            return convolution(channels, channels, plan.kernel)
        return change(plan.kernel)


class Descent(_Level):
    """A level on the way down, with attention after each block if any, and the step to the next.

    ``pyramid`` and ``pyramid_outputs`` are the channels of the input that accompanies the features,
    ``skips`` those of what is kept for the way up.
    """

    def __init__(
        self, plan: Plan, inputs: int, outputs: int, attention: bool, pyramid: int, last: bool
    ) -> None:
        super().__init__(plan)
        style, n = plan.style, plan.blocks
        widths = [inputs] + [outputs] * (n - 1)
        self.blocks = nn.ModuleList(ResidualBlock(width, outputs, style) for width in widths)
        self.attention = nn.ModuleList(PixelAttention(outputs, style) for _ in range(n * attention))
        self.skips, self.outputs, self.pyramid_outputs = [outputs] * n, outputs, pyramid
        self.shrink = None if last else self.resampling(outputs, Halve)
        self.pyramid: nn.Module | None = None
        self.combine: Combine | None = None
        if last:
            return
        if plan.progressive_input == "input_skip":
            self.pyramid = Halve(plan.kernel)
            self.combine = Combine(pyramid, outputs, plan.combine)
            self.outputs = outputs * (2 if plan.combine == "cat" else 1)
        elif plan.progressive_input == "residual":
            self.pyramid = HalvingConv(pyramid, outputs, plan.kernel)
            self.pyramid_outputs = outputs
        self.skips.append(self.outputs)

    def forward(
        self, h: Tensor, pyramid: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The features and the input for the next level, and what is kept for the way up."""
        kept = []
        for k, layer in enumerate(self.blocks):
            h = run(layer, h, condition)
            if self.attention:
                h = run(self.attention[k], h, condition)
            kept.append(h)
        if self.shrink is not None:
            h = run(self.shrink, h, condition)
            if self.pyramid is not None:
                pyramid = self.pyramid(pyramid)
                if self.combine is not None:
                    h = self.combine(pyramid, h)
                else:
                    h = pyramid = merged(pyramid, h, self.plan.style.rescale)
            kept.append(h)
        return h, pyramid, kept


class Ascent(_Level):
    """A level on the way up, with attention after the last block if any, what it adds to the
    output, and the step to the next.

    ``skips`` are the channels of the skips in the order in which they are joined, ``pyramid`` and
    ``pyramid_outputs`` those of the output so far, none at the first level.
    """

    def __init__(
        self,
        plan: Plan,
        inputs: int,
        skips: Sequence[int],
        outputs: int,
        attention: bool,
        pyramid: int | None,
        last: bool,
    ) -> None:
        super().__init__(plan)
        style = plan.style
        widths = [inputs] + [outputs] * (len(skips) - 1)
        self.blocks = nn.ModuleList(
            ResidualBlock(width + skip, outputs, style)
            for width, skip in zip(widths, skips, strict=True)
        )
        self.attention = PixelAttention(outputs, style) if attention else None
        self.pyramid: nn.Module | None = None
        self.head_norm: nn.Module | None = None
        self.head: nn.Module | None = None
        self.pyramid_outputs = pyramid
        if plan.progressive == "output_skip":
            self.pyramid = None if pyramid is None else Double(plan.kernel)
            self.pyramid_outputs = plan.channels
        elif plan.progressive == "residual":
            self.pyramid = None if pyramid is None else DoublingConv(pyramid, outputs, plan.kernel)
            self.pyramid_outputs = outputs
        # With one level only, nothing would be added to a pyramid of features.
        started = plan.progressive == "residual" and pyramid is None and not last
        if plan.progressive == "output_skip" or started:
            self.head_norm = style.norm(outputs)
            self.head = nn.Conv2d(outputs, cast(int, self.pyramid_outputs), 3, padding=1)
        self.grow = None if last else self.resampling(outputs, Double)

    def forward(
        self, h: Tensor, skips: list[Tensor], pyramid: Tensor | None, condition: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The features and the output so far; skips are taken from the end of the list."""
        for layer in self.blocks:
            h = run(layer, torch.cat((h, skips.pop()), dim=1), condition)
        if self.attention is not None:
            h = run(self.attention, h, condition)
        if self.pyramid is not None:
            pyramid = self.pyramid(pyramid)
        if self.head is not None and self.head_norm is not None:
            head = self.head(self.plan.style.act(self.head_norm(h)))
            pyramid = head if pyramid is None else pyramid + head
        elif pyramid is not None:
            h = pyramid = merged(pyramid, h, self.plan.style.rescale)
        if self.grow is not None:
            h = run(self.grow, h, condition)
        return h, pyramid

r"""The U-Net that the score networks have in common.

Levels of halved resolution lead down, with skips to the levels of doubled resolution that lead
up. :class:`~scorefield.networks.NCSNpp` and :class:`~scorefield.networks.DDPM` are this network
with different :class:`~scorefield.networks.stages.Plan`.

References:
    Score-based generative modeling through stochastic differential equations (Song et al.,
    2021), appendix H.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from scorefield.errors import UserError
from scorefield.networks.attention import PixelAttention
from scorefield.networks.blocks import ResidualBlock
from scorefield.networks.conditioning import Conditioning
from scorefield.networks.initial import initialize_average, normal_
from scorefield.networks.inspection import within
from scorefield.networks.levels import NoiseTable, places
from scorefield.networks.stages import Ascent, Descent, Plan


class ScoreUNet(nn.Module):
    r"""A U-Net of an image, a label of the noise level, and a class if there are any.

    Arguments:
        shape: The event shape :math:`(C, H, W)`.
        channels: The width of the first level.
        multipliers: The width of each level in units of ``channels``.
        attention: The widths in pixels of the images in which pixels attend to each other.
        plan: What all levels have in common.
        conditioning: The embedding of the noise level and the class, if the blocks take one.
        division: By what the output is divided: the label itself, the noise level of which the
            label is the place in a table, or nothing.
        centered: Whether images lie in [-1, 1]; those in [0, 1] are brought there.
        positive: Whether labels are noise levels.
        init_scale: The scale of the initial weights that end a residual branch.
        fourier_scale: The deviation of the frequencies, where there are random ones.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a size is not positive, sides cannot be halved often enough, or channels
            cannot be normalised in groups.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int,
        multipliers: Sequence[int],
        attention: Sequence[int],
        plan: Plan,
        conditioning: Conditioning | None,
        division: Literal["label"] | NoiseTable | None,
        centered: bool,
        positive: bool,
        init_scale: float,
        fourier_scale: float,
        seed: int,
    ) -> None:
        super().__init__()
        _check(shape, channels, multipliers, plan)
        self.event_shape = tuple(shape)
        self.centered, self.positive, self.division = centered, positive, division
        self.act = plan.style.act
        self.conditioning = conditioning
        self.classes = None if conditioning is None else conditioning.null
        widths = [channels * m for m in multipliers]
        attended = [shape[2] // 2**k in attention for k in range(len(widths))]
        final = len(widths) - 1

        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.down = nn.ModuleList()
        width, pyramid, skips = channels, shape[0], [channels]
        for k, outputs in enumerate(widths):
            down = Descent(plan, width, outputs, attended[k], pyramid, last=k == final)
            width, pyramid = down.outputs, down.pyramid_outputs
            skips += down.skips
            self.down.append(down)
        self.middle = nn.ModuleList(
            (
                ResidualBlock(width, width, plan.style),
                PixelAttention(width, plan.style),
                ResidualBlock(width, width, plan.style),
            )
        )
        self.up = nn.ModuleList()
        made: int | None = None
        for k in range(final, -1, -1):
            joined = [skips.pop() for _ in range(plan.blocks + 1)]
            up = Ascent(plan, width, joined, widths[k], attended[k], made, last=k == 0)
            width, made = widths[k], up.pyramid_outputs
            self.up.append(up)
        self.last_norm: nn.Module | None = None
        self.last: nn.Module | None = None
        if plan.progressive != "output_skip":
            self.last_norm = plan.style.norm(width)
            self.last = nn.Conv2d(width, shape[0], 3, padding=1)
        # Convolutions are faster so, on processors and on GPUs.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        initialize_average(self, seed, self._scales(plan, init_scale))
        if conditioning is not None and conditioning.fourier is not None:
            normal_(conditioning.fourier.frequencies, seed, "frequencies", fourier_scale)
        if conditioning is not None and conditioning.classes is not None:
            normal_(conditioning.classes.weight, seed, "classes")

    def forward(
        self,
        x: Num[Tensor, "..."],
        label: Num[Tensor, "..."],
        classes: Num[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        self._check_inputs(x, label, classes)
        condition = None if self.conditioning is None else self.conditioning(label, classes)
        image = x if self.centered else 2 * x - 1
        h = self.first(image)
        skips, pyramid = [h], image
        for down in self.down:
            h, pyramid, kept = down(h, pyramid, condition)
            skips += kept
        middle = cast(Descent, self.down[-1])
        for layer in self.middle:
            h = middle.run(layer, h, condition)
        made: Tensor | None = None
        for up in self.up:
            h, made = up(h, skips, made, condition)
        if self.last is not None and self.last_norm is not None:
            h = self.last(self.act(self.last_norm(h)))
        else:
            h = cast(Tensor, made)
        match self.division:
            case None:
                return h
            case "label":
                return h / label.to(h.dtype)[:, None, None, None]
        # Continuous labels stand for the level that they have passed.
        index = places(label.long(), self.division.levels, len(x))
        return h / self.division.at(index, like=h)

    def _check_inputs(self, x: Tensor, label: Tensor, classes: Tensor | None) -> None:
        if x.dim() != 4 or tuple(x.shape[1:]) != self.event_shape:
            raise UserError(
                f"x has shape (batch, {', '.join(map(str, self.event_shape))}) here, "
                f"got {tuple(x.shape)}"
            )
        if label.shape != x.shape[:1]:
            raise UserError(
                f"label has shape ({len(x)},), one for each image, got {tuple(label.shape)}"
            )
        if self.positive:
            within("label", label, 0, float("inf"))
        if classes is None:
            return
        if self.conditioning is None or self.conditioning.classes is None:
            raise UserError("classes are given to a network that was built without classes")
        if classes.shape != x.shape[:1] or classes.is_floating_point():
            raise UserError(
                f"classes are {len(x)} integers, one for each image, got {classes.dtype} of "
                f"shape {tuple(classes.shape)}"
            )

    def _scales(self, plan: Plan, init_scale: float) -> dict[nn.Module, float]:
        """The scale of the initial weights of the layers where it is not one."""
        scales: dict[nn.Module, float] = {}
        for layer in self.modules():
            if isinstance(layer, ResidualBlock):
                scales[layer.second] = init_scale
                if plan.resampling == "layer" and layer.shortcut is not None:
                    scales[layer.shortcut] = 0.1
            elif isinstance(layer, PixelAttention):
                scales |= dict.fromkeys((layer.query, layer.key, layer.value), 0.1)
                scales[layer.out] = init_scale
            elif isinstance(layer, Ascent) and layer.head and plan.progressive == "output_skip":
                scales[layer.head] = init_scale
        if self.last is not None:
            scales[self.last] = init_scale
        return scales


def _check(shape: Sequence[int], channels: int, multipliers: Sequence[int], plan: Plan) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"shape is (channels, height, width), all positive, got {tuple(shape)}")
    if channels < 4 or plan.blocks < 1 or not multipliers or min(multipliers) < 1:
        raise UserError(
            "a score network has channels >= 4 and positive multipliers and blocks, got "
            f"channels={channels}, multipliers={tuple(multipliers)}, blocks={plan.blocks}"
        )
    if not 0 <= plan.style.dropout < 1:
        raise UserError(f"dropout lies in [0, 1), got {plan.style.dropout}")
    factor = 2 ** (len(multipliers) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise UserError(
            f"shape: {len(multipliers)} levels fit images whose sides are multiples of {factor}, "
            f"got {shape[1]} x {shape[2]}"
        )

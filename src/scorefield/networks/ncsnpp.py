r"""The NCSN++, DDPM++ and DDPM networks: U-Nets of an image, a label of the noise level, and a
class if there are any.

Levels of halved resolution lead down, with skips to the levels of doubled resolution that lead up.

References:
    Score-based generative modeling through stochastic differential equations (Song et al.,
    2021), section 4.1 and appendix H.

    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from scorefield.checks import check_fraction, within
from scorefield.errors import UserError
from scorefield.networks.blocks import PixelAttention, ResidualBlock, Style
from scorefield.networks.blocks import activation as named
from scorefield.networks.checks import image_shape
from scorefield.networks.embedding import Conditioning, NoiseTable, places
from scorefield.networks.initial import initialize_average, normal_
from scorefield.networks.network import Network
from scorefield.networks.stages import Ascent, Descent, Plan, Progressive, ProgressiveInput, run

Join = Literal["sum", "cat"]
Embedding = Literal["fourier", "positional"]
Block = Literal["biggan", "ddpm"]


class NCSNpp(Network):
    r"""NCSN++, and DDPM++ without filters, with a positional embedding.

    Called as ``network(x, label)``, or ``network(x, label, classes)``.

    Arguments:
        shape: The event shape :math:`(C, H, W)`.
        channels: The width of the first level.
        multipliers: The width of each level in units of ``channels``; their number is the
            number of levels.
        blocks: The residual blocks of a level on the way down; one more on the way up.
        attention: The widths in pixels of the levels at which pixels attend to each other;
            those that no level has are of no effect.
        dropout: The probability of dropout, in [0, 1).
        embedding: How the label is spread over waves: ``fourier`` takes noise levels
            :math:`\sigma > 0`, ``positional`` any label.
        conditional: Whether the blocks are conditioned on the noise level.
        fir: Whether images are filtered where the resolution changes.
        fir_kernel: The taps of the filter, along each side.
        block: Residual blocks that change the resolution themselves (``biggan``), or between
            which there are layers that do (``ddpm``).
        resample_with_conv: Whether the layers of ``ddpm`` are convolutions.
        skip_rescale: Whether sums of two branches are divided by :math:`\sqrt 2`.
        progressive: What of the output is made at each level: nothing, an image that is added
            to that of the level before (``output_skip``), or features (``residual``).
        progressive_input: What of the input each level sees: nothing, the smaller image
            (``input_skip``), or features of it (``residual``).
        combine: How the smaller image joins the features, with ``input_skip``: added, or
            beside them.
        fourier_scale: The deviation of the frequencies of ``fourier``.
        init_scale: The scale of the initial weights that end a residual branch.
        activation: The nonlinearity: swish, elu, relu or lrelu (slope 0.2).
        centered: Whether images lie in [-1, 1]; those in [0, 1] are brought there.
        scale_by_sigma: Whether the output is divided by the noise level: with ``fourier`` the
            label, with ``positional`` that of which the label is the index, from the largest.
        sigma_min: The least noise level, for ``positional``.
        sigma_max: The largest noise level, for ``positional``.
        levels: The number of noise levels, for ``positional``.
        classes: The number of classes of a class-conditional network; a call without classes uses
            the unconditional embedding.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a size is not positive, an option is none of its choices, a side cannot
            be halved often enough, or channels cannot be normalised in groups.
    """

    groups: ClassVar[int | None] = None
    """The groups of a normalisation; by default, a quarter of the channels, and at most 32."""

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        dropout: float = 0.1,
        embedding: Embedding = "fourier",
        conditional: bool = True,
        fir: bool = True,
        fir_kernel: Sequence[float | int] = (1, 3, 3, 1),
        block: Block = "biggan",
        resample_with_conv: bool = True,
        skip_rescale: bool = True,
        progressive: Progressive = "none",
        progressive_input: ProgressiveInput = "residual",
        combine: Join = "sum",
        fourier_scale: float | int = 16.0,
        init_scale: float | int = 0.0,
        activation: str = "swish",
        centered: bool = False,
        scale_by_sigma: bool = True,
        sigma_min: float | int = 0.01,
        sigma_max: float | int = 50.0,
        levels: int = 1000,
        classes: int | None = None,
        seed: int = 0,
    ) -> None:
        for name, value, choices in (
            ("embedding", embedding, Embedding),
            ("block", block, Block),
            ("progressive", progressive, Progressive),
            ("progressive_input", progressive_input, ProgressiveInput),
            ("combine", combine, Join),
        ):
            if value not in get_args(choices):
                raise UserError(f"{name} is one of {get_args(choices)}, not {value!r}")
        image_shape(shape, len(multipliers))
        if channels < 4 or blocks < 1 or not multipliers or min(multipliers) < 1:
            raise UserError(
                "a score network has channels >= 4 and positive multipliers and blocks, got "
                f"channels={channels}, multipliers={tuple(multipliers)}, blocks={blocks}"
            )
        check_fraction("dropout", dropout)
        super().__init__()
        conditioned = conditional or classes is not None
        width = 4 * channels if conditioned else None
        style = Style(named(activation), width, dropout, skip_rescale, self.groups)
        plan = Plan(
            style,
            channels=shape[0],
            blocks=blocks,
            resampling="block" if block == "biggan" else "layer",
            kernel=tuple(float(tap) for tap in fir_kernel) if fir else None,
            convolve=resample_with_conv,
            progressive=progressive,
            progressive_input=progressive_input,
            combine=combine,
        )
        self.event_shape = tuple(shape)
        self.centered, self.positive = centered, embedding == "fourier"
        self.division: Literal["label"] | NoiseTable | None = None
        if scale_by_sigma:
            table = None if self.positive else NoiseTable(sigma_min, sigma_max, levels)
            self.division = table or "label"
        self.act = style.act
        self.conditioning = (
            Conditioning(channels, 4 * channels, style.act, self.positive, conditional, classes)
            if conditioned
            else None
        )
        self.classes = classes
        self._make_layers(plan, channels, [channels * m for m in multipliers], attention)
        # Convolutions are faster so, on processors and on GPUs.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        initialize_average(self, seed, self._scales(plan, init_scale))
        if self.conditioning is not None and self.conditioning.fourier is not None:
            normal_(self.conditioning.fourier.frequencies, seed, "frequencies", fourier_scale)
        if self.conditioning is not None and self.conditioning.classes is not None:
            normal_(self.conditioning.classes.weight, seed, "classes")

    def _make_layers(
        self, plan: Plan, channels: int, widths: Sequence[int], attention: Sequence[int]
    ) -> None:
        colors, _, side = self.event_shape
        attended = [side // 2**k in attention for k in range(len(widths))]
        final = len(widths) - 1
        self.first = nn.Conv2d(colors, channels, 3, padding=1)
        self.down = nn.ModuleList()
        width, pyramid, skips = channels, colors, [channels]
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
            self.last = nn.Conv2d(width, colors, 3, padding=1)

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
        for layer in self.middle:
            h = run(layer, h, condition)
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


class DDPM(NCSNpp):
    r"""The network of denoising diffusion, with a positional embedding of the label.

    It is an :class:`NCSNpp` whose resolution is changed by layers without filters; the arguments
    are those of the same names there.

    Raises:
        ValueError: If a size is not positive, an option is none of its choices, a side cannot
            be halved often enough, or channels cannot be normalised in 32 groups.
    """

    groups = 32

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        dropout: float = 0.1,
        conditional: bool = True,
        resample_with_conv: bool = True,
        activation: str = "swish",
        centered: bool = True,
        scale_by_sigma: bool = False,
        sigma_min: float | int = 0.01,
        sigma_max: float | int = 50.0,
        levels: int = 1000,
        classes: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            shape,
            channels,
            multipliers,
            blocks,
            attention,
            dropout,
            embedding="positional",
            conditional=conditional,
            fir=False,
            block="ddpm",
            resample_with_conv=resample_with_conv,
            skip_rescale=False,
            progressive_input="none",
            activation=activation,
            centered=centered,
            scale_by_sigma=scale_by_sigma,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            levels=levels,
            classes=classes,
            seed=seed,
        )

r"""The NCSN++ and DDPM++ networks.

References:
    Score-based generative modeling through stochastic differential equations (Song et al.,
    2021), section 4.1 and appendix H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from scorefield.errors import UserError
from scorefield.networks.activation import activation as named
from scorefield.networks.blocks import Style
from scorefield.networks.conditioning import Conditioning
from scorefield.networks.levels import NoiseTable
from scorefield.networks.score_unet import ScoreUNet
from scorefield.networks.stages import Plan

ProgressiveOutput = Literal["none", "output_skip", "residual"]
ProgressiveInput = Literal["none", "input_skip", "residual"]
Join = Literal["sum", "cat"]
Embedding = Literal["fourier", "positional"]
Block = Literal["biggan", "ddpm"]


class NCSNpp(ScoreUNet):
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
        checkpointing: Whether blocks are computed again in the backward pass instead of kept.
        classes: The number of classes of a class-conditional network; a call without classes uses
            the unconditional embedding.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a size is not positive, an option is none of its choices, a side cannot
            be halved often enough, or channels cannot be normalised in groups.
    """

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
        progressive: ProgressiveOutput = "none",
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
        checkpointing: bool = False,
        classes: int | None = None,
        seed: int = 0,
    ) -> None:
        for name, value, choices in (
            ("embedding", embedding, Embedding),
            ("block", block, Block),
            ("progressive", progressive, ProgressiveOutput),
            ("progressive_input", progressive_input, ProgressiveInput),
            ("combine", combine, Join),
        ):
            if value not in get_args(choices):
                raise UserError(f"{name} is one of {get_args(choices)}, not {value!r}")
        told = conditional or classes is not None
        style = Style(named(activation), 4 * channels if told else None, dropout, skip_rescale)
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
            checkpointing=checkpointing,
        )
        fourier = embedding == "fourier"
        conditioning = (
            Conditioning(channels, 4 * channels, style.act, fourier, conditional, classes)
            if told
            else None
        )
        division: Literal["label"] | NoiseTable | None = None
        if scale_by_sigma:
            division = "label" if fourier else NoiseTable(sigma_min, sigma_max, levels)
        super().__init__(
            shape,
            channels,
            multipliers,
            attention,
            plan,
            conditioning,
            division,
            centered=centered,
            positive=fourier,
            init_scale=init_scale,
            fourier_scale=fourier_scale,
            seed=seed,
        )

r"""The DDPM network.

References:
    Denoising diffusion probabilistic models (Ho, Jain and Abbeel, 2020), appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.networks.activation import activation as named
from scorefield.networks.blocks import Style
from scorefield.networks.conditioning import Conditioning
from scorefield.networks.levels import NoiseTable
from scorefield.networks.score_unet import ScoreUNet
from scorefield.networks.stages import Plan


class DDPM(ScoreUNet):
    r"""The network of denoising diffusion, with a positional embedding of the label.

    Called as ``network(x, label)``, or ``network(x, label, classes)``.

    Arguments:
        shape: The event shape :math:`(C, H, W)`.
        channels: The width of the first level, a multiple of 32.
        multipliers: The width of each level in units of ``channels``; their number is the
            number of levels.
        blocks: The residual blocks of a level on the way down; one more on the way up.
        attention: The widths in pixels of the levels at which pixels attend to each other;
            those that no level has are of no effect.
        dropout: The probability of dropout, in [0, 1).
        conditional: Whether the blocks are conditioned on the noise level.
        resample_with_conv: Whether the layers that change the resolution are convolutions.
        activation: The nonlinearity: swish, elu, relu or lrelu (slope 0.2).
        centered: Whether images lie in [-1, 1]; those in [0, 1] are brought there.
        scale_by_sigma: Whether the output is divided by the noise level of which the label is
            the index, from the largest.
        sigma_min: The least noise level.
        sigma_max: The largest noise level.
        levels: The number of noise levels.
        checkpointing: Whether blocks are computed again in the backward pass instead of kept.
        classes: The number of classes of a class-conditional network; a call without classes uses
            the unconditional embedding.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a size is not positive, an option is none of its choices, a side cannot
            be halved often enough, or channels cannot be normalised in 32 groups.
    """

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
        checkpointing: bool = False,
        classes: int | None = None,
        seed: int = 0,
    ) -> None:
        told = conditional or classes is not None
        style = Style(named(activation), 4 * channels if told else None, dropout, False, groups=32)
        plan = Plan(
            style,
            channels=shape[0],
            blocks=blocks,
            resampling="layer",
            kernel=None,
            convolve=resample_with_conv,
            checkpointing=checkpointing,
        )
        super().__init__(
            shape,
            channels,
            multipliers,
            attention,
            plan,
            Conditioning(channels, 4 * channels, style.act, False, conditional, classes)
            if told
            else None,
            NoiseTable(sigma_min, sigma_max, levels) if scale_by_sigma else None,
            centered=centered,
            positive=False,
            init_scale=0.0,
            fourier_scale=1.0,
            seed=seed,
        )

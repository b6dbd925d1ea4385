r"""The noise conditional score network, version 2.

References:
    Improved techniques for training score-based generative models (Song and Ermon, 2020),
    section 3.2 and appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from scorefield.errors import UserError
from scorefield.networks.activation import activation as named
from scorefield.networks.instance_norm import (
    EPSILON,
    InstanceNorm,
    InstanceNormPlus,
    Unnormalized,
    VarianceNorm,
)
from scorefield.networks.levels import NoiseTable, places
from scorefield.networks.refinenet import (
    Normalization,
    RefineNet,
    Stage,
    check_images,
    initialize,
)

# Of each depth: the width of the stages in units of the first, and how many of them halve.
_DEPTHS = {64: ((1, 2, 2, 2), 1), 128: ((1, 2, 2, 4, 4), 2), 256: ((1, 2, 2, 2, 4, 4), 3)}


class NCSNv2(nn.Module):
    r"""A RefineNet without a label, divided by the noise level.

    .. math:: y = \frac{1}{\sigma_i} C\,a(N(R(C' x')))

    with convolutions :math:`C`, the trunk :math:`R` and a normalisation :math:`N`; the noise
    level enters by the quotient alone. The last two stages of the trunk look further by
    dilation (2 and 4) rather than halve the image; pooling takes maxima; there are
    normalisations on the way down only.

    Arguments:
        shape: The event shape :math:`(C, H, W)`. Images of other sizes can be given too.
        size: The depth, named by the sides of the images that it is meant for: 64, 128 and 256
            halve the image 1, 2 and 3 times.
        channels: The width of the first stage.
        sigma_min: The least noise level.
        sigma_max: The greatest noise level, which the label 0 stands for.
        levels: The number of noise levels, in geometric progression.
        activation: The nonlinearity :math:`a`: elu, relu, lrelu (slope 0.2) or swish.
        normalization: InstanceNorm++, InstanceNorm or VarianceNorm.
        last_epsilon: What the last normalisation adds to the variances, for InstanceNorm. (The
            score_sde code has the number of levels there, by mistake.)
        centered: Whether the data lie in [-1, 1]. If not, they lie in [0, 1], and the network
            sees :math:`x' = 2x - 1`.
        checkpointing: Whether training computes each stage again on the way back: less memory,
            more time, the same numbers.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If the sides of the image are not multiples of 2, 4 or 8 (by the depth), no
            more than one pixel would be left of it, ``channels`` is below 2, the noise levels
            are no table, or there is no such depth, nonlinearity or normalisation.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        size: Literal[64, 128, 256] = 64,
        channels: int = 128,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        levels: int = 232,
        activation: str = "elu",
        normalization: str = "InstanceNorm++",
        last_epsilon: float = EPSILON,
        centered: bool = False,
        checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if size not in _DEPTHS:
            raise UserError(f"size must be 64, 128 or 256, got {size}")
        if channels < 2:
            raise UserError(f"channels must be at least 2, got {channels}")
        widths, self._halvings = _DEPTHS[size]
        self.event_shape = check_images(shape, shape[0], self._halvings, "shape")
        self.table = NoiseTable(sigma_min, sigma_max, levels)
        self.centered = centered
        self.act = named(activation)

        dilations = (*[1] * (len(widths) - 2), 2, 4)
        stages = [
            Stage(channels * width, 0 < k <= self._halvings, dilation)
            for k, (width, dilation) in enumerate(zip(widths, dilations, strict=True))
        ]
        norm = _normalization(normalization, EPSILON)
        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.trunk = RefineNet(
            channels, stages, "max", norm, lambda _: Unnormalized(), self.act, checkpointing
        )
        self.last_norm = _normalization(normalization, last_epsilon)(channels)
        self.last = nn.Conv2d(channels, shape[0], 3, padding=1)
        initialize(self, seed)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        label: Shaped[Tensor, " batch"],
    ) -> Float[Tensor, "batch channels height width"]:
        """The output for images and the places of their noise levels in the table.

        Raises:
            ValueError: If the images do not fit, or a label is no place in the table.
        """
        check_images(x.shape[1:], self.event_shape[0], self._halvings, "x")
        index = places(label, self.table.levels, x.shape[0])
        h = self.trunk(self.first(x if self.centered else 2 * x - 1), index)
        h = self.last(self.act(self.last_norm(h, index)))
        output: Tensor = h / self.table.at(index, like=h)
        return output


def _normalization(name: str, epsilon: float) -> Normalization:
    kinds: dict[str, Normalization] = {
        "InstanceNorm++": InstanceNormPlus,
        "InstanceNorm": lambda _: InstanceNorm(epsilon),
        "VarianceNorm": VarianceNorm,
    }
    if name not in kinds:
        raise UserError(f"normalization must be one of {', '.join(kinds)}, got {name!r}")
    return kinds[name]

r"""The noise conditional score networks, of both versions.

References:
    Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
    section 4 and appendix A.

    Improved techniques for training score-based generative models (Song and Ermon, 2020),
    section 3.2 and appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from scorefield.checks import check_count
from scorefield.errors import UserError
from scorefield.networks.blocks import activation as named
from scorefield.networks.embedding import NoiseTable, places
from scorefield.networks.instance_norm import (
    EPSILON,
    InstanceNorm,
    InstanceNormPlus,
    LabelledInstanceNormPlus,
    Unnormalized,
    VarianceNorm,
)
from scorefield.networks.network import Network
from scorefield.networks.refinenet import (
    Normalization,
    Pooling,
    RefineNet,
    Stage,
    check_images,
    initialize,
)

# Of each depth: the width of the stages in units of the first, and how many of them halve.
_DEPTHS = {64: ((1, 2, 2, 2), 1), 128: ((1, 2, 2, 4, 4), 2), 256: ((1, 2, 2, 2, 4, 4), 3)}


class _Network(Network):
    """A convolution, a RefineNet, a normalisation and a convolution."""

    def __init__(
        self,
        shape: Sequence[int],
        stages: Sequence[Stage],
        pooling: Pooling,
        norms: tuple[Normalization, Normalization, Normalization],
        levels: int,
        activation: str,
        centered: bool,
        seed: int,
    ) -> None:
        super().__init__()
        channels = stages[0].width
        check_count("channels", channels, 2)
        check_count("levels", levels, 2)
        self._levels, self._halvings = levels, sum(stage.halves for stage in stages)
        self.event_shape = check_images(shape, shape[0], self._halvings, "shape")
        self.centered = centered
        self.act = named(activation)
        descending, ascending, final = norms
        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.trunk = RefineNet(channels, stages, pooling, descending, ascending, self.act)
        self.last_norm = final(channels)
        self.last = nn.Conv2d(channels, shape[0], 3, padding=1)
        initialize(self, seed)

    def _output(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The last convolution's, and the places of the noise levels in their table."""
        check_images(x.shape[1:], self.event_shape[0], self._halvings, "x")
        index = places(label, self._levels, x.shape[0])
        h = self.trunk(self.first(x if self.centered else 2 * x - 1), index)
        return self.last(self.act(self.last_norm(h, index))), index


class NCSN(_Network):
    r"""A RefineNet whose every normalisation knows the noise level, one of a table.

    .. math:: y = C\,a(N_i(R_i(C' x')))

    with convolutions :math:`C`, the trunk :math:`R_i`, and a normalisation :math:`N_i` that
    has its own coefficients for each place :math:`i` in the table, which is the label. The image is
    halved once; two further stages look further by dilation. Pooling takes averages.

    Arguments:
        shape: The event shape :math:`(C, H, W)`. Images of other sizes can be given too.
        channels: The width of the first stage; the others are twice as wide.
        levels: The number of noise levels.
        activation: The nonlinearity :math:`a`: elu, relu, lrelu (slope 0.2) or swish.
        centered: Whether the data lie in [-1, 1]. If not, they lie in [0, 1], and the network
            sees :math:`x' = 2x - 1`.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a side of the image is odd, the image has no more than 4 pixels,
            ``channels`` or ``levels`` is below 2, or there is no such nonlinearity. In a call, if
            the images do not fit, or a label is no place in the table.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        channels: int = 128,
        levels: int = 10,
        activation: str = "elu",
        centered: bool = False,
        seed: int = 0,
    ) -> None:
        def norm(width: int) -> nn.Module:
            return LabelledInstanceNormPlus(width, levels)

        stages = [
            Stage(channels),
            Stage(2 * channels, halves=True),
            Stage(2 * channels, dilation=2),
            Stage(2 * channels, dilation=4),
        ]
        self.levels, norms = levels, (norm, norm, norm)
        super().__init__(shape, stages, "average", norms, levels, activation, centered, seed)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        label: Shaped[Tensor, " batch"],
    ) -> Float[Tensor, "batch channels height width"]:
        return self._output(x, label)[0]


class NCSNv2(_Network):
    r"""A RefineNet without a label, divided by the noise level.

    .. math:: y = \frac{1}{\sigma_i} C\,a(N(R(C' x')))

    with convolutions :math:`C`, the trunk :math:`R` and a normalisation :math:`N`; the noise
    level, whose place in the table is the label, enters by the quotient alone. The last two stages
    of the trunk look further by dilation (2 and 4) rather than halve the image; pooling takes
    maxima; there are normalisations on the way down only.

    Arguments:
        shape: The event shape :math:`(C, H, W)`. Images of other sizes can be given too.
        size: The depth, named by the sides of the images that it is meant for: 64, 128 and 256
            halve the image 1, 2 and 3 times.
        channels: The width of the first stage.
        sigma_min: The least noise level.
        sigma_max: The greatest noise level, which the label 0 stands for.
        levels: The number of noise levels, in geometric progression.
        activation: As of :class:`NCSN`, like the arguments below of the same name.
        normalization: InstanceNorm++, InstanceNorm or VarianceNorm.
        last_epsilon: What the last normalisation adds to the variances, for InstanceNorm. (The
            score_sde code has the number of levels there, by mistake.)

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
        seed: int = 0,
    ) -> None:
        if size not in _DEPTHS:
            raise UserError(f"size must be 64, 128 or 256, got {size}")
        widths, halvings = _DEPTHS[size]
        dilations = (*[1] * (len(widths) - 2), 2, 4)
        stages = [
            Stage(channels * width, 0 < k <= halvings, dilation)
            for k, (width, dilation) in enumerate(zip(widths, dilations, strict=True))
        ]
        self.table = NoiseTable(sigma_min, sigma_max, levels)
        norm, last = (_normalization(normalization, epsilon) for epsilon in (EPSILON, last_epsilon))
        norms = (norm, lambda _: Unnormalized(), last)
        super().__init__(shape, stages, "max", norms, levels, activation, centered, seed)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        label: Shaped[Tensor, " batch"],
    ) -> Float[Tensor, "batch channels height width"]:
        h, index = self._output(x, label)
        return h / self.table.at(index, like=h)


def _normalization(name: str, epsilon: float) -> Normalization:
    kinds: dict[str, Normalization] = {
        "InstanceNorm++": InstanceNormPlus,
        "InstanceNorm": lambda _: InstanceNorm(epsilon),
        "VarianceNorm": VarianceNorm,
    }
    if name not in kinds:
        raise UserError(f"normalization must be one of {', '.join(kinds)}, got {name!r}")
    return kinds[name]

r"""The noise conditional score network.

References:
    Generative modeling by estimating gradients of the data distribution (Song and Ermon, 2019),
    section 4 and appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from scorefield.errors import UserError
from scorefield.networks.activation import activation as named
from scorefield.networks.instance_norm import LabelledInstanceNormPlus
from scorefield.networks.levels import places
from scorefield.networks.refinenet import RefineNet, Stage, check_images, initialize


class NCSN(nn.Module):
    r"""A RefineNet whose every normalisation knows the noise level, one of a table.

    .. math:: y = C\,a(N_i(R_i(C' x')))

    with convolutions :math:`C`, the trunk :math:`R_i`, and a normalisation :math:`N_i` that
    has its own coefficients for each place :math:`i` in the table. The image is halved once;
    two further stages look further by dilation. Pooling takes averages.

    Arguments:
        shape: The event shape :math:`(C, H, W)`. Images of other sizes can be given too.
        channels: The width of the first stage; the others are twice as wide.
        levels: The number of noise levels.
        activation: The nonlinearity :math:`a`: elu, relu, lrelu (slope 0.2) or swish.
        centered: Whether the data lie in [-1, 1]. If not, they lie in [0, 1], and the network
            sees :math:`x' = 2x - 1`.
        checkpointing: Whether training computes each stage again on the way back: less memory,
            more time, the same numbers.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If a side of the image is odd, the image has no more than 4 pixels,
            ``channels`` or ``levels`` is below 2, or there is no such nonlinearity.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        channels: int = 128,
        levels: int = 10,
        activation: str = "elu",
        centered: bool = False,
        checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if channels < 2:
            raise UserError(f"channels must be at least 2, got {channels}")
        if levels < 2:
            raise UserError(f"levels must be at least 2, got {levels}")
        self.event_shape = check_images(shape, shape[0], 1, "shape")
        self.levels = levels
        self.centered = centered
        self.act = named(activation)

        def norm(width: int) -> nn.Module:
            return LabelledInstanceNormPlus(width, levels)

        stages = [
            Stage(channels),
            Stage(2 * channels, halves=True),
            Stage(2 * channels, dilation=2),
            Stage(2 * channels, dilation=4),
        ]
        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.trunk = RefineNet(channels, stages, "average", norm, norm, self.act, checkpointing)
        self.last_norm = norm(channels)
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
        check_images(x.shape[1:], self.event_shape[0], 1, "x")
        index = places(label, self.levels, x.shape[0])
        h = self.trunk(self.first(x if self.centered else 2 * x - 1), index)
        output: Tensor = self.last(self.act(self.last_norm(h, index)))
        return output

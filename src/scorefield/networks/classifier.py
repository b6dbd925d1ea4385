"""A small convolutional classifier, whose last hidden layer serves as features of images."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError
from scorefield.networks.initial import initialize

_GRID = 4


class Classifier(nn.Module):
    r"""Two convolutions, a hidden layer of named size, and one score a class.

    .. math::
        h_1 &= \mathrm{SiLU}(C_1 x), \qquad h_2 = \mathrm{SiLU}(C_2 h_1), \\
        f(x) &= \mathrm{SiLU}(A\,P h_2 + a), \qquad g(x) = B f(x) + b,

    with :math:`3 \times 3` convolutions :math:`C` to :math:`c` and :math:`2c` channels, means
    :math:`P` over a grid of at most :math:`4 \times 4` cells, the features :math:`f` and the
    logits :math:`g`.

    Arguments:
        shape: The shape of an image, ``(channels, height, width)``; any size.
        classes: The number of classes.
        channels: The number :math:`c` of channels of the first convolution.
        features: The number of features.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If the shape is not that of an image, or a size is not positive.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        channels: int = 16,
        features: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(
                f"a classifier takes images of shape (channels, height, width), got {tuple(shape)}"
            )
        for name, size in {"classes": classes, "channels": channels, "features": features}.items():
            if size < 1:
                raise UserError(f"a classifier needs {name} >= 1, got {size}")
        self.event_shape = tuple(shape)
        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d((min(_GRID, shape[1]), min(_GRID, shape[2])))
        cells = min(_GRID, shape[1]) * min(_GRID, shape[2])
        self.hidden = nn.Linear(2 * channels * cells, features)
        self.last = nn.Linear(features, classes)
        initialize(self, seed)

    def features(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch features"]:
        """The values of the last hidden layer."""
        h = F.silu(self.second(F.silu(self.first(x))))
        return F.silu(self.hidden(self.pool(h).flatten(1)))

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.last(self.features(x))
        return logits

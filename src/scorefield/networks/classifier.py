r"""Classifiers of images: a small one, whose last hidden layer serves as features, and a wide
residual network for every noise level.

References:
    Wide residual networks (Zagoruyko and Komodakis, 2016), section 2.

    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    appendix I.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError
from scorefield.networks.checks import check_sizes, image_shape
from scorefield.networks.embedding import FourierFeatures
from scorefield.networks.initial import initialize, initialize_average, normal_
from scorefield.networks.network import Network

_GRID = 4
_GROUPS = 3


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
        stride: The stride of the second convolution.
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
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.event_shape = image_shape(shape)
        sizes = {"classes": classes, "channels": channels, "features": features, "stride": stride}
        check_sizes("a classifier", **sizes)
        self.first = nn.Conv2d(shape[0], channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 2 * channels, 3, stride, padding=1)
        rows, columns = min(_GRID, shape[1]), min(_GRID, shape[2])
        self.pool = nn.AdaptiveAvgPool2d((rows, columns))
        self.hidden = nn.Linear(2 * channels * rows * columns, features)
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


class WideBlock(nn.Module):
    r"""Two convolutions around a shift by the noise level.

    .. math:: h = C_1\,a(x) + A\,\mathrm{SiLU}(c), \qquad y = S x + C_2\,b(h),

    with :math:`a` and :math:`b` a group normalisation and a rectifier, :math:`3 \times 3`
    convolutions :math:`C`, and :math:`S` the mean over the pixels that one of :math:`y` stands
    for, followed by as many channels of zeros as are missing. :math:`C_1` has the ``stride``; with
    ``rectified``, :math:`S` too is applied to :math:`a(x)`.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int, stride: int, rectified: bool
    ) -> None:
        super().__init__()
        self.added, self.stride, self.rectified = outputs - inputs, stride, rectified
        self.first_norm = _norm(inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, stride, bias=False)
        self.level = nn.Linear(embedding, outputs)
        self.second_norm = _norm(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = F.relu(self.first_norm(x))
        skip = h if self.rectified else x
        if self.stride > 1:
            skip = F.avg_pool2d(skip, self.stride, ceil_mode=True)
        if self.added:
            skip = F.pad(skip, (0, 0, 0, 0, 0, self.added))
        h = self.first(F.pad(h, (*self._margin(h.shape[3]), *self._margin(h.shape[2]))))
        h = h + self.level(F.silu(level))[:, :, None, None]
        output: Tensor = skip + self.second(F.relu(self.second_norm(h)))
        return output

    def _margin(self, side: int) -> tuple[int, int]:
        """The zeros before and after a side, with which strides begin at its first pixels."""
        total = 3 - self.stride if side % self.stride == 0 else 2
        return total // 2, total - total // 2


class NoiseClassifier(Network):
    r"""Log-probabilities, up to a constant, of the classes of a noisy image.

    Three groups of residual blocks, each at half the resolution of the one before and with twice
    its channels; then the mean over the pixels, and a linear map. The image is standardised first:
    its own mean is taken away and it is divided by its own standard deviation, or by
    :math:`1/\sqrt{D}` where that is larger. The noise level enters by its logarithm, through waves
    of random frequency and two linear layers. Without arguments it is the network 28-10.

    Called as ``classifier(x, noise_level)`` with images in units of the data, and the standard
    deviation of their noise in these units: of a process, :math:`x_t / \alpha(t)` and
    :math:`\sigma(t) / \alpha(t)`. So it does not matter for which process it was trained.

    Arguments:
        shape: The event shape :math:`(C, H, W)`.
        classes: The number of classes.
        multiplier: The width :math:`k`: the groups have :math:`16k`, :math:`32k` and :math:`64k`
            channels.
        blocks: The residual blocks of a group.
        embedding: The number of waves that the noise level is spread over; the linear layers have
            four times as many outputs.
        scale: The standard deviation of the waves' frequencies.
        seed: The seed of the initial weights.

    Raises:
        ValueError: If the shape is not that of an image, or a size is not positive.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        multiplier: int = 10,
        blocks: int = 4,
        embedding: int = 128,
        scale: float = 16.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.event_shape = image_shape(shape)
        sizes = {"classes": classes, "multiplier": multiplier, "blocks": blocks}
        for name, size in {**sizes, "embedding": embedding, "scale": scale}.items():
            if not size > 0:
                raise UserError(f"a noise classifier needs a positive {name}, got {size}")
        self.classes = classes
        told = 4 * embedding
        self.waves = FourierFeatures(embedding)
        self.level = nn.Sequential(nn.Linear(2 * embedding, told), nn.SiLU(), nn.Linear(told, told))
        width = 16
        self.first = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList()
        for group in range(_GROUPS):
            outputs = 16 * multiplier * 2**group
            for k in range(blocks):
                stride = 2 if group and k == 0 else 1
                rectified = group == 0 and k == 0
                self.blocks.append(WideBlock(width, outputs, told, stride, rectified))
                width = outputs
        self.last_norm = _norm(width)
        self.last = nn.Linear(width, classes)
        initialize_average(self, seed, {m: 2.0 for m in self.modules() if isinstance(m, nn.Conv2d)})
        normal_(self.waves.frequencies, seed, "waves.frequencies", scale)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        noise_level: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch classes"]:
        level = self.level(self.waves(noise_level))
        h = self.first(standardized(x))
        for block in self.blocks:
            h = block(h, level)
        h = F.relu(self.last_norm(h)).mean(dim=(2, 3))
        logits: Tensor = self.last(h)
        return logits


def standardized(x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    r"""Each image with mean 0 and standard deviation 1, or less where its own is below
    :math:`1/\sqrt{D}`.
    """
    flat = x.flatten(1)
    centred = flat - flat.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1, keepdim=True)
    return (centred * variance.clamp(min=1 / flat.shape[1]).rsqrt()).view_as(x)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, min(channels // 4, 32)), channels)

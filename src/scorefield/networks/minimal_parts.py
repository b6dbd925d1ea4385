r"""What the minimal networks are made of.

Batch normalisation is none of it: with it the value at a point would depend on the batch that the
point is in, so that there were no field, and averaged weights would meet the statistics of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError
from scorefield.networks.conditioning import positional_features
from scorefield.networks.embedding import ClassEmbedding, embedded

Padding = Literal["zeros", "circular"]
Normalization = Literal["group"]


class LabelVector(nn.Module):
    r"""A label, and a class, as one vector.

    .. math:: e_k = \sin(\omega_k c), \qquad e_{K + k} = \cos(\omega_k c), \qquad
        \omega_k = 10^{-4 k / (K - 1)}, \qquad k = 0 \dots K - 1,

    to which the vector of the class is added. The argument is the label as given; nothing scales
    it.

    Arguments:
        features: The number :math:`2K` of features, even and at least 4.
        classes: The number of classes, if any are known.
        unlabelled: Whether one more vector stands for no class.

    Raises:
        ValueError: If the number of features is odd or too small, or there is no class.
    """

    def __init__(self, features: int, classes: int | None = None, unlabelled: bool = True) -> None:
        super().__init__()
        if features < 4 or features % 2:
            raise UserError(f"an embedding has an even number >= 4 of features, got {features}")
        self.features = features
        self.classes = None if classes is None else ClassEmbedding(classes, features, unlabelled)

    def forward(
        self, label: Float[Tensor, " batch"], classes: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch features"]:
        waves = positional_features(label, self.features).to(label.dtype)
        return embedded(waves, self.classes, classes)


class MinimalBlock(nn.Module):
    r"""Two convolutions of an image that is first shifted by the embedded label.

    .. math:: h = x + A\,\mathrm{ReLU}(e), \qquad
        y = \mathrm{ReLU}(N_2 C_2\,\mathrm{ReLU}(N_1 C_1 h)),

    with convolutions :math:`C` and normalisations :math:`N`, where there are any.

    Arguments:
        inputs: The channels of :math:`x`.
        outputs: The channels of :math:`y`.
        embedding: The width of the embedding :math:`e`.
        kernel: The side of the convolutions, in pixels.
        padding: What lies outside the image.
        normalization: The kind of the normalisations, of up to 32 groups.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        kernel: int,
        padding: Padding,
        normalization: Normalization | None,
    ) -> None:
        super().__init__()
        groups = min(32, outputs)
        self.level = nn.Linear(embedding, inputs)
        self.first = convolution(inputs, outputs, kernel, padding)
        self.first_norm = norm(outputs, groups, normalization)
        self.second = convolution(outputs, outputs, kernel, padding)
        self.second_norm = norm(outputs, groups, normalization)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = x + self.level(level)[:, :, None, None]
        h = F.relu(self.first_norm(self.first(h)))
        return F.relu(self.second_norm(self.second(h)))


class MinimalLayer(nn.Module):
    r"""One convolution around which the features go on unchanged.

    .. math:: y = h + \mathrm{ReLU}(N C (h + e_\ell)), \qquad
        e_\ell = \mathrm{ReLU}(G A e),

    with a convolution :math:`C`, a normalisation :math:`N`, where there is one, and a group
    normalisation :math:`G` of 8 groups.

    Arguments:
        channels: The channels of :math:`h`, and the width of the embedding :math:`e`.
        kernel: The side of the convolution, in pixels.
        padding: What lies outside the image.
        normalization: The kind of the normalisation, of 8 groups.
    """

    def __init__(
        self, channels: int, kernel: int, padding: Padding, normalization: Normalization | None
    ) -> None:
        super().__init__()
        self.level = level_of(channels)
        self.convolution = convolution(channels, channels, kernel, padding)
        self.norm = norm(channels, 8, normalization)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        shifted = h + self.level(level)[:, :, None, None]
        return h + F.relu(self.norm(self.convolution(shifted)))


def level_of(channels: int) -> nn.Sequential:
    r"""The map :math:`e \mapsto \mathrm{ReLU}(G A e)` of :class:`MinimalLayer`."""
    return nn.Sequential(nn.Linear(channels, channels), nn.GroupNorm(8, channels), nn.ReLU())


def convolution(inputs: int, outputs: int, kernel: int, padding: Padding) -> nn.Conv2d:
    """A convolution that keeps the sides of an image."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode=padding)


def norm(channels: int, groups: int, normalization: Normalization | None) -> nn.Module:
    """A normalisation, or the identity.

    Raises:
        ValueError: If the channels cannot be split into the groups.
    """
    if normalization is None:
        return nn.Identity()
    if channels % groups:
        raise UserError(f"{channels} channels cannot be normalised in {groups} groups")
    return nn.GroupNorm(groups, channels)


def check(
    shape: Sequence[int],
    padding: Padding,
    normalization: Normalization | None,
    kernels: tuple[int, int],
    smallest: int,
) -> None:
    """Check the inputs of the minimal networks.

    Arguments:
        shape: The event shape.
        padding: What lies outside the image.
        normalization: The kind of the normalisations.
        kernels: The sides of the convolutions, and of the last.
        smallest: The shortest side of an image that a convolution of the first kind meets.

    Raises:
        ValueError: If there is no such padding or normalisation, a kernel has no middle, or a
            side is shorter than what is wrapped around it.
    """
    if padding not in get_args(Padding):
        raise UserError(f"a minimal network pads with zeros or circular, not {padding!r}")
    if normalization not in (None, *get_args(Normalization)):
        raise UserError(
            f"a minimal network normalises by group or not at all, not {normalization!r}"
        )
    if any(k < 1 or k % 2 == 0 for k in kernels):
        raise UserError(f"kernels have an odd number of pixels a side, got {list(kernels)}")
    for kernel, side in ((kernels[0], smallest), (kernels[1], min(shape[1:]))):
        if padding == "circular" and kernel // 2 > side:
            raise UserError(
                f"circular padding of {kernel // 2} pixels needs sides as long, of images of "
                f"{shape[1]} x {shape[2]} the network sees one of {side}"
            )

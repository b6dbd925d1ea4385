r"""Augmentation of images that does not leak into samples.

A training image is changed by a geometric transformation whose parameters are drawn at random, and
the network receives them. It therefore learns one distribution for each transformation, and that of
the images themselves, with parameters zero, is the one that is sampled and measured.

===========  =================================================================  ==============
..           transformation                                                     labels
===========  =================================================================  ==============
mirrored     columns in reverse order, with probability 1/2                     1
flipped      rows in reverse order, with probability 1/2                        1
scaling      by :math:`2^{s a}`, with :math:`a` normal                          :math:`a`
rotation     counter-clockwise by :math:`\theta`, uniform in all directions     :math:`\cos\theta
                                                                                - 1, \sin\theta`
stretching   by :math:`2^{s b}` along an axis at an angle :math:`\phi`, and     :math:`b \cos\phi,
             :math:`2^{-s b}` across it, with :math:`b` normal; :math:`\phi`    b \sin\phi`
             is uniform or, with probability 1/2, zero
translation  by :math:`(c\,W, d\,H) / 8` to the right and downwards, with       :math:`c, d`
             :math:`c` and :math:`d` normal
===========  =================================================================  ==============

They are done in this order. Each but the first takes place with a given probability; images are
mirrored whenever that is positive.

Pixels between pixels are interpolated by the bicubic kernel, and images continue beyond their
borders as reflections in them. The published code doubles the resolution with a wavelet, samples
that bilinearly, and filters it down again, so that what shrinks does not alias; and reflects in the
centres of the pixels at the border. The two differ in the highest frequencies, and by a pixel
beyond the border.

References:
    Elucidating the design space of diffusion-based generative models (Karras, Aittala, Aila and
    Laine, 2022), appendix F.2; published code, ``training/augment.py`` at commit 008a4e5.

    Training generative adversarial networks with limited data (Karras, Aittala, Hellsten, Laine,
    Lehtinen and Aila, 2020), section 2.2, for augmentations that do not leak.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from scorefield.checks import check_probability
from scorefield.errors import UserError
from scorefield.noise import Noise

_STRETCH = 0.2
"""The standard deviation of the logarithms, to base 2, of scales."""
_SHIFT = 0.125
"""That of translations, in sides of the image."""
_PURPOSE = "augmentation"


class Transformation(NamedTuple):
    r"""The parameters of the transformation of each image, as in the table above.

    Attributes:
        mirrored: Whether columns are reversed.
        flipped: Whether rows are.
        scale: The exponent :math:`a`.
        angle: The angle :math:`\theta`.
        stretch: The exponent :math:`b`.
        axis: The angle :math:`\phi`.
        right: The translation :math:`c`.
        down: The translation :math:`d`.
    """

    mirrored: Bool[Tensor, "..."]
    flipped: Bool[Tensor, "..."]
    scale: Float[Tensor, "..."]
    angle: Float[Tensor, "..."]
    stretch: Float[Tensor, "..."]
    axis: Float[Tensor, "..."]
    right: Float[Tensor, "..."]
    down: Float[Tensor, "..."]

    def labels(self) -> Float[Tensor, "*batch labels"]:
        """The vector that a network receives, which is zero if and only if nothing is changed."""
        columns = (
            self.mirrored.to(self.scale),
            self.flipped.to(self.scale),
            self.scale,
            self.angle.cos() - 1,
            self.angle.sin(),
            self.stretch * self.axis.cos(),
            self.stretch * self.axis.sin(),
            self.right,
            self.down,
        )
        return torch.stack(columns, dim=-1)

    def __call__(self, x: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch c h w"]:
        """The transformed images; those of which no pixel moves between others are exact."""
        x = torch.where(_over(self.mirrored), x.flip(-1), x)
        x = torch.where(_over(self.flipped), x.flip(-2), x)
        moving = (self.scale, self.angle, self.stretch, self.right, self.down)
        moved = torch.stack([number != 0 for number in moving]).any(dim=0)
        images = x.flatten(0, -4)
        grid = self._sources(x).flatten(0, -4)
        warped = F.grid_sample(images, grid, "bicubic", "reflection", align_corners=False)
        return torch.where(_over(moved), warped.view(x.shape), x)

    def _sources(self, like: Tensor) -> Float[Tensor, "*batch h w 2"]:
        """Where each pixel comes from, horizontally and vertically, from -1 to 1."""
        height, width = like.shape[-2:]
        x = torch.arange(width, dtype=like.dtype, device=like.device) - (width - 1) / 2
        y = torch.arange(height, dtype=like.dtype, device=like.device) - (height - 1) / 2
        place = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        shift = torch.stack((self.right * width, self.down * height), dim=-1).to(like) * _SHIFT
        place = place - shift[..., None, None, :]
        place = _turned(place, self.axis)
        # Functions of float64, rounded: their own last digit depends on the batch.
        stretch = torch.exp2(_STRETCH * self.stretch).to(like)
        place = place / torch.stack((stretch, 1 / stretch), dim=-1)[..., None, None, :]
        # Downwards is positive: to turn counter-clockwise is to turn by a negative angle.
        place = _turned(place, self.angle - self.axis)
        place = place / torch.exp2(_STRETCH * self.scale).to(like)[..., None, None, None]
        x, y = place.unbind(-1)
        return torch.stack((2 * x / width, 2 * y / height), dim=-1)


@dataclass(frozen=True)
class Augmentation:
    r"""Random transformations of training images, of which the network receives the parameters.

    Arguments:
        probability: The probability :math:`p` of each; 0.12 for CIFAR-10 and 0.15 for FFHQ in the
            paper. At 0 nothing is changed.

    Raises:
        ValueError: If it is no probability.
    """

    probability: float = 0.12

    def __post_init__(self) -> None:
        check_probability("augmentation: probability", self.probability)

    def check(self, shape: Sequence[int]) -> None:
        """Raises ``ValueError`` unless points of a shape are images."""
        if len(shape) != 3 or min(shape[1:]) < 2:
            raise UserError(
                f"augmentation is for images of shape (channels, height, width), not {tuple(shape)}"
            )

    def draw(self, noise: Noise, index: Tensor, step: int | Tensor) -> Transformation:
        """The transformations of the images of a step, or of several at once, of the common shape
        of ``index`` and ``step``.
        """
        u = noise.uniform(f"{_PURPOSE}/uniforms", (10,), index, step, dtype=torch.float64)
        z = noise.normal(f"{_PURPOSE}/normals", (4,), index, step, dtype=torch.float64)
        mirror, flip, angle, axis, turn, *others = u.unbind(-1)
        scale, stretch, right, down = z.unbind(-1)
        flips, scales, turns, stretches, shifts = (each < self.probability for each in others)
        no = torch.zeros_like(angle)
        direction = torch.where(turn < 0.5, math.tau * axis - math.pi, no)
        return Transformation(
            mirrored=(mirror < 0.5) & (self.probability > 0),
            flipped=(flip < 0.5) & flips,
            scale=torch.where(scales, scale, no),
            angle=torch.where(turns, math.tau * angle - math.pi, no),
            stretch=torch.where(stretches, stretch, no),
            axis=torch.where(stretches, direction, no),
            right=torch.where(shifts, right, no),
            down=torch.where(shifts, down, no),
        )


def _over(rows: Tensor) -> Tensor:
    """Numbers of images against which their pixels broadcast."""
    return rows[..., None, None, None]


def _turned(place: Float[Tensor, "*batch h w 2"], angle: Tensor) -> Float[Tensor, "*batch h w 2"]:
    """Places turned by an angle from the first axis towards the second."""
    cosine, sine = (each.to(place)[..., None, None] for each in (angle.cos(), angle.sin()))
    x, y = place.unbind(-1)
    return torch.stack((cosine * x - sine * y, sine * x + cosine * y), dim=-1)

"""Image data sets known by name, and their properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Filter = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class ImageSet:
    """A data set of images.

    Attributes:
        channels: The channels of an image.
        side: The sides of an image as published, or as commonly used.
        classes: The number of classes; ``None`` where there are none.
        crop: The side of the square cropped from the centre of an image before resizing; ``None``
            for the largest.
        filter: The filter for resizing.
        hub: Its name on the Hugging Face hub; ``None`` if none is known.
        places: Folders in which packages of operating systems install it.
    """

    channels: int
    side: int
    classes: int | None = None
    crop: int | None = None
    filter: Filter = "bilinear"
    hub: str | None = None
    places: tuple[str, ...] = ()


KNOWN = {
    "mnist": ImageSet(1, 28, 10, hub="ylecun/mnist"),
    "fashion_mnist": ImageSet(
        1,
        28,
        10,
        hub="zalando-datasets/fashion_mnist",
        # Debian's package dataset-fashion-mnist.
        places=("/usr/share/datasets/fashion-mnist",),
    ),
    "cifar10": ImageSet(3, 32, 10, hub="uoft-cs/cifar10"),
    "celeba": ImageSet(3, 64, crop=140, hub="flwrlabs/celeba"),
    "celebahq": ImageSet(3, 256),
    "ffhq": ImageSet(3, 256),
    "bedroom": ImageSet(3, 256, filter="bicubic"),
    "church": ImageSet(3, 256, filter="bicubic"),
}
"""The data sets by name. CelebA's square of 140 pixels contains the face; LSUN's bedrooms and
churches, CelebA-HQ and FFHQ have no classes, and the last two no held-out images."""

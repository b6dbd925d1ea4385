r"""Data sets of images.

In memory an image is bytes; a point is an image with values :math:`x = p / 255` for bytes
:math:`p`, or with dequantisation :math:`x = (u + p) / 256` for uniform :math:`u`, which has a
density; where the data are centred, it is :math:`2x - 1`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.data.arrays import FiniteSource
from scorefield.data.image_files import (
    Filter,
    Form,
    Images,
    Splits,
    of_pictures,
    read_images,
    split_off,
)
from scorefield.data.source import Split
from scorefield.errors import UserError
from scorefield.noise import Noise

_CHUNK = 1024
_TEST, _IMAGES, _LABELS = ("test", "valid", "validation"), ("image", "img"), ("label", "labels")


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


@dataclass(eq=False)
class ImageSource(FiniteSource):
    r"""Images that are read on first use.

    Training images are mirrored from left to right with probability ½ where ``flip`` is set;
    held-out images never are. The draws for a training image are addressed by its position in the
    stream, so that the images of a step do not depend on the execution of earlier steps.

    Arguments:
        load: Reads the images.
        name: The name of the data.
        shape: The event shape :math:`(C, H, W)`.
        classes: The number of classes; ``None`` if there are none, or they are not used.
        centered: Whether values are in [-1, 1]; in [0, 1] otherwise.
        flip: Whether training images are mirrored at random.
        dequantize: Whether to add uniform noise to the bytes.
    """

    load: Callable[[], Splits]
    name: str
    shape: tuple[int, ...]
    classes: int | None = None
    centered: bool = False
    flip: bool = False
    dequantize: bool = False

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self._moments[0]

    @property
    def std(self) -> float:
        return self._moments[1]

    def stored(self, split: Split) -> Tensor:
        return getattr(self._splits, split).pixels

    def augmented(self, stored: Tensor, noise: Noise, position: Tensor) -> Tensor:
        if not self.flip:
            return stored
        mirrored = noise.uniform("flip", (), position) < 0.5
        return torch.where(mirrored[..., None, None, None], stored.flip(-1), stored)

    def values(
        self, stored: Tensor, noise: Noise, index: Tensor, dtype: torch.dtype
    ) -> Float[Tensor, "..."]:
        values = stored.to(dtype)
        if self.dequantize:
            # At the largest byte, rounding must not give the next.
            u = noise.uniform("dequantize", self.shape, index, dtype=torch.float64)
            values = ((u + values) / 256).to(dtype).clamp_(max=1 - torch.finfo(dtype).eps / 2)
        else:
            # A GPU multiplies by the inverse of a plain number, which rounds differently.
            values = values / values.new_full((), 255)
        return 2 * values - 1 if self.centered else values

    @cached_property
    def _splits(self) -> Splits:
        splits = self.load()
        for images in splits:
            if tuple(images.pixels.shape[1:]) != self.shape:
                raise UserError(
                    f"{self.name}: images of shape {tuple(images.pixels.shape[1:])} were read, "
                    f"{self.shape} are wanted"
                )
        return splits

    def labels(self, split: Split) -> Int[Tensor, " n"]:
        classes = self.classes
        if classes is None:
            return super().labels(split)
        labels = getattr(self._splits, split).labels
        if labels is None:
            raise UserError(f"{self.name}: {classes} classes are wanted, the images have none")
        low, high = int(labels.min()), int(labels.max())
        if not 0 <= low <= high < classes:
            raise UserError(
                f"{self.name}: a label is a class from 0 to {classes - 1}, got {low} to {high}"
            )
        return labels

    @cached_property
    def _moments(self) -> tuple[Tensor, float]:
        """Mean and standard deviation of the training points, mirrored and dequantised."""
        pixels = self._splits.train.pixels
        total = torch.zeros(self.shape, dtype=torch.int64)
        squares = 0
        for some in pixels.split(_CHUNK):
            total += some.sum(dim=0, dtype=torch.int64)
            squares += int(some.to(torch.int32).square().sum())
        n = len(pixels)
        mean = total.to(torch.float64) / n
        if self.flip:
            mean = (mean + mean.flip(-1)) / 2
        variance = squares / (n * mean.numel()) - float(mean.square().mean())
        levels = 255.0
        if self.dequantize:
            mean, variance, levels = mean + 0.5, variance + 1 / 12, 256.0
        width = 2 if self.centered else 1
        mean = mean * (width / levels)
        return mean - 1 if self.centered else mean, variance**0.5 * width / levels


def image_source(
    dataset: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    path: str | Path | None = None,
    hub: str | None = None,
    centered: bool = False,
    flip: bool = False,
    dequantize: bool = False,
) -> ImageSource:
    """A data set of images, by its name.

    The images are read from the first of these that exists: ``path``; ``hub``; the files installed
    by a package of the operating system; the known data set on the Hugging Face hub.

    Arguments:
        dataset: One of :data:`~scorefield.data.images.KNOWN`, or another name together with
            ``size``, ``channels`` and a place.
        size: The sides of an image; the usual one of the data set by default.
        channels: Its channels; those of the data set by default.
        classes: The number of classes; that of the data set by default.
        path: A file or folder, as for :func:`~scorefield.data.image_files.read_images`.
        hub: A data set on the Hugging Face hub, ``owner/name``.
        centered: As of :class:`ImageSource`; so are ``flip`` and ``dequantize``.

    Raises:
        ValueError: If the data set is not known and not fully specified, or channels are neither
            1 nor 3. Missing images are an error on first use.
    """
    known = KNOWN.get(dataset)
    if known is None and (size is None or channels is None or (path is None and hub is None)):
        raise UserError(
            f"{dataset!r} is none of the known data sets, {', '.join(KNOWN)}: its size, its "
            f"channels and its path must be given"
        )
    about = ImageSet(channels or 3, size or 0) if known is None else known
    form = Form(channels or about.channels, size or about.side, about.crop, about.filter)
    if form.channels not in (1, 3):
        raise UserError(f"images have 1 or 3 channels, got channels={form.channels}")
    return ImageSource(
        partial(_read, dataset, about, form, None if path is None else Path(path), hub),
        dataset,
        (form.channels, form.side, form.side),
        about.classes if classes is None else classes,
        centered,
        flip,
        dequantize,
    )


def _read(dataset: str, about: ImageSet, form: Form, path: Path | None, hub: str | None) -> Splits:
    if path is not None:
        return read_images(path.expanduser(), form)
    installed = [Path(place) for place in about.places if Path(place).is_dir()]
    if hub is None and installed:
        return read_images(installed[0], form)
    name = hub or about.hub
    if name is None:
        raise UserError(
            f"it is not known where the images of {dataset} are: give a file or folder with "
            f"data.path, or a data set on the Hugging Face hub with data.hub"
        )
    return _download(name, form)


def _download(name: str, form: Form) -> Splits:
    """The images of a data set on the Hugging Face hub, or of the copy downloaded before."""
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise UserError(
            f"reading {name} from the Hugging Face hub needs the extra 'images' (pip install "
            f"'scorefield[images]'); or give the file or folder of the images with data.path"
        ) from error
    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # the library's own errors, and those of its dependencies
        raise UserError(
            f"{name} cannot be read from the Hugging Face hub ({type(error).__name__}); give the "
            f"file or folder of the images with data.path"
        ) from error
    splits = [split for split in _TEST if split in found]
    if "train" not in found:
        raise UserError(f"{name} has no split called train, it has {', '.join(found)}")
    train = _rows(name, found["train"], form)
    return Splits(train, _rows(name, found[splits[0]], form)) if splits else split_off(train)


def _rows(name: str, rows: Any, form: Form) -> Images:
    columns = [column for column in _IMAGES if column in rows.column_names]
    if not columns:
        raise UserError(f"{name} has no column of images, it has {', '.join(rows.column_names)}")
    labels = [column for column in _LABELS if column in rows.column_names]
    pixels = of_pictures((row[columns[0]] for row in rows), form)
    return Images(pixels, torch.tensor(rows[labels[0]]) if labels else None)

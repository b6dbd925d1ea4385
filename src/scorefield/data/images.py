r"""Data sets of images.

In memory an image is bytes; a point is an image with values :math:`x = p / 255` for bytes
:math:`p`, or with dequantisation :math:`x = (u + p) / 256` for uniform :math:`u`, which has a
density; where the data are centred, it is :math:`2x - 1`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.data.arrays import in_order
from scorefield.data.hub import download_images
from scorefield.data.image_files import Form, Images, Splits, read_images
from scorefield.data.image_sets import KNOWN, ImageSet
from scorefield.data.source import DataSource, Split, check_split, chosen, positions
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.targets.base import Target

_CHUNK = 1024


class ImageSource(DataSource):
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

    def __init__(
        self,
        load: Callable[[], Splits],
        name: str,
        shape: tuple[int, int, int],
        classes: int | None = None,
        centered: bool = False,
        flip: bool = False,
        dequantize: bool = False,
    ) -> None:
        self._load = load
        self._name = name
        self._shape = shape
        self._classes = classes
        self.centered = centered
        self.flip = flip
        self.dequantize = dequantize

    @property
    def name(self) -> str:
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self._moments[0]

    @property
    def std(self) -> float:
        return self._moments[1]

    @property
    def classes(self) -> int | None:
        return self._classes

    @property
    def truth(self) -> Target | None:
        return None

    @property
    def size(self) -> int | None:
        return len(self._splits.train.pixels)

    def batch(
        self,
        noise: Noise,
        step: int | Tensor,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "..."]:
        position = positions(step, batch_size)
        pixels = self._splits.train.pixels
        images = pixels[in_order(noise, len(pixels), position)]
        if self.flip:
            mirrored = noise.uniform("flip", (), position) < 0.5
            images = torch.where(mirrored[..., None, None, None], images.flip(-1), images)
        return self._values(images, noise, position, dtype)

    def batch_classes(
        self, noise: Noise, step: int | Tensor, batch_size: int
    ) -> Int[Tensor, "..."]:
        if self._classes is None:
            return super().batch_classes(noise, step, batch_size)
        labels = self._labels("train")
        return labels[in_order(noise, len(labels), positions(step, batch_size))]

    def reference(
        self, n: int, seed: int, split: Split = "test", dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n *event"]:
        check_split(split)
        pixels = self._images(split).pixels
        index = chosen(self.name, len(pixels), n, seed, split)
        return self._values(pixels[index], Noise(seed), index, dtype)

    def reference_classes(self, n: int, seed: int, split: Split = "test") -> Int[Tensor, " n"]:
        if self._classes is None:
            return super().reference_classes(n, seed, split)
        check_split(split)
        labels = self._labels(split)
        return labels[chosen(self.name, len(labels), n, seed, split)]

    def _values(
        self, pixels: Tensor, noise: Noise, index: Tensor, dtype: torch.dtype
    ) -> Float[Tensor, "..."]:
        """Images as points."""
        values = pixels.to(dtype)
        if self.dequantize:
            # At the largest byte, rounding must not give the next.
            u = noise.uniform("dequantize", self.shape, index, dtype=torch.float64)
            values = ((u + values) / 256).to(dtype).clamp_(max=1 - torch.finfo(dtype).eps / 2)
        else:
            values = values / 255
        return 2 * values - 1 if self.centered else values

    def _images(self, split: Split) -> Images:
        return self._splits.train if split == "train" else self._splits.test

    @cached_property
    def _splits(self) -> Splits:
        splits = self._load()
        for images in splits:
            if tuple(images.pixels.shape[1:]) != self.shape:
                raise UserError(
                    f"{self.name}: images of shape {tuple(images.pixels.shape[1:])} were read, "
                    f"{self.shape} are wanted"
                )
        return splits

    def _labels(self, split: Split) -> Int[Tensor, " n"]:
        """The classes of the images of a split."""
        labels, classes = self._images(split).labels, self._classes
        if labels is None:
            raise UserError(f"{self.name}: {classes} classes are wanted, the images have none")
        low, high = int(labels.min()), int(labels.max())
        if classes is not None and not 0 <= low <= high < classes:
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
        dataset: One of :data:`~scorefield.data.image_sets.KNOWN`, or another name together with
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
    return download_images(name, form)

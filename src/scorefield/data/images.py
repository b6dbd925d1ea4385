r"""Data sets of images.

In memory an image is bytes; a point is an image with values :math:`x = p / 255` for bytes
:math:`p`, or with dequantisation :math:`x = (u + p) / 256` for uniform :math:`u`, which has a
density; where the data are centred, it is :math:`2x - 1`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import check_kind
from scorefield.data.arrays import FiniteSource
from scorefield.data.columns import IMAGES, LABELS
from scorefield.data.contents import Contents
from scorefield.data.form import Crop, Filter, Form
from scorefield.data.image_files import (
    Images,
    Splits,
    hold_out,
    in_memory,
    of_pack,
    of_pictures,
    read_images,
)
from scorefield.data.known import KNOWN, Settled, settle
from scorefield.data.layouts import contents_of
from scorefield.data.packed import Pack
from scorefield.data.source import Split
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.progress import warn

_TEST = ("test", "valid", "validation")


@dataclass(eq=False)
class ImageSource(FiniteSource):
    r"""Images that are read on first use.

    Training images are mirrored from left to right with probability ½ where ``flip`` is set;
    held-out images never are. The draws for a training image are addressed by its position in the
    stream, so that the images of a step do not depend on the execution of earlier steps; those for
    an image of a split by the split and the place there.

    Arguments:
        load: Reads the images.
        name: The name of the data.
        shape: The event shape :math:`(C, H, W)`.
        classes: The number of classes; ``None`` if there are none, or they are not used.
        centered: Whether values are in [-1, 1]; in [0, 1] otherwise.
        flip: Whether training images are mirrored at random.
        dequantize: Whether to add uniform noise to the bytes.
        class_names: The names of the classes by number, where they have names.
        notes: What was noted about the files before the images are read, in sentences.
    """

    load: Callable[[], Splits]
    name: str
    shape: tuple[int, ...]
    classes: int | None = None
    centered: bool = False
    flip: bool = False
    dequantize: bool = False
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self._moments[0]

    @property
    def std(self) -> float:
        return self._moments[1]

    def stored(self, split: Split) -> Tensor:
        return self._part(split).pixels

    def augmented(self, stored: Tensor, noise: Noise, position: Tensor) -> Tensor:
        if not self.flip:
            return stored
        mirrored = noise.uniform("flip", (), position) < 0.5
        return torch.where(mirrored[..., None, None, None], stored.flip(-1), stored)

    def values(
        self, stored: Tensor, noise: Noise, index: Tensor, dtype: torch.dtype
    ) -> Float[Tensor, "..."]:
        return self._scaled(stored, noise, "dequantize", index, dtype)

    def points(
        self, split: Split, index: Int[Tensor, "..."], noise: Noise, dtype: torch.dtype
    ) -> Float[Tensor, "..."]:
        return self._scaled(self.at(split, index), noise, f"dequantize/{split}", index, dtype)

    def _scaled(
        self, stored: Tensor, noise: Noise, purpose: str, index: Tensor, dtype: torch.dtype
    ) -> Tensor:
        values = stored.to(dtype)
        if self.dequantize:
            # At the largest byte, rounding must not give the next.
            u = noise.uniform(purpose, self.shape, index, dtype=torch.float64)
            values = ((u + values) / 256).to(dtype).clamp_(max=1 - torch.finfo(dtype).eps / 2)
        else:
            # A GPU multiplies by the inverse of a plain number, which rounds differently.
            values = values / values.new_full((), 255)
        return 2 * values - 1 if self.centered else values

    @cached_property
    def _splits(self) -> Splits:
        splits = self.load()
        for remark in splits.remarks:
            warn(remark)
        for split in (splits.train, splits.test):
            shape = tuple(split.whole.shape[1:])
            if shape != self.shape:
                raise UserError(
                    f"{self.name}: images of shape {self.shape} are wanted, they have {shape}"
                )
        return splits

    def count(self, split: Split) -> int:
        return len(self._part(split))

    def at(self, split: Split, index: Tensor) -> Tensor:
        return self._part(split).at(index)

    def stored_labels(self, split: Split) -> Int[Tensor, " n"] | None:
        return self._part(split).labels

    def _part(self, split: Split) -> Images:
        return self._splits.train if split == "train" else self._splits.test

    @cached_property
    def _moments(self) -> tuple[Tensor, float]:
        """Mean and standard deviation of the training points, mirrored and dequantised."""
        total, squares = self._splits.train.totals()
        n = self.count("train")
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


def images(
    path: str | Path | None = None,
    *,
    dataset: str | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
    hub: str | None = None,
    centered: bool = False,
    flip: bool = False,
    dequantize: bool = False,
    crop: int | Crop | None = None,
    filter: Filter | None = None,
    background: int | None = None,
    held_out_seed: int | None = 0,
    sha256: str | None = None,
) -> ImageSource:
    """A set of images: one's own, by its path, or a known one, by its name.

    The images are read from the first of these that exists: ``path``; ``hub``; the files installed
    by a package of the operating system; the known data set on the Hugging Face hub.

    Arguments:
        path: A file or folder: a pack, or anything that
            :func:`~scorefield.data.layouts.contents_of` knows.
        dataset: One of :data:`~scorefield.data.known.KNOWN`, or the name of one's own set; that of
            the file or folder by default.
        size: The side of an image, or its height and width; that of a known set, a pack or an
            array by default.
        channels: Its channels; those of a known set, a pack or an array, and 3 for pictures, by
            default.
        classes: The number of classes; what the set has by default.
        class_names: Their names, by number; those of the set by default.
        hub: A data set on the Hugging Face hub, ``owner/name``.
        centered: As of :class:`ImageSource`; so are ``flip`` and ``dequantize``.
        crop: As of :class:`~scorefield.data.form.Form`; so are ``filter`` and ``background``. By
            default what is usual for a known set; the centre, bilinear, on white.
        held_out_seed: The seed of the images that are held out of a set that has no held-out ones
            of its own, one of twenty; ``None`` for the last ones.
        sha256: The hash that a pack must have.

    Raises:
        ValueError: If something is missing or wrong; names the argument. Missing images of a known
            set are an error on first use.
    """
    for name, value in (("centered", centered), ("flip", flip), ("dequantize", dequantize)):
        check_kind(name, value, bool)
    form = {"crop": crop, "filter": filter, "background": background}
    settled = settle(path, dataset, hub, size, channels, classes, sha256, **form)
    names = settled.class_names if class_names is None else tuple(class_names)
    if class_names is not None and settled.classes not in (None, len(class_names)):
        raise UserError(f"class_names has {len(class_names)} names for {settled.classes} classes")
    return ImageSource(
        partial(_read, settled, None if path is None else Path(path), hub, held_out_seed),
        settled.dataset,
        settled.form.shape,
        settled.classes,
        centered,
        flip,
        dequantize,
        names,
        settled.found.notes if isinstance(settled.found, Contents) else (),
    )


def _read(settled: Settled, path: Path | None, hub: str | None, seed: int | None) -> Splits:
    found = settled.found
    pack = found if isinstance(found, Pack) else None
    if settled.sha256 is not None and (pack is None or pack.sha256 != settled.sha256):
        there = "no packed images" if pack is None else f"those of sha256 {pack.sha256[:12]}…"
        raise UserError(f"sha256 is {settled.sha256[:12]}…, and {path} holds {there}")
    if pack is not None:
        return of_pack(pack, seed)
    if path is not None:
        place = path.expanduser()
        known = found if isinstance(found, Contents) else None
        contents = known or contents_of(place, settled.form.channels)
        return in_memory(place, contents, settled.form, seed)
    about = KNOWN.get(settled.dataset)
    installed = [Path(place) for place in about.places if Path(place).is_dir()] if about else []
    if hub is None and installed:
        return read_images(installed[0], settled.form, seed)
    name = hub or (about.hub if about else None)
    if name is None:
        raise UserError(
            f"it is not known where the images of {settled.dataset} are: give a file or folder "
            f"with data.path, or a data set on the Hugging Face hub with data.hub"
        )
    return _download(name, settled.form, seed)


def _download(name: str, form: Form, seed: int | None) -> Splits:
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
    return Splits(train, _rows(name, found[splits[0]], form)) if splits else hold_out(train, seed)


def _rows(name: str, rows: Any, form: Form) -> Images:
    columns = [column for column in IMAGES if column in rows.column_names]
    if not columns:
        raise UserError(f"{name} has no column of images, it has {', '.join(rows.column_names)}")
    labels = [column for column in LABELS if column in rows.column_names]
    pixels = of_pictures((row[columns[0]] for row in rows), form)
    return Images(pixels, torch.tensor(rows[labels[0]]) if labels else None)

"""Sets of images in memory or in a map of a file, and which of them are held out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from scorefield.data.array_files import MOST
from scorefield.data.contents import Contents, Part
from scorefield.data.form import Form, fitted
from scorefield.data.held_out import held_out
from scorefield.data.layouts import contents_of
from scorefield.data.packed import Pack
from scorefield.data.pictures import channels_of
from scorefield.errors import UserError

_CHUNK = 1024
_VALUES = 1 << 22  # that are added at a time


@dataclass(frozen=True, eq=False)
class Images:
    """Images of bytes, and the class of each where there are classes.

    Arguments:
        whole: The images, of shape ``(n, channels, height, width)``, in memory or mapped.
        classes: Their classes.
        held: The numbers, in order, of those that are held out; ``None`` if none of these is.
        kept: Whether these are the ones that are held out, and not the others.
        sums: The sum of all images of ``whole``, and of all squares, where they are known.
    """

    whole: UInt8[Tensor, "n channels height width"]
    classes: Int[Tensor, " n"] | None = None
    held: Int[Tensor, " m"] | None = None
    kept: bool = False
    sums: tuple[Tensor, int] | None = None

    def __len__(self) -> int:
        if self.held is None:
            return len(self.whole)
        return len(self.held) if self.kept else len(self.whole) - len(self.held)

    def at(self, index: Int[Tensor, "..."]) -> UInt8[Tensor, "... channels height width"]:
        """The images at places of this part."""
        return self.whole[self.numbers(index)]

    @property
    def pixels(self) -> UInt8[Tensor, "k channels height width"]:
        """All images of this part."""
        return self.whole if self.held is None else self.at(torch.arange(len(self)))

    @property
    def labels(self) -> Int[Tensor, " k"] | None:
        """The classes of all images of this part."""
        if self.classes is None or self.held is None:
            return self.classes
        return self.classes[self.numbers()]

    def totals(self) -> tuple[Tensor, int]:
        """The sum of the images of this part, and the sum of the squares of all their bytes."""
        if self.held is None or self.kept or self.sums is None:
            if self.held is None and self.sums is not None:
                return self.sums
            return _totals(self, len(self))
        # Of a large set, only those held out are read.
        out, squares = _totals(replace(self, kept=True), len(self.held))
        return self.sums[0] - out, self.sums[1] - squares

    def numbers(self, index: Int[Tensor, "..."] | None = None) -> Int[Tensor, "..."]:
        """The numbers in ``whole`` of the images at places of this part; of all by default."""
        index = torch.arange(len(self)) if index is None else index
        if self.held is None:
            return index
        if self.kept:
            return self.held[index]
        before = self.held - torch.arange(len(self.held))
        return index + torch.searchsorted(before, index.contiguous(), right=True)


@dataclass(frozen=True, eq=False)
class Splits:
    """The images to train on, and those that are held out; ``remarks`` are sentences about how they
    were read.
    """

    train: Images
    test: Images
    remarks: tuple[str, ...] = ()


def read_images(path: Path, form: Form, seed: int | None = 0) -> Splits:
    """The images of a file or a folder, in memory; those of a ``.npy`` file of the right form are
    mapped.

    Arguments:
        path: Anything that :func:`~scorefield.data.layouts.contents_of` knows.
        form: What they are made to be.
        seed: As of :func:`hold_out`.

    Raises:
        ValueError: If they cannot be read, or do not fit in memory; one sentence that names the
            file.
    """
    return in_memory(path, contents_of(path, form.channels), form, seed)


def in_memory(path: Path, contents: Contents, form: Form, seed: int | None) -> Splits:
    """The images of the contents of a path; arguments and errors are those of
    :func:`read_images`.
    """
    try:
        read = {name: _read(part, form) for name, part in contents.parts.items()}
        splits = _split(read, seed)
    except (OSError, UserError) as error:
        raise UserError(f"{path}: {error}") from error
    remarks = [*contents.remarks(), *_shared(splits)]
    return replace(splits, remarks=tuple(f"{path}: {remark}" for remark in remarks))


def of_pack(pack: Pack, seed: int | None) -> Splits:
    """The images of a pack, mapped.

    Raises:
        ValueError: If a file of it cannot be read, or has changed.
    """
    parts = {}
    for name in pack.counts:
        pixels, labels = pack.arrays(name)
        total, squares = pack.sums(name)
        with warnings.catch_warnings():
            # The map cannot be written to, and nothing does.
            warnings.simplefilter("ignore")
            mapped = torch.from_numpy(pixels)
        classes = None if labels is None else torch.from_numpy(labels)
        parts[name] = Images(mapped, classes, sums=(torch.from_numpy(total), squares))
    return _split(parts, seed)


def _split(parts: dict[str, Images], seed: int | None) -> Splits:
    if "test" in parts:
        return Splits(parts["train"], parts["test"])
    return hold_out(parts["train"], seed)


def hold_out(images: Images, seed: int | None) -> Splits:
    """The images without and with those of :func:`~scorefield.data.held_out.held_out`; errors are
    its own.
    """
    held = held_out(len(images), images.classes, seed)
    return Splits(replace(images, held=held), replace(images, held=held, kept=True))


def of_pictures(pictures: Iterable[Any], form: Form) -> UInt8[Tensor, "n channels height width"]:
    """Pictures of Pillow, of any size each."""
    made = [fitted(channels_of(p, form.channels, form.background), form) for p in pictures]
    if not made:
        raise UserError("there are no images")
    return torch.from_numpy(np.stack(made))


def _shared(splits: Splits) -> list[str]:
    """A sentence about held-out images that are training images too, if there are any; of sets that
    are too large for the memory, only a pack knows it.
    """
    parts = (splits.train, splits.test)
    if sum(part.whole.nbytes for part in parts) > MOST:
        return []
    train, test = (_hashes(part.whole.numpy())[part.numbers().numpy()] for part in parts)
    count = int(np.isin(test, train).sum())
    told = f"{count:,} of {len(test):,} held-out images are training images too"
    return [told] if count else []


def _hashes(pixels: UInt8[np.ndarray, "n c h w"]) -> NDArray[np.int64]:
    return np.fromiter((hash(image.tobytes()) for image in pixels), np.int64, len(pixels))


def _read(part: Part, form: Form) -> Images:
    records, n = part.records, len(part.records)
    size = n * form.channels * form.sides[0] * form.sides[1]
    labels = None if part.labels is None else torch.from_numpy(part.labels.astype(np.int64))
    values = getattr(records, "values", None)
    if values is not None and values.dtype == np.uint8 and records.shape == form.shape:
        return Images(torch.from_numpy(values), labels)
    if size > MOST:
        raise UserError(
            f"{n} images take {size} bytes, and at most {MOST} are read: pack them first, "
            "with scorefield data pack"
        )
    made = np.empty((n, *form.shape), np.uint8)
    for first in range(0, n, _CHUNK):
        last = min(n, first + _CHUNK)
        made[first:last] = records.block(first, last, form)
    return Images(torch.from_numpy(made), labels)


def _totals(images: Images, n: int) -> tuple[Tensor, int]:
    total = torch.zeros(images.whole.shape[1:], dtype=torch.int64)
    squares, step = 0, max(1, _VALUES // total.numel())
    for first in range(0, n, step):
        some = images.at(torch.arange(first, min(n, first + step)))
        total += some.sum(dim=0, dtype=torch.int64)
        squares += int(some.to(torch.int32).square().sum())
    return total, squares

"""What a file or folder of images holds: its images by number, their classes, what is left out."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer, UInt8
from numpy.typing import NDArray

from scorefield.data.form import Form, fitted
from scorefield.data.pictures import MOST_BYTES, MOST_PIXELS, channels_of, decoded
from scorefield.errors import UserError
from scorefield.files import reason

_KINDS = 12
MOST_CLASSES = 1 << 20
"""The most classes of a set."""
TRAIN = ("train", "training")
TEST = ("test", "t10k", "val", "valid", "validation")
"""What the part to train on, and one that is held out, may be called; the first that is there."""


class Records(ABC):
    """Images by number, read one by one from where they are; can be pickled."""

    decodes: bool = True
    """Whether reading takes the time of decoding, so that several processes help."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """What an image is called in an error."""

    @abstractmethod
    def read(self, index: int) -> bytes | UInt8[np.ndarray, "channels height width"]:
        """The file of a picture, or an image."""

    def mark(self, index: int) -> str | None:
        """What changes when an image does; ``None`` where that is known of the whole set only."""
        return None

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width, where all images have the same without a look at them."""
        return None

    def block(self, first: int, last: int, form: Form) -> UInt8[np.ndarray, "n c h w"]:
        """The images from ``first`` to before ``last`` in a form.

        Raises:
            UserError: If one cannot be read; names it.
        """
        made = np.empty((last - first, *form.shape), np.uint8)
        for k in range(first, last):
            try:
                made[k - first] = self._formed(k, form)
            except UserError as error:
                raise UserError(f"{self.name(k)} {error}") from error
            except OSError as error:
                raise UserError(f"{self.name(k)} cannot be read: {reason(error)}") from error
        return made

    def _formed(self, index: int, form: Form) -> UInt8[np.ndarray, "c h w"]:
        found = self.read(index)
        if isinstance(found, bytes):
            return fitted(channels_of(decoded(found), form.channels, form.background), form)
        try:
            return fitted(found, form)
        except UserError as error:
            raise UserError(f"is not as wanted: {error}") from error


@dataclass(frozen=True)
class Part:
    """Images to train on, or held out, and the class of each where there are classes."""

    records: Records
    labels: Integer[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        if not len(self.records):
            raise UserError("there are no images")
        labels = self.labels
        if labels is None:
            return
        if labels.shape != (len(self.records),) or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(
                f"{len(self.records)} images need as many integers for labels, got {labels.dtype} "
                f"of shape {labels.shape}"
            )
        if not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
            raise UserError(
                f"a label is a class from 0 to {MOST_CLASSES - 1}, got {labels.min()} to "
                f"{labels.max()}"
            )
        object.__setattr__(self, "labels", labels.astype(np.int64))


@dataclass(frozen=True)
class Contents:
    """The images of a file or folder.

    Attributes:
        layout: What it is, in words.
        parts: The images to train on, ``train``, and those held out, ``test``, where there are.
        classes: The names of the classes, by number; ``None`` where they have none. What is no
            text in a name, as that of a folder can have, is written as numbers.
        left_out: How many things of each kind were not read.
        notes: What else a user should know, in sentences.
        state: What changes when a file does; empty where that is not known.
    """

    layout: str
    parts: dict[str, Part]
    classes: tuple[str, ...] | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()
    state: str = ""

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(map(_text, self.classes)))
            labels = [part.labels for part in self.parts.values() if part.labels is not None]
            highest = max((int(some.max()) for some in labels), default=-1)
            if highest >= len(self.classes):
                raise UserError(f"a label is {highest}, and {len(self.classes)} classes have names")

    def remarks(self) -> list[str]:
        """All that was left out and noted, in sentences."""
        counted = listed(self.left_out)
        found = ([f"not read: {counted}"] if counted else []) + list(self.notes)
        bare = [name for name, part in self.parts.items() if part.labels is None]
        if 0 < len(bare) < len(self.parts):
            others = "and a pack has none of the others"
            found.append(f"the images of {bare[0]} have no classes, {others}")
        return list(map(_text, found))

    @property
    def class_count(self) -> int | None:
        """The number of classes; ``None`` if the images have none."""
        if self.classes is not None:
            return len(self.classes)
        labels = [part.labels for part in self.parts.values() if part.labels is not None]
        return 1 + max(int(some.max()) for some in labels) if labels else None


def listed(counts: Counter[str]) -> str:
    """How many things there are of each kind, of the most frequent kinds."""
    kinds = sorted(counts.most_common(_KINDS))
    more = counts.total() - sum(count for _, count in kinds)
    texts = [f"{count:,} {kind}" for kind, count in kinds]
    return ", ".join([*texts, f"{more:,} others"] if more else texts)


def kind_of(name: str) -> str:
    """What a file that is not read is counted as."""
    ending = os.path.splitext(name)[1].lower()
    return f"files ending in {ending}" if ending else "files without an ending"


def _text(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def by_split(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of files or folders by the part that they are of, as of ``train-00.tar``; what
    names none is to train on.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        stem = name.rpartition("/")[2].lower()
        word = next((w for w in (*TRAIN, *TEST) if _begins(stem, w)), TRAIN[0])
        found.setdefault("train" if word in TRAIN else word, []).append(name)
    return found


def chosen(parts: dict[str, list[str]], what: str) -> tuple[dict[str, list[str]], list[str]]:
    """The parts that are read, called ``train`` and ``test``, and sentences about others."""
    tests = [word for word in TEST if word in parts]
    if "train" not in parts:
        raise UserError(f"there is nothing to train on: its {what} are for {' and '.join(tests)}")
    used = {"train": parts["train"]} | ({"test": parts[tests[0]]} if tests else {})
    more = [
        f"{len(parts[word]):,} {what} for {word} are not read: those for {tests[0]} are held out"
        for word in tests[1:]
    ]
    return used, more


def numbered(
    names: Mapping[str, Sequence[str]],
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """The classes of all parts in the order of their names, and the number of each image's."""
    classes = tuple(sorted({name for some in names.values() for name in some}))
    number = {name: k for k, name in enumerate(classes)}
    labels = {
        part: np.fromiter((number[name] for name in some), np.int64, len(some))
        for part, some in names.items()
    }
    return classes, labels


class ArrayRecords(Records):
    """Images of an array: bytes, or numbers in [0, 1], which are rounded to bytes.

    Arguments:
        values: Of shape ``(n, height, width)`` or that with channels, first or last.
        called: What the array is called in an error.
        channels: How many channels are wanted, which decides where they are; if there is no
            wish, they are last where there are 1 to 4 of them and first otherwise.
    """

    decodes = False

    def __init__(self, values: NDArray[np.generic], called: str, channels: int | None) -> None:
        self.values, self.called = _channels_first(values, channels), called
        if self.values.ndim != 4 or self.values.size == 0:
            raise UserError(
                f"images have shape (n, height, width), with or without channels, got "
                f"{values.shape}"
            )
        height, width = self.values.shape[2:]
        if height * width > MOST_PIXELS:
            raise UserError(f"images of {height} × {width} pixels have more than {MOST_PIXELS}")
        if values.dtype != np.uint8 and not np.issubdtype(values.dtype, np.floating):
            raise UserError(
                f"the values of images are bytes, or numbers in [0, 1], not {values.dtype}"
            )

    def __len__(self) -> int:
        return len(self.values)

    def name(self, index: int) -> str:
        return f"image {index} of {self.called}"

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.values.shape
        return channels, height, width

    def read(self, index: int) -> UInt8[np.ndarray, "channels height width"]:
        return _bytes(self.values[index])

    def block(self, first: int, last: int, form: Form) -> UInt8[np.ndarray, "n c h w"]:
        if self.shape == form.shape:
            return _bytes(np.asarray(self.values[first:last]))
        if self.shape[0] != form.channels:
            fitted(np.empty((self.shape[0], 1, 1), np.uint8), form)
        return super().block(first, last, form)


def _channels_first(values: NDArray[np.generic], channels: int | None) -> NDArray[np.generic]:
    if values.ndim == 3:
        return values[:, None]
    if values.ndim != 4:
        return values
    first, last = values.shape[1], values.shape[3]
    if channels is None:
        move = last <= 4 and first > 4
    else:
        move = last == channels or (first != channels and first not in (1, 3))
    return np.moveaxis(values, -1, 1) if move else values


def _bytes(values: NDArray[np.generic]) -> UInt8[np.ndarray, "..."]:
    if values.dtype == np.uint8:
        return values
    numbers = np.asarray(values, np.float64)
    if not np.isfinite(numbers).all():
        raise UserError("the images have values that are not finite")
    if numbers.min() < 0 or numbers.max() > 1:
        raise UserError(
            f"images that are not bytes have values in [0, 1], got {numbers.min():g} to "
            f"{numbers.max():g}"
        )
    return np.rint(numbers * 255).astype(np.uint8)


def checked_size(size: int) -> int:
    """The size of the file of a picture.

    Raises:
        UserError: If it is larger than :data:`~scorefield.data.pictures.MOST_BYTES`.
    """
    if size > MOST_BYTES:
        raise UserError(f"has {size} bytes, and at most {MOST_BYTES} are read")
    return size


def _begins(stem: str, word: str) -> bool:
    """Whether a name is a word, or begins with it and goes on with something else."""
    return stem.startswith(word) and not stem[len(word) : len(word) + 1].isalpha()

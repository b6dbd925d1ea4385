"""Packed images: decoded once, bytes in files that are mapped and read where they are needed.

A pack is a folder: ``set.json``, and of each part ``train.npy`` (bytes of shape ``(n, channels,
height, width)``), ``train_labels.npy`` where there are classes, ``train_hashes.npy`` (64 bits of a
hash of each image) and its sums in ``sums.npz``. Its ``sha256`` is that of the form, the classes,
and the hashes of blocks of images and of the labels: a function of what a network sees, whatever it
was made from and by how many processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from numpy.typing import NDArray

from scorefield.data.array_files import map_array, read_arrays, write_arrays
from scorefield.data.form import Form
from scorefield.errors import UserError
from scorefield.files import DOCUMENT, read_file, reason

SET, SUMS = "set.json", "sums.npz"
FORMAT = "scorefield images 1"
BLOCK = 1 << 22
"""About how many bytes of images are one block of the hash, and written at a time."""


@dataclass(frozen=True)
class Pack:
    """What is written about packed images.

    Attributes:
        folder: The folder.
        form: Channels and sides, and how they were made.
        counts: The number of images of each part, ``train`` and perhaps ``test``.
        class_count: The number of classes; ``None`` if there are none.
        classes: Their names, where they have names.
        layout: What the images were packed from, in words.
        remarks: What was left out and noted, in sentences.
        sha256: The hash.
    """

    folder: Path
    form: Form
    counts: dict[str, int]
    class_count: int | None
    classes: tuple[str, ...] | None
    layout: str
    remarks: tuple[str, ...]
    sha256: str

    @classmethod
    def read(cls, folder: Path) -> Pack:
        """The pack in a folder.

        Raises:
            UserError: If it is damaged, or of a format of the future.
        """
        place = folder / SET
        try:
            about = json.loads(read_file(place, DOCUMENT))
            if about.get("format") != FORMAT:
                raise UserError(f"{place} has the format {about.get('format')!r}, not {FORMAT!r}")
            form = Form(**{**about["form"], "size": tuple(about["form"]["size"])})
            names = about["classes"]
            pack = cls(
                folder,
                form,
                {
                    part: int(about["counts"][part])
                    for part in sorted(about["counts"], reverse=True)
                },
                about["class_count"],
                None if names is None else tuple(map(str, names)),
                str(about["layout"]),
                tuple(map(str, about["remarks"])),
                str(about["sha256"]),
            )
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{place} cannot be read: {reason(error)}") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{place} is damaged: it does not describe packed images") from error
        if not {"train"} <= pack.counts.keys() <= {"train", "test"}:
            raise UserError(f"{place} is damaged: it does not describe packed images")
        return pack

    def document(self) -> str:
        """The content of ``set.json``."""
        form = {**asdict(self.form), "size": list(self.form.sides)}
        about = {
            "format": FORMAT,
            "sha256": self.sha256,
            "form": form,
            "counts": self.counts,
            "class_count": self.class_count,
            "classes": self.classes,
            "layout": self.layout,
            "remarks": self.remarks,
        }
        return json.dumps(about, indent=2, ensure_ascii=False) + "\n"

    def arrays(
        self, part: str
    ) -> tuple[UInt8[np.ndarray, "n c h w"], Int[np.ndarray, " n"] | None]:
        """The images of a part, mapped, and their classes.

        Raises:
            UserError: If a file is missing, or not of the stated shape.
        """
        n = self.counts[part]
        pixels = mapped(self.folder, f"{part}.npy", np.uint8, (n, *self.form.shape))
        if self.class_count is None:
            return pixels, None
        return pixels, mapped_labels(self.folder, part, n, self.class_count)

    def hashes(self, part: str) -> NDArray[np.uint64]:
        """64 bits of a hash of each image of a part; errors are those of :meth:`arrays`."""
        return mapped(self.folder, f"{part}_hashes.npy", np.uint64, (self.counts[part],))

    def sums(self, part: str) -> tuple[Int[np.ndarray, "c h w"], int]:
        """The sum of the images of a part and of all their squares; errors are those of
        :meth:`arrays`.
        """
        total, squares = read_sums(self.folder, part, self.form.shape)
        return total.astype(np.int64), int(squares)

    def computed(self, blocks: Mapping[str, Iterable[bytes]]) -> str:
        """The hash, of the hashes of the blocks of each part."""
        about = {
            "channels": self.form.channels,
            "size": self.form.sides,
            "counts": self.counts,
            "classes": self.class_count,
        }
        return hash_of(about, blocks, {part: self.arrays(part)[1] for part in self.counts})

    def check(self) -> None:
        """Reads all images.

        Raises:
            UserError: If their hash is not the stated one.
        """
        step = block_length(self.form)
        blocks = {part: block_hashes(self.arrays(part)[0], step) for part in self.counts}
        if self.computed(blocks) != self.sha256:
            raise UserError(
                f"{self.folder} is damaged: the hash of its images is not the stated one"
            )


def mapped(
    folder: Path, name: str, dtype: Any, shape: tuple[int, ...], index: str = SET
) -> NDArray[Any]:
    """An array of a folder, mapped.

    Arguments:
        folder: The folder.
        name: The file of the array.
        dtype, shape: What it has to be, as the file ``index`` of the folder says.

    Raises:
        UserError: If it cannot be read, or is of another kind or shape.
    """
    place = folder / name
    try:
        found = map_array(place, "r")
    except OSError as error:
        raise UserError(f"{place} cannot be read: {reason(error)}") from error
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    if found.dtype != dtype or found.shape != shape:
        raise UserError(f"{place} has {found.dtype} of shape {found.shape}, {index} says {shape}")
    return found


def mapped_labels(
    folder: Path, part: str, n: int, class_count: int, index: str = SET
) -> Int[np.ndarray, " n"]:
    """The classes of a part of a folder; errors are those of :func:`mapped`, or a class that is
    none.
    """
    labels = np.array(mapped(folder, f"{part}_labels.npy", np.int64, (n,), index))
    if n and not 0 <= labels.min() <= labels.max() < class_count:
        raise UserError(f"{folder / part}_labels.npy has labels that are no classes")
    return labels


def read_sums(folder: Path, part: str, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The sum of the items of a part of a folder, which are of a shape, and of all their squares.

    Raises:
        UserError: If their file is missing or damaged.
    """
    file = folder / SUMS
    try:
        arrays = read_arrays(file)
    except (OSError, UserError) as error:
        raise UserError(f"{file} is missing or damaged") from error
    total, squares = arrays.get(part), arrays.get(f"{part}_squares")
    if total is None or squares is None or (total.shape, squares.shape) != (shape, ()):
        raise UserError(f"{file} is missing or damaged")
    return total, squares


def write_sums(folder: Path, sums: Mapping[str, tuple[NDArray[Any], np.number[Any]]]) -> None:
    """Writes what :func:`read_sums` reads of each part."""
    arrays: dict[str, Any] = {}
    for part, (total, squares) in sums.items():
        arrays |= {part: total, f"{part}_squares": squares}
    write_arrays(folder / SUMS, arrays)


def hash_of(
    about: Mapping[str, Any],
    blocks: Mapping[str, Iterable[bytes]],
    labels: Mapping[str, Int[np.ndarray, " n"] | None],
) -> str:
    """The hash of what is known about a folder, of the hashes of the blocks of each part, and of
    its labels.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for part, classes in labels.items():
        for block in blocks[part]:
            digest.update(block)
        if classes is not None:
            digest.update(hashlib.sha256(classes.astype("<i8").tobytes()).digest())
    return digest.hexdigest()


def block_hashes(stored: NDArray[Any], step: int) -> Iterator[bytes]:
    """The hashes of blocks of ``step`` items each."""
    for first in range(0, len(stored), step):
        yield hashlib.sha256(stored[first : first + step].tobytes()).digest()


def is_pack(folder: Path) -> bool:
    """Whether a folder holds packed images."""
    return (folder / SET).is_file()


def block_length(form: Form) -> int:
    """The number of images of a block."""
    return max(1, BLOCK // (form.channels * form.sides[0] * form.sides[1]))

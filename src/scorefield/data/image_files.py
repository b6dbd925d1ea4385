"""Images in files, as arrays of bytes of one size."""

from __future__ import annotations

import gzip
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from scorefield.errors import UserError

Filter = Literal["bilinear", "bicubic"]
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""How the names of image files end."""
_TEST = ("test", "val", "valid", "validation")
_CHUNK = 1024
_IDX_BYTES, _CIFAR_RECORD = 8, 1 + 3 * 32 * 32
# What damaged bytes bring NumPy, Pillow and the decompressors to.
_DAMAGED = (ValueError, EOFError, struct.error, zlib.error)


class Images(NamedTuple):
    """Images of bytes, and the class of each where there are classes."""

    pixels: UInt8[Tensor, "n channels height width"]
    labels: Int[Tensor, " n"] | None = None


class Splits(NamedTuple):
    """The images to train on, and those that are held out."""

    train: Images
    test: Images


class Form(NamedTuple):
    """What images are made to be: their channels and sides, by a crop of the centre and a filter.

    The crop is a square of side ``crop``, or the largest for ``None``.
    """

    channels: int
    side: int
    crop: int | None = None
    filter: Filter = "bilinear"


def prepare(
    pixels: UInt8[Tensor, "n channels height width"], form: Form
) -> UInt8[Tensor, "n channels side side"]:
    """The centre of images, resized without aliasing and rounded to bytes; images of the right
    size as they are.
    """
    _, channels, height, width = pixels.shape
    if channels != form.channels:
        raise UserError(f"the images have {channels} channels, {form.channels} are wanted")
    if height == width == form.side:
        return pixels
    crop = min(height, width, form.crop or max(height, width))
    top, left = (height - crop) // 2, (width - crop) // 2
    square = pixels[:, :, top : top + crop, left : left + crop]
    if crop == form.side:
        return square
    resized = [
        F.interpolate(some.float(), (form.side, form.side), mode=form.filter, antialias=True)
        .round()
        .clamp(0, 255)
        .to(torch.uint8)
        for some in square.split(_CHUNK)
    ]
    return torch.cat(resized)


def read_images(path: Path, form: Form) -> Splits:
    """The images of a file or a folder.

    A file is a NumPy array (``.npy``; images of the right size are then read when they are needed
    and not kept in memory) or several (``.npz``, called ``train`` and ``test`` or ``images``, with
    ``train_labels`` and ``test_labels`` or ``labels`` where there are classes). A folder holds
    idx files as MNIST's, CIFAR-10's binary files, or images: in folders ``train`` and ``test``
    or all together, in folders by class or not. Arrays have shape ``(n, height, width)`` or
    that with channels; their values are bytes, or numbers in [0, 1], which are rounded to bytes.

    Where no images are held out, the last 5 % are, of image files in the order of their names.

    Raises:
        ValueError: If there is no such file, or what is in it is nothing of these, is not finite,
            or has other channels; one sentence that names it.
    """
    if not path.exists():
        raise UserError(f"there is no file or folder {path}")
    try:
        if path.is_dir():
            return _of_folder(path, form)
        if path.suffix in (".npy", ".npz"):
            return _of_numpy(path, form)
    except (OSError, *_DAMAGED) as error:
        raise UserError(f"{path}: {error}") from error
    raise UserError(f"{path} is neither a folder nor a file ending in .npy or .npz")


def of_pictures(pictures: Iterable[Any], form: Form) -> UInt8[Tensor, "n channels side side"]:
    """Pictures of Pillow, of any size each."""
    mode = {1: "L", 3: "RGB"}[form.channels]
    made: list[Tensor] = []
    pictures = iter(pictures)
    while some := list(islice(pictures, _CHUNK)):
        arrays = (np.asarray(_as_bytes(p).convert(mode)).reshape(*p.size[::-1], -1) for p in some)
        rows = (torch.from_numpy(a.copy()).permute(2, 0, 1)[None] for a in arrays)
        made.append(torch.cat([prepare(row, form) for row in rows]))
    if not made:
        raise UserError("there are no images")
    return torch.cat(made)


def _as_bytes(picture: Any) -> Any:
    """A picture whose grey values are bytes; Pillow's own conversion cuts off greater ones."""
    if picture.mode.startswith("I;16"):
        from PIL import Image

        return Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise UserError(f"a picture has values of mode {picture.mode!r}, which are not bytes")
    return picture


def split_off(images: Images) -> Splits:
    """The images with the last 5 % held out; one at least."""
    n = len(images.pixels)
    if n < 2:
        raise UserError("a set of images has at least two, one of them held out")
    first = n - max(1, n // 20)
    pixels, labels = images
    return Splits(
        Images(pixels[:first], None if labels is None else labels[:first]),
        Images(pixels[first:], None if labels is None else labels[first:]),
    )


def _of_folder(folder: Path, form: Form) -> Splits:
    files = {file.name: file for file in folder.iterdir() if file.is_file()}
    if any(name.startswith("train-images") for name in files):
        return Splits(_of_idx(files, "train", form), _of_idx(files, "t10k", form))
    if "data_batch_1.bin" in files:
        train = [files[name] for name in sorted(files) if fnmatch(name, "data_batch_[1-5].bin")]
        return Splits(_of_cifar(train, form), _of_cifar([folder / "test_batch.bin"], form))
    train_folder = folder / "train"
    tests = [folder / name for name in _TEST if (folder / name).is_dir()]
    if train_folder.is_dir() and tests:
        return Splits(_of_pictures_in(train_folder, form), _of_pictures_in(tests[0], form))
    return split_off(_of_pictures_in(train_folder if train_folder.is_dir() else folder, form))


def _of_pictures_in(folder: Path, form: Form) -> Images:
    """The image files below a folder; where each lies in a folder of its own kind, that is its
    class.
    """
    found = [file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS]
    if not found:
        raise UserError(f"there are no images ({', '.join(ENDINGS)}) in {folder}")
    files = sorted(found, key=lambda file: (file.name, file.parent))
    kinds = sorted({file.parent.relative_to(folder) for file in files})
    labels = None
    if Path() not in kinds and len(kinds) > 1:
        labels = torch.tensor([kinds.index(file.parent.relative_to(folder)) for file in files])
    return Images(of_pictures(_opened(files), form), labels)


def _opened(files: Sequence[Path]) -> Iterator[Any]:
    from PIL import Image

    for file in files:
        try:
            with Image.open(file) as picture:
                picture.load()
                yield picture
        except (OSError, SyntaxError, Image.DecompressionBombError, *_DAMAGED) as error:
            raise UserError(f"{file.name} is no image that can be read") from error


def _of_idx(files: dict[str, Path], split: str, form: Form) -> Images:
    pixels = _read_idx(files, f"{split}-images", 3)
    return _of_array(pixels, _read_idx(files, f"{split}-labels", 1), form)


def _read_idx(files: dict[str, Path], start: str, axes: int) -> NDArray[Any]:
    name = next((name for name in sorted(files) if name.startswith(start)), None)
    if name is None:
        raise UserError(f"there is no file whose name begins with {start}")
    file = files[name]
    """An array in MNIST's format: two zeros, the type, the number of axes, their lengths."""
    with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
        content: bytes = stream.read()
    head = 4 + 4 * axes
    if len(content) < head or content[:4] != bytes((0, 0, _IDX_BYTES, axes)):
        raise UserError(f"{file.name} is not an idx file of {axes} axes of bytes")
    shape = np.frombuffer(content, ">i4", axes, 4).tolist()
    if len(content) - head != math.prod(shape):
        raise UserError(f"{file.name} has {len(content) - head} bytes for an array of {shape}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape).copy()


def _of_cifar(files: Sequence[Path], form: Form) -> Images:
    """CIFAR-10's binary files: records of a class and the three planes of an image."""
    records = np.concatenate([np.fromfile(file, np.uint8) for file in files])
    if records.size == 0 or records.size % _CIFAR_RECORD:
        raise UserError(f"{files[0].name} has no whole number of records")
    rows = records.reshape(-1, _CIFAR_RECORD)
    return _of_array(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0], form)


def _of_numpy(path: Path, form: Form) -> Splits:
    if path.suffix == ".npz":
        return _of_arrays(read_arrays(path), form)
    try:
        # Changes would stay in memory; torch takes no array that cannot be written.
        # Not np.load, which takes archives of several arrays too.
        values = np.lib.format.open_memmap(path, mode="c")
    except (ValueError, tokenize.TokenError) as error:
        raise UserError("it is no NumPy array of numbers") from error
    return split_off(_of_array(values, None, form))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file of ``numpy.savez``, by name.

    Raises:
        ValueError: If it is no such file, or holds anything but arrays of numbers and texts.
        OSError: If it cannot be read.
    """
    try:
        # Of a path, NumPy leaves the file open where it is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (*_DAMAGED, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        # What NumPy says here recommends to run the file all the same.
        raise UserError("it is no whole file of NumPy arrays of numbers") from error


def _of_arrays(arrays: dict[str, NDArray[Any]], form: Form) -> Splits:
    if {"train", "test"} <= set(arrays):
        train, test = (
            _of_array(arrays[name], arrays.get(f"{name}_labels"), form)
            for name in ("train", "test")
        )
        return Splits(train, test)
    if "images" in arrays:
        return split_off(_of_array(arrays["images"], arrays.get("labels"), form))
    raise UserError(
        f"the arrays must be called train and test, or images, and are called "
        f"{', '.join(arrays) or 'nothing'}"
    )


def _of_array(values: NDArray[Any], labels: NDArray[Any] | None, form: Form) -> Images:
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and (values.shape[-1] == form.channels or values.shape[1] not in (1, 3)):
        values = np.moveaxis(values, -1, 1)
    if values.ndim != 4 or values.size == 0:
        raise UserError(
            f"images have shape (n, height, width), with or without channels, got {values.shape}"
        )
    pixels = prepare(torch.from_numpy(_bytes(values)), form)
    if labels is None:
        return Images(pixels)
    if labels.shape != values.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{len(values)} images need as many integers for labels, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    return Images(pixels, torch.from_numpy(labels.astype(np.int64)))


def _bytes(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise UserError(f"the values of images are bytes, or numbers in [0, 1], not {values.dtype}")
    if not np.isfinite(values).all():
        raise UserError("the images have values that are not finite")
    if values.min() < 0 or values.max() > 1:
        raise UserError(
            f"images that are not bytes have values in [0, 1], got {values.min():g} to "
            f"{values.max():g}"
        )
    return np.rint(values * 255).astype(np.uint8)

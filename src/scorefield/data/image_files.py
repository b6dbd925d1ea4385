"""Images in files, as arrays of bytes of one size."""

from __future__ import annotations

import gzip
import math
import os
import warnings
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

from scorefield.data.array_files import MOST, filled, map_array, read_arrays
from scorefield.errors import UserError
from scorefield.files import open_file

Filter = Literal["bilinear", "bicubic"]
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""How the names of image files end."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""What image files can be, whatever their names; nothing else is tried on their bytes."""
MOST_PIXELS = 1 << 26
"""The most pixels of an image in a file."""
_TEST = ("test", "val", "valid", "validation")
_CHUNK = 1024
_VALUES = 1 << 24  # of images that are resized at a time
_IDX_BYTES, _CIFAR_RECORD = 8, 1 + 3 * 32 * 32
# What damaged bytes bring the decompressor to.
_DAMAGED = (ValueError, EOFError, zlib.error)


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
    for file in files:
        try:
            picture = _picture(file)
        except UserError as error:
            raise UserError(f"{file.name} {error}") from error
        except Exception as error:
            # Damaged bytes can cause any error of the decoders.
            raise UserError(f"{file.name} is no image that can be read") from error
        yield picture


def _picture(file: Path) -> Any:
    from PIL import Image

    # What Pillow thinks of the size is said here, and of the rest nothing.
    with open_file(file) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(stream, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise UserError(
                    f"has {width} × {height} pixels, and at most {MOST_PIXELS} are read"
                )
            picture.load()
            return picture


def _of_idx(files: dict[str, Path], split: str, form: Form) -> Images:
    pixels = _read_idx(files, f"{split}-images", 3)
    return _of_array(pixels, _read_idx(files, f"{split}-labels", 1), form)


def _read_idx(files: dict[str, Path], start: str, axes: int) -> NDArray[Any]:
    """An array in MNIST's format: two zeros, the type, the number of axes, their lengths."""
    name = next((name for name in sorted(files) if name.startswith(start)), None)
    if name is None:
        raise UserError(f"there is no file whose name begins with {start}")
    with open_file(files[name]) as file:
        stream: Any = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
        head = stream.read(4 + 4 * axes)
        if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, _IDX_BYTES, axes)):
            raise UserError(f"{name} is not an idx file of {axes} axes of bytes")
        shape = np.frombuffer(head, ">u4", axes, 4).tolist()
        try:
            return filled(stream, math.prod(shape), shape).reshape(shape)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error


def _of_cifar(files: Sequence[Path], form: Form) -> Images:
    """CIFAR-10's binary files: records of a class and the three planes of an image."""
    parts = []
    for path in files:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0 or size % _CIFAR_RECORD:
                raise UserError(f"{path.name} has no whole number of records")
            n = size // _CIFAR_RECORD
            parts.append(filled(file, size, f"{n} records").reshape(n, _CIFAR_RECORD))
    rows = np.concatenate(parts)
    return _of_array(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0], form)


def _of_numpy(path: Path, form: Form) -> Splits:
    if path.suffix == ".npz":
        return _of_arrays(read_arrays(path), form)
    return split_off(_of_array(map_array(path), None, form))


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
    pixels = _prepared(values, form)
    if labels is None:
        return Images(pixels)
    if labels.shape != values.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{len(values)} images need as many integers for labels, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    return Images(pixels, torch.from_numpy(labels.astype(np.int64)))


def _prepared(values: NDArray[Any], form: Form) -> Tensor:
    """The images of an array, a part at a time unless they are what is wanted."""
    n, channels, height, width = values.shape
    if height * width > MOST_PIXELS:
        raise UserError(f"images of {height} × {width} pixels have more than {MOST_PIXELS}")
    if values.dtype == np.uint8 and height == width == form.side:
        return prepare(torch.from_numpy(values), form)
    size = n * form.channels * form.side**2
    if size > MOST:
        raise UserError(f"{n} images take {size} bytes, and at most {MOST} are read")
    made = torch.empty(n, form.channels, form.side, form.side, dtype=torch.uint8)
    step = max(1, _VALUES // (channels * height * width))
    for first in range(0, n, step):
        some = _bytes(values[first : first + step])
        made[first : first + step] = prepare(torch.from_numpy(some), form)
    return made


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

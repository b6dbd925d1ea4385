"""Images from the Hugging Face hub."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from scorefield.data.image_files import Form, Images, Splits, of_pictures, split_off
from scorefield.errors import UserError

_TRAIN, _TEST = "train", ("test", "valid", "validation")
_IMAGES, _LABELS = ("image", "img"), ("label", "labels")


def download_images(name: str, form: Form) -> Splits:
    """The images of a data set on the hub, or of the copy downloaded before.

    Arguments:
        name: Its name there, ``owner/name``.
        form: The size and channels of the images.

    Raises:
        ValueError: If the package that reads it is not installed, or the data set is not
            available; the message gives the remedy.
    """
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
    if _TRAIN not in found:
        raise UserError(f"{name} has no split called train, it has {', '.join(found)}")
    train = _images(name, found[_TRAIN], form)
    return Splits(train, _images(name, found[splits[0]], form)) if splits else split_off(train)


def _images(name: str, rows: Any, form: Form) -> Images:
    columns = [column for column in _IMAGES if column in rows.column_names]
    if not columns:
        raise UserError(f"{name} has no column of images, it has {', '.join(rows.column_names)}")
    labels = [column for column in _LABELS if column in rows.column_names]
    pixels = of_pictures((row[columns[0]] for row in rows), form)
    return Images(pixels, torch.tensor(rows[labels[0]]) if labels else None)

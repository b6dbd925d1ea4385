"""Known sets of images, and what is settled about a set before its images are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorefield.data.contents import Contents
from scorefield.data.form import Crop, Filter, Form
from scorefield.data.layouts import as_published, contents_of
from scorefield.data.packed import Pack, is_pack
from scorefield.errors import UserError


@dataclass(frozen=True)
class ImageSet:
    """A data set of images.

    Attributes:
        channels: The channels of an image.
        side: The sides of an image as published, or as commonly used.
        classes: The number of classes; ``None`` where there are none.
        crop: As of :class:`~scorefield.data.form.Form`.
        filter: The filter for resizing.
        hub: Its name on the Hugging Face hub; ``None`` if none is known.
        places: Folders in which packages of operating systems install it.
        names: The names of the classes as published.
    """

    channels: int
    side: int
    classes: int | None = None
    crop: int | Crop = "center"
    filter: Filter = "bilinear"
    hub: str | None = None
    places: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None


KNOWN = {
    "mnist": ImageSet(1, 28, 10, hub="ylecun/mnist"),
    "fashion_mnist": ImageSet(
        1,
        28,
        10,
        hub="zalando-datasets/fashion_mnist",
        # Debian's package dataset-fashion-mnist.
        places=("/usr/share/datasets/fashion-mnist",),
        names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    "cifar10": ImageSet(
        3,
        32,
        10,
        hub="uoft-cs/cifar10",
        names=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
    ),
    "celeba": ImageSet(3, 64, crop=140, hub="flwrlabs/celeba"),
    "celebahq": ImageSet(3, 256),
    "ffhq": ImageSet(3, 256),
    # Of images on the hub that are JPEG files of any size.
    "imagenet": ImageSet(3, 64, 1000, crop="adm", hub="ILSVRC/imagenet-1k"),
    # The npm package emoji-datasource-google, img/google/64.
    "emoji": ImageSet(3, 32),
    "bedroom": ImageSet(3, 256, filter="bicubic"),
    "church": ImageSet(3, 256, filter="bicubic"),
}
"""The data sets by name. CelebA's square of 140 pixels contains the face; LSUN's bedrooms and
churches, CelebA-HQ and FFHQ have no classes, and the last two no held-out images."""


@dataclass(frozen=True)
class Settled:
    """What is known of a set without decoding an image of it.

    Attributes:
        dataset: Its name.
        form: What its images are made to be.
        classes: The number of classes; ``None`` if there are none or it is not known yet.
        sha256: The hash that packed images must have when they are read; ``None`` for others.
        found: The pack, or what its file or folder holds, where that has been looked at.
        names: The names of the classes of a known set that has been looked at by name only.
    """

    dataset: str
    form: Form
    classes: int | None
    sha256: str | None = None
    found: Pack | Contents | None = None
    names: tuple[str, ...] | None = None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, where they have names that are known."""
        return self.names if self.found is None else self.found.classes

    def keys(self) -> dict[str, Any]:
        """What the keys of a configuration become that are found in the files; those of the form
        have what is usual where they are null.
        """
        size = self.form.size if isinstance(self.form.size, int) else list(self.form.size)
        return {
            "dataset": self.dataset,
            "size": size,
            "channels": self.form.channels,
            "classes": self.classes,
            "class_names": None if self.class_names is None else list(self.class_names),
            "sha256": self.sha256,
        }


def settle(
    path: str | Path | None,
    dataset: str | None,
    hub: str | None,
    size: int | tuple[int, int] | None,
    channels: int | None,
    classes: int | None,
    sha256: str | None,
    **form: Any,
) -> Settled:
    """What is known of a set: by what is given, the pack, the known set, and its own files, in this
    order. Nothing is read of a known set, nor of one whose size and channels are given where its
    images are not there, or not those of the hash: samples are drawn without the images.

    Raises:
        ValueError: If something is missing or contradicts a pack; names the key.
    """
    place = None if path is None else Path(path).expanduser()
    given = {key: value for key, value in form.items() if value is not None}
    if place is None and hub is None and dataset not in KNOWN:
        what = "dataset is missing" if dataset is None else f"dataset is {dataset!r}"
        raise UserError(
            f"{what}: give path, a file or folder of images, or hub, or a known dataset, "
            f"{', '.join(KNOWN)}"
        )
    name = dataset or name_of(place.resolve().name if place is not None else str(hub))
    if place is not None and is_pack(place):
        return _of_pack(place, name, size, channels, classes, sha256, given)
    known = KNOWN.get(name)
    if known is not None:
        given = {"crop": known.crop, "filter": known.filter, **given}
        made = Form(
            known.channels if channels is None else channels,
            known.side if size is None else size,
            **given,
        )
        # The classes of pictures in folders are numbered by the names of these.
        numbered = classes in (None, known.classes) and (place is None or as_published(place))
        count = known.classes if classes is None else classes
        return Settled(name, made, count, sha256, names=known.names if numbered else None)
    if place is None:
        if size is None or channels is None:
            raise UserError(
                f"{'size' if size is None else 'channels'} is missing: it must be given for {name}"
            )
        return Settled(name, Form(channels, size, **given), classes, sha256)
    missing = sha256 is not None or not place.exists()
    if size is not None and channels is not None and missing:
        return Settled(name, Form(channels, size, **given), classes, sha256)
    found = contents_of(place, channels)
    shape = found.parts["train"].records.shape
    if size is None and shape is None:
        raise UserError(f"size is missing: the pictures of {place} can have any size")
    if channels is None:
        channels = shape[0] if shape else 3
    chosen = Form(channels, _sides(shape) if size is None else size, **given)
    count = found.class_count if classes is None else classes
    return Settled(name, chosen, count, sha256, found)


def _of_pack(
    place: Path,
    name: str,
    size: int | tuple[int, int] | None,
    channels: int | None,
    classes: int | None,
    sha256: str | None,
    given: Mapping[str, Any],
) -> Settled:
    pack = Pack.read(place)
    wanted = {**given, "channels": channels}
    wanted["size"] = None if size is None else Form(1, size).sides
    there = {
        "channels": pack.form.channels,
        "size": pack.form.sides,
        "crop": pack.form.crop,
        "filter": pack.form.filter,
        "background": pack.form.background,
    }
    for key, value in wanted.items():
        if value is not None and value != there[key]:
            raise UserError(
                f"{key} is {value}, and that of the packed images in {place} is {there[key]}"
            )
    count = pack.class_count if classes is None else classes
    return Settled(name, pack.form, count, sha256 or pack.sha256, pack)


def _sides(shape: tuple[int, int, int] | None) -> int | tuple[int, int]:
    assert shape is not None
    return shape[1] if shape[1] == shape[2] else shape[1:]


def name_of(text: str) -> str:
    """A name for folders of runs, of that of a file, a folder or a set of the hub."""
    stem = re.sub(r"\.(npy|npz|zip|tar|parquet|h5|hdf5)$", "", text.rpartition("/")[2])
    return re.sub(r"^\W+", "", re.sub(r"[^\w+=.,@-]+", "_", stem)) or "images"

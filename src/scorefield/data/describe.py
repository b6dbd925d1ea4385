"""What is in a set of images, in words and drawn, and what looks wrong with it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from scorefield.data.contents import Contents
from scorefield.data.form import Form
from scorefield.data.latent_packs import LatentPack
from scorefield.data.latents import LatentSource
from scorefield.data.packed import Pack
from scorefield.errors import UserError

_NARROW = 64  # of 256 levels
_UNBALANCED = 20.0
_SHOWN = 20
_LOOK, _DECODED = 256, 64
_NONE_HELD_OUT = ("held out", "none of their own: 1 in 20, drawn by a seed from each class")


@dataclass(frozen=True)
class Sheet:
    """Pairs of names and values under headings, and sentences about what looks wrong."""

    sections: dict[str, list[tuple[str, str]]]
    warnings: list[str] = field(default_factory=list)


def sheet_of(found: Contents | Pack, form: Form | None = None) -> Sheet:
    """The description of images; a pack's has what follows from all of its pixels, that of others
    what follows from some.

    Raises:
        UserError: If a file of a pack cannot be read.
    """
    labels = _labels(found)
    if isinstance(found, Pack):
        form, counts = found.form, found.counts
    else:
        counts = {name: len(part.records) for name, part in found.parts.items()}
    about = [("layout", found.layout)]
    about += [(_called(part), f"{n:,} images") for part, n in counts.items()]
    if "test" not in counts:
        about.append(_NONE_HELD_OUT)
    sections = {"images": about}
    if form is not None:
        sections["what a network sees"] = _form(form)
    warnings = _of_classes(labels, found)
    if labels:
        sections["classes"] = _classes(labels, found)
    if form is not None:
        levels, more = _pixels(found) if isinstance(found, Pack) else _looked_at(found, form)
        sections["pixels"] = levels
        warnings += more
    if isinstance(found, Pack):
        sections["identity"] = [("sha256", found.sha256)]
    remarks = found.remarks if isinstance(found, Pack) else found.remarks()
    if remarks:
        sections["left out and noted"] = [("", remark) for remark in remarks]
    return Sheet(sections, warnings)


def sheet_of_latents(pack: LatentPack) -> Sheet:
    """The description of latents; mean and spread are those of the points of a training.

    Raises:
        UserError: If a file of them cannot be read.
    """
    codec, source = pack.codec, LatentSource(pack.folder)
    scale = f"{codec.scaling_factor:g} (z - {codec.shift_factor:g})"
    sections = {
        "latents": [(_called(part), f"{k:,} images") for part, k in pack.counts.items()],
        "what a network sees": [
            ("shape", " × ".join(map(str, pack.shape))),
            ("scale", scale),
            ("mean", f"{float(source.mean.mean()):.3g}"),
            ("spread", f"{source.std:.3g}"),
        ],
        "autoencoder": [("folder", codec.path), ("sha256", codec.sha256)],
        "images": [("folder", pack.images.path), ("sha256", pack.images.sha256)],
        "identity": [("sha256", pack.sha256)],
    }
    if "test" not in pack.counts:
        sections["latents"].append(_NONE_HELD_OUT)
    if pack.class_count is not None:
        sections["latents"].append(("classes", f"{pack.class_count:,}"))
    return Sheet(sections)


def drawn(found: Contents | Pack, form: Form, n: int) -> bytes:
    """A PNG of up to ``n`` training images, evenly spaced in their order, as a network sees them:
    every one in a row of its planes where there are neither 1 nor 3.

    Raises:
        UserError: If one cannot be read.
    """
    from PIL import Image

    images = _some(found, form, n)
    if form.channels not in (1, 3):
        images = images.transpose(0, 2, 1, 3).reshape(len(images), 1, form.sides[0], -1)
    _, channels, height, width = images.shape
    columns = max(1, min(len(images), round(math.sqrt(len(images) * height / width))))
    lines = -(-len(images) // columns)
    sheet = np.full((channels, lines * (height + 1) - 1, columns * (width + 1) - 1), 255, np.uint8)
    for k, image in enumerate(images):
        top, left = (k // columns) * (height + 1), (k % columns) * (width + 1)
        sheet[:, top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet[0] if channels == 1 else np.moveaxis(sheet, 0, 2).copy())
    scale = max(1, 512 // max(picture.size))
    size = (picture.width * scale, picture.height * scale)
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.NEAREST).save(stream, "png")
    return stream.getvalue()


def _some(found: Contents | Pack, form: Form, n: int) -> UInt8[np.ndarray, "m c h w"]:
    """Up to ``n`` training images, evenly spaced."""
    total = found.counts["train"] if isinstance(found, Pack) else len(found.parts["train"].records)
    rows = np.unique(np.linspace(0, total - 1, min(n, total)).round().astype(int))
    if isinstance(found, Pack):
        return np.array(found.arrays("train")[0][rows])
    records = found.parts["train"].records
    return np.concatenate([records.block(k, k + 1, form) for k in rows.tolist()])


def _form(form: Form) -> list[tuple[str, str]]:
    height, width = form.sides
    return [
        ("shape", f"{form.channels} × {height} × {width}"),
        ("crop", f"{form.crop}"),
        ("filter", form.filter),
        ("background", f"grey level {form.background}, under what is transparent"),
    ]


def _labels(found: Contents | Pack) -> dict[str, NDArray[np.int64]]:
    if isinstance(found, Pack):
        some = {part: found.arrays(part)[1] for part in found.counts}
    else:
        some = {name: part.labels for name, part in found.parts.items()}
    return {part: labels for part, labels in some.items() if labels is not None}


def _classes(
    labels: Mapping[str, NDArray[np.int64]], found: Contents | Pack
) -> list[tuple[str, str]]:
    count = found.class_count or 0
    numbers = {part: np.bincount(some, minlength=count) for part, some in labels.items()}
    rows = [
        (_class(k, found), " + ".join(f"{n[k]:,} {_called(p)}" for p, n in numbers.items()))
        for k in range(min(count, _SHOWN))
    ]
    return rows + ([("…", f"{count - _SHOWN} more")] if count > _SHOWN else [])


def _of_classes(labels: Mapping[str, NDArray[np.int64]], found: Contents | Pack) -> list[str]:
    """What looks wrong with the classes."""
    count = found.class_count
    if not labels or count is None:
        return []
    warnings = []
    for part, some in labels.items():
        numbers = np.bincount(some, minlength=count)
        empty = np.flatnonzero(numbers == 0)
        if len(empty):
            names = ", ".join(_class(int(k), found) for k in empty[:_SHOWN])
            warnings.append(
                f"{len(empty)} of {count} classes have no images {_called(part)}: {names}"
            )
        least, most = numbers[numbers > 0].min(), numbers.max()
        if most > _UNBALANCED * least:
            warnings.append(
                f"the classes are unbalanced {_called(part)}: from {least:,} to {most:,} images"
            )
    return warnings


def _pixels(pack: Pack) -> tuple[list[tuple[str, str]], list[str]]:
    """The levels of the training images, and what looks wrong with the pixels."""
    train, _ = pack.arrays("train")
    total, squares = pack.sums("train")
    values = len(train) * total.size
    mean = float(total.sum() / values)
    spread = max(0.0, squares / values - mean**2) ** 0.5
    levels, warnings = _levels(_some(pack, pack.form, _LOOK))
    hashes = {part: pack.hashes(part) for part in pack.counts}
    again = len(hashes["train"]) - len(np.unique(hashes["train"]))
    rows = [
        ("levels", f"{levels}, mean {mean:.1f}, spread {spread:.1f}"),
        ("duplicates", f"{again:,} training images equal an earlier one"),
    ]
    if "test" in hashes:
        shared = int(np.isin(hashes["test"], hashes["train"]).sum())
        rows.append(("in both parts", f"{shared:,} held-out images are training images too"))
        if shared:
            warnings.append(
                f"{shared:,} of {len(hashes['test']):,} held-out images are training images too"
            )
    return rows, warnings


def _looked_at(found: Contents, form: Form) -> tuple[list[tuple[str, str]], list[str]]:
    """The levels of some training images that are not packed, and what looks wrong with them."""
    try:
        levels, warnings = _levels(_some(found, form, _DECODED))
    except UserError as error:
        return [], [str(error)]
    return [("levels", levels), ("duplicates", "are found by packing")], warnings


def _levels(images: UInt8[np.ndarray, "n c h w"]) -> tuple[str, list[str]]:
    low, high = int(images.min()), int(images.max())
    warnings = []
    if high - low < _NARROW:
        warnings.append(f"the images have levels from {low} to {high} of 0 to 255")
    if images.shape[1] == 3 and bool((images == images[:, :1]).all()):
        warnings.append(
            f"all of {len(images)} images are grey, and a network sees three equal channels: one "
            "is enough, with --channels 1 here and data.channels=1 in a training"
        )
    return f"{low} to {high} in {len(images)} images", warnings


def _class(number: int, found: Contents | Pack) -> str:
    return str(number) if found.classes is None else f"{number} {found.classes[number]}"


def _called(part: str) -> str:
    return {"train": "to train on", "test": "held out"}[part]

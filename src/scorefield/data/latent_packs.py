r"""Latents of packed images: what the encoder of a variational autoencoder gives for each.

Of an image :math:`y` the encoder gives the mean :math:`\mu(y)` and the standard deviation
:math:`s(y)` of a normal distribution of latents. A pack of them is a folder: ``latents.json``, and
of each part ``train.npy`` (float32 of shape ``(n, 2 c, height, width)``: the :math:`c` channels of
the mean, then those of the standard deviation), ``train_labels.npy`` where there are classes, and
its sums in ``sums.npz``. Its ``sha256`` is that of the weights of the autoencoder and its scale, of
the classes, and of the hashes of blocks of latents; where the images and the autoencoder are is no
part of it.

References:
    High-resolution image synthesis with latent diffusion models (Rombach, Blattmann, Lorenz, Esser
    and Ommer, 2022), section 3.1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int

from scorefield.data.packed import block_hashes, hash_of, mapped, mapped_labels, read_sums
from scorefield.errors import UserError
from scorefield.files import DOCUMENT, read_file, reason

INDEX = "latents.json"
FORMAT = "scorefield latents 1"
BLOCK = 32
"""The number of images of a block of the hash, and that are encoded at a time."""


@dataclass(frozen=True)
class Codec:
    r"""An autoencoder by its weights.

    Attributes:
        path: Its folder.
        sha256: The hash of the file of its weights.
        scaling_factor: The scale :math:`a` of latents :math:`a (z - b)` with about unit variance.
        shift_factor: Their shift :math:`b`.

    Raises:
        ValueError: If the scale is zero, or one of both is not finite.
    """

    path: str
    sha256: str
    scaling_factor: float
    shift_factor: float = 0.0

    def __post_init__(self) -> None:
        scale, shift = self.scaling_factor, self.shift_factor
        if scale == 0 or not (math.isfinite(scale) and math.isfinite(shift)):
            raise UserError(
                f"the latents of the autoencoder in {self.path} have the scale {scale} and the "
                f"shift {shift}: they must be finite numbers, and the scale not 0"
            )


@dataclass(frozen=True)
class Origin:
    """The packed images that were encoded: their folder, and the hash of the pack."""

    path: str
    sha256: str


@dataclass(frozen=True)
class LatentPack:
    """What is written about latents.

    Attributes:
        folder: The folder.
        shape: The shape of a latent point.
        counts: The number of images of each part, ``train`` and perhaps ``test``.
        class_count: The number of classes; ``None`` if there are none.
        classes: Their names, where they have names.
        codec: The autoencoder.
        images: The images.
        sha256: The hash.
    """

    folder: Path
    shape: tuple[int, int, int]
    counts: dict[str, int]
    class_count: int | None
    classes: tuple[str, ...] | None
    codec: Codec
    images: Origin
    sha256: str

    @classmethod
    def read(cls, folder: Path) -> LatentPack:
        """The latents in a folder.

        Raises:
            UserError: If there are none, they are damaged, or of a format of the future.
        """
        place = folder / INDEX
        try:
            about = json.loads(read_file(place, DOCUMENT))
            if about.get("format") != FORMAT:
                raise UserError(f"the format is {about.get('format')!r}, not {FORMAT!r}")
            channels, height, width = map(_count, about["shape"])
            names, classes, counts = about["classes"], about["class_count"], about["counts"]
            if not {"train"} <= counts.keys() <= {"train", "test"}:
                raise ValueError("there is no part to train on, or another one")
            found = cls(
                folder,
                (channels, height, width),
                {part: _count(counts[part]) for part in sorted(counts, reverse=True)},
                None if classes is None else _count(classes),
                None if names is None else tuple(map(_text, names)),
                Codec(**about["autoencoder"]),
                Origin(**about["images"]),
                _text(about["sha256"]),
            )
            for named in (found.codec, found.images):
                _text(named.path)
                _text(named.sha256)
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
        except OSError as error:
            raise UserError(
                f"{folder} holds no latents ({INDEX}: {reason(error)}): make them from packed "
                "images, with scorefield data encode"
            ) from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{place} is damaged: it does not describe latents") from error
        return found

    def document(self) -> str:
        """The content of ``latents.json``."""
        about = {
            "format": FORMAT,
            "sha256": self.sha256,
            "shape": self.shape,
            "counts": self.counts,
            "class_count": self.class_count,
            "classes": self.classes,
            "autoencoder": asdict(self.codec),
            "images": asdict(self.images),
        }
        return json.dumps(about, indent=2, ensure_ascii=False) + "\n"

    def stored_shape(self, part: str) -> tuple[int, int, int, int]:
        """The shape of the file of a part."""
        channels, height, width = self.shape
        return self.counts[part], 2 * channels, height, width

    def arrays(
        self, part: str
    ) -> tuple[Float32[np.ndarray, "n c h w"], Int[np.ndarray, " n"] | None]:
        """The means and standard deviations of a part, mapped, and the classes.

        Raises:
            UserError: If a file is missing, or not of the stated shape.
        """
        stored = mapped(self.folder, f"{part}.npy", np.float32, self.stored_shape(part), INDEX)
        if self.class_count is None:
            return stored, None
        n = self.counts[part]
        return stored, mapped_labels(self.folder, part, n, self.class_count, INDEX)

    def sums(self, part: str) -> tuple[Float64[np.ndarray, "c h w"], float]:
        """The sum of the means of a part, and of all the squares of means and standard deviations;
        errors are those of :meth:`arrays`.
        """
        total, squares = read_sums(self.folder, part, self.shape)
        return total.astype(np.float64), float(squares)

    def computed(self, blocks: Mapping[str, Iterable[bytes]]) -> str:
        """The hash, of the hashes of the blocks of each part."""
        about = {
            "shape": self.shape,
            "counts": self.counts,
            "classes": self.class_count,
            **{key: value for key, value in asdict(self.codec).items() if key != "path"},
        }
        return hash_of(about, blocks, {part: self.arrays(part)[1] for part in self.counts})

    def check(self) -> None:
        """Reads all latents.

        Raises:
            UserError: If their hash is not the stated one.
        """
        blocks = {part: block_hashes(self.arrays(part)[0], BLOCK) for part in self.counts}
        if self.computed(blocks) != self.sha256:
            raise UserError(
                f"{self.folder} is damaged: the hash of its latents is not the stated one"
            )


def _count(value: Any) -> int:
    """A number of things, as JSON has it; a ``TypeError`` if it is none."""
    if type(value) is not int or value < 1:
        raise TypeError(f"{value!r} is no number of things")
    return value


def _text(value: Any) -> str:
    """A text, as JSON has it; a ``TypeError`` if it is none."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def holds_latents(folder: Path) -> bool:
    """Whether a folder holds latents."""
    return (folder / INDEX).is_file()

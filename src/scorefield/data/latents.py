r"""Latents of images as data: points drawn from the distributions that an encoder gives.

A point is

.. math:: z = a\,(\mu(y) + s(y)\,\varepsilon - b)

for an image :math:`y`, its mean and standard deviation, the scale :math:`a` and the shift :math:`b`
of the autoencoder, and standard normal :math:`\varepsilon` that is addressed by the position of the
point in the stream: each time that training visits an image it draws another point. That of the
points of a split is addressed by the split and the place there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.data.arrays import FiniteSource
from scorefield.data.held_out import held_out
from scorefield.data.images import ImageSource, images
from scorefield.data.known import name_of
from scorefield.data.latent_packs import INDEX, LatentPack
from scorefield.data.packed import Pack, is_pack
from scorefield.data.source import Split
from scorefield.errors import UserError
from scorefield.noise import Noise

_BLOCK = 1024


class LatentSource(FiniteSource):
    """The latents of a pack, which is read on first use.

    Arguments:
        path: The folder of the pack.
        dataset: The name of the data; that of the folder by default.
        shape: The shape of a point; that of the pack by default, which needs the folder.
        classes: The number of classes; by default those that the pack has, if ``shape`` is not
            given either.
        class_names: Their names by number; those of the pack by default.
        held_out_seed: As of :func:`~scorefield.data.held_out.held_out`.
        sha256: The hash that the pack must have.

    Raises:
        ValueError: If the folder is missing or holds no latents, or others than is given. Of a
            folder that is read later, on first use.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        dataset: str | None = None,
        shape: Sequence[int] | None = None,
        classes: int | None = None,
        class_names: Sequence[str] | None = None,
        held_out_seed: int | None = 0,
        sha256: str | None = None,
    ) -> None:
        self._path = None if path is None else Path(path).expanduser()
        self._seed, self._sha256, self._shape = held_out_seed, sha256, shape
        if shape is None:
            shape, names = self.pack.shape, self.pack.classes
            classes = self.pack.class_count if classes is None else classes
            class_names = names if class_names is None else class_names
        self.name = dataset or name_of("latents" if self._path is None else self._path.name)
        self.shape, self.classes = tuple(shape), classes
        self.class_names = None if class_names is None else tuple(class_names)

    @cached_property
    def pack(self) -> LatentPack:
        """What is written about the latents."""
        if self._path is None:
            raise UserError("path is missing: give latents, made by scorefield data encode")
        pack = LatentPack.read(self._path)
        if self._sha256 not in (None, pack.sha256):
            raise UserError(
                f"sha256 is {str(self._sha256)[:12]}…, and {self._path} holds latents of sha256 "
                f"{pack.sha256[:12]}…"
            )
        if self._shape is not None and tuple(self._shape) != pack.shape:
            raise UserError(
                f"shape is {tuple(self._shape)}, and that of the latents in {self._path} is "
                f"{pack.shape}"
            )
        return pack

    def pictures(self) -> ImageSource:
        """The images that were encoded, with values in [-1, 1] and the same ones held out.

        Raises:
            UserError: If they are no longer where they were, or are others.
        """
        origin = self.pack.images
        place = Path(origin.path)
        if not is_pack(place) or Pack.read(place).sha256 != origin.sha256:
            raise UserError(
                f"the images that {self.pack.folder} was encoded from are not in {place}: put the "
                f"same pack there, or write its new place into {INDEX}"
            )
        return images(place, dataset=self.name, centered=True, held_out_seed=self._seed)

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self._moments[0]

    @property
    def std(self) -> float:
        return self._moments[1]

    def stored(self, split: Split) -> Tensor:
        return self.at(split, torch.arange(self.count(split)))

    def count(self, split: Split) -> int:
        return len(self._rows[split][1])

    def at(self, split: Split, index: Int[Tensor, "..."]) -> Tensor:
        part, rows = self._rows[split]
        return self._parts[part][0][rows[index]]

    def stored_labels(self, split: Split) -> Int[Tensor, " n"] | None:
        part, rows = self._rows[split]
        labels = self._parts[part][1]
        return None if labels is None else labels[rows]

    def values(
        self, stored: Tensor, noise: Noise, index: Tensor, dtype: torch.dtype
    ) -> Float[Tensor, "..."]:
        return self._drawn(stored, noise.normal("latent", self.shape, index, dtype=dtype))

    def points(
        self, split: Split, index: Int[Tensor, "..."], noise: Noise, dtype: torch.dtype
    ) -> Float[Tensor, "..."]:
        normal = noise.normal(f"latent/{split}", self.shape, index, dtype=dtype)
        return self._drawn(self.at(split, index), normal)

    def _drawn(self, stored: Tensor, normal: Tensor) -> Tensor:
        codec = self.pack.codec
        mean, std = stored.to(normal.dtype).chunk(2, dim=-3)
        return (mean + std * normal - codec.shift_factor) * codec.scaling_factor

    @cached_property
    def _parts(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """The stored numbers of each part of the pack, mapped, and the classes."""
        found = {}
        for part in self.pack.counts:
            stored, labels = self.pack.arrays(part)
            with warnings.catch_warnings():
                # The map cannot be written to, and nothing does.
                warnings.simplefilter("ignore")
                mapped = torch.from_numpy(stored)
            found[part] = mapped, None if labels is None else torch.from_numpy(labels)
        return found

    @cached_property
    def _rows(self) -> dict[str, tuple[str, Tensor]]:
        """The part of the pack that a split is in, and its rows there."""
        if "test" in self._parts:
            return {part: (part, torch.arange(n)) for part, n in self.pack.counts.items()}
        n, labels = self.pack.counts["train"], self._parts["train"][1]
        held = held_out(n, labels, self._seed)
        kept = torch.ones(n, dtype=torch.bool).index_fill(0, held, False)
        return {"train": ("train", kept.nonzero()[:, 0]), "test": ("train", held)}

    @cached_property
    def _moments(self) -> tuple[Tensor, float]:
        """Mean and standard deviation of the training points over images and draws."""
        total, squares = self.pack.sums("train")
        n, codec, sum_ = self.count("train"), self.pack.codec, torch.from_numpy(total)
        if self._rows["test"][0] == "train":
            # Of a large set, only those held out are read, a block at a time.
            for index in torch.arange(self.count("test")).split(_BLOCK):
                out = self.at("test", index).to(torch.float64)
                sum_ = sum_ - out[:, : len(sum_)].sum(dim=0)
                squares -= float(out.square().sum())
        mean = sum_ / n
        variance = squares / (n * mean.numel()) - float(mean.square().mean())
        mean = (mean - codec.shift_factor) * codec.scaling_factor
        return mean, variance**0.5 * abs(codec.scaling_factor)

"""Images that are generated for metrics: by their indices, in blocks that are never held together.

A block is a function of the model, the sampler, the seed and its indices, whichever process draws
it, before or after an interruption. What is kept of it is its features; the images can be written
as files, by their numbers.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from scorefield.engine import Engine, device_of
from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.features import FeatureBlocks
from scorefield.evaluation.pixels import Pixels
from scorefield.fields.base import ScoreField
from scorefield.files import write_files
from scorefield.progress import Stages
from scorefield.samplers.base import Sampler
from scorefield.samplers.trajectory import Once

# Of a block, as a number of coordinates, and the bounds of its images.
_NUMBERS, _FEWEST, _MOST = 2**20, 16, 512


@dataclass(frozen=True, eq=False)
class Generation:
    """Images of a model, by their indices from 0.

    Arguments:
        field: The field, which is on the engine's device.
        sampler: How they are drawn.
        n: Their number.
        seed: The seed of their noise.
        engine: What they are drawn on; several processes share out the blocks.
        pixels: How points become images.
        classes: The classes of indices; ``None`` for points of any.
        folder: Where they are written as ``000123.png``; by default they are not.
    """

    field: ScoreField
    sampler: Sampler
    n: int
    seed: int
    engine: Engine
    pixels: Pixels
    classes: Callable[[Tensor], Tensor] | None = None
    folder: Path | None = None

    def features(
        self, extractors: Sequence[Extractor], once: Once, stages: Stages, stage: str
    ) -> dict[str, FeatureBlocks]:
        """The features of all images by each extractor, by its name; ``once`` keeps those of
        blocks, which is where they are read from.
        """
        size = min(_MOST, max(_FEWEST, _NUMBERS // math.prod(self.field.domain.shape)))

        def outputs(first: int, end: int) -> dict[str, dict[str, Tensor]]:
            images = self.images(first, end)
            return {extractor.name: extractor(images) for extractor in extractors}

        names = tuple(extractor.name for extractor in extractors)

        def block(first: int, end: int) -> dict[str, dict[str, Tensor]]:
            return once(
                ("images", self.sampler.nfe, names, first, end), partial(outputs, first, end)
            )

        whole = FeatureBlocks(self.n, size, lambda first, end: {})

        def task(k: int, first: int, end: int) -> None:
            if extractors:
                block(first, end)
            if not self._written(first, end):
                self.images(first, end)
            stages.advance(stage, k + 1, len(whole.bounds), "blocks")

        self.engine.world.each([partial(task, k, *rows) for k, rows in enumerate(whole.bounds)])
        return {
            name: FeatureBlocks(self.n, size, partial(_of_extractor, block, name)) for name in names
        }

    def images(self, first: int, end: int) -> Tensor:
        """The images of some indices, in bytes; they are written too where there is a folder."""
        index = torch.arange(first, end, device=device_of(self.field))
        classes = None if self.classes is None else self.classes(index.cpu()).to(index.device)
        with self.engine.running():
            samples = self.sampler.sample(
                self.field, seed=self.seed, index=index, batch_size=end - first, classes=classes
            )
        images = self.pixels.bytes(samples)
        if self.folder is not None:
            named = zip(range(first, end), images, strict=True)
            write_files(self.folder, {_name(k): _png(image) for k, image in named})
        return images

    def _written(self, first: int, end: int) -> bool:
        folder = self.folder
        return folder is None or all((folder / _name(k)).exists() for k in range(first, end))


def _of_extractor(
    block: Callable[[int, int], dict[str, dict[str, Tensor]]], name: str, first: int, end: int
) -> dict[str, Tensor]:
    return block(first, end)[name]


def _name(index: int) -> str:
    return f"{index:06d}.png"


def _png(image: Tensor) -> bytes:
    """The file of an image in bytes, without loss."""
    pixels = image.permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(content, "PNG")
    return content.getvalue()

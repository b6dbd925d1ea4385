"""Features of sets of images, in blocks that are never held all at once, and two sets compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.metrics.frechet_sizes import PARTS, SizedFrechet, frechet_sizes
from scorefield.metrics.inception_score import score_rows
from scorefield.metrics.moments import Moments, Statistics
from scorefield.metrics.neighbours import nearest

SUBSET = 10_000
"""The most images of a set that metrics of pairs take: the first ones."""


@dataclass(frozen=True)
class FeatureBlocks:
    """The features of ``n`` images, in blocks.

    Arguments:
        n: The number of images.
        size: The number of images of a block; the last one may have fewer.
        block: The outputs of an extractor for the images from a first one to before a last one.
    """

    n: int
    size: int
    block: Callable[[int, int], Mapping[str, Tensor]]

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The first image of each block, and the one after its last."""
        return [(k, min(k + self.size, self.n)) for k in range(0, self.n, self.size)]

    def rows(self, output: str, first: int = 0, end: int | None = None) -> Iterator[Tensor]:
        """An output for images from ``first`` to before ``end``, by blocks."""
        end = self.n if end is None else min(end, self.n)
        for start, stop in self.bounds:
            if start < end and stop > first:
                yield self.block(start, stop)[output][max(first - start, 0) : end - start]

    def first(self) -> Tensor:
        """The features of the first :data:`SUBSET` images."""
        return torch.cat(list(self.rows("features", 0, SUBSET)))


@dataclass(frozen=True, eq=False)
class ImageSets:
    """Generated images compared with those of a data set, by the features of an extractor.

    Arguments:
        extractor: The name of the extractor.
        of_fid: Whether it is that of FID.
        generated, reference: The features of both sets.
        device: Where large products are taken.
        known: The moments of outputs of the reference, or those of a file in place of them.
        origin: Where these are from: the number of images, or a file.
        held_out: The features of images that no model was trained on, where there are any.
    """

    extractor: str
    of_fid: bool
    generated: FeatureBlocks
    reference: FeatureBlocks
    device: torch.device
    known: Mapping[str, Statistics]
    origin: int | str
    held_out: FeatureBlocks | None = None

    def frechet(self, output: str) -> SizedFrechet:
        """The Fréchet distance of an output, at the size of the generated set and extrapolated."""
        if output not in self._distances:
            n = self.generated.n
            if n < 2 * PARTS:
                raise UserError(
                    f"a Fréchet distance with an interval needs at least {2 * PARTS} generated "
                    f"images, got {n}"
                )
            self._distances[output] = frechet_sizes(
                lambda k: self._moments(
                    self.generated.rows(output, k * n // PARTS, (k + 1) * n // PARTS)
                ),
                Statistics(*(part.to(self.device) for part in self.known[output])),
                "squared units of the features",
                features=self.extractor,
                output=output,
                reference=self.origin,
            )
        return self._distances[output]

    @cached_property
    def score_moments(self) -> Moments:
        """The moments that the Inception Score is computed from."""
        return self._moments(map(score_rows, self.generated.rows("logits")))

    @cached_property
    def pair(self) -> tuple[Tensor, Tensor]:
        """The features of the first images of both sets."""
        return self.generated.first().to(self.device), self.reference.first().to(self.device)

    @cached_property
    def to_training(self) -> tuple[Tensor, Tensor] | None:
        """The distances of generated and of held-out features from the nearest of the reference;
        ``None`` without held-out images.
        """
        if self.held_out is None:
            return None
        rows = torch.cat((self.pair[0], self.held_out.first().to(self.device)))
        blocks = (block.to(self.device) for block in self.reference.rows("features"))
        found = nearest(rows, blocks)
        return found[: len(self.pair[0])], found[len(self.pair[0]) :]

    @cached_property
    def _distances(self) -> dict[str, SizedFrechet]:
        return {}

    def _moments(self, blocks: Iterator[Tensor]) -> Moments:
        return Moments.of_blocks(block.to(self.device) for block in blocks)

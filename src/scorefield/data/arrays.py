"""Finite data sets held in memory."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.data.source import DataSource, Split, check_split, chosen, positions
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.targets.base import Target


class ArraySource(DataSource):
    """A finite data set with a fixed split.

    Every epoch visits each training point exactly once, in the order of a permutation of its
    own; where the batch size does not divide the number of points, a batch spans two epochs.

    Arguments:
        train: The points to train on, of shape ``(N, *shape)``.
        test: The held-out points, of shape ``(M, *shape)``.
        name: The name of the data.

    Raises:
        ValueError: If there is no training point, the two parts differ in event shape, or a point
            is not finite.
    """

    def __init__(
        self, train: Float[Tensor, "n *event"], test: Float[Tensor, "m *event"], name: str
    ) -> None:
        if train.dim() < 1 or train.shape[0] < 1:
            raise UserError(f"{name}: there is no training point")
        if train.shape[1:] != test.shape[1:]:
            raise UserError(
                f"{name}: training points of shape {tuple(train.shape[1:])} and test points of "
                f"shape {tuple(test.shape[1:])} are not one data set"
            )
        for argument, points in (("train", train), ("test", test)):
            finite = points.isfinite()
            if not bool(finite.all()):
                place = tuple((~finite).nonzero()[0].tolist())
                raise UserError(f"{name}: {argument} is {float(points[place])} at index {place}")
        self._splits = {"train": train, "test": test}
        self._name = name
        exact = train.to(torch.float64)
        self._mean = exact.mean(dim=0)
        self._std = float((exact - self._mean).square().mean().sqrt())

    @property
    def name(self) -> str:
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._splits["train"].shape[1:])

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self._mean

    @property
    def std(self) -> float:
        return self._std

    @property
    def truth(self) -> Target | None:
        return None

    @property
    def size(self) -> int | None:
        return self._splits["train"].shape[0]

    def batch(
        self,
        noise: Noise,
        step: int | Tensor,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "..."]:
        train = self._splits["train"]
        return train[in_order(noise, train.shape[0], positions(step, batch_size))].to(dtype)

    def reference(
        self, n: int, seed: int, split: Split = "test", dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n *event"]:
        check_split(split)
        points = self._splits[split]
        return points[chosen(self.name, len(points), n, seed, split)].to(dtype)


def in_order(noise: Noise, n: int, position: Tensor) -> Tensor:
    """The indices among ``n`` points at positions of the stream: every epoch has its own order, in
    which each point occurs once.
    """
    epoch, offset = position // n, position % n
    chosen = torch.empty_like(position)
    for e in epoch.unique().tolist():
        here = epoch == e
        chosen[here] = _order(noise, n, e)[offset[here]]
    return chosen


@lru_cache(maxsize=8)
def _order(noise: Noise, n: int, epoch: int) -> Tensor:
    return noise.permutation("order", n, epoch)

"""Finite data sets, with or without classes."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import check_data
from scorefield.data.order import places
from scorefield.data.source import DataSource, Split, check_split, positions
from scorefield.errors import UnsupportedError, UserError
from scorefield.noise import Noise


class FiniteSource(DataSource):
    """A finite data set with a fixed split.

    Every epoch visits each training point exactly once, in the order of a permutation of its
    own; where the batch size does not divide the number of points, a batch spans two epochs.
    """

    # The training points as they are stored, on the device where points are made of them.
    _near: Tensor | None = None

    @abstractmethod
    def stored(self, split: Split) -> Tensor:
        """The points of a split as they are kept in memory."""

    def labels(self, split: Split) -> Int[Tensor, " n"]:
        """The classes of the points of a split, which are checked once.

        Raises:
            ValueError: If they are not there, or no classes.
            TypeError: If the points have no classes.
        """
        if self.classes is None:
            raise UnsupportedError(f"the points of {self.name} have no classes")
        if split not in self._labels:
            self._labels[split] = self._checked(split, self.classes)
        return self._labels[split]

    def stored_labels(self, split: Split) -> Int[Tensor, " n"] | None:
        """The labels that are kept with the points of a split; ``None`` where there are none."""
        return None

    @cached_property
    def _labels(self) -> dict[Split, Tensor]:
        """The labels of the splits whose labels were used."""
        return {}

    def _checked(self, split: Split, classes: int) -> Tensor:
        labels = self.stored_labels(split)
        if labels is None:
            raise UserError(
                f"classes is {classes}, and the {split} points of {self.name} have none"
            )
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
        if not 0 <= low <= high < classes:
            raise UserError(
                f"classes is {classes}, and the labels of the {split} points of {self.name} are "
                f"{low} to {high}"
            )
        return labels

    def values(
        self, stored: Tensor, noise: Noise, index: Tensor, dtype: torch.dtype
    ) -> Float[Tensor, "..."]:
        """The points that stored ones stand for; ``index`` addresses their random numbers."""
        return stored.to(dtype)

    def augmented(self, stored: Tensor, noise: Noise, position: Tensor) -> Tensor:
        """Training points at positions of the stream, changed at random; by default not at all."""
        return stored

    def count(self, split: Split) -> int:
        """The number of points of a split."""
        return len(self.stored(split))

    def at(self, split: Split, index: Int[Tensor, "..."]) -> Tensor:
        """The points at places of a split as they are kept in memory, or in a map of a file."""
        return self.stored(split)[index]

    def points(
        self, split: Split, index: Int[Tensor, "..."], noise: Noise, dtype: torch.dtype
    ) -> Float[Tensor, "..."]:
        """The points at places of a split, which address their random numbers."""
        return self.values(self.at(split, index), noise, index, dtype)

    def labelled(
        self, split: Split = "test", dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "n *event"], Int[Tensor, " n"]]:
        """All points of a split and their classes, in the order of the data set.

        Raises:
            ValueError: If the split is unknown.
            TypeError: If the points have no classes.
        """
        check_split(split)
        labels, every = self.labels(split), torch.arange(self.count(split))
        return self.points(split, every, Noise(0), dtype), labels

    @property
    def size(self) -> int | None:
        return self.count("train")

    def batch(
        self, noise: Noise, step: int | Tensor, batch_size: int, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        found = FiniteSource.read(self, noise, step, batch_size, dtype)
        return FiniteSource.finish(self, found, noise, dtype)

    def read(
        self,
        noise: Noise,
        step: int | Tensor,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
        rows: slice = slice(None),
    ) -> tuple[Tensor, ...]:
        position = positions(step, batch_size)[..., rows]
        chosen = _in_order(noise, self.count("train"), position)
        return position, self.at("train", chosen) if self._near is None else chosen

    def finish(
        self, read: Sequence[Tensor], noise: Noise, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        position, found = read
        stored = found if self._near is None else self._near[found]
        return self.values(self.augmented(stored, noise, position), noise, position, dtype)

    def on(self, device: torch.device, most: int) -> DataSource:
        one = self.at("train", torch.zeros(1, dtype=torch.int64))
        if self.count("train") * one.nbytes > most:
            return self
        source = copy.copy(self)
        source._near = self.stored("train").to(device)
        return source

    def batch_classes(
        self, noise: Noise, step: int | Tensor, batch_size: int
    ) -> Int[Tensor, "..."]:
        labels = self.labels("train")
        return labels[_in_order(noise, len(labels), positions(step, batch_size))]

    def reference(
        self, n: int, seed: int, split: Split = "test", dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n *event"]:
        check_split(split)
        index = self._chosen(self.count(split), n, seed, split)
        return self.points(split, index, Noise(seed), dtype)

    def reference_classes(self, n: int, seed: int, split: Split = "test") -> Int[Tensor, " n"]:
        check_split(split)
        labels = self.labels(split)
        return labels[self._chosen(len(labels), n, seed, split)]

    def _chosen(self, total: int, n: int, seed: int, split: Split) -> Tensor:
        if n > total:
            raise UserError(f"{self.name} has {total} {split} points, {n} were requested")
        return places(Noise(seed), total, 0, torch.arange(n), "reference")


class ArraySource(FiniteSource):
    """A finite data set held in memory.

    Arguments:
        train: The points to train on, of shape ``(N, *shape)``.
        test: The held-out points, of shape ``(M, *shape)``.
        name: The name of the data.

    Raises:
        ValueError: If there is no training point, the two parts differ in event shape, or a point
            is not of finite floating-point numbers.
    """

    def __init__(
        self, train: Float[Tensor, "n *event"], test: Float[Tensor, "m *event"], name: str
    ) -> None:
        check_data(f"{name}: train", train)
        check_data(f"{name}: test", test, least=0)
        if train.shape[1:] != test.shape[1:]:
            raise UserError(
                f"{name}: training points of shape {tuple(train.shape[1:])} and test points of "
                f"shape {tuple(test.shape[1:])} are not one data set"
            )
        train, test = train.detach(), test.detach()
        self._splits = {"train": train, "test": test}
        self.name, self.shape = name, tuple(train.shape[1:])
        exact = train.to(torch.float64)
        self._mean = exact.mean(dim=0)
        self._std = float((exact - self._mean).square().mean().sqrt())

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self._mean

    @property
    def std(self) -> float:
        return self._std

    def stored(self, split: Split) -> Tensor:
        return self._splits[split]


class LabelledSource(ArraySource):
    """A finite data set whose points have classes, numbered from 0.

    A class-conditional field is trained on the points and their classes, others on the points
    alone; evaluations may use the classes in either case.

    Arguments:
        train: The training points, of shape ``(N, *shape)``.
        test: The held-out points, of shape ``(M, *shape)``.
        train_labels: The class of each training point.
        test_labels: The class of each held-out point.
        name: The name of the data.

    Raises:
        ValueError: As of :class:`ArraySource`; or if points and labels differ in number, or a
            label is negative.
    """

    def __init__(
        self,
        train: Float[Tensor, "n *event"],
        test: Float[Tensor, "m *event"],
        train_labels: Int[Tensor, " n"],
        test_labels: Int[Tensor, " m"],
        name: str,
    ) -> None:
        super().__init__(train, test, name)
        self._classes = {"train": train_labels.long(), "test": test_labels.long()}
        for split, labels in self._classes.items():
            if labels.shape != self._splits[split].shape[:1]:
                raise UserError(
                    f"{name}: {len(self._splits[split])} {split} points cannot have "
                    f"{labels.numel()} labels"
                )
            if labels.numel() and int(labels.min()) < 0:
                raise UserError(f"{name}: a label is a class from 0, got {int(labels.min())}")
        highest = [int(labels.max()) for labels in self._classes.values() if labels.numel()]
        self.classes = 1 + max(highest)

    def stored_labels(self, split: Split) -> Int[Tensor, " n"]:
        return self._classes[split]


def random_points(shape: Sequence[int], classes: int | None = None, count: int = 8) -> ArraySource:
    """Points uniform in [-1, 1], as many for training as are held out: a stand-in for data that are
    not there, to try out a training.

    Arguments:
        shape: The shape of a point.
        classes: The number of classes, of which the points have the last; ``None`` for none.
        count: The number of points of a split.
    """
    index = torch.arange(count)
    noise = Noise(0)
    train, test = (
        2 * noise.uniform(f"random points/{split}", tuple(shape), index) - 1
        for split in ("train", "test")
    )
    if classes is None:
        return ArraySource(train, test, "random")
    labels = (classes - 1 - index) % classes
    return LabelledSource(train, test, labels, labels, "random")


def digits() -> LabelledSource:
    r"""The 1,797 handwritten digits of scikit-learn, of shape ``(1, 8, 8)``.

    Pixels :math:`0 \dots 16` are scaled to :math:`[-1, 1]`; 1,437 images are for training, 360
    are held out. The class of an image is its digit.

    References:
        Optical recognition of handwritten digits (Alpaydin and Kaynak, 1998), UCI Machine
        Learning Repository.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = torch.as_tensor(loaded.images, dtype=torch.float32) / 8 - 1
    labels = torch.as_tensor(loaded.target, dtype=torch.int64)
    order = Noise(0).permutation("split", images.shape[0])
    sizes = (1437, 360)
    train, test = images.unsqueeze(1)[order].split(sizes)
    train_labels, test_labels = labels[order].split(sizes)
    return LabelledSource(train, test, train_labels, test_labels, "digits")


def _in_order(noise: Noise, n: int, position: Tensor) -> Tensor:
    """The indices among ``n`` points at positions of the stream."""
    epoch, offset = position // n, position % n
    chosen = torch.empty_like(position)
    for e in epoch.unique().tolist():
        here = epoch == e
        chosen[here] = places(noise, n, e, offset[here])
    return chosen

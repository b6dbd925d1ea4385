"""Finite data sets whose points have classes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.data.arrays import ArraySource, in_order
from scorefield.data.source import Split, check_split, chosen, positions
from scorefield.errors import UserError
from scorefield.noise import Noise


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
        self._labels = {"train": train_labels.long(), "test": test_labels.long()}
        for split, labels in self._labels.items():
            if labels.shape != self._splits[split].shape[:1]:
                raise UserError(
                    f"{name}: {len(self._splits[split])} {split} points cannot have "
                    f"{labels.numel()} labels"
                )
            if labels.numel() and int(labels.min()) < 0:
                raise UserError(f"{name}: a label is a class from 0, got {int(labels.min())}")

    @property
    def classes(self) -> int:
        """The number of classes."""
        return 1 + max(int(labels.max()) for labels in self._labels.values() if labels.numel())

    def batch_classes(
        self, noise: Noise, step: int | Tensor, batch_size: int
    ) -> Int[Tensor, "..."]:
        labels = self._labels["train"]
        return labels[in_order(noise, len(labels), positions(step, batch_size))]

    def reference_classes(self, n: int, seed: int, split: Split = "test") -> Int[Tensor, " n"]:
        check_split(split)
        labels = self._labels[split]
        return labels[chosen(self.name, len(labels), n, seed, split)]

    def labelled(
        self, split: Split = "test", dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "n *event"], Int[Tensor, " n"]]:
        """All points of a split and their classes, in the order of the data set.

        Raises:
            ValueError: If the split is unknown.
        """
        check_split(split)
        return self._splits[split].to(dtype), self._labels[split]


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

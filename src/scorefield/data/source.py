r"""Data with an address.

A source answers two questions: which points belong to training step :math:`k`, as a pure
function of the address, and which points a field is judged on. The first makes training
resumable without a state of the loader: the points of a step do not depend on how the steps
before it were executed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.errors import UnsupportedError, UserError
from scorefield.noise import Noise
from scorefield.targets.base import Target

Split = Literal["train", "test"]


class DataSource(ABC):
    """Points to train on and points to judge by."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the data is called."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The event shape."""

    @property
    @abstractmethod
    def mean(self) -> Float[Tensor, "*event"]:
        """The mean of the training data, float64."""

    @property
    @abstractmethod
    def std(self) -> float:
        """The standard deviation of a coordinate of the training data about its mean, in
        quadratic mean over the coordinates.
        """

    @property
    @abstractmethod
    def truth(self) -> Target | None:
        """The law of the data where it is known."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """The number of training points; ``None`` where there is no end of them."""

    @property
    def classes(self) -> int | None:
        """The number of classes that the points belong to; ``None`` where they have none."""
        return None

    @abstractmethod
    def batch(
        self,
        noise: Noise,
        step: int | Tensor,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "..."]:
        r"""The training points of a step, or of many steps at once.

        Item :math:`i` of step :math:`k` has position :math:`k B + i` in the stream of the seed.

        Arguments:
            noise: The source of randomness.
            step: The step :math:`k \ge 0`, or a tensor of steps.
            batch_size: The batch size :math:`B`.
            dtype: The dtype.

        Returns:
            Points of shape ``(*step.shape, B, *shape)``.

        Raises:
            ValueError: If a step is negative or the batch is empty.
        """

    def batch_classes(
        self, noise: Noise, step: int | Tensor, batch_size: int
    ) -> Int[Tensor, "..."]:
        """The classes of the points that :meth:`batch` gives for the same arguments.

        Returns:
            Classes from 0, int64, of shape ``(*step.shape, B)``.

        Raises:
            TypeError: If the points have no classes.
            ValueError: As of :meth:`batch`.
        """
        raise UnsupportedError(f"the points of {self.name} have no classes")

    @abstractmethod
    def reference(
        self, n: int, seed: int, split: Split = "test", dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n *event"]:
        """Distinct points of a split, in an order that the seed decides.

        Points of the split ``"test"`` are never trained on.

        Arguments:
            n: Their number.
            seed: The seed.
            split: ``"test"`` or ``"train"``.
            dtype: The dtype.

        Raises:
            ValueError: If the split is unknown or has fewer points.
        """

    def reference_classes(self, n: int, seed: int, split: Split = "test") -> Int[Tensor, " n"]:
        """The classes of the points that :meth:`reference` gives for the same arguments.

        Returns:
            Classes from 0, int64.

        Raises:
            TypeError: If the points have no classes.
            ValueError: As of :meth:`reference`.
        """
        raise UnsupportedError(f"the points of {self.name} have no classes")


class TargetSource(DataSource):
    """Endless data of a known law.

    Arguments:
        target: The law.
        name: What the data is called.
    """

    def __init__(self, target: Target, name: str = "target") -> None:
        self._target = target
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        return self._target.domain.shape

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self._target.mean

    @property
    def std(self) -> float:
        return self._target.std

    @property
    def truth(self) -> Target | None:
        return self._target

    @property
    def size(self) -> int | None:
        return None

    def batch(
        self,
        noise: Noise,
        step: int | Tensor,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "..."]:
        return self._target.draw(noise, positions(step, batch_size), dtype=dtype)

    def reference(
        self, n: int, seed: int, split: Split = "test", dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n *event"]:
        check_split(split)
        # Batches are drawn at step 0, so that no seed makes a test point a training point.
        step = 1 if split == "test" else 0
        return self._target.draw(Noise(seed), torch.arange(n), step, dtype)


def positions(step: int | Tensor, batch_size: int) -> Tensor:
    """The positions ``step * batch_size + i`` in the stream, of shape ``(*step.shape, B)``.

    Raises:
        ValueError: If a step is negative or the batch is empty.
    """
    if batch_size < 1:
        raise UserError(f"a batch has at least one item, got batch_size={batch_size}")
    step = torch.as_tensor(step, dtype=torch.int64)
    if step.numel() and int(step.min()) < 0:
        raise UserError(f"a training step must not be negative, got {int(step.min())}")
    return step.unsqueeze(-1) * batch_size + torch.arange(batch_size, device=step.device)


def chosen(name: str, total: int, n: int, seed: int, split: Split) -> Tensor:
    """Which of all points of a split are the reference points of a seed.

    Raises:
        ValueError: If there are fewer points than are asked for.
    """
    if n > total:
        raise UserError(f"{name} has {total} {split} points, {n} were asked for")
    return Noise(seed).permutation("reference", total)[:n]


def check_split(split: str) -> None:
    """Raises ``ValueError`` unless the split is known."""
    if split not in get_args(Split):
        raise UserError(f"a split is train or test, not {split!r}")

r"""Data with addresses.

The points of training step :math:`k` are a pure function of its address, so that training resumes
without a state of the loader.

A batch is made in two parts: the host reads, by :meth:`~DataSource.read`, and the device makes
points of what was read, by :meth:`~DataSource.finish`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import check_count, inspect
from scorefield.errors import UnsupportedError, UserError
from scorefield.noise import Noise
from scorefield.targets.base import Target

Split = Literal["train", "test"]


class DataSource(ABC):
    """Points for training and points for evaluation.

    A subclass that defines :meth:`batch` and not :meth:`read` is trained on those batches.
    """

    name: str
    """The name of the data."""
    shape: tuple[int, ...]
    """The event shape."""
    truth: Target | None = None
    """The exact distribution of the data, if known."""
    classes: int | None = None
    """The number of classes of the points; ``None`` if they have none."""
    class_names: tuple[str, ...] | None = None
    """The names of the classes by number; ``None`` if they have none."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "batch" in vars(cls) and "read" not in vars(cls):
            # The two parts of another class's batch would not be those of this one's.
            for part in ("read", "finish", "on"):
                setattr(cls, part, getattr(DataSource, part))

    @property
    @abstractmethod
    def mean(self) -> Float[Tensor, "*event"]:
        """The mean of the training data, float64."""

    @property
    @abstractmethod
    def std(self) -> float:
        """The standard deviation of a coordinate of the training data about its mean, in quadratic
        mean over the coordinates.
        """

    @property
    def dim(self) -> int:
        """The number of coordinates of a point."""
        return math.prod(self.shape)

    @property
    def size(self) -> int | None:
        """The number of training points; ``None`` for an infinite stream."""
        return None

    @abstractmethod
    def batch(
        self, noise: Noise, step: int | Tensor, batch_size: int, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        r"""The training points of a step :math:`k \ge 0`, or of a tensor of steps, in batches of
        :math:`B`; item :math:`i` has position :math:`k B + i` in the stream of the seed.

        Returns:
            Points of shape ``(*step.shape, B, *shape)``.

        Raises:
            ValueError: If a step is negative or the batch is empty.
        """

    def read(
        self,
        noise: Noise,
        step: int | Tensor,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
        rows: slice = slice(None),
    ) -> tuple[Tensor, ...]:
        """What the host reads for some rows of the batch that :meth:`batch` returns for the same
        arguments: by default, of all that batch, these rows.
        """
        leading = (slice(None),) * torch.as_tensor(step).dim()
        return (self.batch(noise, step, batch_size, dtype)[(*leading, rows)],)

    def finish(
        self, read: Sequence[Tensor], noise: Noise, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        """The points of a batch, on the device that what was read for it has been brought to."""
        return read[0]

    def on(self, device: torch.device, most: int) -> DataSource:
        """This source, whose :meth:`finish` computes on a device.

        Arguments:
            device: The device.
            most: The number of bytes up to which data lie there; larger ones stay where they are.
        """
        return self

    def batch_classes(
        self, noise: Noise, step: int | Tensor, batch_size: int
    ) -> Int[Tensor, "..."]:
        """The classes, from 0, of the points that :meth:`batch` returns for the same arguments:
        int64, of shape ``(*step.shape, B)``.

        Raises:
            TypeError: If the points have no classes.
        """
        raise UnsupportedError(f"the points of {self.name} have no classes")

    @abstractmethod
    def reference(
        self, n: int, seed: int, split: Split = "test", dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n *event"]:
        """Distinct points of a split, in an order determined by the seed.

        Points of the split ``"test"`` are never used for training.

        Raises:
            ValueError: If the split is unknown or has fewer points.
        """

    def reference_classes(self, n: int, seed: int, split: Split = "test") -> Int[Tensor, " n"]:
        """The classes, from 0, of the points that :meth:`reference` returns for the same arguments:
        int64.

        Raises:
            TypeError: If the points have no classes.
        """
        raise UnsupportedError(f"the points of {self.name} have no classes")


class TargetSource(DataSource):
    """An infinite stream of data with a known distribution.

    Arguments:
        target: The distribution.
        name: The name of the data.
    """

    truth: Target

    def __init__(self, target: Target, name: str = "target") -> None:
        self.truth, self.name, self.shape = target, name, target.domain.shape

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        return self.truth.mean

    @property
    def std(self) -> float:
        return self.truth.std

    def batch(
        self, noise: Noise, step: int | Tensor, batch_size: int, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        found = TargetSource.read(self, noise, step, batch_size, dtype)
        return TargetSource.finish(self, found, noise, dtype)

    def read(
        self,
        noise: Noise,
        step: int | Tensor,
        batch_size: int,
        dtype: torch.dtype = torch.float32,
        rows: slice = slice(None),
    ) -> tuple[Tensor, ...]:
        return (positions(step, batch_size)[..., rows],)

    def finish(
        self, read: Sequence[Tensor], noise: Noise, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "..."]:
        return self.truth.draw(noise, read[0], dtype=dtype)

    def on(self, device: torch.device, most: int) -> DataSource:
        return TargetSource(copy.deepcopy(self.truth).to(device), self.name)

    def reference(
        self, n: int, seed: int, split: Split = "test", dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "n *event"]:
        check_split(split)
        # Batches are drawn at step 0, so that a test point is never a training point.
        step = 1 if split == "test" else 0
        return self.truth.draw(Noise(seed), torch.arange(n), step, dtype)


def positions(step: int | Tensor, batch_size: int) -> Tensor:
    """The positions ``step * batch_size + i`` in the stream, of shape ``(*step.shape, B)``."""
    check_count("batch_size", batch_size)
    step = torch.as_tensor(step, dtype=torch.int64)
    inspect(step, _check_steps)
    return step.unsqueeze(-1) * batch_size + torch.arange(batch_size, device=step.device)


def _check_steps(step: Tensor) -> None:
    if int(step.min()) < 0:
        raise UserError(f"a training step must not be negative, got {int(step.min())}")


def check_split(split: str) -> None:
    """Raises ``ValueError`` unless the split is known."""
    if split not in get_args(Split):
        raise UserError(f"a split is train or test, not {split!r}")

"""Fields in closed form: all of the data, or class by class."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.domain import Domain
from scorefield.errors import UserError
from scorefield.fields.base import Quantity, ScoreField, times
from scorefield.fields.classes import Classes
from scorefield.sde import SDE

FieldT = TypeVar("FieldT", bound="ClosedForm")


class ClosedForm(ScoreField, ABC):
    """A field that is computed from data or their density.

    One that is made of labelled points has a field for each class, made of the points of that class
    alone, at which points of the class are evaluated. Subclasses define :meth:`_predict` and
    :meth:`_jacobians`; those with labels call :meth:`_label` and define :meth:`_part` too.
    """

    labels: Tensor | None

    def __init__(self, sde: SDE, domain: Domain) -> None:
        super().__init__(sde, domain)
        self.register_buffer("labels", None, persistent=False)
        # No modules: they are made of what the field itself stores.
        self._parts: dict[tuple[int, torch.device], ScoreField] = {}

    def _label(self, labels: Int[Tensor, " n"] | None, n: int) -> None:
        """Sets the classes of the points that the field is made of.

        Raises:
            ValueError: If they are not one non-negative integer for each point.
        """
        if labels is not None:
            if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
                raise UserError(
                    f"{n} points need one integer class each, got {labels.dtype} of shape "
                    f"{tuple(labels.shape)}"
                )
            if int(labels.min()) < 0:
                raise UserError(f"classes are counted from 0, got {int(labels.min())}")
            self.labels = labels.long()

    @property
    def classes(self) -> int | None:
        return None if self.labels is None else int(self.labels.max()) + 1

    @abstractmethod
    def _predict(self, x: Tensor, t: float | Tensor, quantity: Quantity) -> Tensor:
        """The field at points, without classes."""

    @abstractmethod
    def _jacobians(self, x: Tensor, t: float | Tensor) -> Tensor:
        """The Jacobians of the score at points, without classes."""

    def _part(self: FieldT, rows: Int[Tensor, " rows"]) -> FieldT:
        """The field that is made of some of the points."""
        raise NotImplementedError

    def score(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor, classes: Classes = None
    ) -> Float[Tensor, "batch *event"]:
        return self.predict(x, t, "score", classes)

    def predict(
        self,
        x: Float[Tensor, "batch *event"],
        t: float | Tensor,
        quantity: Quantity,
        classes: Classes = None,
    ) -> Float[Tensor, "batch *event"]:
        return self._by_class(lambda f, x, t: f._predict(x, t, quantity), x, t, classes)

    @property
    def has_jacobian(self) -> bool:
        return True

    def jacobian(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor, classes: Classes = None
    ) -> Float[Tensor, "batch dim dim"]:
        return self._by_class(lambda f, x, t: f._jacobians(x, t), x, t, classes)

    def under(self: FieldT, sde: SDE) -> FieldT:
        """The same field under another process; the buffers are shared.

        Raises:
            ValueError: If the process does not run where the data lives.
        """
        sde.check(self.domain)
        shared: dict[int, object] = {id(buffer): buffer for buffer in self.buffers()}
        twin = copy.deepcopy(self, {**shared, id(self._parts): {}})
        twin.sde = sde
        return twin

    def of_class(self: FieldT, number: int) -> FieldT:
        """The field that is made of the points of one class alone.

        Raises:
            ValueError: If the points have no classes, or none is of that class.
        """
        if self.labels is None:
            raise UserError(f"{type(self).__name__} has no classes")
        key = number, self.labels.device
        if key not in self._parts:
            rows = (self.labels == number).nonzero().squeeze(1)
            if not len(rows):
                raise UserError(f"no training point is of class {number}")
            self._parts[key] = self._part(rows)
        found: FieldT = self._parts[key]  # type: ignore[assignment]
        return found

    def _by_class(
        self: FieldT,
        evaluate: Callable[[FieldT, Tensor, Tensor | float], Tensor],
        x: Tensor,
        t: float | Tensor,
        classes: Classes,
    ) -> Tensor:
        """What ``evaluate`` gives for the field of each class at the points of that class."""
        index = self.class_rows(classes, x)
        if index is None or not len(index):
            return evaluate(self, x, t)
        time = times(x.to(torch.float64), t).reshape(-1).expand(len(x))
        parts = []
        for number in index.unique().tolist():
            rows = (index == number).nonzero().squeeze(1)
            field = self if number == self.classes else self.of_class(number)
            parts.append((rows, evaluate(field, x[rows], time[rows])))
        return together(parts)


def together(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Values of some rows each, in the order of the rows."""
    if len(parts) == 1:
        return parts[0][1]
    rows = torch.cat([rows for rows, _ in parts])
    return torch.cat([values for _, values in parts])[rows.argsort()]

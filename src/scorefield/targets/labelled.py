"""Fields in closed form that are made of labelled points."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Times, times
from scorefield.targets.base import ClosedForm

LabelledT = TypeVar("LabelledT", bound="Labelled")


class Labelled(ClosedForm):
    """A field that is made of points with or without classes.

    With classes, it has a field for each, made of the points of that class alone, at which points
    of the class are evaluated. Subclasses call :meth:`_label` and define :meth:`_part`.
    """

    labels: Tensor | None

    def _label(self, labels: Int[Tensor, " n"] | None, n: int) -> None:
        """Sets the classes of the points that the field is made of."""
        if labels is not None:
            if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
                raise UserError(
                    f"{n} points need one integer class each, got {labels.dtype} of shape "
                    f"{tuple(labels.shape)}"
                )
            if int(labels.min()) < 0:
                raise UserError(f"classes are counted from 0, got {int(labels.min())}")
            labels = labels.long()
        self.register_buffer("labels", labels, persistent=False)
        # No modules: they are made of what the field itself stores.
        self._parts: dict[tuple[int, torch.device], Labelled] = {}

    @abstractmethod
    def _part(self: LabelledT, rows: Int[Tensor, " rows"]) -> LabelledT:
        """The field that is made of some of the points."""

    @property
    def classes(self) -> int | None:
        return None if self.labels is None else int(self.labels.max()) + 1

    def of_class(self: LabelledT, number: int) -> LabelledT:
        """The field that is made of the points of one class; raises ``ValueError`` if there are
        none.
        """
        if self.labels is None:
            raise UserError(f"{type(self).__name__} has no classes")
        key = number, self.labels.device
        if key not in self._parts:
            rows = (self.labels == number).nonzero().squeeze(1)
            if not len(rows):
                raise UserError(f"no training point is of class {number}")
            self._parts[key] = self._part(rows)
        found: LabelledT = self._parts[key]  # type: ignore[assignment]
        return found

    def _kept(self) -> dict[int, object]:
        return {**super()._kept(), id(self._parts): {}}

    def _by_class(
        self: LabelledT,
        evaluate: Callable[[LabelledT, Tensor, Tensor | float], Tensor],
        x: Tensor,
        t: Times,
        classes: Classes,
    ) -> Tensor:
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

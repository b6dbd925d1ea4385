"""Fields made for each class, at points that have each a class of their own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scorefield.errors import UnsupportedError, UserError
from scorefield.fields.base import Quantity, ScoreField, times
from scorefield.fields.conditional import checked, classes_of, part
from scorefield.sde import SDE


class Family(Protocol):
    """A field that can be made for one class alone."""

    @property
    def classes(self) -> int | None: ...

    def of_class(self, number: int) -> ScoreField: ...

    def under(self, sde: SDE) -> ScoreField: ...


class AssignedField(ScoreField):
    """The field of points that are known to be of a class, where every class has a field.

    The fields of the classes that are asked for are made once.

    Arguments:
        whole: The field of all classes together, which has a field of each.
        classes: The class of all points, or of each point of a batch; the number of classes
            stands for no class.

    Raises:
        TypeError: If the field knows no classes.
        ValueError: If the classes are not integers, there is none, one is out of range or one has
            no field.
    """

    index: Tensor

    def __init__(self, whole: ScoreField, classes: int | Int[Tensor, " batch"]) -> None:
        super().__init__(whole.sde, whole.domain)
        known = whole.classes
        if known is None:
            raise UnsupportedError(f"{type(whole).__name__} has no classes")
        self.whole = whole
        index = checked(classes, known + 1, whole)
        self.register_buffer("index", index, persistent=False)
        family = cast(Family, whole)
        self.parts = nn.ModuleDict(
            {str(c): family.of_class(c) for c in index.unique().tolist() if c < known}
        )

    @property
    def classes(self) -> int | None:
        return self.whole.classes

    def given(self, classes: int | Int[Tensor, " batch"]) -> ScoreField:
        return self.whole.given(classes)

    def under(self, sde: SDE) -> ScoreField:
        """The same classes under another process."""
        return cast(Family, self.whole).under(sde).given(self.index)

    def for_rows(self, rows: Int[Tensor, " rows"]) -> ScoreField:
        # The fields of the classes are kept: to make one may take a copy of its data.
        twin = copy.deepcopy(self, {id(module): module for module in (self.whole, self.parts)})
        twin.index = part(self.index, rows)
        return twin

    def score(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor
    ) -> Float[Tensor, "batch *event"]:
        return self.predict(x, t, "score")

    def predict(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor, quantity: Quantity
    ) -> Float[Tensor, "batch *event"]:
        return together([(rows, f.predict(x[rows], s, quantity)) for rows, f, s in self._of(x, t)])

    @property
    def has_jacobian(self) -> bool:
        return self.whole.has_jacobian

    def jacobian(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor
    ) -> Float[Tensor, "batch dim dim"]:
        return together([(rows, f.jacobian(x[rows], s)) for rows, f, s in self._of(x, t)])

    @property
    def has_potential(self) -> bool:
        return self.whole.has_potential

    def potential(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor
    ) -> Float[Tensor, " batch"]:
        return together([(rows, f.potential(x[rows], s)) for rows, f, s in self._of(x, t)])

    def _of(self, x: Tensor, t: float | Tensor) -> Iterator[tuple[Tensor, ScoreField, Tensor]]:
        """The rows of each class, its field, and their times."""
        index = classes_of(x, self.index)
        time = times(x.to(torch.float64), t).reshape(-1).expand(x.shape[0])
        for number in index.unique().tolist() or self.index[:1].tolist():
            rows = (index == number).nonzero().squeeze(1)
            here = str(number)
            field = cast(ScoreField, self.parts[here]) if here in self.parts else self.whole
            yield rows, field, time[rows]


def together(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Values of some rows each, in the order of the rows."""
    if len(parts) == 1:
        return parts[0][1]
    rows = torch.cat([rows for rows, _ in parts])
    return torch.cat([values for _, values in parts])[rows.argsort()]


def check_labels(labels: Tensor, n: int) -> Tensor:
    """The classes of training points, int64.

    Raises:
        ValueError: If they are not one non-negative integer for each point.
    """
    if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise UserError(
            f"{n} points need one integer class each, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    if int(labels.min()) < 0:
        raise UserError(f"classes are counted from 0, got {int(labels.min())}")
    return labels.long()


def of_class(field: ScoreField, labels: Tensor | None, number: int) -> Tensor:
    """The places of the training points of a class.

    Raises:
        TypeError: If there are no classes.
        ValueError: If no point is of that class.
    """
    if labels is None:
        raise UnsupportedError(f"{type(field).__name__} has no classes")
    chosen = (labels == number).nonzero().squeeze(1)
    if not len(chosen):
        raise UserError(f"no training point is of class {number}")
    return chosen

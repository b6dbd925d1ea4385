"""The field of one class alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.fields.base import Quantity, ScoreField
from scorefield.fields.classes import Classes


class OneClass(ScoreField):
    r"""The field of points of one class, :math:`\nabla_x \log p_t(x \mid c)`: as any field of a
    single density, it has no classes itself.

    Arguments:
        field: A field that knows classes; it is shared.
        number: The class :math:`c` of all points.

    Raises:
        ValueError: If the field has no such class.
    """

    def __init__(self, field: ScoreField, number: int) -> None:
        super().__init__(field.sde, field.domain)
        field.class_rows(number, torch.empty(0))
        self.field = field
        self.number = number

    def predict(
        self,
        x: Float[Tensor, "batch *event"],
        t: float | Tensor,
        quantity: Quantity,
        classes: Classes = None,
    ) -> Float[Tensor, "batch *event"]:
        return self.field.predict(x, t, quantity, self._own(x, classes))

    @property
    def has_potential(self) -> bool:
        return self.field.has_potential

    def potential(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor, classes: Classes = None
    ) -> Float[Tensor, " batch"]:
        return self.field.potential(x, t, self._own(x, classes))

    @property
    def has_jacobian(self) -> bool:
        return self.field.has_jacobian

    def jacobian(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor, classes: Classes = None
    ) -> Float[Tensor, "batch dim dim"]:
        return self.field.jacobian(x, t, self._own(x, classes))

    def _own(self, x: Tensor, classes: Classes) -> int:
        self.class_rows(classes, x)
        return self.number

    def extra_repr(self) -> str:
        return f"number={self.number}"

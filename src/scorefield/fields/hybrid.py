r"""A potential where noise is low, a free network where it is high."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import Quantity, ScoreField, times
from scorefield.fields.classes import Classes, classes_at


class HybridField(ScoreField):
    r"""One field at or below a noise level, another above it.

    .. math:: s(x, t) = \begin{cases} s_{low}(x, t) & \sigma(t)/\alpha(t) \le \sigma_c \\
        s_{high}(x, t) & \text{otherwise} \end{cases}

    Each field is evaluated on its own points only.

    Arguments:
        low: The field at low noise, typically a potential's gradient.
        high: The field at high noise.
        sigma_c: The noise level :math:`\sigma_c` of the boundary, in units of the data.

    Raises:
        ValueError: If the two fields differ in process, domain or number of classes, or
            ``sigma_c`` is not positive.
    """

    def __init__(self, low: ScoreField, high: ScoreField, sigma_c: float) -> None:
        if low.sde != high.sde or low.domain != high.domain:
            raise UserError("the two fields of a hybrid share one process and one domain")
        if low.classes != high.classes:
            raise UserError(
                f"the two fields of a hybrid know the same classes, not {low.classes or 'none'} "
                f"and {high.classes or 'none'}"
            )
        if not (math.isfinite(sigma_c) and sigma_c > 0):
            raise UserError(f"sigma_c must be positive, got {sigma_c}")
        super().__init__(low.sde, low.domain)
        self.low = low
        self.high = high
        self.sigma_c = sigma_c

    @property
    def classes(self) -> int | None:
        return self.low.classes

    @property
    def unlabelled(self) -> bool:
        return self.low.unlabelled and self.high.unlabelled

    def predict(
        self,
        x: Float[Tensor, "batch *event"],
        t: float | Tensor,
        quantity: Quantity,
        classes: Classes = None,
    ) -> Float[Tensor, "batch *event"]:
        t = times(x, t).reshape(-1)
        below = self.sde.noise_level(t) <= self.sigma_c
        if bool(below.all()):
            return self.low.predict(x, t, quantity, classes)
        if not bool(below.any()):
            return self.high.predict(x, t, quantity, classes)
        known = self.class_rows(classes, x)
        t, below = t.expand(x.shape[0]), below.expand(x.shape[0])
        rows = torch.cat((below.nonzero(), (~below).nonzero())).reshape(-1)
        n_low = int(below.sum())
        low, high = rows[:n_low], rows[n_low:]
        parts = (
            self.low.predict(x[low], t[low], quantity, classes_at(known, low)),
            self.high.predict(x[high], t[high], quantity, classes_at(known, high)),
        )
        return torch.cat(parts)[torch.argsort(rows)]

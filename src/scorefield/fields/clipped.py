r"""Fields whose denoised state is confined to the range of the data.

Many published samplers clip the posterior mean of the data. A clipped field is *another* field: it
is not the score that the network learned, no gradient, and its Jacobian vanishes in the coordinates
that are clipped. It is therefore a wrapper that says so, and never a property of a network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.checks import check_finite, check_share
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Quantity, Times, convert


class ClippedField(ScoreField):
    r"""A field whose denoiser :math:`D` is clipped, and whose other forms follow from that.

    Without a quantile, :math:`D' = \min(\max(D, low), high)`. With the quantile :math:`p`,
    *dynamic thresholding*, :math:`D' = h\,\min(\max(D, -q), q) / q` for :math:`h = high`, where
    :math:`q` is the :math:`p`-quantile of :math:`|D|` over the coordinates of a point, and at
    least :math:`h`.

    Arguments:
        field: The field.
        low: The least value of the data.
        high: The greatest.
        quantile: The share :math:`p` of coordinates that dynamic thresholding leaves within.

    Raises:
        ValueError: Unless ``low < high`` are finite; for a quantile not in :math:`(0, 1)`, or with
            ``low != -high``.

    References:
        Photorealistic text-to-image diffusion models with deep language understanding (Saharia et
        al., 2022), section 2.3.
    """

    def __init__(
        self,
        field: ScoreField,
        low: float = -1.0,
        high: float = 1.0,
        quantile: float | None = None,
    ) -> None:
        check_field(field)
        check_finite("clipping: low", low)
        check_finite("clipping: high", high)
        if not low < high:
            raise UserError(f"clipping: low must be below high, got {low:g} and {high:g}")
        if quantile is not None:
            check_share("clipping: quantile", quantile)
            if low != -high:
                raise UserError(
                    f"clipping: a quantile is of the size of values, which must be centred: low is "
                    f"{low:g} and not {-high:g}"
                )
        super().__init__(field.sde, field.domain)
        self.field, self.low, self.high, self.quantile = field, low, high, quantile

    @property
    def classes(self) -> int | None:
        return self.field.classes

    @property
    def unlabelled(self) -> bool:
        return self.field.unlabelled

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        if quantity == "denoiser":
            return self._clip(self.field.denoise(x, t, classes))
        # It determines data and noise at every level, which neither does of the other.
        velocity = self.field.velocity(x, t, classes)
        denoiser = convert(velocity, x, t, self.sde, "velocity", "denoiser")
        change = convert(self._clip(denoiser) - denoiser, 0 * x, t, self.sde, "denoiser", quantity)
        return convert(velocity, x, t, self.sde, "velocity", quantity) + change

    def extra_repr(self) -> str:
        return f"low={self.low:g}, high={self.high:g}, quantile={self.quantile}"

    def _clip(self, denoiser: Tensor) -> Tensor:
        if self.quantile is None:
            return denoiser.clamp(self.low, self.high)
        sizes = denoiser.reshape(len(denoiser), -1).abs()
        bound = torch.quantile(sizes, self.quantile, dim=1).clamp(min=self.high)
        bound = bound.reshape(-1, *(1,) * (denoiser.dim() - 1))
        return denoiser.clamp(-bound, bound) * (self.high / bound)

"""Linear maps of the last axis of arrays with several others."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The map of every row of the last axis, as one product of matrices.

    ``torch.nn.functional.linear`` makes one product too, but inside of a compiled gradient it
    fixes the size of the batch, so that every size would be compiled anew.
    """
    return F.linear(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


class RowLinear(nn.Linear):
    """A layer that is :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

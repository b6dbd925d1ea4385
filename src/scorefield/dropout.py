r"""Dropout with addresses: the mask of a row is its own, whatever batch the row is in.

.. math:: y_{re} = \frac{x_{re}}{1 - p}\,\big[h(e, k_r) \ge p\big],

where :math:`k_r` are two 32-bit keys of row :math:`r` in a layer, and :math:`h` mixes them with the
place :math:`e` of a number in its row. A training draws the keys at the address of seed, step,
index in the batch, and number of the layer: a row has the same masks in every part of a batch.

References:
    Dropout: a simple way to prevent neural networks from overfitting (Srivastava, Hinton,
    Krizhevsky, Sutskever and Salakhutdinov, 2014), section 4.

    Prospecting for hash functions (Wellons, 2018), whose multipliers mix 32 bits well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from scorefield.checks import check_fraction
from scorefield.errors import UserError
from scorefield.rows import RowLayer, set_rows

# As numbers of 32 bits with a sign.
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - 2**32)


class Dropout(RowLayer):
    """Sets numbers to zero at random in training, and scales the others up to the same mean.

    Where nothing has set its keys, they are drawn from torch's own generator at each call.

    Arguments:
        p: The probability of a zero, in [0, 1), which is rounded to a multiple of :math:`2^{-32}`.

    Raises:
        ValueError: If ``p`` is out of range; in use, if the keys are those of another number of
            rows.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        check_fraction("the probability of dropout", p)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keys = self._rows
        if keys is None:
            keys = torch.randint(-(2**31), 2**31, (len(x), 2), dtype=torch.int32, device=x.device)
        if len(keys) != len(x):
            raise UserError(f"dropout has the keys of {len(keys)} rows, and was given {len(x)}")
        kept = ~dropped(x, keys, self.p)
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def dropouts(module: nn.Module) -> list[Dropout]:
    """The layers of a module that drop anything, in the order of its parts."""
    return [part for part in module.modules() if isinstance(part, Dropout) and part.p > 0]


def set_keys(layers: Sequence[Dropout], keys: Int[Tensor, "rows layers 2"] | None) -> None:
    """Sets the keys of layers for all calls that follow, those in a backward pass too; or none."""
    for number, layer in enumerate(layers):
        set_rows(layer, None if keys is None else keys[:, number])


def dropped(x: Tensor, keys: Int[Tensor, "rows 2"], p: float) -> Bool[Tensor, "rows *event"]:
    """Where numbers of the shape of ``x`` are set to zero."""
    first, second = keys.view(-1, 2, *(1,) * (x.dim() - 1)).unbind(1)
    place = torch.arange(x.shape[1:].numel(), dtype=torch.int32, device=x.device)
    code = _mixed(place * _MULTIPLIERS[0]).view(x.shape[1:]) ^ first
    # An odd factor loses nothing.
    code = _mixed(code.mul_(second | 1))
    return code < round(p * 2**32) - 2**31


def _mixed(code: Tensor) -> Tensor:
    return code.bitwise_xor_((code >> 15).bitwise_and_(0x1FFFF)).mul_(_MULTIPLIERS[1])

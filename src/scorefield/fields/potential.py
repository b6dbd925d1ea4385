r"""Fields that are gradients by construction.

The vector that a :class:`~.PreconditionedField` takes from its
backbone is replaced by the gradient of a scalar, :math:`F = \nabla_u \psi(u, c_{noise})`. With
:math:`u = c_{in} x` the score :math:`s = c_{skip} x + c_{out} F(c_{in} x)` is then the gradient of

.. math:: \phi(x, t) = \frac{c_{skip}}{2}\,|x|^2
    + \frac{c_{out}}{c_{in}}\,\psi(c_{in} x, c_{noise}),

so that the field has the same scaling as its unconstrained counterpart, and differs from it only in
being conservative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.domain import Domain, Torus
from scorefield.errors import UserError
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Times, times
from scorefield.fields.gradient import gradient
from scorefield.fields.parametrization import Parametrization
from scorefield.fields.preconditioned import PreconditionedField
from scorefield.sde.base import SDE

Head = Literal["sum", "inner", "denoising"]


class PotentialField(PreconditionedField):
    r"""The gradient of a scalar potential.

    Heads turn the backbone's output :math:`N(u, c)` into the scalar :math:`\psi`:

    * ``sum``: :math:`\psi = \sum_i N_i(u, c)`; with a backbone of one output, that output, and
      with one whose output is an image, a sum of local energies over all pixels.
    * ``inner``: :math:`\psi = \langle u, N(u, c) \rangle`, for any backbone whose output has the
      shape of its input.
    * ``denoising``: :math:`\psi = -\frac12 |u - N(u, c)|^2`, likewise for any backbone.

    A call uses autograd, under ``torch.no_grad`` and ``torch.inference_mode`` too. Arguments and
    errors are otherwise those of :class:`~.PreconditionedField`.

    Arguments:
        backbone: With head ``sum`` it may return any shape ``(batch, ...)``.
        parametrization: What :math:`\nabla\psi` predicts.
        head: How the output becomes a scalar.

    Raises:
        ValueError: If the head is unknown or not defined on the domain, or the backbone's output
            does not fit it.

    References:
        Should EBMs model the energy or the score? (Salimans and Ho, 2021), section 3.
    """

    def __init__(
        self,
        backbone: nn.Module,
        sde: SDE,
        sigma_data: float | None = None,
        parametrization: Parametrization | None = None,
        domain: Domain | None = None,
        head: Head = "sum",
        *,
        shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(backbone, sde, sigma_data, parametrization, domain, shape=shape)
        if head not in ("sum", "inner", "denoising"):
            raise UserError(f"a potential head is sum, inner or denoising, not {head!r}")
        if isinstance(domain, Torus) and head != "sum":
            raise UserError(f"head {head!r} multiplies by x, which is not periodic; take 'sum'")
        self.head = head

    @property
    def has_potential(self) -> bool:
        return True

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        clock, rows = times(x, t), self.class_rows(classes, x)
        c = self.parametrization.coefficients(clock, self.sde)
        psi = self._psi(c.c_in * x, c.c_noise.reshape(-1).expand(x.shape[0]), rows)
        c_skip, c_out = (v.reshape(-1) for v in c.means.form("score", clock, self.sde))
        scale = torch.where(c_skip < 0, -c_skip, math.tau)
        normal = 0.5 * (c_skip * _total(x.square()) + self.domain.dim * (scale / math.tau).log())
        return normal + c_out / c.c_in.reshape(-1) * psi

    def _output(self, u: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        return gradient(self._psi, u, label, classes)

    def _psi(self, u: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        output = self._call(u, label, classes)
        if self.head == "sum":
            self._check_output(output, (u.shape[0], *output.shape[1:]))
            return _total(output)
        self._check_output(output, u.shape)
        return _total(u * output if self.head == "inner" else -0.5 * (u - output) ** 2)


def _total(values: Tensor) -> Tensor:
    """The sum over everything but the batch."""
    return values.flatten(1).sum(dim=1) if values.dim() > 1 else values

r"""Networks as score fields.

A backbone :math:`F` receives a scaled input and a label of the noise level; every form of the field
(score, denoiser, noise, velocity, drift) is affine in its output,

.. math:: c_{skip}\,x + c_{out}\,F(c_{in}\,x,\; c_{noise}),

with coefficients that follow from the *parametrisation*, see :mod:`~.parametrization`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.checks import check_floating, kind_of
from scorefield.domain import Domain, Euclidean, Torus
from scorefield.engine import in_blocks
from scorefield.errors import UnsupportedError, UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Quantity, Times, times
from scorefield.fields.inputs import check_values
from scorefield.fields.parametrization import EDMScaling, Parametrization
from scorefield.sde.base import SDE


class PreconditionedField(ScoreField):
    r"""A backbone as a score field.

    Arguments:
        backbone: A module called as ``backbone(x, label)`` with :math:`x` of shape ``(batch,
            *event)`` and a label of shape ``(batch,)``; returns the shape of ``x``. It computes in
            the dtype of its parameters; the result has the dtype of the input. A class-conditional
            one has an attribute ``classes``, their number :math:`K`, and is called as ``backbone(x,
            label, classes)`` where they are given: int64 from 0, with :math:`K` for no class unless
            its attribute ``unlabelled`` is false.
        sde: The forward process.
        sigma_data: Shorthand for ``parametrization=EDMScaling(sigma_data)``.
        parametrization: What the backbone predicts.
        domain: The space of :math:`x`; by default ``Euclidean(shape)``.
        shape: The event shape; by default the attribute ``event_shape`` of the backbone, otherwise
            learned in :func:`~.fit` or in the first call.

    Raises:
        TypeError: Unless exactly one of ``sigma_data`` and ``parametrization`` is given, or if both
            ``domain`` and ``shape`` are.
        ValueError: If the process or the parametrisation is not defined on the domain, or the
            backbone is for points of another shape; in a call, if it returns another shape.
    """

    def __init__(
        self,
        backbone: nn.Module,
        sde: SDE,
        sigma_data: float | None = None,
        parametrization: Parametrization | None = None,
        domain: Domain | None = None,
        *,
        shape: Sequence[int] | None = None,
    ) -> None:
        if (sigma_data is None) == (parametrization is None):
            raise UnsupportedError("give either sigma_data or a parametrization")
        if domain is not None and shape is not None:
            raise UnsupportedError("give either a domain or a shape")
        own = getattr(backbone, "event_shape", None)
        if shape is None:
            shape = own
        if domain is None and shape is not None:
            domain = Euclidean(tuple(shape))
        if domain is not None and own is not None and domain.shape != tuple(own):
            raise UserError(
                f"{type(backbone).__name__} is for points of shape {tuple(own)}, not {domain.shape}"
            )
        super().__init__(sde, domain)
        self.backbone = backbone
        if sigma_data is not None:
            parametrization = EDMScaling(sigma_data)
        assert parametrization is not None
        if isinstance(domain, Torus) and not parametrization.periodic:
            raise UserError(
                f"{type(parametrization).__name__} adds a multiple of x to the score, which is not "
                "periodic; on a torus take NoisePrediction or ScorePrediction"
            )
        self.parametrization = parametrization

    _compiled: Callable[..., Tensor] | None = None

    @property
    def classes(self) -> int | None:
        return getattr(self.backbone, "classes", None)

    @property
    def unlabelled(self) -> bool:
        return getattr(self.backbone, "unlabelled", True)

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        clock, rows = times(x, t), self.class_rows(classes, x)
        c = self.parametrization.coefficients(clock, self.sde)
        u, label = c.c_in * x, c.c_noise.reshape(-1).expand(x.shape[0])
        output = in_blocks(self._compiled or self._output, u, label, rows)
        c_skip, c_out = c.means.form(quantity, clock, self.sde)
        return c_skip * x + c_out * output

    def extra_repr(self) -> str:
        return repr(self.parametrization)

    def compile(self, *settings: Any, **named: Any) -> None:
        # As a whole: a compiled network has first derivatives only, and a potential needs two.
        self._compiled = torch.compile(self._output, *settings, **named)

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled is that of these very weights, and not of a copy's.
        state = super().__getstate__()  # type: ignore[no-untyped-call]
        state.pop("_compiled", None)
        return state

    def _output(self, u: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        """The vector :math:`F(u, label)`, in the dtype of ``u``."""
        output = self._call(u, label, classes)
        self._check_output(output, u.shape)
        return output

    def _call(self, u: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        dtype = next((p.dtype for p in self.backbone.parameters()), u.dtype)
        known = () if classes is None else (classes,)
        output: Tensor = self.backbone(u.to(dtype), label.to(dtype), *known)
        if not isinstance(output, Tensor):
            raise UserError(f"{type(self.backbone).__name__} gave no tensor but {kind_of(output)}")
        check_floating(f"what {type(self.backbone).__name__} gives", output)
        return output.to(u.dtype)

    def _check_output(self, output: Tensor, shape: tuple[int, ...]) -> None:
        check_values(f"{type(self).__name__}: {type(self.backbone).__name__}", output, shape)

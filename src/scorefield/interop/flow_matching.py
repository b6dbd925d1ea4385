r"""Velocities of flow_matching.

A path :math:`x_t = \alpha x_1 + \sigma x_0` leads from noise at time 0 to data at time 1; its
scheduler states both coefficients, and a network predicts the velocity
:math:`\mathrm{d}x_t / \mathrm{d}t`. The field has the process of the path with time reversed:
:class:`~.RectifiedFlow` for ``CondOTScheduler``, :class:`~.VP` of the same rates for
``VPScheduler``, and :class:`~.Cosine` without offset for ``CosineScheduler``.

References:
    Flow matching guide and code (Lipman et al., 2024), version 1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from scorefield.fields.preconditioned import PreconditionedField
from scorefield.fields.wrap import wrap
from scorefield.interop.adapter import Adapter, kinds_of
from scorefield.interop.errors import InteropError
from scorefield.sde.base import SDE
from scorefield.sde.interpolant import RectifiedFlow
from scorefield.sde.preserving import VP, Cosine


def field_of(network: nn.Module, path: Any, shape: Sequence[int]) -> PreconditionedField:
    """The field of a network that predicts the velocity of a path.

    Arguments:
        network: The network, a ``ModelWrapper`` for example, called as ``network(x, t)``.
        path: An ``AffineProbPath``, a ``CondOTProbPath`` for example.
        shape: The shape of a point.

    Raises:
        InteropError: If there is no process of the path here.
        ValueError: If the network cannot be evaluated at such points, see :func:`~.wrap`.
    """
    scheduler = getattr(path, "scheduler", None)
    name = type(path if scheduler is None else scheduler).__name__
    convention = f"{name}: receives the time from noise to data, predicts the velocity"
    return wrap(
        FlowMatchingNetwork(network, convention),
        shape=shape,
        predicts="velocity",
        time="1-t",
        sde=_process(scheduler, name),
    )


class FlowMatchingNetwork(Adapter):
    """A network of points and times from noise to data."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = self.network(x, t)
        return output


def _process(scheduler: Any, name: str) -> SDE:
    kinds = kinds_of(scheduler, "flow_matching")
    if "CondOTScheduler" in kinds:
        return RectifiedFlow()
    if "VPScheduler" in kinds:
        return VP(float(scheduler.beta_min), float(scheduler.beta_max))
    if "CosineScheduler" in kinds:
        return Cosine(offset=0.0, t_min=1e-3, t_max=0.999)
    raise InteropError(
        f"{name} has no process here, which paths with CondOTScheduler, VPScheduler and "
        "CosineScheduler of flow_matching have: sf.wrap takes the network with an sde of your own"
    )

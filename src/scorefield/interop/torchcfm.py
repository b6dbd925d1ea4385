r"""Velocities of torchcfm.

A matcher leads from noise at time 0 to data at time 1: ``ConditionalFlowMatcher`` and
``TargetConditionalFlowMatcher`` straight, as :class:`~.RectifiedFlow` with time reversed;
``VariancePreservingConditionalFlowMatcher`` by :math:`\cos` and :math:`\sin` of
:math:`\frac{\pi}{2} t`, as :class:`~.Cosine` without offset. Both have to have ``sigma`` 0. Other
matchers pair noise with data, or are bridges: their velocity determines no score.

References:
    Improving and generalizing flow-based generative models with minibatch optimal transport (Tong
    et al., 2024), version 1.0 of torchcfm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.fields.preconditioned import PreconditionedField
from scorefield.fields.wrap import wrap
from scorefield.interop.adapter import Adapter, kinds_of
from scorefield.interop.errors import InteropError
from scorefield.sde.base import SDE
from scorefield.sde.interpolant import RectifiedFlow
from scorefield.sde.preserving import Cosine

_STRAIGHT = ("ConditionalFlowMatcher", "TargetConditionalFlowMatcher")
_TURNING = "VariancePreservingConditionalFlowMatcher"


def field_of(
    network: nn.Module, matcher: Any, shape: Sequence[int], *, classes: int | None = None
) -> PreconditionedField:
    """The field of a network that predicts the velocity of a matcher.

    Arguments:
        network: One of torchcfm, or called as they are: ``network(t, x)``, with classes
            ``network(t, x, classes)``; one with an attribute ``time_varying``, as the ``MLP`` has,
            receives the time as the last coordinate of the points.
        matcher: The matcher of its training.
        shape: The shape of a point.
        classes: The number of classes of a class-conditional network.

    Raises:
        InteropError: If the matcher has no process, or the network receives no time.
        ValueError: If the network cannot be evaluated at such points, see :func:`~.wrap`.
    """
    name = type(matcher).__name__
    if not getattr(network, "time_varying", True):
        raise InteropError(f"{type(network).__name__} receives no time: make it time_varying")
    convention = f"{name}: receives the time from noise to data, predicts the velocity"
    return wrap(
        TorchCFMNetwork(network, convention),
        shape=shape,
        predicts="velocity",
        time="1-t",
        sde=_process(matcher, name),
        classes=classes,
    )


class TorchCFMNetwork(Adapter):
    """A network of points and times from noise to data."""

    def forward(self, x: Tensor, t: Tensor, classes: Tensor | None = None) -> Tensor:
        output: Tensor
        if hasattr(self.network, "time_varying"):
            output = self.network(torch.cat([x, t[:, None]], dim=-1))
        else:
            output = self.network(t, x, *(() if classes is None else (classes,)))
        return output


def _process(matcher: Any, name: str) -> SDE:
    if name not in kinds_of(matcher, "torchcfm").intersection({*_STRAIGHT, _TURNING}):
        raise InteropError(
            f"{name} is none of {', '.join(_STRAIGHT)} and {_TURNING}: its velocity determines no "
            "score; as a flow without one, sf.wrap takes it with predicts='velocity', time='1-t'"
        )
    if matcher.sigma != 0:
        raise InteropError(
            f"{name} has sigma {matcher.sigma:g}: only with sigma 0 is its path that of a process"
        )
    if name == _TURNING:
        return Cosine(offset=0.0, t_min=1e-3, t_max=0.999)
    return RectifiedFlow()

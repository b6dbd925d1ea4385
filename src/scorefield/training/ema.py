"""A moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from scorefield.checks import check_fraction
from scorefield.errors import UserError


class EMA:
    r"""The exponential moving average of a module's parameters over training steps.

    .. math:: \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n)\,\theta_n, \qquad
        d_n = \min\Big(d, \frac{1 + n}{10 + n}\Big), \qquad \bar\theta_0 = \theta_0.

    Without the warm-up :math:`(1 + n) / (10 + n)`, the average would hold on to the initial
    weights for :math:`1 / (1 - d)` steps. Buffers are not averaged.

    Arguments:
        module: The module whose parameters are averaged, in their own dtype.
        decay: The decay :math:`d`, in [0, 1).
        warmup: Whether the decay warms up; :math:`d_n = d` otherwise.

    Raises:
        ValueError: If the decay is out of range.
    """

    def __init__(self, module: nn.Module, decay: float, warmup: bool = True) -> None:
        check_fraction("the decay of an average", decay)
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self._module = module
        self._names = [name for name, _ in module.named_parameters()]
        self._live = [p.detach() for p in module.parameters()]
        self._average = [p.clone() for p in self._live]

    def decay_at(self, n: int) -> float:
        """The decay :math:`d_n` of the :math:`n`-th update, counted from 1."""
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the parameters as they are now."""
        self.updates += 1
        torch._foreach_lerp_(self._average, self._live, 1 - self.decay_at(self.updates))

    def copy_to(self, field: nn.Module) -> None:
        """Gives the field the averaged weights.

        Raises:
            ValueError: If the field's parameters are not of the shapes that were averaged.
        """
        if [p.shape for p in field.parameters()] != [a.shape for a in self._average]:
            raise UserError("the field's parameters are not those that were averaged")
        _copy(field.parameters(), self._average)

    def state_dict(self) -> dict[str, Tensor]:
        """The module's state with the averaged weights in place of its own."""
        state: dict[str, Tensor] = self._module.state_dict()
        return {**state, **dict(zip(self._names, self._average, strict=True))}

    def load_state_dict(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Takes back what :meth:`state_dict` gave after the given number of updates."""
        _copy(self._average, [state[name] for name in self._names])
        self.updates = updates


@torch.no_grad()
def _copy(to: Iterable[Tensor], source: Iterable[Tensor]) -> None:
    for a, b in zip(to, source, strict=True):
        a.copy_(b)

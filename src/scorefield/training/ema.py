"""Moving averages of the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from scorefield.checks import check_count, check_fraction, check_kind, check_positive
from scorefield.errors import UserError
from scorefield.training.sharding import joined, own, shard_of, whole

RAMP_UP = 0.05
"""The longest half-life of :class:`HalfLife`, relative to the images seen so far."""


class Average(ABC):
    r"""A moving average of a module's parameters over training steps.

    .. math:: \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n)\,\theta_n, \qquad
        \bar\theta_0 = \theta_0,

    with the decay :math:`d_n` of a subclass. Buffers are not averaged.

    Arguments:
        module: The module whose parameters are averaged, in their own dtype and on their device.

    Raises:
        TypeError: If it is no module.
    """

    def __init__(self, module: nn.Module) -> None:
        check_kind("what is averaged", module, nn.Module)
        self.updates = 0
        self._module = module
        self._names = [name for name, _ in module.named_parameters()]
        self._parameters = list(module.parameters())
        self._live = [own(p.detach()) for p in self._parameters]
        self._average = [p.clone() for p in self._live]
        self._dtypes = [p.dtype for p in self._live]
        device = self._live[0].device if self._live else None
        self._weight = torch.zeros((), dtype=torch.float64, device=device)

    @abstractmethod
    def decay_at(self, n: int) -> float:
        """The decay :math:`d_n` of the :math:`n`-th update, counted from 1."""

    def update(self) -> None:
        """Takes in the parameters as they are now."""
        self.begin()
        self.take_in(torch.ones_like(self._weight))

    def begin(self) -> None:
        """Counts an update, whose numbers :meth:`take_in` then takes in."""
        self.updates += 1
        self._weight.fill_(1 - self.decay_at(self.updates))

    @torch.no_grad()
    def take_in(self, taken: Tensor) -> None:
        """Takes in the parameters as they are now, without a number of the host.

        Arguments:
            taken: On the device of the parameters, 1, or 0 for a step that was skipped, which
                leaves the average as it is.
        """
        weight = taken * self._weight
        weights = {dtype: weight.to(dtype) for dtype in set(self._dtypes)}
        torch._foreach_lerp_(self._average, self._live, [weights[d] for d in self._dtypes])

    def copy_to(self, field: nn.Module) -> None:
        """Gives the field the averaged weights.

        Raises:
            ValueError: If the field's parameters are not of the shapes that were averaged.
            TypeError: If it is no module.
        """
        check_kind("what is given an average", field, nn.Module)
        if [p.shape for p in field.parameters()] != [p.shape for p in self._parameters]:
            raise UserError("the field's parameters are not those that were averaged")
        _copy(field.parameters(), map(whole, self._joined()))

    def state_dict(self) -> dict[str, Tensor]:
        """The module's state with the averaged weights in place of its own."""
        state: dict[str, Tensor] = self._module.state_dict()
        return {**state, **dict(zip(self._names, self._joined(), strict=True))}

    def load_state_dict(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Takes back what :meth:`state_dict` gave after the given number of updates."""
        each = zip(self._names, self._parameters, strict=True)
        _copy(self._average, [shard_of(state[name], p) for name, p in each])
        self.updates = updates

    def _joined(self) -> list[Tensor]:
        return [joined(a, p) for a, p in zip(self._average, self._parameters, strict=True)]


class EMA(Average):
    r"""The exponential moving average with a decay :math:`d` that warms up.

    .. math:: d_n = \min\Big(d, \frac{1 + n}{10 + n}\Big).

    Without the warm-up :math:`(1 + n) / (10 + n)`, the average would hold on to the initial
    weights for :math:`1 / (1 - d)` steps.

    Arguments:
        module: See :class:`Average`.
        decay: The decay :math:`d`, in [0, 1).
        warmup: Whether the decay warms up; :math:`d_n = d` otherwise.

    Raises:
        ValueError: If the decay is out of range.
    """

    def __init__(self, module: nn.Module, decay: float, warmup: bool = True) -> None:
        check_fraction("the decay of an average", decay)
        super().__init__(module)
        self.decay = decay
        self.warmup = warmup

    def decay_at(self, n: int) -> float:
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay


class HalfLife(Average):
    r"""The exponential moving average with a half-life of :math:`H` images.

    .. math:: d_n = 2^{-B / \min(H,\; r (n - 1) B)}, \qquad d_1 = 0,

    with batches of :math:`B` images and :math:`r` = :data:`RAMP_UP`.

    Arguments:
        module: See :class:`Average`.
        images: The half-life :math:`H`.
        batch_size: The number :math:`B` of images a step.

    Raises:
        ValueError: If one of them is not positive.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        the published code.
    """

    def __init__(self, module: nn.Module, images: float, batch_size: int) -> None:
        check_positive("the half-life of an average", images)
        check_count("batch_size", batch_size)
        super().__init__(module)
        self.images, self.batch_size = images, batch_size

    def decay_at(self, n: int) -> float:
        seen = (n - 1) * self.batch_size
        return 0.0 if n == 1 else 0.5 ** (self.batch_size / min(self.images, RAMP_UP * seen))


@torch.no_grad()
def _copy(to: Iterable[Tensor], source: Iterable[Tensor]) -> None:
    for a, b in zip(to, source, strict=True):
        a.copy_(b)

"""What a training step needs of data and random numbers, drawn for many steps at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from scorefield.data.source import DataSource
from scorefield.fields.base import ScoreField
from scorefield.noise import Lookahead, Noise
from scorefield.objectives.objective import Objective

_NUMBERS_AHEAD = 2**18
_STEPS_AHEAD = 32

Read = tuple[list[Tensor], Tensor | None]
"""What data are made of, and the seeds of dropout, on the host."""


def training_draws(
    field: ScoreField,
    source: DataSource,
    objective: Objective,
    noise: Noise,
    batch_size: int,
    data_on_device: int = 0,
) -> Lookahead:
    """What a step needs, on the device of the field: points, times, normals, where the field knows
    classes those of the points, and where it has dropout a seed for it, which stays on the host.

    A draw costs nearly the same for one step as for many. What the host reads for the steps of a
    draw is read by a thread during those before them, unless the host is the device. Training data
    of up to ``data_on_device`` bytes are copied to the device.
    """
    weights = next(p for p in field.parameters() if p.requires_grad)
    device, dtype = weights.device, weights.dtype
    index = torch.arange(batch_size, device=device)
    dropout = has_dropout(field)
    distant = device.type != "cpu"
    if distant:
        source = source.on(device, data_on_device)

    def read(steps: Tensor) -> Read:
        each, seeds = steps.squeeze(1), None
        found = list(source.read(noise, each, batch_size, dtype))
        if field.classes is not None:
            found.append(source.batch_classes(noise, each, batch_size))
        if dropout:
            # 32 bits: torch's generator on the CPU uses no more of a seed.
            seeds = noise.integers("dropout", 2**32, (), steps * 0, steps)[:, 0]
        return [_pinned(f) for f in found] if distant else found, seeds

    host = Prefetch(read) if distant else read

    def draw(steps: Tensor) -> tuple[Tensor, ...]:
        found, seeds = host(steps)
        here = [f.to(device, non_blocking=True) for f in found]
        # Counted anew: a copy would be waited for.
        steps = torch.arange(int(steps[0]), int(steps[-1]) + 1, device=device).unsqueeze(1)
        told = []
        if field.classes is not None:
            told = [objective.hide(here.pop(), field.classes, noise, index, steps)]
        x = source.finish(here, noise, dtype)
        t, z = objective.draw(field, noise, index, steps)
        draws = [d.to(weights) for d in (x, t, z)]
        return (*draws, *told, *([] if seeds is None else [seeds]))

    numbers = batch_size * (2 * field.domain.dim + 1)
    return Lookahead(draw, max(1, min(_STEPS_AHEAD, _NUMBERS_AHEAD // numbers)))


class Prefetch:
    """A function of consecutive steps, called by a thread of its own one call ahead.

    Arguments:
        read: The function, of steps of shape ``(span, 1)``; called with the steps after the given
            ones too, of which there may be none in the training.
    """

    def __init__(self, read: Callable[[Tensor], Read]) -> None:
        self._read = read
        self._thread = ThreadPoolExecutor(1, "prefetch")
        self._first: int | None = None
        self._coming: Future[Read] | None = None

    def __call__(self, steps: Tensor) -> Read:
        """The value at some steps; errors are those of the function."""
        if self._coming is None or self._first != int(steps[0]):
            self._coming = self._thread.submit(self._read, steps)
        found = self._coming.result()
        self._first = int(steps[0]) + len(steps)
        self._coming = self._thread.submit(self._read, steps + len(steps))
        return found


def _pinned(tensor: Tensor) -> Tensor:
    """In memory from which a device reads without the host; as it is where it is on a device."""
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


def has_dropout(module: nn.Module) -> bool:
    """Whether a module draws from torch's own generator while it is trained."""
    return any(isinstance(m, _DropoutNd) and m.p > 0 for m in module.modules())


def running_statistics(module: nn.Module) -> list[Tensor]:
    """The buffers of layers that change whenever they are evaluated in training."""
    layers = [m for m in module.modules() if getattr(m, "track_running_stats", False)]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]

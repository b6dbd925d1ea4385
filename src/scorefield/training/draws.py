"""What a training step needs of data and random numbers, drawn for many steps at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from scorefield.data.source import DataSource
from scorefield.domain import Torus
from scorefield.dropout import dropouts
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.networks.augmentation import embeddings
from scorefield.noise import Lookahead, Noise
from scorefield.objectives.augmentation import Augmentation
from scorefield.objectives.objective import Objective
from scorefield.objectives.pairing import transported
from scorefield.world import ALONE, World

_NUMBERS_AHEAD = 2**18
_STEPS_AHEAD = 32

Read = tuple[list[Tensor], Tensor | None]
"""What data are made of, and the seeds of torch's own dropout, on the host."""


def training_draws(
    field: ScoreField,
    source: DataSource,
    objective: Objective,
    noise: Noise,
    batch_size: int,
    data_on_device: int = 0,
    world: World = ALONE,
) -> Lookahead:
    """What a step needs, on the device of the field: points, times, normals, where the field knows
    classes those of the points, where it has dropout the keys of its layers, where images are
    augmented their labels and, if there are regularisers, the images before, and where it has
    torch's own dropout a seed for that, which stays on the host.

    A draw costs nearly the same for one step as for many. What the host reads for the steps of a
    draw is read by a thread during those before them, unless the host is the device. Training data
    of up to ``data_on_device`` bytes are copied to the device. Of several processes, each has its
    rows of the batch, of which it draws all where the noise is assigned to the points.

    Raises:
        UserError: If there are more processes than points a step, or noise is assigned to points of
            a torus, or what is augmented is no image or the network does not receive how.
    """
    weights = next(p for p in field.parameters() if p.requires_grad)
    device, dtype = weights.device, weights.dtype
    if world.size > batch_size:
        raise UserError(
            f"batch_size={batch_size} points cannot be shared out to {world.size} processes"
        )
    paired = objective.denoising.pairing == "transport"
    if paired and isinstance(field.domain, Torus):
        raise UserError("pairing='transport' takes points of flat space to noise, not of a torus")
    if objective.augmentation is not None:
        _check_augmented(objective.augmentation, field)
    mine = world.rows(batch_size)
    rows = slice(0, batch_size) if paired else mine
    kept = slice(mine.start - rows.start, mine.stop - rows.start)
    index = torch.arange(rows.start, rows.stop, device=device)
    layers, dropout = len(dropouts(field)), has_dropout(field)
    distant = device.type != "cpu"
    if distant:
        source = source.on(device, data_on_device)

    def read(steps: Tensor) -> Read:
        each, seeds = steps.squeeze(1), None
        found = list(source.read(noise, each, batch_size, dtype, rows))
        if field.classes is not None:
            found.append(source.batch_classes(noise, each, batch_size)[:, rows])
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
        x = before = source.finish(here, noise, dtype)
        if objective.augmentation is not None:
            change = objective.augmentation.draw(noise, index, steps)
            x, labels = change(x), change.labels()
        t, z = objective.draw(field, noise, index, steps)
        if paired:
            z = transported(x, z)
        draws = [d.to(device, dtype) for d in (x, t, z)]
        if layers:
            keys = noise.integers("dropout/keys", 2**32, (layers, 2), index, steps)
            told.append((keys - 2**31).to(torch.int32))
        if objective.augmentation is not None:
            told += [labels.to(dtype), *([before] if objective.regularizers else [])]
        drawn = [d[:, kept] for d in (*draws, *told)]
        return (*drawn, *([] if seeds is None else [seeds]))

    numbers = len(index) * (2 * field.domain.dim + 2 * layers + 1)
    return Lookahead(draw, max(1, min(_STEPS_AHEAD, _NUMBERS_AHEAD // numbers)))


def _check_augmented(augmentation: Augmentation, field: ScoreField) -> None:
    augmentation.check(field.domain.shape)
    if not embeddings(field):
        raise UserError(
            f"{type(field).__name__} has no network that receives augmentation, so that samples "
            "would be augmented too: take the kind song or adm, with augmented=True, or none"
        )


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


def check_shared(field: nn.Module) -> None:
    """Checks that what a field does with a row does not depend on the batch that the row is in.

    Raises:
        UserError: If it has torch's own dropout, or a layer that averages over the batch, or over
            those it has seen.
    """
    for name, part in field.named_modules():
        averages = isinstance(part, _BatchNorm) or getattr(part, "track_running_stats", False)
        if averages or (isinstance(part, _DropoutNd) and part.p > 0):
            instead = "scorefield.Dropout" if isinstance(part, _DropoutNd) else "GroupNorm"
            raise UserError(
                f"{name} is torch's {type(part).__name__}, with which a training would depend on "
                f"the number of processes: train on one, or take {instead}"
            )

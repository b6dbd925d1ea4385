r"""Length, curvature and time of sampling trajectories, measured during sampling.

With the scaled states :math:`\hat x_0, \dots, \hat x_N` of a sample and its steps
:math:`\delta_i = \hat x_{i+1} - \hat x_i`, the length in units of the data and a curvature that is
0 for a straight line and depends on the number of steps are

.. math:: L = \sum_{i=0}^{N-1} \|\delta_i\|, \qquad
    \kappa = \frac{1}{N - 1} \sum_{i=0}^{N-2}
    \Big(1 - \frac{\langle \delta_i, \delta_{i+1} \rangle}{\|\delta_i\| \|\delta_{i+1}\|}\Big).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from scorefield.engine import device_of
from scorefield.estimate import Estimate, mean
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.samplers.base import Sampler
from scorefield.samplers.step import Callback, SamplerState
from scorefield.world import ALONE, World

T = TypeVar("T")

_LEAST_STEPS = 3
# Of a block, as a number of coordinates, and the bounds of its samples.
_NUMBERS, _FEWEST, _MOST = 2**20, 64, 4096


@runtime_checkable
class Once(Protocol):
    """What gives a part of a computation its name, and may know it already."""

    def __call__(self, name: object, make: Callable[[], T]) -> T:
        """The part, which ``make`` computes: plain containers of tensors and numbers."""
        ...


def directly(name: object, make: Callable[[], T]) -> T:
    """What computes every part."""
    return make()


class Trajectory:
    """Draw samples and measure their trajectories: length, curvature, and the time taken.

    Arguments:
        field, sampler, n, seed: As for ``sampler.sample``.
        callback: Receives the state after each step of the sampler.
        world: The processes that the samples are shared out to.
        once: Gets each block of samples, by the indices of its first and past its last one.
        classes: The classes of indices, on the CPU; samples are of any by default.

    Attributes:
        samples: The samples, on the CPU; the same as those of ``sampler.sample``.
        length: The mean length of a trajectory.
        curvature: The mean curvature; ``None`` for a single step.
        latency: The wall time of the generation, with the standard error of the sum that follows
            from the scatter of the steps; ``None`` where there are fewer than three steps of one
            kind.
    """

    def __init__(
        self,
        field: ScoreField,
        sampler: Sampler,
        n: int,
        seed: int,
        callback: Callback | None = None,
        world: World = ALONE,
        once: Once = directly,
        classes: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        own = world.rows(n)
        count = own.stop - own.start
        # A process without samples of its own draws the first, to know what they look like.
        first, end = (own.start, own.stop) if count else (0, 1)
        size = min(_MOST, max(_FEWEST, _NUMBERS // field.domain.dim))
        cuts, walks = range(first, end, size), []
        for k, start in enumerate(cuts):
            rows = start, min(start + size, end)
            follow = None if callback is None else partial(_placed, callback, k, len(cuts))
            draw = partial(_drawn, field, sampler, seed, *rows, follow, classes)
            walks.append(once(("samples", sampler.nfe, *rows), draw))
        samples, length, bend, steps, total, seconds = zip(*walks, strict=True)
        self.samples, lengths, turns = (
            world.gather(torch.cat(parts)[:count], n) for parts in (samples, length, bend)
        )
        self.length = mean(lengths.tolist(), "units of the data")
        bends = steps[0] - 1
        self.curvature = mean((turns / bends).tolist()) if bends else None
        self.latency = _latency(sum(total), [each for part in seconds for each in part])


def _placed(callback: Callback, block: int, blocks: int, state: SamplerState) -> None:
    callback(replace(state, block=block, blocks=blocks))


def _drawn(
    field: ScoreField,
    sampler: Sampler,
    seed: int,
    first: int,
    end: int,
    callback: Callback | None,
    classes: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor, int, float, list[float]]:
    """The samples of some indices, the lengths of their trajectories and their summed bends, on the
    CPU; the number of steps, the time in all, and those of steps.
    """
    walk = _Walk(field, seed, first, end, callback)
    samples = sampler.sample(
        field,
        seed=seed,
        index=walk.index,
        start=walk.start,
        batch_size=end - first,
        callback=walk,
        classes=None if classes is None else classes(walk.index.cpu()),
    ).cpu()
    total = time.perf_counter() - walk.begin
    return samples, walk.length.cpu(), walk.bend.cpu(), walk.steps, total, walk.seconds


class _Walk:
    """A callback that follows the samples of one block."""

    def __init__(
        self, field: ScoreField, seed: int, first: int, end: int, callback: Callback | None
    ) -> None:
        sde, self._domain = field.sde, field.domain
        self.index = torch.arange(first, end, device=device_of(field))
        self.start = sde.prior(field.domain).sample(Noise(seed), self.index, torch.float32)
        t_max = torch.tensor(sde.t_max, dtype=torch.float64)
        self._places = self.start / float(sde.alpha(t_max))
        self._last = torch.zeros_like(self.start)
        self.length = torch.zeros(len(self.index), dtype=torch.float64, device=self.index.device)
        self.bend = torch.zeros_like(self.length)
        self.steps, self._callback = 1, callback
        self.seconds: list[float] = []
        self._clock = self.begin = time.perf_counter()

    def __call__(self, state: SamplerState) -> None:
        step = self._domain.displacement(self._places, state.x).flatten(1).double()
        norm = torch.linalg.vector_norm(step, dim=1)
        self.length += norm
        if state.step:
            before = self._last.flatten(1).double()
            scale = norm * torch.linalg.vector_norm(before, dim=1)
            # A step of no length turns nowhere.
            cosine = (step * before).sum(dim=1) / scale.clamp(min=torch.finfo(scale.dtype).tiny)
            self.bend += torch.where(scale > 0, 1 - cosine, torch.zeros_like(cosine))
        self._last = step.to(self._last).reshape(state.x.shape)
        self._places = state.x.clone()
        self.steps = state.steps
        now = time.perf_counter()
        if state.step + 1 < state.steps:
            # The last step is shorter.
            self.seconds.append(now - self._clock)
        self._clock = now
        if self._callback is not None:
            self._callback(state)


def _latency(total: float, steps: list[float]) -> Estimate | None:
    if len(steps) < _LEAST_STEPS:
        return None
    return Estimate(total, math.sqrt(len(steps)) * statistics.stdev(steps), len(steps), "s")

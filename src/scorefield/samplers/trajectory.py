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

import torch
from torch import Tensor

from scorefield.engine import device_of
from scorefield.estimate import Estimate, mean
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.samplers.base import Sampler
from scorefield.samplers.step import Callback, SamplerState
from scorefield.world import ALONE, World

_LEAST_STEPS = 3


class Trajectory:
    """Draw samples and measure their trajectories: length, curvature, and the time taken.

    Arguments:
        field, sampler, n, seed: As for ``sampler.sample``.
        callback: Receives the state after each step of the sampler.

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
    ) -> None:
        sde, self._domain = field.sde, field.domain
        device = device_of(field)
        own = world.rows(n)
        count = own.stop - own.start
        # A process without samples of its own draws the first, to know what they look like.
        self._first = own.start if count else 0
        index = torch.arange(self._first, self._first + max(1, count), device=device)
        start = sde.prior(field.domain).sample(Noise(seed), index, torch.float32)
        t_max = torch.tensor(sde.t_max, dtype=torch.float64)
        self._places = start / float(sde.alpha(t_max))
        self._last = torch.zeros_like(start)
        self._length = torch.zeros(len(index), dtype=torch.float64, device=device)
        self._bend = torch.zeros_like(self._length)
        self._steps, self._callback = 1, callback
        self._seconds: list[float] = []
        self._clock = begin = time.perf_counter()
        drawn = sampler.sample(field, seed=seed, index=index, start=start, callback=self._watch)
        self.samples: Tensor = world.gather(drawn[:count].cpu(), n)
        total = time.perf_counter() - begin
        length, bend = (world.gather(v[:count].cpu(), n) for v in (self._length, self._bend))
        self.length = mean(length.tolist(), "units of the data")
        bends = self._steps - 1
        self.curvature = mean((bend / bends).tolist()) if bends else None
        self.latency = _latency(total, self._seconds)

    def _watch(self, state: SamplerState) -> None:
        rows = state.index - self._first
        step = self._domain.displacement(self._places[rows], state.x).flatten(1).double()
        norm = torch.linalg.vector_norm(step, dim=1)
        self._length[rows] += norm
        if state.step:
            before = self._last[rows].flatten(1).double()
            scale = norm * torch.linalg.vector_norm(before, dim=1)
            # A step of no length turns nowhere.
            cosine = (step * before).sum(dim=1) / scale.clamp(min=torch.finfo(scale.dtype).tiny)
            self._bend[rows] += torch.where(scale > 0, 1 - cosine, torch.zeros_like(cosine))
        self._last[rows] = step.to(self._last).reshape(state.x.shape)
        self._places[rows] = state.x
        self._steps = state.steps
        now = time.perf_counter()
        if state.step + 1 < state.steps:
            # The last step is shorter.
            self._seconds.append(now - self._clock)
        self._clock = now
        if self._callback is not None:
            self._callback(state)


def _latency(total: float, steps: list[float]) -> Estimate | None:
    if len(steps) < _LEAST_STEPS:
        return None
    return Estimate(total, math.sqrt(len(steps)) * statistics.stdev(steps), len(steps), "s")

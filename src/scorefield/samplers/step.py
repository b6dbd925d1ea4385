r"""The step of a sampler, its context and outcome, and the state that callbacks receive."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.domain import Domain
from scorefield.errors import DivergedError, UserError
from scorefield.noise import Noise
from scorefield.samplers.measurements import Measurement
from scorefield.samplers.runge_kutta import Solution
from scorefield.sde.base import SDE


class Coefficients(NamedTuple):
    r"""A mean coefficient :math:`\alpha`, and the noise level :math:`\lambda = \sigma / \alpha` in
    units of the data, float64.
    """

    alpha: float
    sigma: float


CLEAN = Coefficients(1.0, 0.0)
"""The clean data."""


@lru_cache(maxsize=1 << 14)
def level(sde: SDE, t: float | None) -> Coefficients:
    """The coefficients of a time; ``None`` stands for the clean data."""
    if t is None:
        return CLEAN
    time = torch.tensor(t, dtype=torch.float64)
    return Coefficients(float(sde.alpha(time)), float(sde.noise_level(time)))


def clock(t: float, x: Tensor) -> Tensor:
    """A time in the precision and on the device of states, as they are given to a field."""
    return x.new_full((), t)


class Stepped(NamedTuple):
    r"""The outcome of a step.

    Arguments:
        x: The states :math:`x_t` at ``end``, in the units of the process.
        denoised: The posterior means :math:`\mathbb{E}[x_0 \mid x_t]` at ``start``.
        start: The time at which the step began.
        end: The time of the states; ``None`` for clean data.
    """

    x: Float[Tensor, "batch *event"]
    denoised: Float[Tensor, "batch *event"]
    start: float
    end: float | None


@dataclass(frozen=True)
class StepContext:
    """The inputs of a step besides the states and its two times.

    Arguments:
        noise: The random numbers, for stochastic steps.
        index: The indices of the samples, which are part of the addresses of their noise.
        step: The number of the step, from 0, also part of them.
        classes: The class of each sample.
        measurement: The measurement of the samples.
        previous: The outcome of the previous step, for multistep methods.
    """

    noise: Noise | None = None
    index: Int[Tensor, " batch"] | None = None
    step: int = 0
    classes: Int[Tensor, " batch"] | None = None
    measurement: Measurement | None = None
    previous: Stepped | None = None

    def normal(self, purpose: str, like: Tensor, step: int | None = None) -> Tensor:
        """Standard normals at the addresses ``(purpose, sample, step)``, shaped like states."""
        noise, index = self._source(purpose)
        number = self.step if step is None else step
        return noise.normal(purpose, like.shape[1:], index, number, dtype=like.dtype)

    def uniform(self, purpose: str, step: int) -> Tensor:
        """A uniform in [0, 1) for each sample at the addresses ``(purpose, sample, step)``, in
        float64.
        """
        noise, index = self._source(purpose)
        return noise.uniform(purpose, (), index, step, dtype=torch.float64)

    def _source(self, purpose: str) -> tuple[Noise, Tensor]:
        if self.noise is None or self.index is None:
            raise UserError(f"a step draws {purpose!r} noise: give its StepContext noise and index")
        return self.noise, self.index

    def arrive(
        self, x: Tensor, at: Coefficients, domain: Domain, number: int | None = None
    ) -> Tensor:
        """Impose the measurement on states that arrive at a time, and wrap them into the domain.

        The noise of the measured part has the address ``("measurement", sample, number)``, where
        ``number`` is that of the step plus 1 by default; clean data has none.
        """
        if self.measurement is not None:
            number = self.step + 1 if number is None else number
            z = self.normal("measurement", x, number) if at.sigma > 0 else None
            x = self.measurement.impose(x, at.alpha, at.alpha * at.sigma, z)
        return domain.wrap(x)


PLAIN = StepContext()
"""The context of steps without noise, classes or measurement."""


_SHOWN = 8


@dataclass(frozen=True, eq=False)
class SamplerState:
    r"""The states after a step, as a callback receives them.

    Arguments:
        step: The step that has just been taken, from 0 to ``steps - 1``.
        steps: The number of steps.
        sigma: The noise level :math:`\lambda` on the grid that the step started from.
        sigma_next: The noise level that it ended at; 0 after the last.
        x: The scaled states :math:`\hat x = x_t / \alpha` after the step, in units of the data.
        denoised: The posterior means :math:`\mathbb{E}[x_0 \mid x_t]` at the start of the step.
        nfe: The network calls that each of these samples has taken so far.
        index: The indices of these samples.
        block: The number of their block, from 0.
        blocks: The number of blocks.
        solution: Steps and calls of each sample so far, for adaptive samplers; ``None`` for others.
        accepted: The share of accepted moves of each sample in the step, for Markov chains;
            ``None`` for other samplers.
        path_gap: The difference between two line integrals from each sample to one proposal, in
            nats, for chains that are accepted by line integrals; ``None`` for others.
    """

    step: int
    steps: int
    sigma: float
    sigma_next: float
    x: Float[Tensor, "batch *event"]
    denoised: Float[Tensor, "batch *event"]
    nfe: int
    index: Int[Tensor, " batch"]
    block: int
    blocks: int
    solution: Solution | None = None
    accepted: Float[Tensor, " batch"] | None = None
    path_gap: Float[Tensor, " batch"] | None = None


Callback = Callable[[SamplerState], object]


@dataclass(frozen=True)
class Block:
    """A block of samples, and the context of their first step."""

    index: Tensor
    context: StepContext
    number: int
    count: int
    callback: Callback | None
    seen: list[tuple[Tensor, int, float, float]] = field(default_factory=list)
    """The sums of states that have not been looked at, with their steps and noise levels."""

    def check(self, x: Tensor, step: int, steps: int, sigma: float, sigma_next: float) -> None:
        """Raises ``FloatingPointError`` if a state is not finite; names step, noise level and
        samples. On a GPU, where each look would be waited for, after the last step.
        """
        # A sum is finite only if its terms are, and costs a fraction of looking at each.
        self.seen.append((x.sum(), step, sigma, sigma_next))
        if x.device.type != "cpu" and step + 1 < steps:
            return
        sums = torch.stack([row[0] for row in self.seen]).tolist()
        first = next((k for k, value in enumerate(sums) if not math.isfinite(value)), None)
        if first is not None:
            _, step, sigma, sigma_next = self.seen[first]
        self.seen.clear()
        finite = torch.isfinite(x)
        if first is None or bool(finite.all()):
            return
        bad = self.index[~finite.reshape(x.shape[0], -1).all(dim=1)].tolist()
        shown = ", ".join(map(str, bad[:_SHOWN])) + (", …" if len(bad) > _SHOWN else "")
        raise DivergedError(
            f"{len(bad)} of {x.shape[0]} samples stopped being finite in step {step + 1} of "
            f"{steps}, from noise level {sigma:.6g} to {sigma_next:.6g}: sample indices {shown}"
        )

    def show(
        self,
        step: int,
        steps: int,
        sigma: float,
        sigma_next: float,
        x: Tensor,
        denoised: Tensor,
        nfe: int,
        solution: Solution | None = None,
        accepted: Tensor | None = None,
        path_gap: Tensor | None = None,
    ) -> None:
        """Calls the callback."""
        if self.callback is not None:
            place = self.index, self.number, self.count, solution, accepted, path_gap
            self.callback(SamplerState(step, steps, sigma, sigma_next, x, denoised, nfe, *place))

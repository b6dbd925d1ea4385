r"""A step of a sampler: what it is given besides the states, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.domain import Domain
from scorefield.errors import UserError
from scorefield.noise import Noise
from scorefield.samplers.measurements import Measurement
from scorefield.sde import SDE


class Level(NamedTuple):
    r"""The coefficients of a time, in float64.

    Attributes:
        alpha: The mean coefficient :math:`\alpha`.
        sigma: The noise level :math:`\lambda = \sigma / \alpha`, in units of the data.
    """

    alpha: float
    sigma: float


CLEAN = Level(1.0, 0.0)
"""The clean data."""


@lru_cache(maxsize=1 << 14)
def level(sde: SDE, t: float | None) -> Level:
    """The coefficients of a time; ``None`` stands for the clean data."""
    if t is None:
        return CLEAN
    time = torch.tensor(t, dtype=torch.float64)
    return Level(float(sde.alpha(time)), float(sde.noise_level(time)))


def clock(t: float, x: Tensor) -> Tensor:
    """A time in the precision and on the device of states, as they are given to a field."""
    return torch.tensor(t, dtype=x.dtype, device=x.device)


class Stepped(NamedTuple):
    r"""The outcome of a step.

    Attributes:
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
    """What a step is given besides the states and its two times.

    Arguments:
        noise: The randomness, for steps that draw any.
        index: The indices of the samples, which are part of the addresses of their noise.
        step: The number of the step, from 0, likewise.
        classes: The class of each sample.
        measurement: What is known of the samples.
        previous: The outcome of the step before, for methods of several steps.
    """

    noise: Noise | None = None
    index: Int[Tensor, " batch"] | None = None
    step: int = 0
    classes: Int[Tensor, " batch"] | None = None
    measurement: Measurement | None = None
    previous: Stepped | None = None

    def normal(self, purpose: str, like: Tensor, step: int | None = None) -> Tensor:
        """Standard normals at the addresses ``(purpose, sample, step)``, shaped like states.

        Raises:
            ValueError: If there is no noise or no index.
        """
        if self.noise is None or self.index is None:
            raise UserError(f"a step draws {purpose!r} noise: give its StepContext noise and index")
        number = self.step if step is None else step
        return self.noise.normal(purpose, like.shape[1:], self.index, number, dtype=like.dtype)

    def arrive(self, x: Tensor, at: Level, domain: Domain, number: int | None = None) -> Tensor:
        r"""States that arrive at a time: with what is measured put in, and wrapped.

        The noise of what is measured has the address ``("measurement", sample, number)``, the
        number being that of the step plus 1 by default; there is none for clean data.

        Arguments:
            x: The states :math:`x_t`.
            at: The coefficients of the time.
            domain: Where they live.
            number: The number in the address.
        """
        if self.measurement is not None:
            number = self.step + 1 if number is None else number
            z = self.normal("measurement", x, number) if at.sigma > 0 else None
            x = self.measurement.impose(x, at.alpha, at.alpha * at.sigma, z)
        return domain.wrap(x)


PLAIN = StepContext()
"""That of steps without noise, classes or measurement."""

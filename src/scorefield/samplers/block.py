"""Blocks of samples on their way, and what a callback sees of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.errors import DivergedError
from scorefield.samplers.runge_kutta import Solution
from scorefield.samplers.step import StepContext

_SHOWN = 8


@dataclass(frozen=True, eq=False)
class SamplerState:
    r"""The states after a step; what a callback is given.

    Arguments:
        step: The step that has just been taken, from 0 to ``steps - 1``.
        steps: The number of steps.
        sigma: The noise level :math:`\lambda` on the grid that the step started from.
        sigma_next: The noise level that it ended at; 0 after the last.
        x: The scaled states :math:`\hat x = x_t / \alpha` after the step, in units of the data.
        denoised: The posterior means :math:`\mathbb{E}[x_0 \mid x_t]` at the start of the step.
        nfe: The network calls that each of these samples has taken so far.
        index: The indices of these samples.
        block: The block of samples that is being worked on, from 0.
        blocks: The number of blocks.
        solution: Of samplers whose samples have steps of their own, what each has taken so far.
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


Callback = Callable[[SamplerState], object]


@dataclass(frozen=True)
class Block:
    """A block of samples.

    Arguments:
        index: Their indices.
        context: The context of their first step.
        number: The number of the block.
        count: The number of blocks.
        callback: Called after each step.
    """

    index: Tensor
    context: StepContext
    number: int
    count: int
    callback: Callback | None

    def check(self, x: Tensor, step: int, steps: int, sigma: float, sigma_next: float) -> None:
        """Checks the states after a step; arguments are those of :class:`SamplerState`.

        Raises:
            FloatingPointError: If a state is not finite; names step, noise level and samples.
        """
        # A sum is finite only if its terms are, and costs a fraction of looking at each.
        if math.isfinite(float(x.sum())):
            return
        finite = torch.isfinite(x)
        if bool(finite.all()):
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
    ) -> None:
        """Calls the callback; arguments are those of :class:`SamplerState`."""
        if self.callback is not None:
            place = self.index, self.number, self.count, solution
            self.callback(SamplerState(step, steps, sigma, sigma_next, x, denoised, nfe, *place))

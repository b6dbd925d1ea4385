r"""What every sampler shares: blocks, addresses, checks and callbacks.

A sampler moves the scaled state :math:`\hat x = x / \alpha(t)` from the noise level
:math:`\lambda = \sigma / \alpha` of the prior to zero, where :math:`\hat x` is a sample in units
of the data. In these coordinates the probability-flow ODE of every process is

.. math:: \frac{\mathrm{d}\hat x}{\mathrm{d}\lambda} = \mathbb{E}[\varepsilon \mid x_t]
    = -\sigma(t)\, s\big(\alpha(t)\,\hat x, t\big),

so that a method is written once, for all processes.

References:
    Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
    equation 4 and appendix B.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.errors import DivergedError, UnsupportedError, UserError
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.fields.classes import Classes, classes_at
from scorefield.noise import Noise
from scorefield.samplers.measurements import Measurement
from scorefield.samplers.runge_kutta import Solution

_SHOWN = 8


@dataclass(frozen=True, eq=False)
class SamplerState:
    r"""Where a sampler stands after a step; what a callback is given.

    Arguments:
        step: The step that has just been taken, from 0 to ``steps - 1``.
        steps: The number of steps.
        sigma: The noise level :math:`\lambda` on the grid that the step started from.
        sigma_next: The noise level that it ended at; 0 after the last.
        x: The scaled states :math:`\hat x` after the step, in units of the data.
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
    """A block of samples on its way: its addresses, and who watches it."""

    noise: Noise
    index: Tensor
    number: int
    count: int
    callback: Callback | None
    measurement: Measurement | None = None
    classes: Tensor | None = None

    def normal(self, purpose: str, step: int, like: Tensor) -> Tensor:
        """Standard normals in the shape, the dtype and on the device of ``like``."""
        return self.noise.normal(purpose, like.shape[1:], self.index, step, dtype=like.dtype)

    def impose(self, x: Tensor, step: int, alpha: float, sigma: float) -> Tensor:
        r"""Puts what is measured into the states, diffused to :math:`\alpha` and :math:`\sigma`.

        The noise has the address ``("measurement", sample, step)``; there is none for
        :math:`\sigma = 0`. Without a measurement the states stay as they are.
        """
        if self.measurement is None:
            return x
        z = self.normal("measurement", step, like=x) if sigma > 0 else None
        return self.measurement.impose(x, alpha, sigma, z)

    def check(self, x: Tensor, step: int, steps: int, sigma: float, sigma_next: float) -> None:
        """Checks the states after a step.

        Raises:
            FloatingPointError: If a state is not finite.
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

    def report(
        self,
        step: int,
        steps: int,
        sigma: float,
        sigma_next: float,
        x: Tensor,
        denoised: Callable[[], Tensor],
        nfe: int,
    ) -> None:
        """Checks the states after a step and shows them to the callback; arguments are those of
        :class:`SamplerState`, with ``denoised`` worked out only if somebody looks.

        Raises:
            FloatingPointError: If a state is not finite.
        """
        self.check(x, step, steps, sigma, sigma_next)
        if self.callback is not None:
            place = (self.index, self.number, self.count)
            self.callback(SamplerState(step, steps, sigma, sigma_next, x, denoised(), nfe, *place))


@dataclass(frozen=True)
class Sampler(ABC):
    r"""A method that turns a field into samples.

    Subclasses are frozen dataclasses that declare :attr:`order`, :attr:`stochastic` and
    :attr:`nfe`, and define how a block of states goes from the prior to a noise level of zero.
    """

    order: ClassVar[int]
    r"""The order :math:`p` of the method without churn: the error of a sample is
    :math:`O(N^{-p})` in the number of steps."""

    takes_measurements: ClassVar[bool] = False
    """Whether samples can be drawn that agree with a measurement."""

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether noise is drawn after the start."""

    @property
    @abstractmethod
    def nfe(self) -> int | None:
        """The true number of network calls that a sample takes; ``None`` where each sample finds
        its own on the way, which the callback is told.
        """

    @classmethod
    @abstractmethod
    def for_nfe(cls, budget: int, **settings: Any) -> Sampler:
        """The sampler with the most steps that takes at most ``budget`` network calls.

        Arguments:
            budget: The number of network calls that a sample may take.
            settings: The other arguments of the class.

        Raises:
            ValueError: If the budget is not a positive integer.
        """

    @abstractmethod
    def _solve(self, field: ScoreField, x: Tensor, block: Block) -> Tensor:
        r"""Moves states from :math:`x_{t_{max}}` to :math:`\hat x` at noise level 0."""

    def sample(
        self,
        field: ScoreField,
        n: int | None = None,
        seed: int | Noise = 0,
        *,
        index: Int[Tensor, " n"] | None = None,
        batch_size: int = 4096,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        callback: Callback | None = None,
        start: Float[Tensor, "n *event"] | None = None,
        classes: Classes = None,
        measurement: Measurement | None = None,
    ) -> Float[Tensor, "n *event"]:
        r"""Draws samples, in units of the data.

        A sample is a function of the field, the sampler, the seed and its index: sample 17 starts
        from the same noise alone, in a batch of 64 or after a resume. The field is in evaluation
        mode meanwhile, and no gradients are recorded.

        Arguments:
            field: The score field; its process sets the noise levels, its domain the event shape.
            n: How many: the samples 0 … n - 1.
            seed: The seed of all noise, or the noise itself.
            index: In place of ``n``, the indices of the samples that are wanted.
            batch_size: How many samples the network sees at once.
            dtype: The dtype of the states and of the result. The network keeps its own.
            device: Where the states live; by default where the field's parameters do.
            callback: Called after each step of each block with a :class:`SamplerState`.
            start: Starting points :math:`x_{t_{max}}`, in place of draws from the prior.
            classes: The class of all samples, or of each; for fields that know classes.
            measurement: What is known of all samples, or of each in the order of the indices, and
                is put into the states, as noisy as they are, at the start (where ``start`` does
                not take its place) and after every update; see
                :mod:`scorefield.samplers.measurements`.

        Returns:
            The samples, in the order of the indices.

        Raises:
            ValueError: If it is not clear how many samples are wanted, their number or the batch
                size is not positive, the indices are not integers, the dtype is not a floating
                one, ``start`` or the measurement has another event shape than the field, the
                measurements are not as many as the samples, or the classes do not fit them or the
                field.
            TypeError: If a measurement is given to a sampler that takes none.
            FloatingPointError: If a state stops being finite; names step, noise level and samples.
        """
        shape = field.domain.shape
        if not dtype.is_floating_point:
            raise UserError(f"samples have a floating dtype, not {dtype}")
        if start is not None and start.shape[1:] != shape:
            raise UserError(
                f"starting points of event shape {tuple(start.shape[1:])} were given to a field "
                f"on event shape {shape}"
            )
        index = _indices(n, index, start)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size must be a positive integer, got {batch_size!r}")
        device = _device(field) if device is None else torch.device(device)
        noise = seed if isinstance(seed, Noise) else Noise(seed)
        if measurement is not None:
            if not self.takes_measurements:
                raise UnsupportedError(f"{type(self).__name__} takes no measurement")
            measurement.check(len(index), shape)
        prior = field.sde.prior(field.domain)
        top = torch.tensor(field.sde.t_max, dtype=torch.float64)
        index = index.to(device)
        blocks, known = index.split(batch_size), field.class_rows(classes, index)
        results = []
        with torch.no_grad(), evaluation_mode(field):
            for number, rows in enumerate(blocks):
                first = number * batch_size
                here = slice(first, first + len(rows))
                datum = None if measurement is None else measurement.rows(here, dtype, device)
                block = Block(
                    noise, rows, number, len(blocks), callback, datum, classes_at(known, here)
                )
                if start is None:
                    x = prior.sample(noise, rows, dtype)
                    x = block.impose(x, 0, float(field.sde.alpha(top)), float(field.sde.sigma(top)))
                else:
                    x = start[here].to(device=device, dtype=dtype)
                results.append(self._solve(field, x, block))
        return torch.cat(results)


def check_budget(budget: int) -> None:
    """Raises ``ValueError`` unless a budget of network calls is a positive integer."""
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise UserError(f"sampling takes at least one network call, got a budget of {budget!r}")


def _indices(n: int | None, index: Tensor | None, start: Tensor | None) -> Tensor:
    """The sample indices, from whichever argument says how many samples are wanted."""
    if n is not None and index is not None:
        raise UserError("give either n or index: each says how many samples are wanted")
    if index is None:
        if n is None and start is None:
            raise UserError("say how many samples are wanted: n, index or start is missing")
        count = n if n is not None else len(start)  # type: ignore[arg-type]
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UserError(f"the number of samples must be a positive integer, got {count!r}")
        index = torch.arange(count)
    if index.dim() != 1 or index.numel() == 0 or index.dtype not in (torch.int64, torch.int32):
        raise UserError(
            f"sample indices are one row of at least one integer, got {index.dtype} of shape "
            f"{tuple(index.shape)}"
        )
    if start is not None and len(start) != len(index):
        raise UserError(f"{len(index)} samples cannot start from {len(start)} points")
    return index


def _device(field: ScoreField) -> torch.device:
    """Where the field's parameters or buffers live; the CPU if it has none."""
    for tensor in chain(field.parameters(), field.buffers()):
        return tensor.device
    return torch.device("cpu")

r"""The interface of samplers: a grid of times, a step between two of them, and the loop over the
steps.

In the scaled states :math:`\hat x = x / \alpha(t)`, in units of the data, and the noise level
:math:`\lambda = \sigma / \alpha` the probability-flow ODE of every process is

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
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import check_count, check_floating
from scorefield.engine import device_of, states_at_once
from scorefield.errors import UnsupportedError, UserError, enough_memory
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes, classes_at
from scorefield.noise import Noise
from scorefield.samplers.grid import check_steps, grid_times
from scorefield.samplers.measurements import Measurement
from scorefield.samplers.step import PLAIN, Block, Callback, StepContext, Stepped, level
from scorefield.sde.base import SDE

SamplerT = TypeVar("SamplerT", bound="Sampler")
GridSamplerT = TypeVar("GridSamplerT", bound="GridSampler")


@dataclass(frozen=True)
class Sampler(ABC):
    r"""A method that turns a field into samples.

    Samplers are frozen dataclasses. One that visits a grid of times, as most do, is a
    :class:`GridSampler`.
    """

    order: ClassVar[int]
    r"""The order :math:`p` of the method without churn: the error of a sample is
    :math:`O(N^{-p})` in the number of steps."""

    takes_measurements: ClassVar[bool] = False
    """Whether samples can be conditioned on a measurement."""

    @property
    def stochastic(self) -> bool:
        """Whether noise is drawn after the start."""
        return False

    @property
    @abstractmethod
    def nfe(self) -> int | None:
        """The exact number of network calls per sample; ``None`` for an adaptive sampler, whose
        callback receives it.
        """

    @classmethod
    @abstractmethod
    def for_nfe(cls: type[SamplerT], budget: int, **settings: Any) -> SamplerT:
        """The sampler with the most steps that takes at most ``budget`` network calls, with
        ``settings`` as the other arguments of the class.

        Raises:
            ValueError: If the budget is not a positive integer, or is less than the least that the
                method needs.
        """

    def at_budget(self: SamplerT, budget: int) -> SamplerT:
        """The same method with the most steps that takes at most ``budget`` network calls; see
        :meth:`for_nfe`.
        """
        settings = {name: value for name, value in vars(self).items() if name != "steps"}
        return type(self).for_nfe(budget, **settings)

    @abstractmethod
    def step(
        self,
        field: ScoreField,
        x: Float[Tensor, "batch *event"],
        t: float,
        s: float | None,
        at: StepContext = PLAIN,
    ) -> Stepped:
        """Moves states from one time to an earlier one, or to the clean data.

        Arguments:
            field: The field.
            x: The states :math:`x_t`, in the units of the process.
            t: Their time.
            s: The time of arrival; ``None`` for the clean data.
            at: Classes, noise and measurement of the samples, and the previous step.

        Raises:
            ValueError: If the step draws noise and the context has none.

        Example:
            A custom loop with the samples of ``sampler.sample(field, 64, seed=0)``:

            >>> noise, index = Noise(0), torch.arange(64)
            >>> x, done = field.sde.prior(field.domain).sample(noise, index), None
            >>> for k, (t, s) in enumerate(pairwise(sampler.times(field.sde))):
            ...     done = sampler.step(field, x, t, s, StepContext(noise, index, k, previous=done))
            ...     x = done.x  # inspect or change the states, or stop
        """

    @abstractmethod
    def _run(self, field: ScoreField, x: Tensor, block: Block) -> Tensor:
        r"""Carries the states of a block from :math:`t_{max}` to the end."""

    @enough_memory("these samples: draw fewer, or give a smaller batch_size")
    def sample(
        self,
        field: ScoreField,
        n: int | None = None,
        seed: int | Noise = 0,
        *,
        index: Int[Tensor, " n"] | None = None,
        batch_size: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        callback: Callback | None = None,
        start: Float[Tensor, "n *event"] | None = None,
        classes: Classes = None,
        measurement: Measurement | None = None,
    ) -> Float[Tensor, "n *event"]:
        """Draws samples, in units of the data, in the order of their indices.

        A sample is a function of the field, the sampler, the seed and its index: sample 17 starts
        from the same noise alone, in a batch of 64 or after a resume. The field is evaluated in
        evaluation mode, and no gradients are recorded.

        Arguments:
            field: The score field; its process sets the noise levels, its domain the event shape.
            n: The number of samples, whose indices are 0 … n - 1.
            seed: The seed of all noise, or the noise itself.
            index: The indices of the samples, in place of ``n``.
            batch_size: The number of samples that are drawn at once; by default as many as suit
                the cache of a CPU, 4,096 of few numbers, or the memory of a GPU.
            dtype: The dtype of the states and of the result. The network keeps its own.
            device: The device of the states; by default that of the field's parameters.
            callback: Called after each step of each block with a :class:`SamplerState`.
            start: Starting points :math:`x_{t_{max}}`, in place of draws from the prior.
            classes: The class of all samples, or of each; for class-conditional fields.
            measurement: The measurement of all samples, or of each in the order of the indices:
                imposed on the states at the start (unless ``start`` is given) and after every
                update.

        Raises:
            ValueError: If the number of samples, the batch size, the dtype, ``start``, the
                measurement or the classes do not fit the field or one another.
            TypeError: If a measurement is given to a sampler that takes none.
            FloatingPointError: If a state is no longer finite; names step, noise level and samples.
        """
        check_field(field)
        shape = field.domain.shape
        if not dtype.is_floating_point:
            raise UserError(f"samples have a floating dtype, not {dtype}")
        if start is not None:
            check_floating("starting points", start)
            if start.shape[1:] != shape:
                raise UserError(
                    f"starting points of event shape {tuple(start.shape[1:])} were given to a "
                    f"field on event shape {shape}"
                )
        device = device_of(field) if device is None else torch.device(device)
        index = _indices(n, index, start, device)
        if batch_size is None:
            batch_size = states_at_once(len(index), math.prod(shape), dtype, device)
        check_count("batch_size", batch_size)
        noise = seed if isinstance(seed, Noise) else Noise(seed)
        if measurement is not None:
            if not self.takes_measurements:
                raise UnsupportedError(f"{type(self).__name__} takes no measurement")
            measurement.check(len(index), shape)
        prior, top = field.sde.prior(field.domain), level(field.sde, field.sde.t_max)
        blocks, known = index.split(batch_size), field.class_rows(classes, index)
        results = []
        with torch.no_grad(), evaluation_mode(field):
            for number, rows in enumerate(blocks):
                first = number * batch_size
                here = slice(first, first + len(rows))
                datum = None if measurement is None else measurement.rows(here, dtype, device)
                at = StepContext(noise, rows, 0, classes_at(known, here), datum)
                if start is None:
                    x = at.arrive(prior.sample(noise, rows, dtype), top, field.domain, 0)
                else:
                    x = start[here].to(device=device, dtype=dtype)
                block = Block(rows, at, number, len(blocks), callback)
                results.append(self._run(field, x, block))
        return torch.cat(results)


@dataclass(frozen=True)
class GridSampler(Sampler):
    r"""A method on a grid of times, the same for all samples.

    A subclass declares its :attr:`order`, its network calls per step and :meth:`step`; sampling in
    blocks, the number of steps for a budget of network calls, callbacks and trajectories follow.

    Arguments:
        steps: The number :math:`N` of steps.

    Raises:
        ValueError: If it is not a positive integer.

    Example:
        >>> @dataclass(frozen=True)
        ... class Midpoint(GridSampler):
        ...     order = calls = 2
        ...
        ...     def step(self, field, x, t, s, at=PLAIN):
        ...         here, there = level(field.sde, t), level(field.sde, s)
        ...         half = (here.sigma + there.sigma) / 2
        ...         middle = float(field.sde.time(torch.tensor(half, dtype=torch.float64)))
        ...         noise = field.predict_noise(x, t, at.classes)
        ...         scaled = x / here.alpha
        ...         x = level(field.sde, middle).alpha * (scaled + (half - here.sigma) * noise)
        ...         slope = field.predict_noise(x, middle, at.classes)
        ...         x = there.alpha * (scaled + (there.sigma - here.sigma) * slope)
        ...         x = at.arrive(x, there, field.domain)
        ...         return Stepped(x, scaled - here.sigma * noise, t, s)
        >>> x = Midpoint(steps=16).sample(field, n=64, seed=0)
    """

    calls: ClassVar[int] = 1
    """The network calls per step."""

    steps: int

    def __post_init__(self) -> None:
        check_steps(self.steps)

    @property
    def rounds(self) -> int:
        """The number of calls of :meth:`step`."""
        return self.steps

    @property
    def nfe(self) -> int:
        return self.calls * self.rounds

    @classmethod
    def for_nfe(cls: type[GridSamplerT], budget: int, **settings: Any) -> GridSamplerT:
        check_count("the budget of network calls", budget)
        few = cls(steps=2, **settings)
        besides = few.nfe - few.calls * few.rounds
        rounds = (budget - besides) // few.calls
        if rounds < 1:
            raise UserError(
                f"a step takes {few.calls + besides} network calls, more than a budget of {budget}"
            )
        return cls(steps=rounds + few.steps - few.rounds, **settings)

    def times(self, sde: SDE) -> list[float | None]:
        r"""The times that are visited, in descending order from :math:`t_{max}`; ``None``, which
        stands for the clean data, comes last.
        """
        return [*grid_times(sde, self.steps).tolist(), None]

    def _run(self, field: ScoreField, x: Tensor, block: Block) -> Tensor:
        done = None
        for step, (t, s) in enumerate(pairwise(self.times(field.sde))):
            assert t is not None
            at = replace(block.context, step=step, previous=done)
            done = self.step(field, x, t, s, at)
            x = done.x
            start, end = level(field.sde, t), level(field.sde, done.end)
            place = step, self.rounds, start.sigma, end.sigma
            block.check(x, *place)
            # The last step may take more or less than the others.
            calls = self.nfe if step + 1 == self.rounds else (step + 1) * self.calls
            block.show(*place, x / end.alpha, done.denoised, calls)
        return x


def _indices(
    n: int | None, index: Tensor | None, start: Tensor | None, device: torch.device
) -> Tensor:
    """The sample indices, from n, index or start."""
    if n is not None and index is not None:
        raise UserError("give either n or index, not both")
    if index is None:
        if n is None and start is None:
            raise UserError("the number of samples is missing: give n, index or start")
        count = n if n is not None else len(start)  # type: ignore[arg-type]
        check_count("the number of samples", count)
        index = torch.arange(count, device=device)
    if index.dim() != 1 or index.numel() == 0 or index.dtype not in (torch.int64, torch.int32):
        raise UserError(
            f"sample indices are one row of at least one integer, got {index.dtype} of shape "
            f"{tuple(index.shape)}"
        )
    if start is not None and len(start) != len(index):
        raise UserError(f"{len(index)} samples cannot start from {len(start)} points")
    return index.to(device)

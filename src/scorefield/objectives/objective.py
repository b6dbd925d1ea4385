r"""What a training step minimises: denoising score matching plus weighted regularisers.

.. math:: \mathcal{L} = \mathcal{L}_{DSM} + \sum_r w_r\,R_r

A regulariser :math:`R_r` that is evaluated at every :math:`k`-th step only is multiplied by
:math:`k` there, so that :math:`w_r` is its weight on average over steps whatever :math:`k`.
Regularisers see the field in evaluation mode: dropout would otherwise appear as curl.

A field that knows classes is trained with the class of each point, and without it with a small
probability, so that one network is both the field of every class and that of all data. Regularisers
see the latter.

References:
    Classifier-free diffusion guidance (Ho and Salimans, 2022), algorithm 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from scorefield.errors import UserError
from scorefield.fields import ScoreField, evaluation_mode
from scorefield.noise import Lookahead, Noise
from scorefield.objectives.balance import BalancedWeight
from scorefield.objectives.denoising import Batch, DenoisingScoreMatching, NoiseLaw
from scorefield.sde import SDE


@dataclass(frozen=True)
class Losses:
    """The outcome of one step.

    Attributes:
        total: What is minimised; a scalar with a graph.
        terms: Each term before its weight, and the weights that vary; detached scalars. A
            regulariser that was not due at this step, or had nothing to measure, is absent.
    """

    total: Tensor
    terms: dict[str, Tensor]


class Regularizer(nn.Module, ABC):
    """A property that the field should have, as a number to be made small.

    Its random numbers are drawn for many steps at once.

    Arguments:
        weight: The weight :math:`w`, averaged over steps; 0 switches the regulariser off. Or a
            controller that chooses it.
        every: The regulariser is evaluated at every ``every``-th step.
        sigma_min: The least noise level at which it is evaluated; the process's by default.
        sigma_max: The largest; the process's by default.

    Raises:
        ValueError: If ``weight`` is negative, ``every`` is not positive, or the noise levels are
            not positive or not in order.
    """

    name: str

    def __init__(
        self,
        weight: float | BalancedWeight,
        every: int = 1,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(weight, BalancedWeight) and not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"{self.name}: weight must be >= 0, got {weight}")
        if every < 1:
            raise UserError(f"{self.name}: every must be at least 1, got {every}")
        low, high = sigma_min or 0.0, math.inf if sigma_max is None else sigma_max
        if not 0 <= low < high:
            raise UserError(
                f"{self.name}: 0 < sigma_min < sigma_max must hold, got {sigma_min} and {sigma_max}"
            )
        self.weight = weight
        self.every = every
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self._drawn_for: tuple[object, ...] | None = None
        self._lookahead: Lookahead | None = None

    @abstractmethod
    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        """The random numbers of the steps, of shape ``(steps, 1)``, for ``rows`` points."""

    @abstractmethod
    def energy(self, field: ScoreField, x: Tensor, draws: tuple[Tensor, ...]) -> Tensor | None:
        """The number to be made small, given the clean points of the batch and the draws.

        ``None`` where the draws leave nothing to measure.
        """

    def span(self, field: ScoreField) -> int:
        """The number of steps that are drawn at once, on which nothing drawn depends."""
        return 64

    def times(
        self, law: NoiseLaw, sde: SDE, noise: Noise, index: Tensor, step: int | Tensor
    ) -> Tensor:
        """Times of the training law between the noise levels of the regulariser."""
        purpose = f"{self.name}/time"
        return law.times(sde, noise, index, step, purpose, self.sigma_min, self.sigma_max)

    def forward(
        self, field: ScoreField, law: NoiseLaw, x: Tensor, noise: Noise, step: int
    ) -> Tensor | None:
        """The energy at a training step."""
        key = (id(field), law, noise, x.shape[0])
        if self._lookahead is None or key != self._drawn_for:
            rows = x.shape[0]
            draw = partial(self.draw, field, law, noise, rows)
            self._lookahead = Lookahead(draw, self.span(field))
            self._drawn_for = key
        draws = tuple(
            d.to(device=x.device, dtype=x.dtype if d.is_floating_point() else d.dtype)
            for d in self._lookahead(step)
        )
        with evaluation_mode(field):
            return self.energy(field, x, draws)

    def extra_repr(self) -> str:
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return ", ".join(f"{k}={v}" for k, v in settings.items() if k != "training")


class Objective(nn.Module):
    """Denoising score matching plus regularisers.

    The state of weight controllers is part of ``state_dict``.

    Arguments:
        denoising: The base loss.
        regularizers: What is added to it.
        label_dropout: The probability with which a field that knows classes is not told that of a
            point; of no account to other fields.

    Raises:
        ValueError: If two regularisers have the same name, or ``label_dropout`` is no probability.
    """

    def __init__(
        self,
        denoising: DenoisingScoreMatching,
        regularizers: Sequence[Regularizer] = (),
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 <= label_dropout <= 1:
            raise UserError(f"label_dropout must lie in [0, 1], got {label_dropout}")
        self.label_dropout = float(label_dropout)
        names = [r.name for r in regularizers]
        if len(set(names)) < len(names):
            raise UserError(f"each kind of regulariser may be given once, got {names}")
        self.denoising = denoising
        self.regularizers = nn.ModuleDict({r.name: r for r in regularizers})

    def draw(
        self, field: ScoreField, noise: Noise, index: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor]:
        """The times and normals of a step; see :meth:`DenoisingScoreMatching.draw`."""
        return self.denoising.draw(field, noise, index, step)

    def hide(
        self, classes: Tensor, null: int, noise: Noise, index: Tensor, step: int | Tensor
    ) -> Tensor:
        """The classes that a step, or several at once, are told of.

        Arguments:
            classes: The classes of the points, of the common shape of ``index`` and ``step``.
            null: What stands for no class.
            noise: The randomness.
            index: The sample indices.
            step: The step or steps.
        """
        u = noise.uniform("label dropout", (), index, step)
        return torch.where(u < self.label_dropout, null, classes)

    def forward(self, field: ScoreField, batch: Batch, noise: Noise, step: int) -> Losses:
        """The losses of one training step.

        Arguments:
            field: The field, in training mode.
            batch: What :meth:`draw` and the data gave for this step.
            noise: The randomness of the regularisers.
            step: The step, which is part of their addresses.
        """
        total = self.denoising(field, batch).mean()
        terms = {"denoising": total.detach()}
        base = terms["denoising"]
        for name, regularizer in self.regularizers.items():
            assert isinstance(regularizer, Regularizer)
            if regularizer.weight == 0 or step % regularizer.every:
                continue
            energy = regularizer(field, self.denoising.law, batch.x, noise, step)
            if energy is None:
                continue
            terms[name] = energy.detach()
            weight = regularizer.weight
            if isinstance(weight, BalancedWeight):
                weight = terms[f"{name}_weight"] = weight(base, terms[name])
            total = total + weight * regularizer.every * energy
        return Losses(total, terms)

    def extra_repr(self) -> str:
        return str(self.denoising)

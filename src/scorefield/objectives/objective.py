r"""What a training step minimises: denoising score matching plus weighted regularisers.

.. math:: \mathcal{L} = \mathcal{L}_{DSM} + \sum_r w_r\,R_r

A regulariser :math:`R_r` that is evaluated at every :math:`k`-th step only is multiplied by
:math:`k` there, so that :math:`w_r` is its weight on average over steps whatever :math:`k`.
Regularisers see the field in evaluation mode: dropout would otherwise appear as curl.

A field that knows classes is trained with the class of each point, and without it with a small
probability, so that one network is both the field of every class and that of all data. Regularisers
see the latter, and images without augmentation.

The base loss may also be a :class:`~.Distillation`, whose target is the score of another field.

References:
    Classifier-free diffusion guidance (Ho and Salimans, 2022), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorefield.checks import check_kind, check_probability
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.noise import Noise
from scorefield.objectives.augmentation import Augmentation
from scorefield.objectives.denoising import Batch, DenoisingScoreMatching
from scorefield.objectives.distillation import Distillation
from scorefield.objectives.regularizer import BalancedWeight, Regularizer
from scorefield.world import ALONE, World


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


class Objective(nn.Module):
    """Denoising score matching plus regularisers.

    The state of weight controllers is part of ``state_dict``.

    Arguments:
        denoising: The base loss, denoising score matching or :class:`~.Distillation`.
        regularizers: What is added to it.
        label_dropout: The probability of dropping the class of a point in the training of a
            class-conditional field; ignored for other fields.
        augmentation: How training images are changed at random, if they are; a network of the field
            receives its labels.

    Raises:
        ValueError: If two regularisers have the same name, ``label_dropout`` is no probability, or
            a distillation is augmented.
        TypeError: If an object is of another class.
    """

    def __init__(
        self,
        denoising: DenoisingScoreMatching,
        regularizers: Sequence[Regularizer] = (),
        label_dropout: float = 0.1,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        check_probability("label_dropout", label_dropout)
        self.label_dropout = float(label_dropout)
        if augmentation is not None:
            check_kind("augmentation", augmentation, Augmentation)
            if isinstance(denoising, Distillation):
                raise UserError(
                    "augmentation is not for a distillation, whose teacher does not receive its "
                    "labels"
                )
        self.augmentation = augmentation
        check_kind("what is minimised", denoising, DenoisingScoreMatching)
        for each in regularizers:
            check_kind("each of the regularizers", each, Regularizer)
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
        """The classes of a step, or of several at once, of the common shape of ``index`` and
        ``step``; some are dropped for ``null``, which stands for no class.
        """
        u = noise.uniform("label dropout", (), index, step)
        return torch.where(u < self.label_dropout, null, classes)

    def forward(self, field: ScoreField, batch: Batch, noise: Noise, step: int) -> Losses:
        """The losses of one training step of a field in training mode, for a batch of what
        :meth:`draw` and the data gave; ``noise`` and ``step`` are those of the regularisers.
        """
        base = self.base(field, batch)
        rest, terms = self.regularize(field, batch.x, base.detach(), noise, step)
        terms.pop("loss")
        return Losses(base if rest is None else base + rest, terms)

    def base(self, field: ScoreField, batch: Batch) -> Tensor:
        """The mean loss of denoising score matching of a batch, or of a part of one."""
        return self.denoising(field, batch).mean()

    def due(self, step: int) -> dict[str, Regularizer]:
        """The regularisers that are evaluated at a step, by name."""
        found = {}
        for name, regularizer in self.regularizers.items():
            assert isinstance(regularizer, Regularizer)
            if regularizer.weight != 0 and not step % regularizer.every:
                found[name] = regularizer
        return found

    def regularize(
        self,
        field: ScoreField,
        x: Tensor,
        base: Tensor,
        noise: Noise,
        step: int,
        world: World = ALONE,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """This process's summand of the weighted sum of the regularisers of a step, ``None`` where
        none has anything to measure; and the terms, as in :class:`Losses`, with their weighted sum
        ``loss``, which are those of all processes.

        Arguments:
            field: The field.
            x: The clean points of the whole batch.
            base: This process's summand of the base loss, detached.
            noise: The noise of the training; so is ``step``.
            world: The processes that the points of the batch are shared out to.
        """
        due, energies = self.due(step), {}
        for name, regularizer in due.items():
            energy = regularizer(field, self.denoising.law, x, noise, step, world)
            if energy is not None:
                energies[name] = energy
        base, *whole = world.total([base, *(energy.detach() for energy in energies.values())])
        terms, loss, share = {self.denoising.name: base}, base, None
        for (name, energy), term in zip(energies.items(), whole, strict=True):
            terms[name], weight = term, due[name].weight
            if isinstance(weight, BalancedWeight):
                weight = terms[f"{name}_weight"] = weight(base, term)
            factor = weight * due[name].every
            share = factor * energy if share is None else share + factor * energy
            loss = loss + factor * term
        return share, {**terms, "loss": loss}

    def extra_repr(self) -> str:
        return str(self.denoising)

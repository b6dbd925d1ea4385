"""What a training step needs of data and random numbers, drawn for many steps at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from scorefield.data.source import DataSource
from scorefield.fields.base import ScoreField
from scorefield.noise import Lookahead, Noise
from scorefield.objectives.objective import Objective

_NUMBERS_AHEAD = 2**18
_STEPS_AHEAD = 32


def training_draws(
    field: ScoreField, source: DataSource, objective: Objective, noise: Noise, batch_size: int
) -> Lookahead:
    """What a step needs: points, times, normals, where the field knows classes those of the points,
    and where it has dropout, a seed for it.

    A draw costs nearly the same for one step as for many.
    """
    weights = next(p for p in field.parameters() if p.requires_grad)
    index = torch.arange(batch_size)
    dropout = has_dropout(field)

    def draw(steps: Tensor) -> tuple[Tensor, ...]:
        x = source.batch(noise, steps.squeeze(1), batch_size, weights.dtype)
        t, z = objective.draw(field, noise, index, steps)
        draws = [d.to(weights) for d in (x, t, z)]
        if field.classes is not None:
            classes = source.batch_classes(noise, steps.squeeze(1), batch_size)
            told = objective.hide(classes, field.classes, noise, index, steps)
            draws.append(told.to(weights.device))
        if dropout:
            # 32 bits: torch's generator on the CPU uses no more of a seed.
            draws.append(noise.integers("dropout", 2**32, (), steps * 0, steps)[:, 0])
        return tuple(draws)

    numbers = batch_size * (2 * field.domain.dim + 1)
    return Lookahead(draw, max(1, min(_STEPS_AHEAD, _NUMBERS_AHEAD // numbers)))


def has_dropout(module: nn.Module) -> bool:
    """Whether a module draws from torch's own generator while it is trained."""
    return any(isinstance(m, _DropoutNd) and m.p > 0 for m in module.modules())


def running_statistics(module: nn.Module) -> list[Tensor]:
    """The buffers of layers that change whenever they are evaluated in training."""
    layers = [m for m in module.modules() if getattr(m, "track_running_stats", False)]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]

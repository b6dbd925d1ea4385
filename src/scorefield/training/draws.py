"""What a training step needs: its random numbers, drawn for many steps at once, and a gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.dropout import _DropoutNd

from scorefield.data.source import DataSource
from scorefield.errors import UserError
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


def joint_gradient(parameters: Sequence[Parameter]) -> Tensor:
    """One vector that the gradients of all parameters are parts of.

    Clearing, measuring and clipping it are one operation each, where separate gradients, made
    anew at each step, cost a tenth of a small network's step.

    Raises:
        ValueError: If the parameters differ in dtype or device.
    """
    kinds = {(p.dtype, p.device) for p in parameters}
    if len(kinds) > 1:
        raise UserError("a field is trained in one dtype and on one device, not in several")
    joint = parameters[0].new_zeros(sum(p.numel() for p in parameters))
    parts = joint.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        # In the order in memory of the weights, which of images may be channels last.
        strides = parameter.stride()
        parameter.grad = part.as_strided(parameter.shape, strides, part.storage_offset())
    return joint

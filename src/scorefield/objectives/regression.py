"""A field that is evaluated and not trained, and the regulariser that draws another to it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, is_dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields import ScoreField, evaluation_mode
from scorefield.noise import Noise
from scorefield.objectives.denoising import NoiseLaw
from scorefield.objectives.regularizer import PointRegularizer

ScoreWeighting = Literal["sigma", "none"]
"""``sigma`` for errors in units of the noise, ``none`` for those of the score itself."""


@dataclass(frozen=True, eq=False, repr=False)
class Oracle:
    """A field that is evaluated and not trained: the truth, or a network that has been trained.

    Whoever holds it has no part in its modules, its parameters and its state. Its representation
    is a hash of its settings and weights, by which a resumed training recognises it.
    """

    field: ScoreField
    _digest: str = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_digest", _digest(self.field))

    def __repr__(self) -> str:
        return f"{type(self.field).__name__}({self._digest})"

    def check(self, owner: str, field: ScoreField) -> None:
        """Raises ``ValueError`` unless the oracle has a field's process and domain."""
        mine, theirs = ((f.sde, f.domain) for f in (self.field, field))
        if mine != theirs:
            raise UserError(
                f"{owner}: the oracle is a field of {mine[0]} on {mine[1]}, and what is trained "
                f"of {theirs[0]} on {theirs[1]}"
            )

    @contextmanager
    def asked(self, x: Tensor) -> Iterator[ScoreField]:
        """The field in evaluation mode, on the device of points."""
        field = self.field.to(x.device)
        with evaluation_mode(field):
            yield field


def _digest(field: ScoreField) -> str:
    found = hashlib.blake2b(digest_size=8)
    for path, part in field.named_modules():
        plain = {k: repr(v) for k, v in vars(part).items() if _is_plain(k, v)}
        found.update(repr((path, type(part).__name__, plain)).encode())
        tensors = (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
        for name, tensor in tensors:
            values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            found.update(name.encode() + values.numpy().tobytes())
    return found.hexdigest()


def _is_plain(name: str, value: object) -> bool:
    told = value is None or is_dataclass(value) or isinstance(value, bool | int | float | str)
    return told and not name.startswith("_") and name != "training"


class Regression(PointRegularizer):
    r"""The mean squared error :math:`\frac{\sigma^2}{D} \|s - s_*\|^2` against an oracle's score.

    The oracle is no part of what is trained or stored. The cost is one evaluation of the field and
    one of the oracle, which has no gradient.

    Arguments:
        oracle: The field to be drawn to, under the process of the field.
        weighting: ``sigma``, or ``none`` for :math:`\frac1D \|s - s_*\|^2`.

    Raises:
        ValueError: If an argument is out of range; in use, if the oracle is a field of another
            process or domain.
    """

    name = "regression"
    purpose = "points"

    oracle: InitVar[ScoreField]
    weighting: ScoreWeighting = "sigma"

    def __post_init__(self, oracle: ScoreField) -> None:
        super().__post_init__()
        self._check_choice("weighting", ScoreWeighting)
        self.truth = Oracle(oracle)

    def draw(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, rows: int, step: Tensor
    ) -> tuple[Tensor, ...]:
        self.truth.check(self.name, field)
        return super().draw(field, law, noise, rows, step)

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        with torch.no_grad(), self.truth.asked(x) as oracle:
            target = oracle.predict_noise(x, t)
        square = (field.predict_noise(x, t) - target).square().reshape(len(t), -1).mean(dim=1)
        if self.weighting == "none":
            square = square / field.sde.sigma(t) ** 2
        return square.mean()

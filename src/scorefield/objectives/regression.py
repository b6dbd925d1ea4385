"""Regularisers that draw a field to another: to one that is evaluated and not trained, and the two
branches of a hybrid field to each other.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, is_dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield.checks import check_fraction
from scorefield.errors import UnsupportedError, UserError
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.fields.composed import HybridField
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
                f"{owner} is a field of {mine[0]} on {mine[1]}, and what is trained "
                f"of {theirs[0]} on {theirs[1]}"
            )

    @contextmanager
    def placed(self, x: Tensor) -> Iterator[ScoreField]:
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
        self.truth.check(f"{self.name}: the oracle", field)
        return super().draw(field, law, noise, rows, step)

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        with torch.no_grad(), self.truth.placed(x) as oracle:
            target = oracle.predict_noise(x, t)
        square = (field.predict_noise(x, t) - target).square().reshape(len(t), -1).mean(dim=1)
        if self.weighting == "none":
            square = square / field.sde.sigma(t) ** 2
        return square.mean()


class BoundaryMatching(PointRegularizer):
    r"""The mean squared jump :math:`\frac{\sigma^2}{D} \|s_{low} - s_{high}\|^2` of a hybrid field.

    Evaluated at points of noise levels uniform in :math:`\sigma_c (1 \pm b)`; both branches
    receive the gradient.

    Arguments:
        bandwidth: The half-width :math:`b`, relative to :math:`\sigma_c`.

    Raises:
        ValueError: If an argument is out of range; in use, if the levels are outside the process.
        TypeError: In use, if the field is not hybrid.
    """

    name = "boundary"

    bandwidth: float = 0.1
    sigma_min: None = dataclasses.field(init=False, default=None)
    sigma_max: None = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("boundary: bandwidth", self.bandwidth)

    def times(
        self, field: ScoreField, law: NoiseLaw, noise: Noise, index: Tensor, step: Tensor
    ) -> Tensor:
        u = noise.uniform("boundary/time", (), index, step, dtype=torch.float64)
        sigma_c, sde = _hybrid(field).sigma_c, field.sde
        low, high = (1 - self.bandwidth) * sigma_c, (1 + self.bandwidth) * sigma_c
        least, most = sde.level_range
        if not least <= low <= high <= most:
            raise UserError(
                f"boundary: noise levels from {low:g} to {high:g} around sigma_c are not all "
                f"within the process's {least:g} to {most:g}"
            )
        return sde.time(low + u * (high - low))

    def energy(self, field: ScoreField, x: Tensor, t: Tensor, *directions: Tensor) -> Tensor:
        hybrid = _hybrid(field)
        jump = hybrid.low.predict_noise(x, t) - hybrid.high.predict_noise(x, t)
        return jump.square().mean()


def _hybrid(field: ScoreField) -> HybridField:
    if not isinstance(field, HybridField):
        raise UnsupportedError(f"boundary matching needs a HybridField, got {type(field).__name__}")
    return field

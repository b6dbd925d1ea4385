"""The instruments that are calibrated, with the settings and points that each is given.

A *lean* setting asks how much power at most :data:`BUDGET` network calls buy; a *full* one has
points enough for an interval to hold what it promises. Calls are counted in forward evaluations of
one point: a tangent that is carried along costs one more, and each way back two, so that a product
with the Jacobian and one with its transpose cost 4.

A curl in one plane gives circulations and gaps long tails in any dimension (their fourth moment is
six times the square of the second), so that an interval that holds what it promises takes a
thousand of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scorefield.diagnostics.circulation import (
    circulation_growth,
    cycle_circulation,
    loop_circulation,
)
from scorefield.diagnostics.exterior import exterior_derivative, relative_asymmetry
from scorefield.diagnostics.hodge import HodgeSplit, hodge_split
from scorefield.diagnostics.line_integrals import path_gap, potential_gap
from scorefield.diagnostics.protocol import Profile, Protocol
from scorefield.diagnostics.published import (
    finite_difference_asymmetry,
    left_cycle_circulation,
    path_variance,
)
from scorefield.diagnostics.score_error import denoising_loss, distance_to_ideal, score_error
from scorefield.estimate import Estimate
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Quantity
from scorefield.studies.calibrate.fields import SIGMA, Distribution
from scorefield.targets.base import Target
from scorefield.targets.empirical import Empirical

NULLS: tuple[Distribution, ...] = ("gaussian", "mixture", "empirical", "potential")
"""The conservative fields."""

DIMS = (2, 64, 784)
"""The dimensions in which there are settings."""

_LARGE = frozenset({784})
_ALL = frozenset(DIMS)

BUDGET = 256
"""The number of network calls at a noise level with which power is measured."""


@dataclass(frozen=True)
class Setting:
    """A diagnostic and its points."""

    measure: Callable[[ScoreField, Target, Protocol], Profile]
    points: Mapping[int, int]
    dtype: torch.dtype = torch.float64

    def __call__(self, field: ScoreField, data: Target, seed: int) -> Estimate:
        """Measures once, with the points and probes of a seed."""
        n = self.points[field.domain.dim]
        (estimate,) = self.measure(field, data, Protocol((SIGMA,), n, seed, self.dtype)).estimates
        return estimate


@dataclass(frozen=True)
class Instrument:
    """A diagnostic to be calibrated.

    It has a ``full`` setting and may have a ``lean`` one within :data:`BUDGET` calls, of which a
    way forth counts for ``calls``. The right answer is zero on ``nulls``; ``curl`` is whether it is
    evaluated on planted curl, and ``detects`` whether another answer means that there is curl. In
    ``costly`` dimensions one takes long, or the answer is the same each time.
    """

    full: Setting
    lean: Setting | None = None
    calls: int = 1
    nulls: tuple[Distribution, ...] = NULLS
    curl: bool = True
    detects: bool = True
    costly: frozenset[int] = _LARGE


class Counting(ScoreField):
    """A field that counts the points at which it is evaluated, and the ways back from them."""

    def __init__(self, base: ScoreField) -> None:
        super().__init__(base.sde, base.domain)
        self.base = base
        self.rows = 0
        self.back = 0

    def score(self, x: Tensor, t: float | Tensor, classes: Classes = None) -> Tensor:
        return self.predict(x, t, "score", classes)

    def predict(
        self, x: Tensor, t: float | Tensor, quantity: Quantity, classes: Classes = None
    ) -> Tensor:
        self.rows += x.shape[0]
        value = self.base.predict(x, t, quantity, classes)
        if value.requires_grad:
            value.register_hook(self._count_back)
        return value

    def _count_back(self, gradient: Tensor) -> None:
        self.back += gradient.shape[0]

    @property
    def has_potential(self) -> bool:
        return self.base.has_potential

    def potential(self, x: Tensor, t: float | Tensor, classes: Classes = None) -> Tensor:
        self.rows += x.shape[0]
        return self.base.potential(x, t, classes)


def _by_dim(two: int, sixty_four: int, large: int) -> dict[int, int]:
    return {2: two, 64: sixty_four, 784: large}


def _rest(field: ScoreField, data: Target, protocol: Protocol) -> Profile:
    split: HodgeSplit = hodge_split(field, data, protocol, features=64)
    return split.rest


def _distance_to_ideal(field: ScoreField, data: Target, protocol: Protocol) -> Profile:
    assert isinstance(data, Empirical)  # asked of nothing else
    return distance_to_ideal(field, data.data, protocol)


def _score_error(field: ScoreField, data: Target, protocol: Protocol) -> Profile:
    return score_error(field, data, protocol)


_SCORE: dict[str, Any] = {"quantity": "score"}
_LOOPS: dict[str, Any] = {"sides": 4, "rule": "simpson", **_SCORE}
_CYCLES: dict[str, Any] = {"rule": "simpson", **_SCORE}

INSTRUMENTS: dict[str, Instrument] = {
    "exterior derivative": Instrument(
        Setting(partial(exterior_derivative, **_SCORE), _by_dim(64, 4, 2))
    ),
    "exterior derivative, probes": Instrument(
        Setting(partial(exterior_derivative, probes=2, **_SCORE), _by_dim(256, 256, 128)),
        Setting(partial(exterior_derivative, probes=1, **_SCORE), _by_dim(64, 64, 64)),
        calls=2,
    ),
    "relative asymmetry": Instrument(Setting(relative_asymmetry, _by_dim(512, 8, 2)), costly=_ALL),
    "relative asymmetry, probes": Instrument(
        Setting(partial(relative_asymmetry, probes=2, **_SCORE), _by_dim(512, 256, 128)),
        Setting(partial(relative_asymmetry, probes=1, **_SCORE), _by_dim(64, 64, 64)),
        calls=2,
    ),
    "loops": Instrument(
        Setting(partial(loop_circulation, **_LOOPS), _by_dim(256, 1024, 1024)),
        Setting(partial(loop_circulation, **_LOOPS), _by_dim(32, 32, 32)),
    ),
    "growth": Instrument(
        Setting(partial(circulation_growth, **_LOOPS), _by_dim(256, 128, 64)),
        nulls=(),
        detects=False,
        costly=_ALL,
    ),
    "graph cycles": Instrument(
        Setting(
            partial(cycle_circulation, cloud=8, cycles=5, **_CYCLES), _by_dim(1024, 1024, 1024)
        ),
        Setting(partial(cycle_circulation, cloud=8, cycles=5, **_CYCLES), _by_dim(64, 64, 64)),
    ),
    "path gap": Instrument(
        Setting(partial(path_gap, tolerance=1e-3), _by_dim(1024, 1024, 1024)),
        Setting(partial(path_gap, tolerance=1e-2), _by_dim(10, 10, 10)),
    ),
    "potential gap": Instrument(
        Setting(partial(potential_gap, tolerance=1e-3), _by_dim(1024, 512, 256)),
        Setting(partial(potential_gap, tolerance=1e-2), _by_dim(16, 16, 16)),
    ),
    "Hodge rest": Instrument(Setting(_rest, _by_dim(512, 256, 32)), calls=2, costly=_ALL),
    "score error": Instrument(
        Setting(_score_error, _by_dim(512, 256, 128)),
        Setting(_score_error, _by_dim(128, 128, 128)),
        nulls=("gaussian", "mixture", "empirical"),
    ),
    "denoising loss": Instrument(
        Setting(denoising_loss, _by_dim(512, 256, 128)), nulls=(), detects=False
    ),
    "distance to the ideal score": Instrument(
        Setting(_distance_to_ideal, _by_dim(64, 64, 64)), nulls=("empirical",), curl=False
    ),
    "published: cycles, left end point": Instrument(
        Setting(left_cycle_circulation, _by_dim(256, 256, 64)), costly=_ALL
    ),
    "published: paths on one line": Instrument(
        Setting(path_variance, _by_dim(256, 256, 64)), costly=_ALL
    ),
    "published: finite difference": Instrument(
        Setting(finite_difference_asymmetry, _by_dim(256, 256, 64), torch.float32), costly=_ALL
    ),
}
"""All of them by name, the published variants last."""

"""The evaluation protocol, and a data set under it.

All fields on one data set are evaluated on the same samples and points, whatever they trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from scorefield.config.build import build_sampler
from scorefield.config.config import Config
from scorefield.config.document import differences
from scorefield.config.train import EvalSection
from scorefield.data.source import DataSource, Split
from scorefield.diagnostics.protocol import Protocol as PointProtocol
from scorefield.domain import Torus
from scorefield.networks.features import COORDINATES, PIXELS, Features
from scorefield.points import Given
from scorefield.runs.classes import classes_by_index
from scorefield.samplers.solvers import Euler, Heun
from scorefield.targets.base import Target

CIRCLES = "circles"
"""The name of coordinates on a torus as features: each is a point of a circle in the plane."""
PLAIN = (COORDINATES.name, PIXELS.name, CIRCLES)
"""The names of features for which nothing is learned."""
PRECISION = 0.05
"""The relative standard error at which random probes of a Jacobian stop."""

_SECTION = EvalSection()
_METHODS: dict[str, type[Euler | Heun]] = {"euler": Euler, "heun": Heun}


@dataclass(frozen=True)
class Protocol:
    """How the fields on a data set are evaluated.

    Arguments:
        nfes: The budgets of network calls.
        along: The budget at which the checkpoints along the training are measured, if they are.
        samples: The number of samples, generated and real.
        pairs: The number of pairs of real sets behind each noise floor.
        sigmas: The noise levels of the diagnostics, in units of the data.
        points: The number of noisy points at each level.
        columns: The cost of Jacobians: in :math:`D` dimensions the first ``columns / D`` points.
            The mean of traces by a fixed number of probes takes as many products at more points,
            the first ``columns / probes``, since its scatter is that of the points.
        draws: The number of noise draws for each held-out item in the validation loss.
        seed: The seed of points, probes, real samples and starting noise.
        sampler: The deterministic method that draws the samples, on Karras' grid.
    """

    nfes: tuple[int, ...] = tuple(_SECTION.nfes)
    along: int | None = None
    samples: int = _SECTION.samples
    pairs: int = _SECTION.pairs
    sigmas: tuple[float, ...] = tuple(_SECTION.sigmas)
    points: int = _SECTION.points
    columns: int = 1024
    draws: int = 16
    seed: int = _SECTION.seed
    sampler: Literal["euler", "heun"] = "heun"

    def method(self, nfe: int) -> Euler | Heun:
        """The sampler that takes at most ``nfe`` network calls a sample."""
        return _METHODS[self.sampler].for_nfe(nfe)

    def record(self) -> dict[str, Any]:
        """The protocol as plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Protocol:
        """The protocol that a record holds, whatever else it holds."""
        known: dict[str, Any] = {f.name: record[f.name] for f in fields(cls)}
        return cls(**known | {name: tuple(known[name]) for name in ("nfes", "sigmas")})


def protocol_of(config: Config) -> Protocol:
    """The protocol of the section ``eval`` of a configuration."""
    section = config.eval
    return Protocol(
        nfes=tuple(section.nfes),
        along=build_sampler(config.sampler).nfe if section.along else None,
        samples=section.samples,
        pairs=section.pairs,
        sigmas=tuple(section.sigmas),
        points=section.points,
        seed=section.seed,
    )


def differences_of(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> list[tuple[str, object, object]]:
    """The settings in which two recorded protocols differ, with both values.

    An estimator that only one of them knows was added to the catalogue between the two: its metrics
    are missing from the older evaluation, and no number differs.
    """
    known = [recorded["estimators"].keys() for recorded in (one, other) if "estimators" in recorded]
    younger = [f"estimators.{key}." for key in (known[0] ^ known[1] if len(known) == 2 else ())]
    found = differences(one, other)
    return [d for d in found if not d[0].startswith(tuple(younger))]


@dataclass(frozen=True)
class Benchmark:
    """A data set under a protocol, with the features that a network has learned on it.

    Arguments:
        split: The split that diagnostics take their points from.
        labelled: Whether a field that knows classes is evaluated with the class of each point, and
            sampled with those of :attr:`sample_classes`; of any otherwise.
        precision: The relative standard error at which random probes of a Jacobian stop.
    """

    source: DataSource
    protocol: Protocol
    learned: tuple[Features, ...] = ()
    split: Split = "test"
    labelled: bool = False
    precision: float = PRECISION

    @property
    def truth(self) -> Target | None:
        """The distribution of the data where it is known."""
        return self.source.truth

    @cached_property
    def plain(self) -> Features:
        """What samples are compared on before anything is learned: values, or circles."""
        truth = self.truth
        if truth is not None and isinstance(truth.domain, Torus):
            return Features(CIRCLES, truth.domain.embed)
        return PIXELS if len(self.source.shape) == 3 else COORDINATES

    @property
    def features(self) -> tuple[Features, ...]:
        """The features that Fréchet distances are taken on."""
        return (self.plain, *self.learned)

    @property
    def sample_classes(self) -> Callable[[Tensor], Tensor] | None:
        """The classes of samples by their indices, as frequent as in the data; ``None`` where
        samples are of any class.
        """
        return classes_by_index(self.source, self.protocol.seed) if self.labelled else None

    @cached_property
    def real_classes(self) -> Tensor | None:
        """The classes of :attr:`real`, if fields are evaluated with them."""
        n, seed = self.protocol.samples, self.protocol.seed
        return self.source.reference_classes(n, seed, "test") if self.labelled else None

    @cached_property
    def real(self) -> Tensor:
        """The held-out samples that generated ones are compared with."""
        return self.source.reference(self.protocol.samples, self.protocol.seed, "test")

    def data(self, n: int | None = None) -> Target | Given:
        """Where noisy points come from: the known distribution, or ``n`` items of the split."""
        if self.truth is not None:
            return self.truth
        chosen = n or self.protocol.points, self.protocol.seed, self.split
        points = self.source.reference(*chosen)
        if not self.labelled:
            return points
        return list(zip(points, self.source.reference_classes(*chosen), strict=True))

    @property
    def train(self) -> tuple[Tensor, Tensor | None]:
        """The training points, and their classes if fields are evaluated with them."""
        n, seed, source = self.source.size, self.protocol.seed, self.source
        assert n is not None
        points = source.reference(n, seed, "train")
        return points, source.reference_classes(n, seed, "train") if self.labelled else None

    def points(self, most: int | None = None) -> PointProtocol:
        """The noisy points of the diagnostics; at most so many, and two at least."""
        p = self.protocol
        points = PointProtocol(p.sigmas, p.points, p.seed, precision=self.precision)
        return points if most is None else replace(points, n=max(2, min(p.points, most)))

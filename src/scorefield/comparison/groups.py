"""The evaluations under a folder, of which only those of one protocol are compared, over seeds.

The standard error of a mean over seeds has two parts: their scatter, which holds what varies
between trainings, and the error of one evaluation, since all seeds are evaluated alike.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from scorefield.errors import RunError
from scorefield.estimate import Estimate, add_errors, pool
from scorefield.evaluation.catalogue import VALIDATION, find
from scorefield.evaluation.catalogue.metric import OfLevel
from scorefield.evaluation.columns import Column, derived
from scorefield.evaluation.protocol import differences_of
from scorefield.evaluation.records import SUMMARY, Distance, Evaluation, Level
from scorefield.files import absence
from scorefield.progress import warn

T = TypeVar("T")

RMS = "rms"
"""In place of the number of a noise level: the root mean square over all levels."""


class Key(NamedTuple):
    """What a number is of; ``None`` or empty where that says nothing about it."""

    metric_name: str
    features: str = ""
    sampler: str = ""
    nfe_budget: int | None = None
    nfe: int | None = None
    sigma_bin: int | str | None = None
    sigma: float | None = None
    scale_delta: float | None = None
    cycle_len: int | None = None


def distance_key(d: Distance) -> Key:
    """What a distance is of."""
    if not d.sampler:
        return Key(d.metric, d.features)
    return Key(d.metric, d.features, d.sampler, d.budget, d.nfe)


def level_key(level: Level, sigmas: Sequence[float]) -> Key:
    """What a diagnostic at a noise level is of; ``sigmas`` are all levels, ascending."""
    return Key(
        level.metric,
        sigma_bin=sigmas.index(level.sigma),
        sigma=level.sigma,
        scale_delta=level.scale_delta,
        cycle_len=level.cycle_len,
    )


@dataclass(frozen=True)
class Group:
    """The evaluations of one model on one data set, one a seed."""

    dataset: str
    model: str
    members: tuple[Evaluation, ...]

    @property
    def first(self) -> Evaluation:
        """The evaluation of the lowest seed."""
        return self.members[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the training runs, ascending."""
        return tuple(e.seed for e in self.members)

    @property
    def label(self) -> str:
        """The model's short name."""
        return str(self.first.about.get("label", self.model))

    @property
    def validation(self) -> Estimate:
        """The validation loss over seeds."""
        return over_seeds([e.validation for e in self.members])

    def distance(
        self,
        metric: str,
        budget: int,
        features: str | None = None,
        sampler: str | None = None,
    ) -> Distance | None:
        """A distance over seeds, if every member has it."""
        return joined([e.distance(metric, budget, features, sampler) for e in self.members])

    def profile(self, metric: str, scale: float | None = None) -> list[Level]:
        """A diagnostic over seeds, by noise level; levels that a member lacks are left out."""
        found = [{v.sigma: v for v in _at_scale(e, metric, scale)} for e in self.members]
        return [
            replace(levels[0], estimate=over_seeds([v.estimate for v in levels]))
            for levels in common(found)
        ]

    def over_levels(self, metric: str, scale: float | None = None) -> Estimate | None:
        """The root mean square of a diagnostic over its noise levels, over seeds."""
        found = [over_levels(_at_scale(e, metric, scale)) for e in self.members]
        some = [e for e in found if e is not None]
        return over_seeds(some) if some and len(some) == len(found) else None


def _at_scale(e: Evaluation, metric: str, scale: float | None) -> list[Level]:
    return [v for v in e.profile(metric) if scale in (None, v.scale_delta)]


def common(members: Sequence[Mapping[Any, T]]) -> list[list[T]]:
    """The values that all members have under one key, member by member, in the first's order."""
    return [[m[key] for m in members] for key in members[0] if all(key in m for m in members)]


def joined(found: Sequence[Distance | None]) -> Distance | None:
    """A distance over seeds; ``None`` where one of them lacks it."""
    some = [d for d in found if d is not None]
    if not some or len(some) < len(found):
        return None
    times = [d.latency for d in some if d.latency is not None]
    latency = over_seeds(times) if len(times) == len(some) else None
    return replace(some[0], estimate=over_seeds([d.estimate for d in some]), latency=latency)


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    r"""The mean over seeds that were evaluated on common points; of one seed, its own number.

    Its standard error is :math:`(s^2 / k + \bar e^2)^{1/2}` with the standard deviation :math:`s`
    over the :math:`k` seeds and the mean :math:`\bar e` of their own errors, which are taken for
    one common error. The settings are those that all have in common.
    """
    first = estimates[0]
    if len(estimates) == 1:
        return first
    alike = {
        k: v for k, v in first.settings.items() if all(e.settings.get(k) == v for e in estimates)
    }
    pooled = pool(estimates)
    own = sum(e.standard_error for e in estimates) / len(estimates)
    draws = min(e.draws for e in estimates)
    error, n = add_errors([(pooled.standard_error, pooled.draws), (own, draws)])
    return replace(pooled, standard_error=error, n=n, settings=alike, freedom=None)


def over_levels(levels: Sequence[Level]) -> Estimate | None:
    r"""The root mean square of a diagnostic over its noise levels; of a mean square, its mean.

    All levels share their points, so that their errors are added as if they were fully
    correlated, which no correlation exceeds. ``None`` where there is no level.
    """
    if not levels:
        return None
    estimates, metric = [level.estimate for level in levels], find(levels[0].metric)
    values = [e.value for e in estimates]
    # No root is taken of what may be negative.
    plain = isinstance(metric, OfLevel) and metric.over_levels == "mean"
    square = sum(v**2 for v in values) / len(values)
    value = sum(values) / len(values) if plain else math.sqrt(square)

    def average(errors: Sequence[float]) -> float:
        if plain:
            return sum(errors) / len(errors)
        if value == 0:
            return math.sqrt(sum(s**2 for s in errors) / len(errors))
        weighted = sum(abs(v) * s for v, s in zip(values, errors, strict=True))
        return weighted / (len(errors) * value)

    return Estimate(
        value,
        average([e.standard_error for e in estimates]),
        min(e.n for e in estimates),
        estimates[0].unit,
        {"levels": len(levels)},
        average([e.numerical_error for e in estimates]),
        freedom=min((e.freedom for e in estimates if e.freedom is not None), default=None),
    )


def measured(evaluation: Evaluation) -> dict[Key, Estimate]:
    """Every number of an evaluation, and each diagnostic's root mean square over noise levels."""
    found = {Key(VALIDATION.name): evaluation.validation}
    found |= {distance_key(d): d.estimate for d in evaluation.distances}
    sigmas = sorted({v.sigma for v in evaluation.levels})
    scales: dict[Key, list[Level]] = {}
    for level in evaluation.levels:
        key = level_key(level, sigmas)
        found[key] = level.estimate
        scales.setdefault(key._replace(sigma_bin=RMS, sigma=None), []).append(level)
    for key, levels in scales.items():
        summary = over_levels(levels)
        # What was measured at some levels only is no number of the whole field.
        if summary is not None and len(levels) == len(sigmas) > 1:
            found[key] = summary
    return found


def spread(name: str, estimates: Callable[[Any], Sequence[Estimate] | None]) -> Column:
    """The columns of a mean over seeds: their standard deviation, its error and interval."""

    def cells(record: Any) -> tuple[Any, ...] | None:
        found = estimates(record)
        if not found:
            return None
        one = over_seeds(found)
        deviation = statistics.stdev([e.value for e in found]) if len(found) > 1 else ""
        return one.value, deviation, one.standard_error, *one.interval()

    numbers = ("mean", "std", "standard_error", "low", "high")
    return derived(*(f"{name}_{number}" for number in numbers), get=cells)


def groups(evaluations: Iterable[Evaluation]) -> list[Group]:
    """The evaluations by data set and model."""
    return [
        Group(dataset, model, tuple(members))
        for (dataset, model), members in groupby(evaluations, lambda e: (e.dataset, e.model))
    ]


def by_dataset(members: Sequence[Group]) -> Mapping[str, list[Group]]:
    """The models of each data set, in order; the first is what the others are compared with."""
    return {name: list(some) for name, some in groupby(members, lambda g: g.dataset)}


BASELINES = ("m0", "no_regularizer")
"""The presets that the others of their family are compared with."""


def natural_order(name: str) -> tuple[Any, ...]:
    """A key by which names are sorted as people count: ``hidden=8`` before ``hidden=10``."""
    parts = re.split(r"([0-9]+)", name)
    return *((part.isdecimal(), int(part) if part.isdecimal() else part) for part in parts), name


def in_order(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Evaluations by data set, model and seed, those of the plain model first."""

    def place(e: Evaluation) -> tuple[Any, ...]:
        preset = str(e.about.get("preset")).rpartition("/")[2]
        return e.dataset, preset not in BASELINES, natural_order(e.model), e.seed

    return sorted(evaluations, key=place)


def collect(root: Path) -> list[Evaluation]:
    """Every evaluation in ``root/dataset/model/seed``, those of the plain model first.

    Raises:
        RunError: If there is none that can be read, or those of a data set were evaluated by
            different protocols.
    """
    folders = sorted(path.parent.parent for path in root.glob(f"*/*/seed*/eval/{SUMMARY}"))
    if not folders:
        why = absence(root) or ": run `scorefield eval RUN` on each first"
        raise RunError(f"{root} holds no evaluated run{why}")

    evaluations = in_order(readable(root, folders))
    for dataset, members in groupby(evaluations, lambda e: e.dataset):
        first, *others = members
        for other in others:
            for key, a, b in differences_of(first.protocol, other.protocol):
                raise RunError(
                    f"{first.folder} and {other.folder} were evaluated by different protocols, so "
                    f"that no table of {dataset} can hold both: {key} is {a} and {b}; evaluate "
                    "both again with the same settings"
                )
    return evaluations


def readable(root: Path, folders: Sequence[Path]) -> list[Evaluation]:
    """The evaluations in a folder that can be read, one at least; the others are named."""
    found, errors = [], []
    for folder in folders:
        try:
            found.append(Evaluation.read(folder))
        except RunError as error:
            errors.append(error)
    if not found:
        raise RunError(f"no evaluation in {root} can be read: {errors[0]}")
    for refused in errors:
        warn(f"a run is left out: {refused}")
    return found

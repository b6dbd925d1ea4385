"""The evaluations of one model, over seeds.

Where a model has several seeds, a number is their mean. Its standard error has two parts: the
scatter between seeds, which holds everything that varies between trainings, and the error of the
single evaluations, which their mean does not make smaller, since all seeds are judged on the same
samples, points and starting noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from scorefield.errors import RunError
from scorefield.estimate import Estimate, add_errors, pool
from scorefield.evaluation.catalogue import VALIDATION, find
from scorefield.evaluation.catalogue.metric import OfLevel
from scorefield.evaluation.records import SUMMARY, Distance, Evaluation, Level

RMS = "rms"
"""In place of the number of a noise level: the root mean square over all levels."""


BASELINES = ("m0", "no_regularizer")
"""The presets that the others of their family are compared with."""


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

    def distance(self, metric: str, budget: int, features: str | None = None) -> Distance | None:
        """A distance over seeds, if every member has it."""
        found = [e.distance(metric, budget, features) for e in self.members]
        some = [d for d in found if d is not None]
        if not some or len(some) < len(found):
            return None
        times = [d.latency for d in some if d.latency is not None]
        latency = over_seeds(times) if len(times) == len(some) else None
        estimate = over_seeds([d.estimate for d in some])
        return replace(some[0], estimate=estimate, latency=latency)

    def profile(self, metric: str, scale: float | None = None) -> list[Level]:
        """A diagnostic over seeds, by noise level; levels that a member lacks are left out.

        Arguments:
            metric: Its name.
            scale: The radius of the loops, for what was measured at several.
        """
        found = [
            {v.sigma: v for v in e.profile(metric) if scale in (None, v.scale_delta)}
            for e in self.members
        ]
        common = [place for place in found[0] if all(place in other for other in found)]
        return [
            replace(
                found[0][place],
                estimate=over_seeds([levels[place].estimate for levels in found]),
            )
            for place in common
        ]

    def over_levels(self, metric: str, scale: float | None = None) -> Estimate | None:
        """The root mean square of a diagnostic over its noise levels, over seeds; ``None`` where it
        was not measured. Arguments are those of :meth:`profile`.
        """
        found = [
            over_levels([v for v in e.profile(metric) if scale in (None, v.scale_delta)])
            for e in self.members
        ]
        some = [e for e in found if e is not None]
        return over_seeds(some) if some and len(some) == len(found) else None

    @property
    def validation(self) -> Estimate:
        """The validation loss over seeds."""
        return over_seeds([e.validation for e in self.members])


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    r"""The mean over seeds that were judged on common points; of one seed, its own number.

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
    draws = min(e.n for e in estimates)
    error, n = add_errors([(pooled.standard_error, pooled.n), (own, draws)])
    return replace(pooled, standard_error=error, n=n, settings=alike)


def over_levels(levels: Sequence[Level]) -> Estimate | None:
    r"""The root mean square of a diagnostic over its noise levels; of a mean square, its mean.

    All levels share their points, so that their errors are added as if they were fully
    correlated, which no correlation exceeds. ``None`` where there is no level.
    """
    if not levels:
        return None
    estimates = [level.estimate for level in levels]
    metric = find(levels[0].metric)
    if isinstance(metric, OfLevel) and metric.over_levels == "mean":
        return _mean(estimates)
    square = sum(e.value**2 for e in estimates) / len(estimates)
    value = math.sqrt(square)

    def spread(errors: Sequence[float]) -> float:
        if value == 0:
            return math.sqrt(sum(s**2 for s in errors) / len(errors))
        weighted = sum(abs(e.value) * s for e, s in zip(estimates, errors, strict=True))
        return weighted / (len(errors) * value)

    return Estimate(
        value,
        spread([e.standard_error for e in estimates]),
        min(e.n for e in estimates),
        estimates[0].unit,
        {"levels": len(levels)},
        spread([e.numerical_error for e in estimates]),
    )


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates on common points; no root is taken of what may be negative."""

    def average(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return Estimate(
        average([e.value for e in estimates]),
        average([e.standard_error for e in estimates]),
        min(e.n for e in estimates),
        estimates[0].unit,
        {"levels": len(estimates)},
        average([e.numerical_error for e in estimates]),
    )


def measured(evaluation: Evaluation) -> dict[Key, Estimate]:
    """Every number of an evaluation, and each diagnostic's root mean square over noise levels."""
    found = {Key(VALIDATION.name): evaluation.validation}
    found |= {distance_key(d): d.estimate for d in evaluation.distances}
    sigmas = sorted({v.sigma for v in evaluation.levels})
    for level in evaluation.levels:
        found[level_key(level, sigmas)] = level.estimate
    for key, levels in _by_scale(evaluation.levels):
        summary = over_levels(levels)
        # What was measured at some levels only is no number of the whole field.
        if summary is not None and len(levels) == len(sigmas) > 1:
            found[key] = summary
    return found


def level_key(level: Level, sigmas: Sequence[float]) -> Key:
    """What a diagnostic at a noise level is of; ``sigmas`` are all levels, ascending."""
    return Key(
        level.metric,
        sigma_bin=sigmas.index(level.sigma),
        sigma=level.sigma,
        scale_delta=level.scale_delta,
        cycle_len=level.cycle_len,
    )


def spread(estimates: Sequence[Estimate], name: str = "value") -> dict[str, Any]:
    """The mean over seeds in columns: standard deviation (over seeds, with one degree of freedom
    taken off, empty for one seed), standard error and 95 % interval.
    """
    one = over_seeds(estimates)
    low, high = one.interval()
    deviation = statistics.stdev([e.value for e in estimates]) if len(estimates) > 1 else ""
    return {
        f"{name}_mean": one.value,
        f"{name}_std": deviation,
        f"{name}_standard_error": one.standard_error,
        f"{name}_low": low,
        f"{name}_high": high,
    }


def collect(root: Path) -> list[Evaluation]:
    """Every evaluation in ``root/dataset/model/seed``, in the order of data set, model and seed.

    The model of a data set that the others are compared with comes first: the preset that is plain
    denoising, or without it the first by name.

    Raises:
        RunError: If there is none, one cannot be read, or the models of a data set were judged on
            different terms.
    """
    folders = sorted(path.parent.parent for path in root.glob(f"*/*/seed*/eval/{SUMMARY}"))
    if not folders:
        raise RunError(f"{root} holds no evaluated run: run `scorefield eval RUN` on each first")
    evaluations = sorted(
        (Evaluation.read(folder) for folder in folders),
        key=lambda e: (e.dataset, not _is_baseline(e), e.model, e.seed),
    )
    for dataset, members in groupby(evaluations, lambda e: e.dataset):
        _check_terms(dataset, list(members))
    return evaluations


def _is_baseline(e: Evaluation) -> bool:
    return str(e.about.get("preset")).rpartition("/")[2] in BASELINES


def groups(evaluations: Iterable[Evaluation]) -> list[Group]:
    """The evaluations by data set and model."""
    return [
        Group(dataset, model, tuple(members))
        for (dataset, model), members in groupby(evaluations, lambda e: (e.dataset, e.model))
    ]


def by_dataset(members: Sequence[Group]) -> Mapping[str, list[Group]]:
    """The models of each data set, in order; the first is what the others are compared with."""
    found: dict[str, list[Group]] = {}
    for g in members:
        found.setdefault(g.dataset, []).append(g)
    return found


def _by_scale(levels: Sequence[Level]) -> list[tuple[Key, list[Level]]]:
    found: dict[Key, list[Level]] = {}
    for v in levels:
        key = Key(v.metric, sigma_bin=RMS, scale_delta=v.scale_delta, cycle_len=v.cycle_len)
        found.setdefault(key, []).append(v)
    return list(found.items())


def _check_terms(dataset: str, members: list[Evaluation]) -> None:
    first = members[0]
    for other in members[1:]:
        for key, a, b in _differences(first.protocol, other.protocol):
            raise RunError(
                f"{first.folder} and {other.folder} were judged on different terms, so that "
                f"no table of {dataset} can hold both: {key} is {a} and {b}; evaluate both "
                "again with the same settings"
            )


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What two protocols differ in, down to the single setting."""
    for key in sorted(a.keys() | b.keys()):
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from ((f"{key}.{name}", x, y) for name, x, y in _differences(one, other))
        elif one != other:
            yield key, one, other

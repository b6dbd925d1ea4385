r"""Models of pseudo-atoms: samples compared with the exact distribution, fields with the exact
field.

All models have one distribution of the data and one process, start from the same noise and are
evaluated at the same points. The exact field can be one of them, by the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.comparison.groups import over_seeds
from scorefield.data.source import TargetSource
from scorefield.diagnostics.trajectories import State, walk
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue.curl import RELATIVE_ASYMMETRY, WINDING
from scorefield.evaluation.catalogue.metric import OfLevel
from scorefield.evaluation.catalogue.samples import MARGINAL_KS, TOTAL_VARIATION
from scorefield.evaluation.catalogue.score import CONSISTENCY, FOKKER_PLANCK, SCORE_ERROR
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.evaluation.records import Level
from scorefield.fields.base import ScoreField
from scorefield.metrics.exact_law import marginal_ks, total_variation
from scorefield.metrics.radial import RadialLaw, radial_ks, radial_law
from scorefield.samplers.base import Sampler
from scorefield.studies.frame import Work
from scorefield.studies.settings import Atoms
from scorefield.targets.atoms import PseudoAtoms

EXACT = "exact field"
"""What the exact field is called among the models."""

_SHOWN = 5
_BLOCK = 4096
# One for each estimator, which may give more.
_METRICS = (SCORE_ERROR, RELATIVE_ASYMMETRY, WINDING, FOKKER_PLANCK, CONSISTENCY)


@dataclass(frozen=True, eq=False)
class Model:
    """One of the models."""

    name: str
    seed: int | None
    field: ScoreField
    about: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Name and seed."""
        return self.name if self.seed is None else f"{self.name}, seed {self.seed}"

    @property
    def key(self) -> str:
        """The folder of its files."""
        return self.name.replace(" ", "_") + ("" if self.seed is None else f"_seed{self.seed}")


@dataclass(frozen=True, eq=False)
class ModelResult:
    """The numbers and samples of a model."""

    model: Model
    samples: Float[Tensor, "n *event"]
    states: tuple[State, ...]
    distances: Mapping[str, Estimate]
    levels: tuple[Level, ...]


@dataclass(frozen=True, eq=False)
class AtomsAnalysis:
    """The results of all models."""

    truth: PseudoAtoms
    settings: Atoms
    results: tuple[ModelResult, ...]

    @property
    def names(self) -> list[str]:
        """The models, whatever their seeds."""
        return list(dict.fromkeys(r.model.name for r in self.results))

    @property
    def radial(self) -> RadialLaw | None:
        """The exact distribution of the distance from the nearest configuration, where known."""
        return known_radial_law(self.truth)

    def members(self, name: str) -> list[ModelResult]:
        """The results of all seeds of a model."""
        return [r for r in self.results if r.model.name == name]

    def pooled_levels(self, name: str) -> list[Level]:
        """The diagnostics of a model over its seeds."""
        columns = zip(*(r.levels for r in self.members(name)), strict=True)
        return [
            Level(first.metric, first.sigma, over_seeds([v.estimate for v in (first, *others)]))
            for first, *others in columns
        ]

    def pooled_distances(self, name: str) -> dict[str, Estimate]:
        """The distances of the samples of a model, over its seeds."""
        members = self.members(name)
        return {
            metric: over_seeds([r.distances[metric] for r in members])
            for metric in members[0].distances
        }


def known_radial_law(truth: PseudoAtoms) -> RadialLaw | None:
    """The distribution of the distance from the nearest configuration; ``None`` where atoms are too
    wide for it to be known.
    """
    try:
        return radial_law(truth)
    except ValueError:
        return None


def noise_levels(low: float, high: float, n: int) -> tuple[float, ...]:
    """So many noise levels from the high to the low one, evenly spaced in their logarithm."""
    levels = np.geomspace(high, low, n)
    # The ends themselves, not what a power rounds them to.
    levels[0], levels[-1] = high, low
    return tuple(levels.tolist())


def analyse(
    truth: PseudoAtoms,
    models: Sequence[Model],
    sampler: Sampler,
    settings: Atoms,
    work: Work | None = None,
) -> AtomsAnalysis:
    """Samples all models and evaluates all diagnostics of them."""
    work = Work() if work is None else work
    labels = [model.label for model in models]
    if not labels or len(set(labels)) < len(labels):
        raise UserError(f"an analysis takes models of different names or seeds, got {labels}")
    results = []
    for model in models:
        try:
            results.append(_evaluate(truth, model, sampler, settings, work))
        except (ValueError, FloatingPointError) as error:
            raise RunError(f"{model.label}: {error}") from error
    return AtomsAnalysis(truth, settings, tuple(results))


def _evaluate(
    truth: PseudoAtoms, model: Model, sampler: Sampler, settings: Atoms, work: Work
) -> ModelResult:
    label, sde = model.label, truth.sde
    sigmas = noise_levels(*sde.level_range, settings.levels)
    # The Fokker–Planck equation takes two columns for each of a Jacobian.
    columns = 2 * settings.points * truth.domain.dim
    protocol = Protocol(sigmas=sigmas, points=settings.points, columns=columns, seed=settings.seed)
    benchmark = Benchmark(TargetSource(truth, "atoms"), protocol)
    metrics = [m for m in _METRICS if m.estimator.applies.holds(model.field, benchmark)]
    blocks = -(-settings.n // _BLOCK)
    total = blocks + len(metrics)
    samples, passed = [], []
    for block in range(blocks):
        draw = partial(_block, model.field, sampler, settings, block * _BLOCK)
        drawn, states = work.part(f"{label}/samples/{block}", draw)
        samples.append(drawn)
        passed.append(states)
        work.show(label, block + 1, total, "samples")
    states = tuple(
        State(some[0].sigma, some[0].t, torch.cat([state.x for state in some]))
        for some in zip(*passed, strict=True)
    )
    levels: list[Level] = []
    for done, metric in enumerate(metrics):
        work.show(label, blocks + done, total, metric.label)

        def measure(metric: OfLevel = metric) -> list[Level]:
            profiles = metric.estimator.measure(model.field, benchmark)
            return [Level(p.name, sigma, estimate) for p in profiles for sigma, estimate in p]

        levels += work.part(f"{label}/{metric.name}", measure)
    work.show(label, total, total)
    work.report(f"{label}: {settings.n} samples, {len(sigmas)} noise levels")
    whole = torch.cat(samples)
    return ModelResult(model, whole, states, _distances(whole, truth, settings), tuple(levels))


def _block(
    field: ScoreField, sampler: Sampler, settings: Atoms, first: int
) -> tuple[Tensor, tuple[State, ...]]:
    """A block of samples, and their points at some of the noise levels of their trajectories."""
    dtype = next((p.dtype for p in field.parameters()), torch.float64)
    n = min(_BLOCK, settings.n - first)
    trajectory = walk(field, sampler, n, settings.seed, first, dtype)
    chosen = _spread([state.sigma for state in trajectory.states])
    states = [trajectory.states[k] for k in chosen]
    passed = tuple(state._replace(x=field.domain.wrap(state.x).cpu()) for state in states)
    return field.domain.wrap(trajectory.samples).cpu(), passed


def _spread(sigmas: Sequence[float]) -> list[int]:
    """The places of some noise levels, evenly spaced in their logarithm as far as there are any."""
    have = np.log(sigmas)
    wanted = np.linspace(have[0], have[-1], _SHOWN)
    return sorted({int(np.abs(have - level).argmin()) for level in wanted})


def _distances(samples: Tensor, truth: PseudoAtoms, settings: Atoms) -> dict[str, Estimate]:
    found = {TOTAL_VARIATION.name: total_variation(samples, truth, settings.cells)}
    for axis in range(truth.domain.shape[1]):
        name = MARGINAL_KS.name + (f"_{axis}" if axis else "")
        found[name] = marginal_ks(samples, truth, axis=axis).estimate
    if known_radial_law(truth) is not None:
        found["radial_ks"] = radial_ks(samples, truth).estimate
    return found


def by_metric(levels: Iterable[Level]) -> dict[str, list[Level]]:
    """The levels of each diagnostic, in order."""
    return {metric: list(group) for metric, group in groupby(levels, lambda v: v.metric)}

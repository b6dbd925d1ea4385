r"""What models of pseudo-atoms are worth: samples against the exact law, fields against the exact
field.

All models have one law of the data and one process, start from the same noise and are asked at the
same points. The exact field can be one of them, sampled and asked by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.comparison.groups import over_seeds
from scorefield.diagnostics import (
    Profile,
    Protocol,
    asymmetries,
    consistency_error,
    fokker_planck_errors,
    harmonic_part,
    score_error,
    walk,
    winding,
)
from scorefield.diagnostics.states import State
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Level
from scorefield.fields import ScoreField
from scorefield.metrics import RadialLaw, marginal_ks, radial_ks, radial_law, total_variation
from scorefield.progress import Stages
from scorefield.samplers import Sampler
from scorefield.studies.atoms_scenes import noise_levels
from scorefield.targets import PseudoAtoms

EXACT = "exact field"
"""What the exact field is called among the models."""

_SHOWN = 5
_BLOCK = 4096
_WOUND = 64


@dataclass(frozen=True)
class Terms:
    """What is asked.

    Arguments:
        samples: The number of samples of each model.
        levels: The number of noise levels of the diagnostics, from the process's largest to its
            smallest.
        points: The number of noisy points at each level.
        cells: The number of cells along a coordinate, for the total variation.
        seed: The seed of starting noise and points.

    Raises:
        ValueError: If a number is too small.
    """

    samples: int = 10_000
    levels: int = 9
    points: int = 512
    cells: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"samples": 2, "levels": 1, "points": 2, "cells": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UserError(f"{name} is {getattr(self, name)}, it must be at least {bound}")


@dataclass(frozen=True, eq=False)
class Model:
    """One of the models.

    Arguments:
        name: The name of the model, whatever its seed.
        seed: The seed of its training; ``None`` of the exact field.
        field: The field.
        about: What is recorded of it.
    """

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
class Found:
    """What was found of a model.

    Arguments:
        model: The model.
        samples: Its samples, on the CPU.
        states: The points that they passed by at some noise levels, from the largest.
        distances: How far the samples are from the exact law, by the name of the distance.
        levels: The diagnostics of the field.
    """

    model: Model
    samples: Float[Tensor, "n *event"]
    states: tuple[State, ...]
    distances: Mapping[str, Estimate]
    levels: tuple[Level, ...]


@dataclass(frozen=True, eq=False)
class AtomsAnalysis:
    """What was found of all models.

    Arguments:
        law: The exact law, under the process of all models.
        terms: What was asked.
        found: What was found, model by model; seeds of one model stand together.
    """

    law: PseudoAtoms
    terms: Terms
    found: tuple[Found, ...]

    @property
    def names(self) -> list[str]:
        """The models, whatever their seeds."""
        return list(dict.fromkeys(f.model.name for f in self.found))

    @property
    def radial(self) -> RadialLaw | None:
        """The exact law of the distance from the nearest configuration, where it is known."""
        return known_radial_law(self.law)

    def members(self, name: str) -> list[Found]:
        """What was found of all seeds of a model."""
        return [f for f in self.found if f.model.name == name]

    def pooled_levels(self, name: str) -> list[Level]:
        """The diagnostics of a model over its seeds."""
        columns = zip(*(f.levels for f in self.members(name)), strict=True)
        return [
            Level(first.metric, first.sigma, over_seeds([v.estimate for v in (first, *others)]))
            for first, *others in columns
        ]

    def pooled_distances(self, name: str) -> dict[str, Estimate]:
        """How far the samples of a model are from the exact law, over its seeds."""
        members = self.members(name)
        return {
            metric: over_seeds([f.distances[metric] for f in members])
            for metric in members[0].distances
        }


def known_radial_law(law: PseudoAtoms) -> RadialLaw | None:
    """The law of the distance from the nearest configuration; ``None`` where atoms are too wide
    for it to be known.
    """
    try:
        return radial_law(law)
    except ValueError:
        return None


def analyse(
    law: PseudoAtoms,
    models: Sequence[Model],
    sampler: Sampler,
    terms: Terms,
    stages: Stages | None = None,
) -> AtomsAnalysis:
    """Samples all models and asks all diagnostics of them.

    Arguments:
        law: The exact law, under the process of all models.
        models: The models; seeds of one model stand together.
        sampler: The method that makes samples, on a grid of noise levels that all share.
        terms: What is asked.
        stages: Shows how far the work is.

    Raises:
        RunError: If samples diverge, a value is not finite, or the sampler has no common grid;
            names the model.
        ValueError: If there is no model, or two have one name and seed.
    """
    labels = [model.label for model in models]
    if not labels or len(set(labels)) < len(labels):
        raise UserError(f"an analysis takes models of different names or seeds, got {labels}")
    found = []
    for model in models:
        try:
            found.append(_study(law, model, sampler, terms, stages))
        except (ValueError, FloatingPointError) as error:
            raise RunError(f"{model.label}: {error}") from error
    return AtomsAnalysis(law, terms, tuple(found))


def _study(
    law: PseudoAtoms, model: Model, sampler: Sampler, terms: Terms, stages: Stages | None
) -> Found:
    total = _blocks(terms.samples) + len(_QUESTIONS)

    def show(done: int, what: str) -> None:
        if stages is not None:
            stages.show(model.label, done, total, what)

    samples, states = _walk(model.field, sampler, terms, lambda done: show(done, "samples"))
    levels: list[Level] = []
    sde = law.sde
    protocol = Protocol(
        noise_levels(sde.sigma_min, sde.sigma_max, terms.levels), terms.points, terms.seed
    )
    for done, (what, ask) in enumerate(_QUESTIONS.items()):
        show(total - len(_QUESTIONS) + done, what)
        for profile in ask(model.field, law, protocol):
            levels += [Level(profile.name, sigma, estimate) for sigma, estimate in profile]
    show(total, "")
    if stages is not None:
        stages.say(f"{model.label}: {terms.samples} samples, {len(protocol.sigmas)} noise levels")
    return Found(model, samples, states, _distances(samples, law, terms), tuple(levels))


def _walk(
    field: ScoreField, sampler: Sampler, terms: Terms, show: Callable[[int], None]
) -> tuple[Tensor, tuple[State, ...]]:
    """The samples, and the points at some of the noise levels that they passed by."""
    dtype = next((p.dtype for p in field.parameters()), torch.float64)
    samples, passed = [], []
    for done, first in enumerate(range(0, terms.samples, _BLOCK)):
        n = min(_BLOCK, terms.samples - first)
        way = walk(field, sampler, n, terms.seed, first, dtype)
        samples.append(field.domain.wrap(way.samples).cpu())
        chosen = _chosen([state.sigma for state in way.states])
        passed.append([way.states[k] for k in chosen])
        show(done + 1)
    states = []
    for blocks in zip(*passed, strict=True):
        x = field.domain.wrap(torch.cat([block.x for block in blocks])).cpu()
        states.append(State(blocks[0].sigma, blocks[0].t, x))
    return torch.cat(samples), tuple(states)


def _chosen(sigmas: Sequence[float]) -> list[int]:
    """The places of some noise levels, evenly spaced in their logarithm as far as there are any."""
    have = np.log(sigmas)
    wanted = np.linspace(have[0], have[-1], _SHOWN)
    return sorted({int(np.abs(have - level).argmin()) for level in wanted})


def _blocks(samples: int) -> int:
    return -(-samples // _BLOCK)


def _distances(samples: Tensor, law: PseudoAtoms, terms: Terms) -> dict[str, Estimate]:
    found = {"total_variation": total_variation(samples, law, terms.cells)}
    for axis in range(law.domain.shape[1]):
        name = "marginal_ks" if axis == 0 else f"marginal_ks_{axis}"
        found[name] = marginal_ks(samples, law, axis=axis).estimate
    if known_radial_law(law) is not None:
        found["radial_ks"] = radial_ks(samples, law).estimate
    return found


Question = Callable[[ScoreField, PseudoAtoms, Protocol], Iterable[Profile]]


def _winding(field: ScoreField, law: PseudoAtoms, protocol: Protocol) -> Iterable[Profile]:
    # A loop takes up to a thousand evaluations.
    some = replace(protocol, n=min(protocol.n, _WOUND))
    return winding(field, law, some), harmonic_part(field, law, some)


def _consistency(field: ScoreField, law: PseudoAtoms, protocol: Protocol) -> Iterable[Profile]:
    # Below the least level there is none to agree with.
    above = tuple(sigma for sigma in protocol.sigmas if sigma > law.sde.sigma_min)
    return [consistency_error(field, law, replace(protocol, sigmas=above))] if above else []


_QUESTIONS: dict[str, Question] = {
    "score error": lambda field, law, protocol: [score_error(field, law, protocol)],
    "Fokker–Planck": fokker_planck_errors,
    "consistency": _consistency,
    "curl": asymmetries,
    "winding": _winding,
}


def by_metric(levels: Iterable[Level]) -> dict[str, list[Level]]:
    """The levels of each diagnostic, in order."""
    return {metric: list(group) for metric, group in groupby(levels, lambda v: v.metric)}

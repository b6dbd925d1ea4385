"""What a field is like at each noise level: all diagnostics, on the same points for all fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scorefield.data import DataSource
from scorefield.diagnostics import (
    Profile,
    Protocol,
    asymmetries,
    circulation_growth,
    consistency_error,
    cycle_circulation,
    denoising_loss,
    distance_to_ideal,
    fokker_planck_errors,
    harmonic_part,
    hodge_split,
    loop_circulation,
    path_gap,
    potential_gap,
    score_error,
    winding,
)
from scorefield.domain import Torus
from scorefield.evaluation.judge import Terms
from scorefield.evaluation.records import Level
from scorefield.fields import ScoreField
from scorefield.targets import Target

RADII = (0.25, 0.5, 1.0)
"""The radii of the loops, in units of the noise level."""
RADIUS = 0.5
"""The radius that summaries show."""
CYCLE = 3
"""The number of edges of the graph cycles."""

_EXACT = 64
_PROBES, _PRECISION = 8, 0.05
_LOOPS: dict[str, Any] = {"sides": 8, "rule": "gauss-4"}
_CYCLES: dict[str, Any] = {"neighbours": 4, "cloud": 64, "cycles": 32, "rule": "gauss-6"}
_PATHS: dict[str, Any] = {"bend": 0.5, "tolerance": 1e-4}
_HODGE: dict[str, Any] = {"features": 128, "folds": 4}
_TRAJECTORIES: dict[str, Any] = {"span": 2.0, "steps": 8, "trajectories": 8}
_TURNS: dict[str, Any] = {"tolerance": 1e-4, "nodes": 512}
_FEW = 8
_COORDINATES = 2048
_MOST_LOOPS, _MOST_PAIRS, _MOST_SPLIT, _MOST_TURNS, _MOST_STARTS = 128, 128, 256, 128, 256
_CLOUDED = 512


def estimators() -> dict[str, Any]:
    """How the diagnostics estimate, as plain values, to be stored with the results."""
    return {
        "most_coordinates": _COORDINATES,
        "jacobians": {"exact_up_to": _EXACT, "probes": _PROBES, "precision": _PRECISION},
        "loops": {"radii": list(RADII), "points": _MOST_LOOPS, **_LOOPS},
        "cycles": {"length": CYCLE, "points": _CLOUDED, **_CYCLES},
        "hodge": {"points": _MOST_SPLIT, **_HODGE},
        "paths": {"pairs": _MOST_PAIRS, **_PATHS},
        "fokker_planck": {"exact_up_to": _EXACT, "probes": _PROBES, "columns": 0.5},
        "turns": {"loops": _MOST_TURNS, **_TURNS},
        "consistency": {"points": _MOST_STARTS, **_TRAJECTORIES},
    }


def diagnose(field: ScoreField, source: DataSource, terms: Terms) -> tuple[Level, ...]:
    """The diagnostics by noise level, all on the same noisy points.

    Jacobians are exact up to 64 dimensions and above probed to a relative error of 5 %; so are the
    residuals of the Fokker–Planck equation, above with a fixed number of probes. They, the loops,
    the trajectories, the Hodge split and the pairs of paths take the first of the points only, as
    the terms' ``columns`` and :func:`estimators` say; the clouds of graph cycles take up to 512
    points. There are no cycles where the terms have fewer samples than two clouds, and no Hodge
    split where they have fewer points than two a fold; above 8 dimensions it is made at every
    second level.

    Not every diagnostic is there at every level of every field: the score error needs a known law,
    the distance to the ideal score a finite training set, the potential gap a potential, the
    consistency a lower level of the process, and the growth of the circulation with the radius a
    circulation. It is measured where at each radius the 95 % interval of the circulation, the
    numerical error included, lies above zero. On a torus there is the winding besides, and no Hodge
    split, whose rays are those of flat space.

    Raises:
        ValueError: If the data has too few points, or a value is not finite.
    """
    protocol = Protocol(terms.sigmas, terms.points, terms.seed, precision=_PRECISION)
    return tuple(_all(field, source, terms, protocol))


def _all(
    field: ScoreField, source: DataSource, terms: Terms, protocol: Protocol
) -> Iterator[Level]:
    dim, truth = field.domain.dim, source.truth
    data = truth if truth is not None else source.reference(terms.points, terms.seed, "test")
    yield from _levels(denoising_loss(field, data, protocol))
    if truth is not None:
        yield from _levels(score_error(field, truth, protocol))
    if source.size is not None:
        train = source.reference(source.size, terms.seed, "train")
        yield from _levels(distance_to_ideal(field, train, protocol))
    probes = None if dim <= _EXACT else _PROBES
    # Three passes back for each column of a Jacobian, where the Jacobian takes one.
    few = _first(protocol, terms.columns // (2 * dim))
    for profile in fokker_planck_errors(field, data, few, probes):
        yield from _levels(profile)
    yield from _consistency(field, data, _first(protocol, min(_MOST_STARTS, terms.columns // dim)))
    torus = isinstance(field.domain, Torus)
    if torus:
        turns = _first(protocol, _MOST_TURNS // dim)
        yield from _levels(winding(field, data, turns, **_TURNS))
        yield from _levels(harmonic_part(field, data, turns, **_TURNS))
    if dim == 1:
        return
    for profile in asymmetries(field, data, _first(protocol, terms.columns // dim), probes):
        yield from _levels(profile)
    yield from _circulation(field, data, _first(protocol, min(_MOST_LOOPS, _COORDINATES // dim)))
    yield from _cycles(field, source, terms, protocol)
    split = _first(protocol, min(_MOST_SPLIT, terms.columns // dim))
    if split.n >= 2 * _HODGE["folds"] and not torus:
        some = replace(split, sigmas=split.sigmas[:: 1 if dim <= _FEW else 2])
        yield from _levels(hodge_split(field, data, some, **_HODGE).rest)
    pairs = _first(protocol, min(_MOST_PAIRS, _COORDINATES // dim))
    yield from _levels(path_gap(field, data, pairs, **_PATHS))
    if field.has_potential:
        yield from _levels(potential_gap(field, data, pairs, **_PATHS))


def _consistency(field: ScoreField, data: Target | Tensor, protocol: Protocol) -> Iterator[Level]:
    """At all levels but the least of the process, below which there is none to agree with."""
    # Not sigma_min, which of VE is the level at time 0, whatever its first time.
    least = float(field.sde.noise_level(torch.tensor(field.sde.t_min, dtype=torch.float64)))
    levels = tuple(s for s in protocol.sigmas if s > (1 + 1e-6) * least)
    if levels:
        some = replace(protocol, sigmas=levels)
        yield from _levels(consistency_error(field, data, some, **_TRAJECTORIES))


def _circulation(field: ScoreField, data: Target | Tensor, protocol: Protocol) -> Iterator[Level]:
    """Loops of all radii, and the growth with the radius where they see a curl."""
    seen = set(protocol.sigmas)
    for radius in RADII:
        profile = loop_circulation(field, data, protocol, radius, **_LOOPS)
        seen &= {sigma for sigma, e in profile if e.interval()[0] > 0}
        yield from _levels(profile, scale_delta=radius)
    levels = [sigma for sigma in protocol.sigmas if sigma in seen]
    if levels:
        growing = replace(protocol, sigmas=tuple(levels))
        yield from _levels(circulation_growth(field, data, growing, RADII, **_LOOPS))


def _cycles(
    field: ScoreField, source: DataSource, terms: Terms, protocol: Protocol
) -> Iterator[Level]:
    n = min(terms.samples, _CLOUDED)
    if n < 2 * _CYCLES["cloud"]:
        return
    data = source.truth
    points = data if data is not None else source.reference(n, terms.seed, "test")
    clouds = replace(protocol, n=n)
    profile = cycle_circulation(field, points, clouds, (CYCLE,), **_CYCLES)
    yield from _levels(profile, cycle_len=CYCLE)


def _first(protocol: Protocol, n: int) -> Protocol:
    """The protocol on its first points only; two at least, for an error bar."""
    return replace(protocol, n=max(2, min(protocol.n, n)))


def _levels(
    profile: Profile, scale_delta: float | None = None, cycle_len: int | None = None
) -> list[Level]:
    return [
        Level(
            profile.name,
            sigma,
            replace(e, unit=profile.unit, settings={**profile.settings, **e.settings}),
            scale_delta,
            cycle_len,
        )
        for sigma, e in profile
    ]

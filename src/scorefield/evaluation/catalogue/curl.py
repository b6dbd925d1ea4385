"""Metrics by noise level of what a gradient does not have: curl, circulation, winding.

Jacobians are exact up to 64 dimensions and above probed to a relative error of 5 %. All take the
first of the points only, as the protocol's ``columns`` and the settings here bound them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from scorefield.diagnostics.circulation import (
    circulation_growth,
    cycle_circulation,
    loop_circulation,
)
from scorefield.diagnostics.exterior import asymmetries
from scorefield.diagnostics.hodge import hodge_split
from scorefield.diagnostics.line_integrals import harmonic_part, path_gap, potential_gap, winding
from scorefield.diagnostics.protocol import Profile
from scorefield.domain import Torus
from scorefield.evaluation.catalogue.metric import (
    PROBED_ABOVE,
    PROBES,
    Condition,
    Estimator,
    Finding,
    OfLevel,
)
from scorefield.evaluation.protocol import PRECISION, Benchmark
from scorefield.fields.base import ScoreField

RADII = (0.25, 0.5, 1.0)
"""The radii of the loops, in units of the noise level."""
COORDINATES = 2048
"""The most coordinates of points that loops and paths start from, and the cycles of a cloud."""

_LOOPS: dict[str, Any] = {"sides": 8, "rule": "gauss-4"}
_CYCLES: dict[str, Any] = {"neighbours": 4, "cloud": 64, "cycles": 32, "rule": "gauss-6"}
_PATHS: dict[str, Any] = {"bend": 0.5, "tolerance": 1e-4}
_HODGE: dict[str, Any] = {"features": 128, "folds": 4}
_TURNS: dict[str, Any] = {"tolerance": 1e-4, "nodes": 512}
_MOST_LOOPS, _MOST_PAIRS, _MOST_SPLIT, _MOST_TURNS, _CLOUDED = 128, 128, 256, 128, 512
_FEW, _FEWEST = 8, 4


def _dim(field: ScoreField) -> int:
    return field.domain.dim


def _split_points(field: ScoreField, b: Benchmark) -> int:
    return b.points(min(_MOST_SPLIT, b.protocol.columns // _dim(field))).n


_PLANE = Condition("fields in two or more dimensions", lambda f, b: _dim(f) > 1)


def _asymmetries(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    probes = None if _dim(field) <= PROBED_ABOVE else PROBES
    points = b.points(b.protocol.columns // _dim(field))
    yield from asymmetries(field, b.data(), points, probes)


_JACOBIANS = Estimator(
    measure=_asymmetries,
    applies=_PLANE,
    key="jacobians",
    settings={"exact_up_to": PROBED_ABOVE, "probes": PROBES, "precision": PRECISION},
    method="Jacobians of the first points, exact up to {exact_up_to} dimensions, estimated by "
    "probes in more",
)


def _loops(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    """Loops of all radii, and the growth with the radius where they see a curl."""
    points = b.points(min(_MOST_LOOPS, COORDINATES // _dim(field)))
    seen = set(points.sigmas)
    for radius in RADII:
        profile = loop_circulation(field, b.data(), points, radius, **_LOOPS)
        seen &= {sigma for sigma, e in profile if e.interval()[0] > 0}
        yield profile
    levels = tuple(sigma for sigma in points.sigmas if sigma in seen)
    if levels:
        growing = replace(points, sigmas=levels)
        yield circulation_growth(field, b.data(), growing, RADII, **_LOOPS)


_AROUND_LOOPS = Estimator(
    measure=_loops,
    applies=_PLANE,
    key="loops",
    settings={"radii": list(RADII), "points": _MOST_LOOPS, **_LOOPS},
    method="polygons of {sides} sides and radii {radii} σ, by the rule {rule}",
)


def _cycles(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    n = min(b.protocol.samples, _CLOUDED)
    clouds = replace(b.points(), n=n)
    cycles = max(_FEWEST, min(_CYCLES["cycles"], COORDINATES // _dim(field)))
    yield cycle_circulation(field, b.data(n), clouds, (3,), **_CYCLES | {"cycles": cycles})


def _hodge(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    sigmas = b.protocol.sigmas[:: 1 if _dim(field) <= _FEW else 2]
    some = replace(b.points(_split_points(field, b)), sigmas=sigmas)
    yield hodge_split(field, b.data(), some, **_HODGE).rest


def _paths(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    pairs = b.points(min(_MOST_PAIRS, COORDINATES // _dim(field)))
    yield path_gap(field, b.data(), pairs, **_PATHS)
    if field.has_potential:
        yield potential_gap(field, b.data(), pairs, **_PATHS)


_ALONG_PATHS = Estimator(
    measure=_paths,
    applies=_PLANE,
    key="paths",
    settings={"pairs": _MOST_PAIRS, **_PATHS},
    method="pairs of paths bent by {bend} of their chord, to {tolerance} nats",
)


def _turns(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    turns = b.points(_MOST_TURNS // _dim(field))
    yield winding(field, b.data(), turns, **_TURNS)
    yield harmonic_part(field, b.data(), turns, **_TURNS)


_AROUND_TORUS = Estimator(
    measure=_turns,
    applies=Condition("fields on a torus", lambda f, b: isinstance(f.domain, Torus)),
    key="turns",
    settings={"loops": _MOST_TURNS, **_TURNS},
    method="straight loops in every direction, refined to {tolerance} nats or {nodes} nodes",
)
RELATIVE_ASYMMETRY = OfLevel(
    name="relative_asymmetry",
    title="Relative asymmetry",
    caption="‖J − Jᵀ‖ / 2‖J‖ of the score's Jacobian J: 0 for a gradient, 1 for a rotation; "
    "root mean square.",
    shown=("curve", "table", "differences"),
    finding=Finding(
        "Gradient or not",
        "The relative asymmetry of the Jacobian (0 for a gradient, 1 for a rotation; root "
        "mean square over noise levels)",
    ),
    estimator=_JACOBIANS,
    zero="a gradient",
)
WINDING = OfLevel(
    name="winding",
    title="Winding around the torus",
    label="winding",
    caption="The circulation of the score around straight loops that cannot be contracted: the "
    "gain of the log-density in one turn, root mean square over points and directions, in "
    "nats. Where the score of the exact field changes faster than the nodes of a loop "
    "resolve, its bars include the possible error of the quadrature.",
    unit="nats",
    shown=("curve", "differences"),
    finding=Finding(
        "Around the torus",
        "The gain of the log-density around straight loops that cannot be contracted (root "
        "mean square over points, directions and noise levels)",
    ),
    estimator=_AROUND_TORUS,
)

OF_CURL: tuple[OfLevel, ...] = (
    RELATIVE_ASYMMETRY,
    OfLevel(
        name="exterior_derivative",
        title="Curl of the denoiser",
        label="curl",
        caption="‖J − Jᵀ‖ of the denoiser's Jacobian J, root mean square.",
        estimator=_JACOBIANS,
    ),
    OfLevel(
        name="loop_circulation",
        title="Circulation around loops",
        label="circulation",
        caption="The curl of the denoiser, estimated from its circulation around regular octagons "
        "of radius σ/2; root mean square. The value of the exact field is the error of the "
        "quadrature.",
        shown=("curve", "table", "differences"),
        estimator=_AROUND_LOOPS,
        radius=0.5,
    ),
    OfLevel(
        name="circulation_growth",
        title="Growth of the circulation",
        caption="The slope of the logarithm of the curl estimated from loops against the logarithm "
        "of their radius, at noise levels where the curl exceeds its error at every radius.",
        better="neither",
        estimator=_AROUND_LOOPS,
    ),
    OfLevel(
        name="cycle_circulation",
        title="Circulation around graph cycles",
        label="cycles",
        caption="The curl of the denoiser, estimated from its circulation around triangles of "
        "neighbouring noisy points. At low noise their sides are much longer than σ, and the bars "
        "include the possible error of the quadrature.",
        shown=("curve", "differences"),
        estimator=Estimator(
            measure=_cycles,
            applies=Condition(
                "fields in two or more dimensions, two clouds of samples",
                lambda f, b: (
                    _dim(f) > 1 and min(b.protocol.samples, _CLOUDED) >= 2 * _CYCLES["cloud"]
                ),
            ),
            key="cycles",
            settings={"length": 3, "points": _CLOUDED, **_CYCLES},
            method="at most {cycles} cycles of {length} edges between {neighbours} nearest "
            "neighbours in each cloud of {cloud} noisy points, by the rule {rule}",
        ),
    ),
    OfLevel(
        name="path_gap",
        title="Gap between two paths",
        label="path gap",
        caption="The difference between the integrals of the score along two paths from one "
        "noising of a point to another: root mean square, in nats.",
        unit="nats",
        shown=("curve", "differences"),
        estimator=_ALONG_PATHS,
    ),
    OfLevel(
        name="potential_gap",
        title="Gap between a path and the potential",
        label="potential gap",
        caption="The difference between a path integral of the score and the difference of the "
        "field's own potential, root mean square, in nats; for fields with a potential.",
        unit="nats",
        estimator=_ALONG_PATHS,
    ),
    WINDING,
    OfLevel(
        name="harmonic_part",
        title="Harmonic part",
        caption="The mean of the score over the torus times the period: the part of the winding "
        "that no curl explains, root mean square over directions, in nats per turn.",
        unit="nats",
        shown=("curve",),
        finding=Finding("Around the torus", "The harmonic part of it, which no curl explains,"),
        estimator=_AROUND_TORUS,
    ),
    OfLevel(
        name="hodge_rest",
        title="Non-gradient energy",
        caption="The share of the energy of the predicted noise that is not the gradient of a "
        "potential; above 8 dimensions at every second level.",
        shown=("differences",),
        estimator=Estimator(
            measure=_hodge,
            applies=Condition(
                "fields in flat space of two or more dimensions, two points per fold",
                lambda f, b: (
                    _dim(f) > 1
                    and not isinstance(f.domain, Torus)
                    and _split_points(f, b) >= 2 * _HODGE["folds"]
                ),
            ),
            key="hodge",
            settings={"points": _MOST_SPLIT, **_HODGE},
            method="potentials of {features} random waves, fitted in {folds} folds",
        ),
    ),
)
"""The entries of this file, in the order in which they are shown."""

"""Metrics by noise level of the score itself: its error, and how its noise levels fit together.

Residuals of the Fokker–Planck equation are exact up to 64 dimensions and by random signs above.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from scorefield.diagnostics.consistency import consistency_error
from scorefield.diagnostics.dimension import UNIT, intrinsic_dimension
from scorefield.diagnostics.fokker_planck import fokker_planck_errors
from scorefield.diagnostics.observable import least_points, observable_error
from scorefield.diagnostics.periodic import waves_of
from scorefield.diagnostics.protocol import Profile
from scorefield.diagnostics.score_error import denoising_loss, distance_to_ideal, score_error
from scorefield.domain import Torus
from scorefield.evaluation.catalogue.metric import (
    PROBED_ABOVE,
    PROBES,
    Condition,
    Estimator,
    Finding,
    OfLevel,
)
from scorefield.evaluation.protocol import Benchmark
from scorefield.fields.base import ScoreField

_WAVES = 128
_MOST_ON_TORUS = 4
"""The most coordinates of a torus whose waves resolve smooth errors."""
_TRAJECTORIES: dict[str, Any] = {"span": 2.0, "steps": 8, "trajectories": 8}
_STARTS = 256


def _ideal(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    train, classes = b.train
    yield distance_to_ideal(field, train, b.points(), classes)


def _true_score(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    assert b.truth is not None
    yield score_error(field, b.truth, b.points())


def _observable(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    assert b.truth is not None
    yield observable_error(field, b.truth, b.points(), learner=waves_of(field.domain, _WAVES))


def _dimension(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    dim = field.domain.dim
    probes = None if dim <= PROBED_ABOVE else PROBES
    points = b.points(b.protocol.columns // (probes or dim))
    yield intrinsic_dimension(field, b.data(), points, probes)


def _fokker_planck(field: ScoreField, b: Benchmark) -> tuple[Profile, ...]:
    dim = field.domain.dim
    # Three passes back for each column of a Jacobian, where the Jacobian takes one.
    points = b.points(b.protocol.columns // (2 * dim))
    probes = None if dim <= PROBED_ABOVE else PROBES
    return tuple(fokker_planck_errors(field, b.data(), points, probes))


_BETWEEN = "Across noise levels"
_EQUATION = Estimator(
    measure=_fokker_planck,
    key="fokker_planck",
    settings={"exact_up_to": PROBED_ABOVE, "probes": PROBES, "columns": 0.5},
    method="the terms of the Fokker–Planck equation, exact up to {exact_up_to} dimensions, "
    "estimated by {probes} random signs in more",
)


def levels_above_the_last(field: ScoreField, b: Benchmark) -> tuple[float, ...]:
    """The noise levels above that of the first time, below which there is none to agree with."""
    least, _ = field.sde.level_range
    return tuple(s for s in b.protocol.sigmas if s > (1 + 1e-6) * least)


def _consistency(field: ScoreField, b: Benchmark) -> Iterator[Profile]:
    points = b.points(min(_STARTS, b.protocol.columns // field.domain.dim))
    some = replace(points, sigmas=levels_above_the_last(field, b))
    yield consistency_error(field, b.data(), some, **_TRAJECTORIES)


SCORE_ERROR = OfLevel(
    name="score_error",
    title="Error of the score",
    label="score error",
    caption="Root mean square error of the predicted noise against the exact field's.",
    shown=("curve", "table", "differences"),
    finding=Finding(
        "Distance from the true score",
        "The error of the score in units of the noise (root mean square over points and noise "
        "levels)",
    ),
    estimator=Estimator(
        measure=_true_score,
        applies=Condition("data of known distribution", lambda f, b: b.truth is not None),
    ),
    rounding=None,
)

OBSERVABLE_ERROR = OfLevel(
    name="observable_error",
    title="Observable error of the score",
    label="observable error",
    caption="The part of the mean square error of the predicted noise that moves mass: that of its "
    "projection onto gradients, in squared units of the noise. It may be negative where it is "
    "small, and is at most the square of the error of the score, up to the errors.",
    shown=("curve", "differences"),
    estimator=Estimator(
        measure=_observable,
        applies=Condition(
            f"data of known distribution, on a torus of at most {_MOST_ON_TORUS} coordinates; at "
            "least 24 points, on a torus 64",
            lambda f, b: (
                b.truth is not None
                and not (isinstance(f.domain, Torus) and f.domain.dim > _MOST_ON_TORUS)
                and b.points().n >= least_points(f.domain)
            ),
        ),
        key="observable",
        settings={"waves": _WAVES},
        method="potentials of at most {waves} random waves, one for sixteen numbers (on a torus "
        "four), fitted to two thirds of the points in turn",
    ),
    over_levels="mean",
    rounding=None,
)

OF_SCORE: tuple[OfLevel, ...] = (
    OfLevel(
        name="denoising_loss",
        title="Denoising loss",
        caption="Mean square error of the predicted noise on held-out data. The exact field has "
        "the smallest, up to the errors.",
        shown=("curve",),
        estimator=Estimator(measure=lambda f, b: [denoising_loss(f, b.data(), b.points())]),
        rounding=None,
    ),
    SCORE_ERROR,
    OBSERVABLE_ERROR,
    OfLevel(
        name="distance_to_ideal",
        title="Distance to the ideal score",
        caption="Root mean square distance of the predicted noise from that of the score of the "
        "training set; 0 for a field that has memorised the training set.",
        better="neither",
        shown=("differences",),
        estimator=Estimator(
            measure=_ideal,
            applies=Condition("finite training sets", lambda f, b: b.source.size is not None),
        ),
    ),
    OfLevel(
        name="intrinsic_dimension",
        title="Intrinsic dimension",
        caption="The trace of the Jacobian of the denoiser, mean over noisy points: the number of "
        "directions in which the data spread wider than the noise. A plateau over noise levels is "
        "the dimension of the data.",
        unit=UNIT,
        better="neither",
        shown=("curve",),
        estimator=Estimator(
            measure=_dimension,
            key="dimension",
            settings={"exact_up_to": PROBED_ABOVE, "probes": PROBES},
            method="the trace at the first points, exact up to {exact_up_to} dimensions, estimated "
            "by {probes} random signs in more",
        ),
        over_levels="mean",
        rounding=None,
    ),
)
FOKKER_PLANCK = OfLevel(
    name="fokker_planck",
    title="Residual of the Fokker–Planck equation",
    label="Fokker–Planck residual",
    caption="The derivative of the score in the noise level minus the one that the "
    "Fokker–Planck equation prescribes: root mean square, in units of the noise per unit "
    "of ln σ.",
    shown=("curve", "table", "differences"),
    finding=Finding(
        _BETWEEN,
        "The residual of the Fokker–Planck equation, in units of the noise per unit of "
        "ln σ (root mean square over noise levels)",
    ),
    estimator=_EQUATION,
)
CONSISTENCY = OfLevel(
    name="consistency",
    title="Consistency error",
    caption="The mean square distance of the field at one noise level from the mean of its "
    "values at the end of its own trajectories, at half the level; in squared units of the "
    "noise. It is unbiased, and may be negative.",
    shown=("curve", "table", "differences"),
    finding=Finding(
        _BETWEEN,
        "The mean square distance of the field from the mean of its values at the end of its "
        "own trajectories, in squared units of the noise (mean over noise levels)",
    ),
    estimator=Estimator(
        measure=_consistency,
        applies=Condition(
            "noise levels above that of the first time",
            lambda f, b: bool(levels_above_the_last(f, b)),
        ),
        key="consistency",
        settings={"points": _STARTS, **_TRAJECTORIES},
        method="{trajectories} trajectories per point, of {steps} steps to the level divided "
        "by {span}, extrapolated to steps of length zero",
    ),
    over_levels="mean",
)

BETWEEN_LEVELS: tuple[OfLevel, ...] = (
    FOKKER_PLANCK,
    OfLevel(
        name="fokker_planck_component",
        title="Residual of the Fokker–Planck equation, by components",
        label="Fokker–Planck residual by components",
        caption="The same for the form of the equation that holds for each component of a "
        "gradient, root mean square, in the same unit.",
        estimator=_EQUATION,
    ),
    OfLevel(
        name="fokker_planck_gap",
        title="Curl in the Fokker–Planck equation",
        label="gap of the two forms",
        caption="The difference between the equation's form for gradients and its form for each "
        "component, which is due to curl alone; root mean square, in the same unit.",
        shown=("curve",),
        estimator=_EQUATION,
    ),
    CONSISTENCY,
)

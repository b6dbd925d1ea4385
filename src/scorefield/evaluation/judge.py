r"""What a field is worth: the quality of its samples, and its loss on held-out data.

All fields on one data set are judged on the same :class:`Terms`: the same real samples, the same
starting noise, the same noisy points, the same estimators, whatever each was trained with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.config.config import Config
from scorefield.config.sampler import build_sampler
from scorefield.data import DataSource
from scorefield.diagnostics import validation_loss
from scorefield.domain import Torus
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Distance, Floor
from scorefield.evaluation.trajectory import Trajectory
from scorefield.fields import ScoreField
from scorefield.metrics import (
    frechet_distance,
    kernel_bandwidths,
    marginal_ks,
    mmd,
    mode_coverage,
    mode_weight_tv,
    noise_floor,
    sliced_wasserstein,
    total_variation,
)
from scorefield.networks import COORDINATES, PIXELS, Features
from scorefield.noise import Noise
from scorefield.objectives import DenoisingScoreMatching, LogNormal, LogUniform
from scorefield.samplers import Heun
from scorefield.targets import GaussianMixture, PseudoAtoms

Floors = Mapping[tuple[str, str], Floor]
"""The noise floor of each distance that has one, by its name and that of its features."""
Say = Callable[[str], object]
"""What is told of the progress: a few words a stage."""
Compare = Callable[[Tensor, Tensor], Estimate]
"""A distance between two sets of samples."""

CIRCLES = "circles"
"""The name of coordinates on a torus as features: each is a point of a circle in the plane."""
PLAIN = (COORDINATES.name, PIXELS.name, CIRCLES)
"""The names of features for which nothing is learned."""
VALIDATION = "validation_loss"
"""The name under which the validation loss stands among the distances of a checkpoint."""


class Metric(NamedTuple):
    """A distance between two sets of samples, with its name and that of its features."""

    name: str
    features: str
    function: Compare


@dataclass(frozen=True)
class Terms:
    r"""The terms on which the fields on a data set are judged.

    Arguments:
        nfes: The budgets of network calls.
        along: The budget at which the checkpoints along the training are measured; they are left
            out where it is ``None``.
        samples: The number of samples, generated and real.
        pairs: The number of pairs of real sets behind each noise floor.
        sigmas: The noise levels of the diagnostics, in units of the data.
        points: The number of noisy points at each level.
        columns: A bound on what derivatives cost: in :math:`D` dimensions the first
            ``columns / D`` points have their Jacobian computed.
        draws: The number of noise draws for each held-out item in the validation loss.
        seed: The seed of points, probes, real samples and starting noise.
    """

    nfes: tuple[int, ...] = (8, 18, 32, 64)
    along: int | None = None
    samples: int = 2048
    pairs: int = 8
    sigmas: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    points: int = 256
    columns: int = 1024
    draws: int = 16
    seed: int = 0

    def record(self) -> dict[str, Any]:
        """The terms as plain values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Terms:
        """The terms that a record holds, whatever else it holds."""
        known: dict[str, Any] = {f.name: record[f.name] for f in fields(cls)}
        for name in ("nfes", "sigmas"):
            known[name] = tuple(known[name])
        return cls(**known)


def terms_of(config: Config) -> Terms:
    """The terms that the section ``eval`` of a configuration asks for.

    Checkpoints along the training are measured at the number of network calls that the
    configuration's sampler takes.
    """
    section = config.eval
    return Terms(
        nfes=tuple(section.nfes),
        along=build_sampler(config.sampler).nfe if section.along else None,
        samples=section.samples,
        pairs=section.pairs,
        sigmas=tuple(section.sigmas),
        points=section.points,
        seed=section.seed,
    )


def plain_features(source: DataSource) -> Features:
    """What samples of the data are compared on before anything is learned: an image's values, a
    vector's coordinates, and on a torus the points of circles that coordinates stand for.
    """
    truth = source.truth
    if truth is not None and isinstance(truth.domain, Torus):
        return Features(CIRCLES, truth.domain.embed)
    return PIXELS if len(source.shape) == 3 else COORDINATES


def metrics_of(source: DataSource, terms: Terms, features: Sequence[Features]) -> list[Metric]:
    """The distances between samples and real samples that make sense for the data.

    The bandwidths of the kernel are set by the held-out samples, so that they are the same for
    all models and for the floor. There is a Fréchet distance on each of the features. Samples of a
    law whose cells are known are held against the law itself.
    """
    plain = plain_features(source)
    bandwidths = kernel_bandwidths(plain(real_samples(source, terms)))
    metrics = [
        Metric("sliced_wasserstein", plain.name, _on(plain, sliced_wasserstein)),
        Metric("mmd", plain.name, _on(plain, partial(mmd, bandwidths=bandwidths))),
        *(
            Metric("frechet_distance", f.name, partial(frechet_distance, features=f))
            for f in features
        ),
    ]
    truth = source.truth
    if isinstance(truth, GaussianMixture):
        metrics += [
            Metric("mode_weight_tv", plain.name, lambda x, _: mode_weight_tv(x, truth)),
            Metric("mode_coverage", plain.name, lambda x, _: mode_coverage(x, truth)),
        ]
    if isinstance(truth, PseudoAtoms):
        metrics += [
            Metric("total_variation", "cells", lambda x, _: total_variation(x, truth)),
            Metric("ks", "first coordinate", lambda x, _: marginal_ks(x, truth).estimate),
        ]
    return metrics


def _on(features: Features, distance: Compare) -> Compare:
    return lambda x, y: distance(features(x), features(y))


def real_samples(source: DataSource, terms: Terms) -> Tensor:
    """The held-out samples that generated ones are compared with."""
    return source.reference(terms.samples, terms.seed, "test")


def measure_floors(
    source: DataSource, terms: Terms, features: Sequence[Features]
) -> dict[tuple[str, str], Floor]:
    """The distance between two real sets of the size at which a model is measured.

    A count of modes has no floor. For a law the sets are independent draws. For a finite data set
    they are disjoint random subsets of its training items and the held-out samples together.

    Raises:
        ValueError: If a finite data set has too few items for two such sets.
    """
    real = source.truth if source.truth is not None else _Pool(source, terms)
    floors = {}
    for metric in metrics_of(source, terms, features):
        if metric.name == "mode_coverage":
            continue
        # Not the seed of the real samples, which would make them one of the pairs.
        law = noise_floor(metric.function, real, terms.samples, terms.pairs, seed=-1 - terms.seed)
        floor = Floor(law.mean.value, law.mean.standard_error, law.sd, law.pairs)
        floors[metric.name, metric.features] = floor
    return floors


class _Pool:
    """The training items and the held-out samples of a finite data set, together."""

    def __init__(self, source: DataSource, terms: Terms) -> None:
        assert source.size is not None
        train = source.reference(source.size, terms.seed, "train")
        self._items = torch.cat((train, real_samples(source, terms)))
        self._name = source.name

    @property
    def size(self) -> int:
        return len(self._items)

    def reference(self, n: int, seed: int) -> Tensor:
        if n > len(self._items):
            raise UserError(
                f"{self._name} has {len(self._items)} items in all, the noise floor of "
                f"{n // 2} samples needs {n}"
            )
        return self._items[Noise(seed).permutation("noise floor", len(self._items))[:n]]


def quality(
    field: ScoreField,
    source: DataSource,
    terms: Terms,
    floors: Floors,
    features: Sequence[Features],
    say: Say | None = None,
) -> tuple[Distance, ...]:
    """The distances of generated from real samples at each budget of network calls, and how long
    and how bent the sampler's trajectories are.

    Raises:
        ValueError: If the data has too few held-out samples.
        FloatingPointError: If samples diverge.
    """
    real, metrics = real_samples(source, terms), metrics_of(source, terms, features)
    found: list[Distance] = []
    for budget in terms.nfes:
        if say is not None:
            say(f"samples at {budget} network calls")
        sampler = Heun.for_nfe(budget)
        drawn = Trajectory(field, sampler, terms.samples, terms.seed)
        measured = [
            (m.name, m.features, m.function(drawn.samples, real), floors.get((m.name, m.features)))
            for m in metrics
        ]
        measured.append(("trajectory_length", "", drawn.length, None))
        if drawn.curvature is not None:
            measured.append(("curvature", "", drawn.curvature, None))
        found += [
            Distance("heun", budget, sampler.nfe, name, on, estimate, floor, drawn.latency)
            for name, on, estimate, floor in measured
        ]
    return tuple(found)


def checkpoint_quality(
    field: ScoreField,
    source: DataSource,
    terms: Terms,
    floors: Floors,
    features: Sequence[Features],
) -> tuple[Distance, ...]:
    """What is measured of a checkpoint along the training: the distances at the one budget that
    the terms name for it, and the validation loss.

    Raises:
        ValueError: If the terms name no budget, or the data has too few held-out samples.
        FloatingPointError: If samples diverge.
    """
    if terms.along is None:
        raise UserError("these terms leave the checkpoints along the training out")
    distances = quality(field, source, replace(terms, nfes=(terms.along,)), floors, features)
    loss = validate(field, source, terms)
    return (*distances, Distance("", 0, 0, VALIDATION, "", loss))


def validate(field: ScoreField, source: DataSource, terms: Terms) -> Estimate:
    r"""The denoising loss on held-out items over all noise levels, in evaluation mode.

    In flat space the weight and the law of the noise levels are those of EDM in units of the data,
    :math:`\ln\frac{\lambda}{2\sigma_d} + 1.2 \sim N(0, 1.2^2)` with :math:`\sigma_d` the data's
    standard deviation. On a torus that has no meaning: all levels count as much, uniform in their
    logarithm, with the error of the noise. It is the same whatever the field was trained with.
    The loss of an item is a mean over draws; the standard error is that over items.

    Raises:
        ValueError: If the data has too few held-out items, or a value is not finite.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        table 1.
    """
    if isinstance(field.domain, Torus):
        loss = DenoisingScoreMatching("score", LogUniform())
    else:
        law = LogNormal(mean=math.log(source.std / 0.5) - 1.2, std=1.2)
        loss = DenoisingScoreMatching("edm", law, source.std)
    return validation_loss(field, real_samples(source, terms), loss, terms.draws, terms.seed)

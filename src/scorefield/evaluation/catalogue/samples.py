"""Metrics of samples, of the sampler's paths, and of the field as a whole.

Samples of a finite data set are compared with held-out ones on features; pseudo-atoms and mixtures
with their exact distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from scorefield.diagnostics.score_error import validation_loss
from scorefield.domain import Torus
from scorefield.estimate import Estimate
from scorefield.evaluation.catalogue.metric import (
    Compare,
    Finding,
    OfField,
    OfPaths,
    OfSamples,
)
from scorefield.evaluation.protocol import Benchmark
from scorefield.fields.base import ScoreField
from scorefield.metrics.exact_law import marginal_ks, total_variation
from scorefield.metrics.frechet import frechet_distance
from scorefield.metrics.kernel import kernel_bandwidths, mmd
from scorefield.metrics.modes import mode_coverage, mode_weight_tv
from scorefield.metrics.sliced import sliced_wasserstein
from scorefield.objectives.denoising import DenoisingScoreMatching, LogNormal, LogUniform
from scorefield.targets.atoms import PseudoAtoms
from scorefield.targets.base import Target
from scorefield.targets.mixture import GaussianMixture

Distances = Sequence[tuple[str, Compare]]

_VALIDATED = 2**21
"""The most coordinates of noisy points in the validation loss, but for one draw of each item."""


def _plain(b: Benchmark, distance: Compare) -> Distances:
    """A distance on the plain features."""
    return [(b.plain.name, lambda x, y: distance(b.plain(x), b.plain(y)))]


def _of_law(
    law: type[Target], distance: Callable[..., Estimate], features: str, b: Benchmark
) -> Distances:
    """A distance from the exact distribution, of data with a distribution of one kind."""
    truth = b.truth
    known = isinstance(truth, law)
    return [(features or b.plain.name, lambda x, _: distance(x, truth))] if known else []


def _mmd(b: Benchmark) -> Distances:
    """With bandwidths of the held-out samples: the same for all models and the floor."""
    return _plain(b, partial(mmd, bandwidths=kernel_bandwidths(b.plain(b.real))))


SLICED_WASSERSTEIN = OfSamples(
    name="sliced_wasserstein",
    title="Sliced Wasserstein distance to real samples",
    label="sliced Wasserstein",
    caption="Wasserstein distance of order 2 between projections of generated and real samples "
    "onto lines, root mean square over directions.",
    unit="units of the data",
    shown=("curve", "table", "differences", "training"),
    finding=Finding("Samples", "the sliced Wasserstein distance of generated from real samples"),
    compare=lambda b: _plain(b, sliced_wasserstein),
    every_budget=True,
)


def _validate(field: ScoreField, b: Benchmark) -> Estimate:
    r"""The denoising loss on held-out items over all noise levels, in evaluation mode.

    In flat space weight and distribution of the noise levels are those of EDM,
    :math:`\ln\frac{\lambda}{2\sigma_d} + 1.2 \sim N(0, 1.2^2)` with :math:`\sigma_d` the standard
    deviation of the data; on a torus the error of the noise counts, uniform in the level's
    logarithm. The loss of an item is a mean over the protocol's number of draws, or over fewer of
    large images; the standard error is that over items.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        table 1.
    """
    if isinstance(field.domain, Torus):
        loss = DenoisingScoreMatching("score", LogUniform())
    else:
        law = LogNormal(mean=math.log(b.source.std / 0.5) - 1.2, std=1.2)
        loss = DenoisingScoreMatching("edm", law, b.source.std)
    draws = max(1, min(b.protocol.draws, _VALIDATED // b.real.numel()))
    return validation_loss(field, b.real, loss, draws, b.protocol.seed, b.real_classes)


VALIDATION_LOSS = OfField(
    name="validation_loss",
    title="Validation loss",
    caption="The denoising loss on held-out data over all noise levels, with the weighting of EDM "
    "(on a torus, uniform in ln σ); averaged weights.",
    shown=("table", "differences", "training"),
    measure=_validate,
)
MODE_WEIGHTS = OfSamples(
    name="mode_weight_tv",
    title="Total variation of the modes' weights",
    label="weights of the modes",
    caption="Between the modes' weights among the samples and the true ones.",
    shown=("table",),
    applies="mixtures of normal distributions",
    compare=partial(_of_law, GaussianMixture, mode_weight_tv, ""),
)
TOTAL_VARIATION = OfSamples(
    name="total_variation",
    title="Total variation from the exact distribution",
    label="total variation",
    caption="Between the samples and the exact distribution, over the cells of a regular grid.",
    shown=("curve", "table", "differences"),
    finding=Finding("Samples", "the total variation from the exact distribution over a grid"),
    applies="pseudo-atoms",
    compare=partial(_of_law, PseudoAtoms, total_variation, "cells"),
)
MARGINAL_KS = OfSamples(
    name="marginal_ks",
    title="Kolmogorov–Smirnov distance from the exact distribution",
    label="Kolmogorov–Smirnov",
    caption="The largest gap between the distribution function of one coordinate and the "
    "exact one.",
    shown=("curve", "table", "differences"),
    applies="pseudo-atoms",
    compare=partial(
        _of_law, PseudoAtoms, lambda x, law: marginal_ks(x, law).estimate, "first coordinate"
    ),
    formerly=("ks",),
)

OF_SAMPLES: tuple[OfSamples, ...] = (
    SLICED_WASSERSTEIN,
    OfSamples(
        name="mmd",
        title="Squared maximum mean discrepancy",
        label="MMD²",
        caption="Between kernel means of generated and real samples, unbiased: zero on average "
        "for equal distributions, and negative for some.",
        shown=("curve", "table"),
        compare=_mmd,
        every_budget=True,
    ),
    OfSamples(
        name="frechet_distance",
        title="Fréchet distance",
        label="Fréchet distance",
        caption="Squared, between the normal distributions with the mean and the covariance of "
        "features of generated and of real samples.",
        unit="squared units of the features",
        shown=("differences",),
        compare=lambda b: [(f.name, partial(frechet_distance, features=f)) for f in b.features],
        learned=True,
    ),
    MODE_WEIGHTS,
    OfSamples(
        name="mode_coverage",
        title="Modes covered",
        caption="The number of modes that have samples, of all.",
        unit="modes",
        better="higher",
        shown=("table",),
        finding=Finding("Samples", "the number of modes covered"),
        applies="mixtures of normal distributions",
        compare=partial(_of_law, GaussianMixture, mode_coverage, ""),
        floor=False,
        total="modes",
    ),
    TOTAL_VARIATION,
    MARGINAL_KS,
)
OF_PATHS: tuple[OfPaths, ...] = (
    OfPaths(
        name="trajectory_length",
        title="Length of the sampler's paths",
        label="path length",
        caption="The mean length of a path, scaled to no drift.",
        unit="units of the data",
        better="neither",
        read=lambda paths: paths.length,
    ),
    OfPaths(
        name="curvature",
        title="Curvature of the sampler's paths",
        label="curvature",
        caption="One minus the cosine between neighbouring steps, on average: 0 for a straight "
        "path; it depends on the number of steps.",
        better="neither",
        read=lambda paths: paths.curvature,
    ),
)
OF_FIELD: tuple[OfField, ...] = (VALIDATION_LOSS,)

r"""What a field is worth: the quality of its samples, and diagnostics by noise level.

All fields on one data set are judged on the same :class:`Terms`: the same real samples, the same
starting noise, the same noisy points, the same estimators, whatever each was trained with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scorefield.data import DataSource
from scorefield.diagnostics import (
    Profile,
    Protocol,
    denoising_loss,
    exterior_derivative,
    loop_circulation,
    relative_asymmetry,
    score_error,
    validation_loss,
)
from scorefield.estimate import Estimate
from scorefield.experiments.records import Distance, Floor, Level
from scorefield.fields import ScoreField
from scorefield.metrics import (
    frechet_distance,
    kernel_bandwidths,
    mmd,
    mode_coverage,
    mode_weight_tv,
    noise_floor,
    sliced_wasserstein,
)
from scorefield.networks import COORDINATES, PIXELS
from scorefield.noise import Noise
from scorefield.objectives import DenoisingScoreMatching, LogNormal
from scorefield.samplers import Heun
from scorefield.targets import GaussianMixture

Metric = Callable[[Tensor, Tensor], Estimate]
Floors = Mapping[str, Floor]
"""The noise floor of each distance that has one, by its name."""
Say = Callable[[str], object]
"""What is told of the progress: a few words a stage."""

_SMALL, _EXACT = 8, 64
_PROBES = 8


@dataclass(frozen=True)
class Terms:
    r"""The terms on which the fields on a data set are judged.

    Arguments:
        nfes: The budgets of network calls.
        samples: The number of samples, generated and real.
        pairs: The number of pairs of real sets behind each noise floor.
        sigmas: The noise levels of the diagnostics, in units of the data.
        points: The number of noisy points at each level.
        columns: A bound on what derivatives and loops cost: in :math:`D` dimensions the
            first ``columns / D`` points have their Jacobian computed, and the first
            ``columns / 16`` a loop around them.
        draws: The number of noise draws for each held-out item in the validation loss.
        seed: The seed of points, probes, real samples and starting noise.
    """

    nfes: tuple[int, ...] = (8, 18, 32, 64)
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


def terms_of(config: Any) -> Terms:
    """The terms that the section ``eval`` of a configuration asks for."""
    section = config.eval
    return Terms(
        nfes=tuple(section.nfes),
        samples=section.samples,
        pairs=section.pairs,
        sigmas=tuple(section.sigmas),
        points=section.points,
        seed=section.seed,
    )


def metrics_of(source: DataSource, terms: Terms) -> dict[str, Metric]:
    """The distances between samples and real samples that make sense for the data, by name.

    The bandwidths of the kernel are set by the held-out samples, so that they are the same for
    all models and for the floor.
    """
    bandwidths = kernel_bandwidths(real_samples(source, terms))
    metrics: dict[str, Metric] = {
        "sliced_wasserstein": sliced_wasserstein,
        "mmd": partial(mmd, bandwidths=bandwidths),
        "frechet_distance": partial(frechet_distance, features=_features(source)),
    }
    mixture = source.truth
    if isinstance(mixture, GaussianMixture):
        metrics["mode_weight_tv"] = lambda x, _: mode_weight_tv(x, mixture)
        metrics["mode_coverage"] = lambda x, _: mode_coverage(x, mixture)
    return metrics


def real_samples(source: DataSource, terms: Terms) -> Tensor:
    """The held-out samples that generated ones are compared with."""
    return source.reference(terms.samples, terms.seed, "test")


def measure_floors(source: DataSource, terms: Terms) -> dict[str, Floor]:
    """The distance between two real sets of the size at which a model is measured, by name.

    A count of modes has no floor. For a law the sets are independent draws. For a finite data set
    they are disjoint random subsets of its training items and the held-out samples together.

    Raises:
        ValueError: If a finite data set has too few items for two such sets.
    """
    real = source.truth if source.truth is not None else _Pool(source, terms)
    floors = {}
    for name, metric in metrics_of(source, terms).items():
        if name == "mode_coverage":
            continue
        # Not the seed of the real samples, which would make them one of the pairs.
        law = noise_floor(metric, real, terms.samples, terms.pairs, seed=-1 - terms.seed)
        floors[name] = Floor(law.mean.value, law.mean.standard_error, law.sd, law.pairs)
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
            raise ValueError(
                f"{self._name} has {len(self._items)} items in all, the noise floor of "
                f"{n // 2} samples needs {n}"
            )
        return self._items[Noise(seed).permutation("noise floor", len(self._items))[:n]]


def quality(
    field: ScoreField, source: DataSource, terms: Terms, floors: Floors, say: Say | None = None
) -> tuple[Distance, ...]:
    """The distances of generated from real samples, at each budget of network calls.

    Raises:
        ValueError: If the data has too few held-out samples.
        FloatingPointError: If samples diverge.
    """
    real, metrics = real_samples(source, terms), metrics_of(source, terms)
    features = _features(source).name
    distances = []
    for budget in terms.nfes:
        if say is not None:
            say(f"samples at {budget} network calls")
        sampler = Heun.for_nfe(budget)
        x = sampler.sample(field, terms.samples, terms.seed).cpu()
        distances += [
            Distance("heun", budget, sampler.nfe, name, features, metric(x, real), floors.get(name))
            for name, metric in metrics.items()
        ]
    return tuple(distances)


def diagnose(field: ScoreField, source: DataSource, terms: Terms) -> tuple[Level, ...]:
    """The diagnostics by noise level, all on the same noisy points.

    The relative asymmetry is that of exact Jacobians up to 64 dimensions, the exterior derivative
    up to 8; above, eight random probes a point estimate them.

    Raises:
        ValueError: If the data has too few points, or a value is not finite.
    """
    dim, truth = field.domain.dim, source.truth
    protocol = Protocol(terms.sigmas, terms.points, terms.seed)
    data = truth if truth is not None else source.reference(terms.points, terms.seed, "test")
    profiles = [denoising_loss(field, data, protocol)]
    if truth is not None:
        profiles.append(score_error(field, truth, protocol))
    if dim > 1:
        jacobians, loops = (_first(protocol, terms.columns // cost) for cost in (dim, 16))
        profiles += [
            relative_asymmetry(field, data, jacobians, None if dim <= _EXACT else _PROBES),
            # A second set of exact Jacobians is worth its time in few dimensions only.
            exterior_derivative(field, data, jacobians, None if dim <= _SMALL else _PROBES),
            loop_circulation(field, data, loops),
        ]
    return tuple(level for profile in profiles for level in _levels(profile))


def validate(field: ScoreField, source: DataSource, terms: Terms) -> Estimate:
    r"""The denoising loss on held-out items over all noise levels, in evaluation mode.

    The weight and the law of the noise levels are those of EDM in units of the data,
    :math:`\ln\frac{\lambda}{2\sigma_d} + 1.2 \sim N(0, 1.2^2)` with :math:`\sigma_d` the data's
    standard deviation, whatever the field was trained with. The loss of an item is a mean over
    draws; the standard error is that over items.

    Raises:
        ValueError: If the data has too few held-out items, or a value is not finite.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        table 1.
    """
    law = LogNormal(mean=math.log(source.std / 0.5) - 1.2, std=1.2)
    loss = DenoisingScoreMatching("edm", law, source.std)
    return validation_loss(field, real_samples(source, terms), loss, terms.draws, terms.seed)


def _features(source: DataSource) -> Any:
    return PIXELS if len(source.shape) == 3 else COORDINATES


def _first(protocol: Protocol, n: int) -> Protocol:
    """The protocol on its first points only; two at least, for an error bar."""
    return replace(protocol, n=max(2, min(protocol.n, n)))


def _levels(profile: Profile) -> list[Level]:
    return [
        Level(
            profile.name,
            sigma,
            replace(e, unit=profile.unit, settings={**profile.settings, **e.settings}),
        )
        for sigma, e in profile
    ]

r"""The intervals whose coverage is measured, each with the true value.

Statistics of draws are those of 20 normal or exponential numbers. Distances between samples are
those of 200 and 150 normal points in 8 dimensions, whose distributions are equal, similar (a shift
of 0.3 standard deviations) or different (a shift of 1 and a standard deviation of 1.3); shares of
modes and cells are those of 200 points. Metrics of features of images are those of the same points,
Fréchet distances from the exact moments of the first distribution; the Inception Score is that of
200 rows of six logits. Diagnostics have the defaults of
:class:`~scorefield.diagnostics.protocol.Protocol` and their own, on the planted curl of
:mod:`scorefield.studies.calibrate.fields` in 8 dimensions; those without variance there are exact.
The Fokker–Planck residual and the consistency error are those of a score that is 5 % too long, a
multiple :math:`c` of the Gaussian's. The observable error is that of such a score, 10 % too long,
to which a rotated one is added, three times as large, which moves no mass; the Gaussian has
standard deviations from 0.5 to 2. Log-densities are those of a point of a mixture by probes,
which 8 dimensions have only on request.

Not measured here are the winding and the harmonic part on a torus, the growth of the circulation,
which is exact on these fields, the Fokker–Planck gap, and what is a mean or a root of one (losses,
noise floors, round trips, differences over seeds) or a test of distribution functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal, NamedTuple

import torch
from scipy import stats
from torch import Tensor

from scorefield import estimate
from scorefield.diagnostics.circulation import cycle_circulation, loop_circulation
from scorefield.diagnostics.consistency import consistency_error
from scorefield.diagnostics.exterior import exterior_derivative, relative_asymmetry
from scorefield.diagnostics.fokker_planck import fokker_planck_error
from scorefield.diagnostics.hodge import hodge_split
from scorefield.diagnostics.line_integrals import path_gap, potential_gap
from scorefield.diagnostics.observable import observable_error
from scorefield.diagnostics.protocol import Profile, Protocol
from scorefield.diagnostics.score_error import denoising_loss, score_error
from scorefield.estimate import Estimate
from scorefield.fields.base import ScoreField
from scorefield.fields.planted import PlantedField, PredictedNoise, Turned, right_angle
from scorefield.likelihood.compute import log_prob
from scorefield.median import median
from scorefield.metrics.exact_law import ks_test, total_variation
from scorefield.metrics.frechet import frechet_distance
from scorefield.metrics.frechet_sizes import PARTS, frechet_sizes
from scorefield.metrics.inception_score import inception_score, score_rows
from scorefield.metrics.kernel import kernel_bandwidths, kid, mmd
from scorefield.metrics.modes import mode_weight_tv
from scorefield.metrics.moments import Moments, Statistics
from scorefield.metrics.neighbours import density, precision
from scorefield.metrics.sets import WIDE
from scorefield.metrics.sliced import sliced_wasserstein
from scorefield.noise import Noise
from scorefield.sde.exploding import EDM
from scorefield.studies.calibrate.fields import SIGMA, conservative, planted
from scorefield.targets.atoms import PseudoAtoms
from scorefield.targets.base import Target
from scorefield.targets.gaussian import Gaussian
from scorefield.targets.mixture import GaussianMixture

DIM = 8
CURL = 0.05
"""The relative asymmetry of the planted field."""
_DRAWS, _N, _M = 20, 200, 150
_SIZES = "the mean over sets of these sizes"
_LAWS = {"equal": (0.0, 1.0), "similar": (0.3, 1.0), "different": (1.0, 1.3)}


class Measured(NamedTuple):
    """A value, its interval, and the true value; ``None`` for the mean over repetitions."""

    value: float
    low: float
    high: float
    truth: float | None


class Interval(NamedTuple):
    """An interval of the library on data of one kind: ``of`` names what it is an interval for, and
    ``note`` what the documentation promises of its coverage instead of 95 %.
    """

    name: str
    data: str
    measure: Callable[[int], Measured]
    of: str = "the true value"
    note: str = ""


def intervals() -> tuple[Interval, ...]:
    """All of them."""
    return (
        *_statistics(),
        *_distances(),
        *_of_features(),
        *_diagnostics(),
        *_residuals(),
        _log_density(),
        *_observable(),
    )


def _normal(seed: int, n: int, purpose: str, dim: int = 1) -> Tensor:
    return Noise(seed).normal(f"coverage/{purpose}", (dim,), torch.arange(n), dtype=torch.float64)


def _measured(e: Estimate, truth: float | None) -> Measured:
    return Measured(e.value, *e.interval(), truth)


def _statistics() -> Iterator[Interval]:
    def draws(seed: int, purpose: str = "a") -> Tensor:
        return 2.0 + _normal(seed, _DRAWS, purpose)[:, 0]

    def median_of(seed: int) -> Measured:
        found = median(draws(seed).numpy())
        return Measured(found.value, found.low, found.high, 2.0)

    def proportion(seed: int) -> Measured:
        k = int((_normal(seed, 100, "a") < stats.norm.ppf(0.9)).sum())
        return Measured(*estimate.proportion(k, 100), 0.9)

    def ks(seed: int) -> Measured:
        x = _normal(seed, _N, "a")[:, 0]
        found = ks_test(x, lambda u: torch.special.ndtr(u - 0.5))
        gap = 2 * float(stats.norm.cdf(0.25)) - 1
        return Measured(found.value, found.low, found.high, gap)

    normal = f"{_DRAWS} normal draws"
    yield Interval("mean", normal, lambda s: _measured(estimate.mean(draws(s).numpy()), 2.0))
    yield Interval(
        "ratio",
        normal,
        lambda s: _measured(estimate.ratio(draws(s).numpy(), draws(s, "b").numpy() + 2), 0.5),
    )
    yield Interval(
        "root",
        normal,
        lambda s: _measured(estimate.root(estimate.mean(draws(s).square().numpy())), math.sqrt(5)),
    )
    yield Interval("median", normal, median_of, note="at least 95 %")
    yield Interval("proportion", "100 draws, 9 of 10", proportion)
    yield Interval("ks_test", f"{_N} normal draws, moved by 0.5", ks, note="at least 95 %")


def _distances() -> Iterator[Interval]:
    for law in _LAWS:
        yield Interval(mmd.__name__, f"{law} distributions", partial(_discrepancy, law))
        for distance in (frechet_distance, sliced_wasserstein):
            note = "" if law == "different" else WIDE["coverage"]
            measure = partial(_biased, distance, law)
            yield Interval(distance.__name__, f"{law} distributions", measure, _SIZES, note)
    means = 4 * torch.eye(4, dtype=torch.float64)
    even = GaussianMixture(means, stds=[1.0] * 4)
    uneven = GaussianMixture(means, stds=[1.0] * 4, weights=[0.4, 0.3, 0.2, 0.1])

    def weights(law: GaussianMixture, seed: int) -> Measured:
        return _measured(mode_weight_tv(law.sample(_N, seed, dtype=torch.float64), even), None)

    name, wide = mode_weight_tv.__name__, WIDE["coverage"]
    yield Interval(name, "four modes, evenly", partial(weights, even), _SIZES, wide)
    yield Interval(name, "four modes, unevenly", partial(weights, uneven), _SIZES)
    atom, wider = (PseudoAtoms([[0.25]], std=std, sde=EDM()) for std in (0.05, 0.07))

    def cells(law: PseudoAtoms, seed: int) -> Measured:
        return _measured(total_variation(law.sample(_N, seed, dtype=torch.float64), atom), None)

    name = total_variation.__name__
    yield Interval(name, "one atom", partial(cells, atom), _SIZES, wide)
    yield Interval(name, "one atom, 1.4 times as wide", partial(cells, wider), _SIZES)


def _pair(law: str, seed: int) -> tuple[Tensor, Tensor]:
    shift, std = _LAWS[law]
    y = std * _normal(seed, _M, "y", DIM) + shift / math.sqrt(DIM)
    return _normal(seed, _N, "x", DIM), y


def _biased(distance: Callable[[Tensor, Tensor], Estimate], law: str, seed: int) -> Measured:
    return _measured(distance(*_pair(law, seed)), None)


def _discrepancy(law: str, seed: int) -> Measured:
    x, y = _pair(law, seed)
    shift, std = _LAWS[law]
    widths = kernel_bandwidths(y)
    return _measured(mmd(x, y), sum(_mmd(h, std, shift) for h in widths) / len(widths))


def _mmd(h: float, std: float, shift: float) -> float:
    """The squared discrepancy of N(0, I) and N(m, std² I) for a Gaussian kernel."""

    def kernel(variance: float, square: float = 0.0) -> float:
        total = h**2 + variance
        return float((h**2 / total) ** (DIM / 2) * math.exp(-0.5 * square / total))

    return kernel(2.0) + kernel(2 * std**2) - 2 * kernel(1 + std**2, shift**2)


def _of_features() -> Iterator[Interval]:
    for law, (shift, std) in _LAWS.items():
        yield Interval(kid.__name__, f"{law} distributions", partial(_cubic_distance, law))
        note = "" if law == "different" else WIDE["coverage"]
        for infinite, of in ((True, "the true value"), (False, "the mean over sets of this size")):
            truth = shift**2 + DIM * (std - 1) ** 2 if infinite else None
            measure = partial(_sized, law, truth)
            name = f"{frechet_sizes.__name__}, {'extrapolated' if infinite else 'at size'}"
            yield Interval(name, f"{law} distributions", measure, of, note)
    scales = torch.tensor([2.0, 1.0, 0.5, 3.0, 1.0, 0.2], dtype=torch.float64)

    def score(seed: int) -> Measured:
        rows = score_rows(_normal(seed, _N, "logits", len(scales)) * scales)
        return _measured(inception_score(Moments.of(rows)), None)

    yield Interval(inception_score.__name__, f"{_N} rows of logits", score, "the mean")
    reference = _normal(-1, _M, "reference", DIM)
    for share in (precision, density):

        def measure_share(seed: int, share: Callable[..., Estimate] = share) -> Measured:
            return _measured(share(_normal(seed, _N, "x", DIM), reference), None)

        yield Interval(
            share.__name__, "equal distributions", measure_share, "the mean over samples"
        )


def _sized(law: str, truth: float | None, seed: int) -> Measured:
    """Of the second set of a pair, as many points as of the first, from the moments of N(0, I)."""
    shift, std = _LAWS[law]
    y = std * _normal(seed, _N, "y", DIM) + shift / math.sqrt(DIM)
    parts = y.chunk(PARTS)
    known = Statistics(y.new_zeros(DIM), torch.eye(DIM, dtype=y.dtype))
    found = frechet_sizes(lambda k: Moments.of(parts[k]), known)
    return _measured(found.at_size if truth is None else found.infinity, truth)


def _cubic_distance(law: str, seed: int) -> Measured:
    shift, std = _LAWS[law]
    exact = _cubic(1.0, 1.0, 0.0, 0.0) + _cubic(std, std, shift, shift)
    return _measured(kid(*_pair(law, seed)), exact - 2 * _cubic(1.0, std, 0.0, shift))


def _cubic(s: float, r: float, a: float, b: float) -> float:
    """The mean cubic kernel of N(a e, s² I) and N(b e, r² I) with a unit vector e."""
    first, second = a * b, a * a + DIM * s**2
    square = first**2 + s**2 * b**2 + r**2 * second
    cube = first**3 + 3 * first * s**2 * b**2 + 3 * r**2 * first * (second + 2 * s**2)
    return 1 + 3 * first / DIM + 3 * square / DIM**2 + cube / DIM**3


def _diagnostics() -> Iterator[Interval]:
    spread, plane = _planted("spread"), _planted("plane")
    curl, score = SIGMA**2 * spread.answers["loops"], spread.answers
    for asymmetry, truth in ((exterior_derivative, curl), (relative_asymmetry, CURL)):
        name = f"{asymmetry.__name__}, 4 probes"
        yield _diagnostic(name, partial(asymmetry, probes=4), spread, truth)
    for known in (spread, plane):
        yield _diagnostic(loop_circulation.__name__, loop_circulation, known, curl)
        yield _diagnostic(cycle_circulation.__name__, cycle_circulation, known, curl)
        yield _diagnostic(path_gap.__name__, path_gap, known, score["path gap"])
    yield _diagnostic(potential_gap.__name__, potential_gap, spread, score["potential gap"])
    yield _diagnostic(score_error.__name__, score_error, spread, score["score error"])
    yield _diagnostic(denoising_loss.__name__, denoising_loss, spread, score["denoising loss"])
    rest = score["Hodge rest"]
    yield _diagnostic("hodge_split", lambda *a: hodge_split(*a).rest, spread, rest, "a fit")


def _residuals() -> Iterator[Interval]:
    r"""Those of the score :math:`s = -c x / v` with :math:`v = 1 + \sigma^2`, whose residual is
    :math:`\sigma\,c\,(1 - c)\,\nabla |x / v|^2`, and whose trajectories have the mean
    :math:`x\,(v_e / v_s)^c` at a lower noise level.
    """
    data, c = conservative("gaussian", DIM).data, 1 + CURL
    known = _Planted(PlantedField(data, PredictedNoise(), CURL), data, {}, "a score 5 % too long")
    start, end = 1 + SIGMA**2, 1 + SIGMA**2 / 4
    residual = 2 * c * (c - 1) * (SIGMA / math.sqrt(start)) ** 3
    denoised = [1 - c * (v - 1) / v for v in (end, start)]
    moved = (denoised[0] * (end / start) ** c - denoised[1]) ** 2 * start / SIGMA**2
    yield _diagnostic(fokker_planck_error.__name__, fokker_planck_error, known, residual)
    note = "mostly numerical error"
    yield _diagnostic(consistency_error.__name__, consistency_error, known, moved, note)


def _log_density() -> Interval:
    mixture = conservative("mixture", DIM).data

    def at(seed: int) -> Measured:
        x = mixture.sample(1, seed, torch.float64)
        exact = log_prob(mixture, x, rtol=1e-8, atol=1e-8, solver_error="embedded")
        found = log_prob(mixture, x, trace="probes", seed=seed)
        low, high = found.interval()
        return Measured(*(float(v) for v in (found.value, low, high, exact.value)))

    note = "exact by default in so few dimensions"
    return Interval("log_prob, 8 probes", "a mixture of four", at, note=note)


def _observable() -> Iterator[Interval]:
    r"""Of the error :math:`a\,\varepsilon + b\,J\varepsilon`, in which the first term alone moves
    mass: :math:`a^2\,\mathbb{E}|\varepsilon|^2 / D = a^2 \sigma^2 \langle 1 / v \rangle`.
    """
    for dim, n in ((2, 256), (2, 2048), (64, 1024)):
        std = torch.linspace(0.5, 2.0, dim, dtype=torch.float64)
        data = Gaussian(torch.zeros(dim), std, sde=EDM())
        longer = PlantedField(data, PredictedNoise(), 0.1)
        field = PlantedField(longer, Turned(PredictedNoise(), right_angle(dim)), 0.3)
        truth = 0.1**2 * SIGMA**2 * float((1 / (std.square() + SIGMA**2)).mean())
        measured = partial(_observed, field, data, n, truth)
        what = f"{n} points in {dim} dimensions"
        yield Interval(observable_error.__name__, what, measured)


def _observed(field: ScoreField, data: Target, n: int, truth: float, seed: int) -> Measured:
    (e,) = observable_error(field, data, Protocol((SIGMA,), n=n, seed=seed)).estimates
    return _measured(e, truth)


class _Planted(NamedTuple):
    """A planted field, and what is said of it."""

    field: ScoreField
    data: Target
    answers: Mapping[str, float]
    what: str


def _planted(shape: Literal["plane", "spread"]) -> _Planted:
    known = planted("gaussian", DIM, shape, CURL)
    what = "curl in one plane" if shape == "plane" else "curl in all planes"
    return _Planted(known.field, known.data, known.answers, what)


def _diagnostic(
    name: str, measure: Callable[..., Profile], known: _Planted, truth: float, note: str = ""
) -> Interval:
    def at(seed: int) -> Measured:
        (e,) = measure(known.field, known.data, Protocol((SIGMA,), seed=seed)).estimates
        return _measured(e, truth)

    return Interval(name, known.what, at, note=note)

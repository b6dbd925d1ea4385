r"""How much does curl matter? Errors of known kind and size, planted in an exact field.

The field is that of a ring of eight normal modes in the plane, known at every noise level.

Four errors of equal energy are planted, one at a time, inside a band of noise levels:

``rotated score``
    :math:`c\,R\,\nabla \log p_t`: curl that moves no mass, whatever its size, so that samples and
    likelihood keep their laws.
``swirl``
    :math:`R \nabla\psi` with :math:`\psi` a sum of plane waves: curl without divergence, which
    moves mass.
``rotation``
    :math:`R x`, the simplest curl: it moves mass where the law is not round.
``gradient``
    :math:`\nabla\psi` with the same :math:`\psi`: no curl at all.

The *dose* is the root mean square error of the predicted noise inside the band,
:math:`\delta = \sqrt{\mathbb{E}_{p_t}\,\sigma^2 \|r\|^2 / D}`, equal for all kinds at every noise
level. The response is the distance of samples from the true law, and the likelihood that the model
loses: the divergence :math:`\mathrm{KL}(p \,\|\, q)` of the model's law :math:`q` from the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.diagnostics import Protocol, relative_asymmetry
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean, root
from scorefield.fields import (
    Band,
    Matched,
    Perturbation,
    PlantedField,
    PredictedNoise,
    Radial,
    ScoreField,
    Turned,
    Waves,
    right_angle,
)
from scorefield.likelihood import log_prob
from scorefield.metrics import NoiseFloor, mode_weight_tv, noise_floor, sliced_wasserstein
from scorefield.noise import Noise
from scorefield.progress import Stages
from scorefield.samplers import Heun
from scorefield.sde import EDM
from scorefield.studies.divergence import Divergence, divergence
from scorefield.targets import GaussianMixture

KINDS = ("rotated score", "swirl", "rotation", "gradient")

BANDS: dict[str, Band] = {
    "all": Band(),
    "low": Band(high=0.35),
    "middle": Band(0.35, 4.0),
    "high": Band(low=4.0),
}
"""Bands that part the noise levels at the width of a mode and at the radius of the ring."""

SIGMA_MIN, SIGMA_MAX = 0.01, 80.0

_SCALE = 0.35  # below the width of a mode an error has no structure
_ASYMMETRY_LEVELS, _ASYMMETRY_POINTS = 5, 256
_ROUNDING = 1e-12  # of a relative asymmetry in float64


@dataclass(frozen=True)
class Design:
    """What is planted, and how closely the response is measured.

    Arguments:
        doses: The doses in each of the bands.
        bands: The bands, of :data:`BANDS`.
        slices: The number of narrow bands, of equal width in the logarithm of the noise level.
        slice_dose: The dose in each of them.
        kinds: The kinds of error.
        samples: The number of samples in a set, generated and real.
        sets: The number of pairs of sets whose distances are averaged.
        points: The number of points whose likelihood is computed.
        sampler_steps: The number of steps of Heun's method.
        tolerance: The tolerance of the likelihood's integrator, relative and absolute.
        pairs: The number of pairs of real sets behind the noise floor.
        seed: The seed of data, starting noise and waves.
    """

    doses: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    bands: tuple[str, ...] = tuple(BANDS)
    slices: int = 6
    slice_dose: float = 0.1
    kinds: tuple[str, ...] = KINDS
    samples: int = 4096
    sets: int = 4
    points: int = 512
    sampler_steps: int = 48
    tolerance: float = 1e-7
    pairs: int = 20
    seed: int = 0

    def cases(self) -> list[Case]:
        """Everything that is planted, one at a time."""
        edges = torch.logspace(
            math.log10(SIGMA_MIN), math.log10(SIGMA_MAX), self.slices + 1, dtype=torch.float64
        ).tolist()
        narrow = [Band(a, b) for a, b in pairwise(edges)]
        return [
            *(Case(k, b, BANDS[b], d) for k in self.kinds for b in self.bands for d in self.doses),
            *(Case(k, "slice", b, self.slice_dose) for k in self.kinds for b in narrow),
        ]


class Case(NamedTuple):
    """An error: its kind, the band where it is planted and the band's name, and its dose."""

    kind: str
    band_name: str
    band: Band
    dose: float

    @property
    def ends(self) -> tuple[float, float]:
        """The edges of the band within the noise levels of the process."""
        return max(self.band.low, SIGMA_MIN), min(self.band.high, SIGMA_MAX)


class Response(NamedTuple):
    r"""What an error does.

    Attributes:
        case: The error.
        asymmetry: The relative asymmetry of the score, in root mean square over five noise levels
            of the band; its standard error takes their errors as fully correlated.
        distance: The sliced Wasserstein distance, of order 1, of samples from the true law.
        ratio: The same in multiples of its noise floor.
        weights: The total variation between the modes' shares of the samples and their weights.
        kl: :math:`\mathrm{KL}(p\,\|\,q)` in nats, less that of the exact field, which has the
            prior's.
        shift: The root mean square distance between the samples of the planted and of the exact
            field from common starting noise.
    """

    case: Case
    asymmetry: Estimate
    distance: Estimate
    ratio: Estimate
    weights: Estimate
    kl: Estimate
    shift: Estimate

    def row(self) -> dict[str, Any]:
        """The response as a record of a table."""
        low, high = self.case.ends
        record: dict[str, Any] = {
            "kind": self.case.kind,
            "band": self.case.band_name,
            "sigma_low": low,
            "sigma_high": high,
            "dose": self.case.dose,
        }
        for name, estimate in (
            ("relative_asymmetry", self.asymmetry),
            ("sliced_wasserstein", self.distance),
            ("ratio_to_floor", self.ratio),
            ("mode_weight_tv", self.weights),
            ("kl", self.kl),
            ("paired_shift", self.shift),
        ):
            record[name] = estimate.value
            record[f"{name}_se"] = estimate.standard_error
        record["kl_numerical_error"] = self.kl.numerical_error
        return record


class DoseResponse(NamedTuple):
    """All responses, and what they are read against.

    Attributes:
        responses: One for each case.
        exact: The response to no error: that of the exact field, whose ``kl`` is its own.
        floor: The noise floor of the sliced Wasserstein distance between two sets.
        sets: The number of pairs of sets over which each response's distance is a mean.
    """

    responses: list[Response]
    exact: Response
    floor: NoiseFloor
    sets: int

    def rows(self) -> list[dict[str, Any]]:
        """Records of a table; the exact field comes first."""
        return [self.exact.row(), *(response.row() for response in self.responses)]

    def of(self, kind: str, band: str) -> list[Response]:
        """The responses of a kind in a band, in order."""
        return [r for r in self.responses if (r.case.kind, r.case.band_name) == (kind, band)]


def dose_response(design: Design, stages: Stages | None = None) -> DoseResponse:
    """Plants every error of the design in the ring of eight modes, and measures what it does.

    Arguments:
        design: What is planted.
        stages: Is shown the progress.

    Raises:
        ValueError: If a kind is unknown or a number is out of its range.
        FloatingPointError: If a flow diverges.
    """
    bench = _Bench(design)
    shapes = {kind: bench.shape(kind) for kind in design.kinds}
    cases, responses = design.cases(), []
    for k, case in enumerate(cases, start=1):
        field = PlantedField(bench.truth, shapes[case.kind], case.dose, case.band)
        responses.append(bench.response(case, field))
        if stages is not None:
            low, high = case.ends
            words = f"{case.kind}, dose {case.dose:g}, noise levels {low:.3g} to {high:.3g}"
            stages.show("dose response", k, len(cases), words)
            stages.say(f"{k} of {len(cases)}  {words}")
    return DoseResponse(responses, bench.exact, bench.floor, design.sets)


class _Bench:
    """What all cases share: the law, its points, the exact field's samples and densities."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.truth = GaussianMixture.ring(sde=EDM(SIGMA_MIN, SIGMA_MAX))
        noise, index = Noise(design.seed), torch.arange(design.sets * design.samples)
        self.real = self.truth.draw(noise, index, step=1, dtype=torch.float64)
        self.data = self.truth.draw(noise, index[: design.samples], step=2, dtype=torch.float64)
        self.metric = partial(sliced_wasserstein, order=1, seed=design.seed)
        # Not the seed of the real samples, which would make them one of the pairs.
        self.floor = noise_floor(
            self.metric, self.truth, design.samples, design.pairs, seed=-1 - design.seed
        )
        t = self.truth.sde.t_min
        self.points = self.truth.sample(design.points, design.seed, torch.float64, t)
        self.log_density = self.truth.log_density(self.points, t)
        self.samples = self._sample(self.truth)
        self.divergence = self._divergence(self.truth)
        nothing = Case("exact", "all", BANDS["all"], 0.0)
        self.exact = self._measure(nothing, self.truth, self.samples, self.divergence)

    def shape(self, kind: str) -> Perturbation:
        """The shape of an error, of size 1 at every noise level."""
        turn, seed = right_angle(2), self.design.seed
        match kind:
            case "rotated score":
                shape: Perturbation = Turned(PredictedNoise(), turn)
            case "swirl":
                shape = Turned(Waves(2, _SCALE, seed=seed), turn)
            case "rotation":
                shape = Turned(Radial(_SCALE), turn)
            case "gradient":
                shape = Waves(2, _SCALE, seed=seed)
            case _:
                raise UserError(f"an error is of one of the kinds {', '.join(KINDS)}, not {kind!r}")
        return Matched(shape, self.truth, self.data, seed)

    def response(self, case: Case, field: ScoreField) -> Response:
        """What a field does."""
        excess = self._divergence(field).excess(self.divergence)
        return self._measure(case, field, self._sample(field), excess)

    def _measure(self, case: Case, field: ScoreField, x: Tensor, kl: Divergence) -> Response:
        distance, floor = self._distance(x), self.floor.mean
        ratio = self.floor.ratio(distance)
        error = math.hypot(distance.standard_error, ratio * floor.standard_error) / floor.value
        return Response(
            case,
            self._asymmetry(case, field),
            distance,
            Estimate(ratio, error, distance.n),
            mode_weight_tv(x, self.truth),
            kl.estimate(),
            root(mean((x - self.samples).square().sum(dim=1).numpy()), "units of the data"),
        )

    def _sample(self, field: ScoreField) -> Tensor:
        design = self.design
        return Heun(design.sampler_steps).sample(
            field,
            design.sets * design.samples,
            design.seed,
            dtype=torch.float64,
            batch_size=design.samples,
        )

    def _distance(self, x: Tensor) -> Estimate:
        """The mean distance of the sets, which have no sample in common."""
        size = self.design.samples
        pairs = zip(x.split(size), self.real.split(size), strict=True)
        found = [self.metric(a, b) for a, b in pairs]
        value = sum(e.value for e in found) / len(found)
        error = math.sqrt(sum(e.standard_error**2 for e in found)) / len(found)
        return Estimate(value, error, len(x), found[0].unit)

    def _divergence(self, field: ScoreField) -> Divergence:
        tolerance = self.design.tolerance
        found = log_prob(field, self.points, rtol=tolerance, atol=tolerance, trace="exact")
        return divergence(self.log_density, found)

    def _asymmetry(self, case: Case, field: ScoreField) -> Estimate:
        low, high = (math.log(end) for end in case.ends)
        place = (torch.arange(_ASYMMETRY_LEVELS, dtype=torch.float64) + 0.5) / _ASYMMETRY_LEVELS
        sigmas = (low + (high - low) * place).exp().tolist()
        protocol = Protocol(sigmas, _ASYMMETRY_POINTS, self.design.seed)
        levels = relative_asymmetry(field, self.truth, protocol).estimates
        value = math.sqrt(sum(e.value**2 for e in levels) / len(levels))
        error = sum(e.value * e.standard_error for e in levels) / (
            len(levels) * max(value, _ROUNDING)
        )
        return Estimate(value, error, _ASYMMETRY_POINTS, numerical_error=_ROUNDING)

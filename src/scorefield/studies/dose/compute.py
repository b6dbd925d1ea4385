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
level. The response is the distance of samples from the true distribution, and the likelihood that
the model loses: the divergence :math:`\mathrm{KL}(p \,\|\, q)` of the model's distribution
:math:`q` from the data's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.diagnostics.exterior import relative_asymmetry
from scorefield.diagnostics.protocol import Protocol
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean, root
from scorefield.evaluation.catalogue.curl import RELATIVE_ASYMMETRY
from scorefield.evaluation.catalogue.samples import MODE_WEIGHTS, SLICED_WASSERSTEIN
from scorefield.evaluation.records import Level
from scorefield.fields.base import ScoreField
from scorefield.fields.planted import (
    Band,
    Matched,
    Mixed,
    Perturbation,
    PlantedField,
    PredictedNoise,
    Radial,
    Turned,
    Waves,
    right_angle,
)
from scorefield.likelihood.compute import log_prob
from scorefield.likelihood.density import LogProb
from scorefield.metrics.modes import mode_weight_tv
from scorefield.metrics.sets import NoiseFloor, noise_floor
from scorefield.metrics.sliced import sliced_wasserstein
from scorefield.noise import Noise
from scorefield.samplers.solvers import Heun
from scorefield.sde.exploding import EDM
from scorefield.studies.dose.cases import (
    KINDS,
    MIXTURE,
    SIGMA_MAX,
    SIGMA_MIN,
    FieldCase,
    cases,
)
from scorefield.studies.dose.divergence import Divergence, divergence, likelihood_error
from scorefield.studies.dose.errors import MEASURES, errors_by_level, middles, over_all
from scorefield.studies.frame import Work, fingerprint
from scorefield.studies.settings import Dose
from scorefield.targets.base import Target
from scorefield.targets.mixture import GaussianMixture

_SCALE = 0.35  # below the width of a mode an error has no structure
_ASYMMETRY_LEVELS, _ASYMMETRY_POINTS = 5, 256
_ROUNDING = 1e-12  # of a relative asymmetry in float64


_COLUMNS = (
    *(RELATIVE_ASYMMETRY.name, SLICED_WASSERSTEIN.name, "ratio_to_floor"),
    *(MODE_WEIGHTS.name, "kl", "paired_shift", "likelihood_error"),
)


class Response(NamedTuple):
    r"""What an error does.

    Attributes:
        case: The error.
        asymmetry: The relative asymmetry of the score, in root mean square over five noise levels
            of the band; its standard error takes their errors as fully correlated.
        distance: The sliced Wasserstein distance, of order 1, of samples from the truth.
        ratio: The same in multiples of its noise floor.
        weights: The total variation between the modes' shares of the samples and their weights;
            ``None`` where the data are no mixture of modes.
        kl: :math:`\mathrm{KL}(p\,\|\,q)` in nats, less that of the exact field, which has the
            prior's.
        shift: The root mean square distance between the samples of the planted and of the exact
            field from common starting noise.
        likelihood: The mean absolute error of the log-density at points of the data, in nats.
        levels: The measures of the error by noise level.
    """

    case: FieldCase
    asymmetry: Estimate
    distance: Estimate
    ratio: Estimate
    weights: Estimate | None
    kl: Estimate
    shift: Estimate
    likelihood: Estimate
    levels: tuple[Level, ...]

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
        for name, estimate in zip(_COLUMNS, self[1:-1], strict=True):
            record[name] = "" if estimate is None else estimate.value
            record[f"{name}_se"] = "" if estimate is None else estimate.standard_error
        for metric in MEASURES:
            found = over_all(self.levels, metric)
            name = f"{metric.name}_over_levels"
            record |= {name: found.value, f"{name}_se": found.standard_error}
        return {**record, "kl_numerical_error": self.kl.numerical_error}


class Trained(NamedTuple):
    """A trained field, in float64, with the name of its data and the exact field under its
    process.
    """

    name: str
    data: str
    field: ScoreField
    truth: Target


class DoseResponse(NamedTuple):
    """All responses, and what they are read against."""

    responses: list[Response]
    trained: list[Response]
    exact: Response
    floor: NoiseFloor
    sets: int

    def rows(self) -> list[dict[str, Any]]:
        """Records of a table; the exact field comes first."""
        return [r.row() for r in (self.exact, *self.responses, *self.trained)]

    @property
    def trained_by_data(self) -> dict[str, list[Response]]:
        """The responses of trained fields, by what they were trained on."""
        found: dict[str, list[Response]] = {}
        for response in self.trained:
            found.setdefault(response.case.band_name, []).append(response)
        return found

    def of(self, kind: str, band: str) -> list[Response]:
        """The responses of a kind in a band, in order."""
        return [r for r in self.responses if (r.case.kind, r.case.band_name) == (kind, band)]


def ring_of_modes() -> GaussianMixture:
    """The field that errors are planted in."""
    return GaussianMixture.ring(sde=EDM(SIGMA_MIN, SIGMA_MAX))


def dose_response(
    settings: Dose,
    work: Work | None = None,
    truth: GaussianMixture | None = None,
    trained: Sequence[Trained] = (),
) -> DoseResponse:
    """Plants every error of the settings in the ring of eight modes, and measures what it does,
    where ``truth``, as :func:`ring_of_modes` makes it, is; and measures trained fields.
    """
    work = Work() if work is None else work
    ring = _Place(settings, ring_of_modes() if truth is None else truth)
    shapes = {kind: ring.shape(kind) for kind in settings.kinds}
    wanted = [(ring, case, ring.planted(case, shapes)) for case in cases(settings)]
    of_process: dict[str, _Place] = {}
    for model in trained:
        key = f"{model.truth.sde} {fingerprint(model.truth)}"
        if key not in of_process:
            loose = replace(settings, tolerance=settings.trained_tolerance)
            of_process[key] = _Place(loose, model.truth)
        band = Band(*model.truth.sde.level_range)
        case = FieldCase(model.name, f"trained on {model.data}", band, 0.0)
        wanted.append((of_process[key], case, model.field))
    responses = []
    for k, (place, case, field) in enumerate(wanted, start=1):
        responses.append(work.part(repr(case), partial(place.response, case, field)))
        work.show("dose response", k, len(wanted), str(case))
        work.report(f"{k} of {len(wanted)}  {case}")
    count = len(wanted) - len(trained)
    parts = responses[:count], responses[count:]
    return DoseResponse(*parts, ring.exact, ring.floor, settings.sets)


class _Place:
    """What all cases of a truth share: its points, the exact field's samples and densities."""

    def __init__(self, settings: Dose, truth: Target) -> None:
        self.settings, self.truth = settings, truth
        count, device = settings.sets * settings.samples, truth.mean.device
        noise, index = Noise(settings.seed), torch.arange(count, device=device)
        self.real = self.truth.draw(noise, index, step=1, dtype=torch.float64)
        self.data = self.truth.draw(noise, index[: settings.samples], step=2, dtype=torch.float64)
        # Not the seed of the real samples, which would make them one of the pairs.
        self.floor = noise_floor(
            self._metric, self.truth, settings.samples, settings.pairs, seed=-1 - settings.seed
        )
        t = self.truth.sde.t_min
        self.points = self.truth.sample(settings.points, settings.seed, torch.float64, t)
        self.log_density = self.truth.log_density(self.points, t)
        self.samples = self._sample(self.truth)
        flow = self._flow(self.truth)
        self.divergence = divergence(self.log_density, flow)
        nothing = FieldCase("exact", "all", Band(*self.truth.sde.level_range), 0.0)
        self.exact = self._measure(nothing, self.truth, self.samples, flow, self.divergence)

    def shape(self, kind: str) -> Perturbation:
        """The shape of an error, of size 1 at every noise level."""
        turn, seed = right_angle(2), self.settings.seed
        waves = Waves(2, _SCALE, seed=seed)
        shapes: dict[str, Perturbation] = {
            "rotated score": Turned(PredictedNoise(), turn),
            "swirl": Turned(waves, turn),
            "rotation": Turned(Radial(_SCALE), turn),
            "gradient": waves,
        }
        if kind not in shapes:
            raise UserError(f"an error is of one of the kinds {', '.join(KINDS)}, not {kind!r}")
        return Matched(shapes[kind].to(self.data.device), self.truth, self.data, seed)

    def planted(self, case: FieldCase, shapes: Mapping[str, Perturbation]) -> ScoreField:
        """The exact field with an error."""
        if case.kind != MIXTURE:
            return PlantedField(self.truth, shapes[case.kind], case.dose, case.band)
        noise, index = Noise(self.settings.seed), torch.tensor([case.number])
        weights = noise.normal("dose/weights", (len(shapes),), index, dtype=torch.float64)
        mixed = Mixed(tuple(shapes.values()), weights[0].to(self.data.device))
        shape = Matched(mixed, self.truth, self.data, self.settings.seed)
        return PlantedField(self.truth, shape, case.dose, case.band)

    def response(self, case: FieldCase, field: ScoreField) -> Response:
        """What a field does."""
        flow = self._flow(field)
        excess = divergence(self.log_density, flow).excess(self.divergence)
        return self._measure(case, field, self._sample(field), flow, excess)

    def _measure(
        self, case: FieldCase, field: ScoreField, x: Tensor, flow: LogProb, kl: Divergence
    ) -> Response:
        distance, floor = self._distance(x), self.floor.mean
        ratio = self.floor.ratio(distance)
        shift = self.truth.domain.displacement(self.samples, x).flatten(1).square().sum(dim=1)
        modes = self.truth if isinstance(self.truth, GaussianMixture) else None
        error = math.hypot(distance.standard_error, ratio * floor.standard_error) / floor.value
        sigmas = middles(*self.truth.sde.level_range, self.settings.levels)
        protocol = Protocol(sigmas, self.settings.points, self.settings.seed)
        return Response(
            case,
            self._asymmetry(case, field),
            distance,
            Estimate(ratio, error, distance.n),
            None if modes is None else mode_weight_tv(x, modes),
            kl.estimate(),
            root(mean(shift.cpu().numpy()), "units of the data"),
            likelihood_error(self.log_density, flow),
            errors_by_level(field, self.truth, protocol),
        )

    def _sample(self, field: ScoreField) -> Tensor:
        sets, n, seed = self.settings.sets, self.settings.samples, self.settings.seed
        sampler = Heun(self.settings.sampler_steps)
        return sampler.sample(field, sets * n, seed, dtype=torch.float64, batch_size=n)

    def _distance(self, x: Tensor) -> Estimate:
        """The mean distance of the sets, which have no sample in common."""
        size = self.settings.samples
        pairs = zip(x.split(size), self.real.split(size), strict=True)
        found = [self._metric(a, b) for a, b in pairs]
        value = sum(e.value for e in found) / len(found)
        error = math.sqrt(sum(e.standard_error**2 for e in found)) / len(found)
        return Estimate(value, error, len(x), found[0].unit)

    def _metric(self, one: Tensor, other: Tensor) -> Estimate:
        embed = self.truth.domain.embed
        return sliced_wasserstein(embed(one), embed(other), order=1, seed=self.settings.seed)

    def _flow(self, field: ScoreField) -> LogProb:
        tolerance = self.settings.tolerance
        return log_prob(field, self.points, rtol=tolerance, atol=tolerance, trace="exact")

    def _asymmetry(self, case: FieldCase, field: ScoreField) -> Estimate:
        sigmas = middles(*case.ends, _ASYMMETRY_LEVELS)
        protocol = Protocol(sigmas, _ASYMMETRY_POINTS, self.settings.seed)
        levels = relative_asymmetry(field, self.truth, protocol).estimates
        value = math.sqrt(sum(e.value**2 for e in levels) / len(levels))
        error = sum(e.value * e.standard_error for e in levels) / (
            len(levels) * max(value, _ROUNDING)
        )
        return Estimate(value, error, _ASYMMETRY_POINTS, numerical_error=_ROUNDING)

"""Points are floating-point numbers, for every function that takes them.

Bytes of an image would else be numbers up to 255 beside samples of unit scale, and integers would
be rounded to.
"""

import inspect

import numpy as np
import pytest
import torch

import scorefield as sf
from scorefield.errors import UserError
from scorefield.fields.planted import Matched, Waves
from scorefield.targets.atoms import PseudoAtoms
from tests.planted import Function

pytestmark = pytest.mark.usefixtures("unchecked")

TRUTH = sf.Gaussian(torch.zeros(2), 1.0)
MODES = sf.GaussianMixture.ring()
ATOMS = PseudoAtoms([[0.2, 0.3]], 0.05)
TURNED = Function(lambda x, t: x.flip(1) * torch.tensor([1.0, -1.0], dtype=x.dtype), (2,))
X = torch.linspace(-1, 1, 12).reshape(6, 2)
MANY = torch.linspace(-1, 1, 128).reshape(64, 2)
ONE = torch.rand(6, 1, 2, generator=torch.Generator().manual_seed(0))
IMAGES = torch.linspace(0, 1, 96).reshape(6, 1, 4, 4)
T = torch.full((6,), 0.5)
MEASURED = sf.ExactPosteriors(TRUTH, sf.Observation.of(torch.eye(2), MANY, 0.3))
DRAWN = MANY.unsqueeze(1) + torch.linspace(-1, 1, 9)[:, None]


def loss(data):
    return sf.validation_loss(TRUTH, data, sf.DenoisingScoreMatching(sigma_data=1.0))


def profile(diagnostic, field=TRUTH):
    return lambda data: diagnostic(field, data, sf.Protocol([0.5], n=len(data)))


def observable(field, data, protocol):
    return sf.observable_error(field, TURNED, protocol, data, sf.RandomFeatures(4))


FLAT = (
    sf.exterior_derivative,
    sf.relative_asymmetry,
    sf.asymmetries,
    sf.loop_circulation,
    sf.consistency_error,
    sf.denoising_loss,
    sf.path_gap,
    sf.potential_gap,
    sf.fokker_planck_error,
    sf.fokker_planck_errors,
    sf.fokker_planck_gap,
    sf.intrinsic_dimension,
)


TAKEN = {
    # Each with points that it takes.
    "frechet_distance samples": (lambda x: sf.frechet_distance(x, X), X),
    "frechet_distance reference": (lambda x: sf.frechet_distance(X, x), X),
    "mmd samples": (lambda x: sf.mmd(x, X), X),
    "mmd reference": (lambda x: sf.mmd(X, x), X),
    "sliced_wasserstein samples": (lambda x: sf.sliced_wasserstein(x, X), X),
    "sliced_wasserstein reference": (lambda x: sf.sliced_wasserstein(X, x), X),
    "mode_coverage samples": (lambda x: sf.mode_coverage(x, MODES), X),
    "mode_weight_tv samples": (lambda x: sf.mode_weight_tv(x, MODES), X),
    "ks_test values": (lambda x: sf.ks_test(x, torch.special.ndtr), X[:, 0]),
    "marginal_ks samples": (lambda x: sf.marginal_ks(x, ATOMS), ONE),
    "total_variation samples": (lambda x: sf.total_variation(x, ATOMS), ONE),
    "radial_distances x": (lambda x: sf.radial_distances(x, ATOMS), ONE),
    "radial_ks samples": (lambda x: sf.radial_ks(x, ATOMS), ONE),
    "nearest_patches samples": (lambda x: sf.nearest_patches(x, IMAGES, 3), IMAGES),
    "nearest_patches train": (lambda x: sf.nearest_patches(IMAGES, x, 3), IMAGES),
    "radial_power_spectrum images": (sf.radial_power_spectrum, IMAGES),
    "image_agreement predicted": (lambda x: sf.image_agreement(x, IMAGES), IMAGES),
    "image_agreement observed": (lambda x: sf.image_agreement(IMAGES, x), IMAGES),
    "validation_loss data": (loss, X),
    "distance_to_ideal train": (profile(sf.distance_to_ideal), X),
    "asymmetry_at x": (lambda x: sf.asymmetry_at(TRUTH, x, T), X),
    "jacobian x": (lambda x: sf.jacobian(TRUTH.score, x, T), X),
    "jvp x": (lambda x: sf.jvp(TRUTH.score, x, T, X), X),
    "vjp x": (lambda x: sf.vjp(TRUTH.score, x, T, X), X),
    "encode x": (lambda x: sf.encode(TRUTH, x, 1e-2, 1e-2), X),
    "decode z": (lambda x: sf.decode(TRUTH, x, 1e-2, 1e-2), X),
    "round_trip x": (lambda x: sf.round_trip(TRUTH, x, 1e-2, 1e-2), X),
    "log_prob x": (lambda x: sf.log_prob(TRUTH, x, rtol=1e-2, atol=1e-2), X),
    "interpolate z0": (lambda x: sf.interpolate(x, X[1], 3), X[0]),
    "interpolate z1": (lambda x: sf.interpolate(X[0], x, 3), X[1]),
    "temper z": (lambda x: sf.temper(x, 0.5), X),
    "importance x": (lambda x: sf.importance(TRUTH, x, torch.zeros(len(x))), X),
    "relative_coordinates positions": (sf.relative_coordinates, MANY),
    "particle_positions relative": (sf.particle_positions, MANY),
    "mixing x": (lambda x: sf.mixing(TRUTH, sf.HMC(0.5), x, 0.5, moves=16), X),
    "calibration_ranks points": (lambda x: sf.calibration_ranks(MEASURED, x, draws=9), MANY),
    "posterior_ranks points": (lambda x: sf.posterior_ranks(x, DRAWN), MANY),
    "posterior_ranks draws": (lambda x: sf.posterior_ranks(MANY, x), DRAWN),
    "convert x": (lambda x: sf.convert(X, x, T, TRUTH.sde, "score", "noise"), X),
    **{f"{d.__name__} data": (profile(d), X) for d in FLAT},
    "hodge_split data": (profile(sf.hodge_split), MANY),
    "observable_error data": (profile(observable), MANY),
    "cycle_circulation data": (profile(sf.cycle_circulation), MANY),
    "circulation_growth data": (profile(sf.circulation_growth, TURNED), X),
    **{f"{d.__name__} data": (profile(d, ATOMS), ONE) for d in (sf.winding, sf.harmonic_part)},
    # Of classes.
    "Empirical": (sf.Empirical, X),
    "IdealScore": (sf.IdealScore, X),
    "EquivariantScore": (sf.EquivariantScore, IMAGES),
    "LocalScore": (sf.LocalScore, IMAGES),
    "EquivariantLocalScore": (sf.EquivariantLocalScore, IMAGES),
    "ArraySource train": (lambda x: sf.ArraySource(x, X, "data"), X),
    "ArraySource test": (lambda x: sf.ArraySource(X, x, "data"), X),
    "Inpainting": (lambda x: sf.Inpainting(torch.ones(2), x), X),
    "Colorization": (sf.Colorization, IMAGES),
    "LinearMeasurement": (lambda x: sf.LinearMeasurement(torch.eye(2), x), X),
    "start": (lambda x: sf.Heun(2).sample(TRUTH, start=x), X),
    "marginal_cdf": (lambda x: ATOMS.marginal_cdf(x, 0.5), ONE[:, 0, 0]),
    "marginal_density": (lambda x: ATOMS.marginal_density(x, 0.5), ONE[:, 0, 0]),
    "perturb": (lambda x: TRUTH.sde.perturb(x, T, X), X),
    "flow": (lambda x: TRUTH.flow(x, 0.5, 1.0), X),
    "responsibilities": (lambda x: MODES.responsibilities(x, 0.5), X),
    "log_density": (lambda x: TRUTH.log_density(x, 0.5), X),
    "Matched": (lambda x: Matched(Waves(2, 1.0), TRUTH, x), X),
}


ARRAYS = {
    *(f"{d.__name__} data" for d in (*FLAT, sf.hodge_split, sf.cycle_circulation)),
    "observable_error data",
    *(f"{d.__name__} data" for d in (sf.circulation_growth, sf.winding, sf.harmonic_part)),
    *(f"{m} {p}" for m in ("frechet_distance", "mmd") for p in ("samples", "reference")),
    *(f"sliced_wasserstein {p}" for p in ("samples", "reference")),
}
"""What takes arrays, data sets and loaders too."""


@pytest.mark.parametrize("name", TAKEN)
def test_other_numbers_are_refused_and_named(name):
    call, points = TAKEN[name]
    call(points)
    for given in (points.to(torch.uint8), points.long(), points > 0, points + 0j):
        with pytest.raises(UserError, match=f"floating-point numbers, got {given.dtype}"):
            call(given)
    with pytest.raises(UserError, match="divide bytes by 255"):
        call(points.to(torch.uint8))
    if name in ARRAYS:
        assert str(call(np.asarray(points))) == str(call(points))
        return
    with pytest.raises(UserError, match="got a ndarray"):
        call(np.asarray(points))


def test_no_public_function_is_left_out():
    words = ("*event", " height width", " n d", "Given")
    for name in dir(sf):
        function = getattr(sf, name)
        if inspect.isfunction(function):
            for parameter in inspect.signature(function).parameters.values():
                points = any(word in str(parameter.annotation) for word in words)
                direction = parameter.name == "v"
                assert not points or direction or f"{name} {parameter.name}" in TAKEN

"""Points of another shape than the field's are refused before noise gives them that shape."""

from functools import partial

import pytest
import torch

import scorefield
from scorefield import (
    DenoisingScoreMatching,
    Gaussian,
    LogNormal,
    Protocol,
    image_agreement,
    mode_coverage,
    mode_weight_tv,
    radial_distances,
    score_error,
    validation_loss,
)
from scorefield.errors import UserError

pytestmark = pytest.mark.usefixtures("unchecked")

FIELD = Gaussian(torch.zeros(2), 1.0)
LOSS = DenoisingScoreMatching("score", LogNormal())
OF_DATA = [
    "asymmetries",
    "circulation_growth",
    "consistency_error",
    "cycle_circulation",
    "denoising_loss",
    "exterior_derivative",
    "fokker_planck_error",
    "fokker_planck_errors",
    "fokker_planck_gap",
    "hodge_split",
    "intrinsic_dimension",
    "loop_circulation",
    "path_gap",
    "potential_gap",
    "relative_asymmetry",
]


def measured(name, data):
    protocol = Protocol([0.5], n=32)
    if name == "validation_loss":
        return validation_loss(FIELD, data, LOSS)
    return getattr(scorefield, name)(FIELD, data, protocol)


@pytest.mark.parametrize("name", [*OF_DATA, "distance_to_ideal", "validation_loss"])
@pytest.mark.parametrize("shape", [(1,), (), (3,), (2, 1), (1, 2)], ids=str)
def test_samples_of_another_shape_are_refused(name, shape):
    """Of which a column, or a number, would be taken for every coordinate."""
    with pytest.raises(UserError, match="the field has points of shape"):
        measured(name, torch.zeros(40, *shape))


@pytest.mark.parametrize("name", [*OF_DATA, "score_error"])
@pytest.mark.parametrize("shape", [(1,), (3,)], ids=str)
def test_a_law_on_another_shape_is_refused(name, shape):
    with pytest.raises(UserError, match="points of shape"):
        measured(name, Gaussian(torch.zeros(shape), 1.0))


def test_every_diagnostic_of_data_is_among_them():
    taking_data = {
        name
        for name in scorefield.__all__
        if {"data", "protocol"} <= set(getattr(getattr(scorefield, name), "__annotations__", ()))
    }
    others = {"harmonic_part", "winding", "observable_error"}  # a torus, a reference field
    assert taking_data - others == set(OF_DATA)


@pytest.mark.parametrize("samples", [[[0.0, 0.0]], None, torch.zeros(3, 2, dtype=torch.int64)])
def test_what_is_no_set_of_samples_is_refused(samples):
    ring = scorefield.GaussianMixture.ring()
    atoms = scorefield.PseudoAtoms([[0.25], [0.75]], std=0.05, sde=scorefield.VE())
    for function in (
        partial(mode_coverage, mixture=ring),
        partial(mode_weight_tv, mixture=ring),
        partial(radial_distances, atoms=atoms),
        lambda samples: image_agreement(samples, samples),
    ):
        with pytest.raises(UserError, match="must be floating-point numbers, got"):
            function(samples)


def test_a_score_is_known_of_a_target_only():
    with pytest.raises(UserError, match="score_error needs a Target"):
        score_error(FIELD, torch.zeros(40, 2), Protocol([0.5], n=32))

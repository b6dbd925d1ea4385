"""Truths about the assignment of noise to points."""

from itertools import permutations

import pytest
import torch

import scorefield as sf
from scorefield.data.given import source_of
from scorefield.noise import Noise
from scorefield.objectives.pairing import transported
from scorefield.training.draws import training_draws
from tests.laws.cases import normal

OBJECTIVE = sf.Objective(sf.DenoisingScoreMatching("velocity", pairing="transport"))


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)], ids=str)
def test_no_assignment_is_nearer(shape):
    x, z = normal((4, 5, *shape), "x"), normal((4, 5, *shape), "z")
    found = transported(x, z)
    for points, normals, own in zip(x, z, found, strict=True):
        # The same normals, each once.
        order = [int((normals == row).flatten(1).all(1).nonzero()) if shape else
                 int((normals == row).nonzero()) for row in own]  # fmt: skip
        assert sorted(order) == [0, 1, 2, 3, 4]
        cost = (points - own).square().sum()
        least = min((points - normals[list(p)]).square().sum() for p in permutations(range(5)))
        torch.testing.assert_close(cost, least)


def test_a_training_draws_the_same_points_and_times_and_noise_in_another_order():
    source = source_of(normal((40, 2), "data"))
    network = sf.MLP(2, hidden=4, depth=1, embedding=4)
    field = sf.PreconditionedField(network, sf.RectifiedFlow(), sigma_data=0.5)
    plain = sf.Objective(sf.DenoisingScoreMatching("velocity"))
    ours, theirs = (training_draws(field, source, o, Noise(3), 16) for o in (OBJECTIVE, plain))
    for step in (0, 40, 7):
        (x, t, z), (points, times, normals) = ours(step), theirs(step)
        assert torch.equal(x, points)
        assert torch.equal(t, times)
        assert torch.equal(z, transported(points[None], normals[None])[0])
        assert not torch.equal(z, normals)


def test_a_torus_is_refused():
    atoms = sf.PseudoAtoms([[0.25], [0.75]], std=0.05, sde=sf.VE())
    field = sf.PreconditionedField(
        sf.SymmetrizedMLP((2, 1)),
        sf.VE(),
        parametrization=sf.NoisePrediction(),
        domain=atoms.domain,
    )
    with pytest.raises(ValueError, match="pairing='transport' takes points of flat space"):
        training_draws(field, sf.TargetSource(atoms), OBJECTIVE, Noise(0), 4)


def test_pairings_have_names(unchecked):
    with pytest.raises(ValueError, match="pairing is independent or transport, not 'ot'"):
        sf.DenoisingScoreMatching("velocity", pairing="ot")

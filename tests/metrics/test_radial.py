"""Distances from the nearest configuration against brute force, and their law against samples."""

import itertools
import math

import pytest
import torch
from scipy import stats

from scorefield import VE, PseudoAtoms, radial_distances, radial_ks
from scorefield.metrics import radial
from scorefield.metrics.radial import radial_law
from scorefield.noise import Noise

PAIR = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=VE(0.001, 0.5))


def sites(n, d, seed=0):
    return Noise(seed).uniform("sites", (d,), torch.arange(n), dtype=torch.float64)


def brute(x, atoms):
    """All orders and all neighbouring images."""
    period = torch.as_tensor(atoms.domain.period, dtype=torch.float64)
    least = torch.full((len(x),), math.inf, dtype=torch.float64)
    for order in itertools.permutations(range(x.shape[1])):
        delta = x.double() - atoms.positions[list(order)]
        images = torch.stack([(delta + k * period).square() for k in range(-2, 3)])
        least = torch.minimum(least, images.amin(dim=0).sum(dim=(1, 2)))
    return least.sqrt()


@pytest.mark.parametrize(("n", "d", "period"), [(1, 2, 1.0), (2, 1, 1.5), (4, 3, (1.0, 1.2, 2.0))])
@pytest.mark.parametrize("orders", [5, 0], ids=["all orders", "assignment"])
def test_distances_are_those_of_the_nearest_configuration(n, d, period, orders, monkeypatch):
    monkeypatch.setattr(radial, "_ORDERS", orders)
    monkeypatch.setattr(radial, "_ROWS", 16)
    atoms = PseudoAtoms(sites(n, d), std=0.1, period=period)
    x = 3 * Noise(1).normal("points", (n, d), torch.arange(40), dtype=torch.float64)
    assert radial_distances(x, atoms) == pytest.approx(brute(atoms.domain.wrap(x), atoms), abs=1e-9)


def test_many_atoms_are_assigned():
    atoms = PseudoAtoms(sites(12, 3), std=0.001)
    z = Noise(2).normal("points", (12, 3), torch.arange(50), dtype=torch.float64)
    shuffled = (atoms.positions + 0.001 * z)[:, torch.randperm(12)]
    expected = 0.001 * z.flatten(1).norm(dim=1)
    assert torch.allclose(radial_distances(shuffled, atoms), expected, rtol=1e-9)


@pytest.mark.parametrize("t", [None, 0.0, 0.5])
def test_samples_follow_the_law_and_wider_ones_do_not(t):
    assert radial_ks(PAIR.sample(4000, 0, t=t), PAIR, t).p_value > 1e-5
    wider = PseudoAtoms(PAIR.positions, std=0.012, sde=PAIR.sde)
    assert radial_ks(wider.sample(4000, 0), PAIR).p_value < 1e-9


def test_the_law_is_that_of_chi():
    law = radial_law(PseudoAtoms(sites(3, 2), std=0.001))
    assert (law.dim, law.width) == (6, 0.001)
    r = torch.linspace(1e-5, 0.006, 40, dtype=torch.float64)
    assert law.cdf(r).numpy() == pytest.approx(stats.chi.cdf(r / 0.001, 6), abs=1e-12)
    assert law.density(r).numpy() == pytest.approx(stats.chi.pdf(r / 0.001, 6) / 0.001, rel=1e-9)


def test_its_error_is_a_bound():
    """Where atoms begin to overlap, distances of samples differ from the law by no more."""
    atoms = PseudoAtoms([[0.0], [0.5]], std=0.5 / 2 / 2.9)
    law = radial_law(atoms)
    assert 0.005 < law.error < 0.01
    found = radial_ks(atoms.sample(20_000, 0), atoms)
    assert found.low == 0
    # The law is wrong in truth: some have another configuration nearer.
    z = 0.5 / 2 / 2.9 * Noise(3).normal("z", (2, 1), torch.arange(200_000), dtype=torch.float64)
    own = z.flatten(1).norm(dim=1)
    distances = radial_distances(atoms.positions + z, atoms)
    assert bool((distances <= own + 1e-12).all())
    assert 0 < float((distances < own - 1e-9).double().mean()) < law.error


TAILS = {
    1: lambda r: math.erfc(r / math.sqrt(2)),
    2: lambda r: math.exp(-(r**2) / 2),
    3: lambda r: math.erfc(r / math.sqrt(2)) + math.sqrt(2 / math.pi) * r * math.exp(-(r**2) / 2),
}


@pytest.mark.parametrize("dims", TAILS)
def test_its_error_is_the_tail_of_each_atom_beyond_half_its_gap(dims):
    atoms = PseudoAtoms([[0.0] * dims, [0.5] + [0.0] * (dims - 1)], std=0.065)
    assert radial_law(atoms).error == pytest.approx(2 * TAILS[dims](0.25 / 0.065))


def test_a_law_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"sites 0\.5 apart overlap: .* only up to 1,"):
        radial_law(PAIR, t=1.0)
    with pytest.raises(ValueError, match="overlap"):
        radial_ks(PAIR.sample(10, 0), PAIR, t=1.0)


def test_points_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"points of shape \(3, 1\) have no distance"):
        radial_distances(torch.zeros(2, 3, 1), PAIR)

"""The energies of particles: their formulas, symmetries, forces, and what exact sampling gives."""

import math

import pytest
import torch

from scorefield import (
    HMC,
    DoubleWell,
    Heun,
    LennardJones,
    ks_test,
    particle_positions,
    relative_coordinates,
)
from scorefield.data.chains import ChainSource
from scorefield.errors import UserError
from scorefield.estimate import mean
from scorefield.noise import Noise

ENERGIES = {
    "DW-4": DoubleWell(),
    "tilted": DoubleWell(3, 3, a=0.5, b=-1.0, c=0.3, d0=2.0, tau=1.7),
    "LJ-13": LennardJones(),
    "LJ": LennardJones(5, 2, eps=2.0, rm=1.3, tau=0.8, trap=0.4),
}


@pytest.fixture(params=ENERGIES)
def energy(request):
    return ENERGIES[request.param]


def places(energy, n=6):
    """Positions of moderate energy, with a centre of mass."""
    index = torch.arange(n)
    y = energy.start(Noise(0), index)
    y = y + 0.05 * Noise(1).normal("shake", y.shape[1:], index, dtype=torch.float64)
    return particle_positions(y) + 3.0


def by_hand(energy, x):
    """The formula of the docstring: half the sum over ordered pairs, term by term."""
    total = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            if i == j:
                continue
            d = math.dist(x[i].tolist(), x[j].tolist())
            if isinstance(energy, DoubleWell):
                off = d - energy.d0
                v = energy.a * off + energy.b * off**2 + energy.c * off**4
            else:
                v = energy.eps * ((energy.rm / d) ** 12 - 2 * (energy.rm / d) ** 6)
            total += v / (2 * energy.tau)
    return total + energy.trap / 2 * float((x - x.mean(dim=0)).square().sum())


def test_the_energy_is_that_of_the_formula(energy):
    x = places(energy)
    found = energy.energy(relative_coordinates(x))
    expected = [by_hand(energy, one) for one in x]
    assert found.tolist() == pytest.approx(expected, rel=1e-11)
    distances = energy.distances(relative_coordinates(x)).sort(dim=1).values
    expected = torch.stack([torch.pdist(one).sort().values for one in x])
    torch.testing.assert_close(distances, expected, rtol=1e-12, atol=0)


def test_the_energy_does_not_see_translations_rotations_reflections_and_orders(energy):
    x = places(energy)
    u = energy.energy(relative_coordinates(x))
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(
        torch.randn(energy.dims, energy.dims, generator=generator, dtype=torch.float64)
    )
    mirror = torch.ones(energy.dims, dtype=torch.float64)
    mirror[0] = -1
    order = torch.randperm(energy.particles, generator=generator)
    for other in (x + 5, x @ q, x @ (q * mirror), x[:, order]):
        torch.testing.assert_close(
            energy.energy(relative_coordinates(other)), u, rtol=1e-11, atol=1e-11
        )


def test_the_score_is_minus_the_gradient_of_the_energy(energy):
    y = relative_coordinates(places(energy)).requires_grad_()
    (gradient,) = torch.autograd.grad(energy.energy(y).sum(), y)
    score = energy.score(y.detach(), 0.0)
    torch.testing.assert_close(score, -gradient, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(energy.potential(y, 0.0), -energy.energy(y))
    # And by differences, which do not share the formula of the pairs.
    v = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
    h, at = 1e-6, y.detach()
    slope = (energy.energy(at + h * v) - energy.energy(at - h * v)) / (2 * h)
    torch.testing.assert_close((score * v).sum(dim=(1, 2)), -slope, rtol=1e-6, atol=1e-5)


def test_a_pair_of_dw4_has_its_wells_where_the_derivative_is_zero():
    pair = DoubleWell(particles=2, dims=1)
    wells = torch.tensor([4 - math.sqrt(4 / 1.8), 4 + math.sqrt(4 / 1.8)], dtype=torch.float64)
    y = (wells / math.sqrt(2)).reshape(2, 1, 1)
    torch.testing.assert_close(pair.distances(y).flatten(), wells)
    assert pair.score(y, 0.0).abs().max() < 1e-12
    assert pair.energy(y).tolist() == pytest.approx([-40 / 9, -40 / 9], rel=1e-12)
    assert float(pair.energy(torch.full((1, 1, 1), 4 / math.sqrt(2)))) == pytest.approx(0, abs=1e-9)


def test_thirteen_lennard_jones_particles_have_the_energy_of_the_icosahedron():
    """The global minimum of LJ-13 without a trap is -44.326801 ε (Hoare and Pal, 1971): a regular
    icosahedron with a particle in its centre, at the best of all radii."""
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    corners = [c[k:] + c[:k] for c in corners for k in range(3)]
    shape = torch.tensor([(0.0, 0.0, 0.0), *corners], dtype=torch.float64)
    shape = shape / shape.norm(dim=1).max()
    cluster = LennardJones(trap=1e-6)
    radii = torch.linspace(0.9, 1.05, 3001, dtype=torch.float64)
    y = relative_coordinates(radii.reshape(-1, 1, 1) * shape)
    lowest = float((cluster.energy(y) - 0.5e-6 * y.square().sum(dim=(1, 2))).min())
    assert lowest == pytest.approx(-44.326801, abs=2e-5)


def test_what_is_not_clean_data_or_no_energy_is_refused():
    energy = DoubleWell()
    y = torch.zeros(2, 3, 2)
    with pytest.raises(UserError, match="DoubleWell is known of clean data only, at times up to"):
        energy.score(y, 0.5)
    with pytest.raises(UserError, match="clean data only"):
        Heun(4).sample(energy, n=2)
    with pytest.raises(UserError, match=r"points of shape \(3, 2\), got \(4, 2\)"):
        energy.energy(torch.zeros(2, 4, 2))
    with pytest.raises(UserError, match="DoubleWell: c must be positive"):
        DoubleWell(c=-1.0)
    with pytest.raises(UserError, match="LennardJones: trap must be positive"):
        LennardJones(trap=0.0)
    with pytest.raises(UserError, match="DoubleWell: particles must be an integer of at least 2"):
        DoubleWell(particles=1)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_the_least_time_may_be_rounded(kind):
    energy, y = DoubleWell(), torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    least = torch.tensor(energy.sde.t_min, dtype=kind)
    assert torch.equal(energy.score(y, least), energy.score(y, 0.0))
    with pytest.raises(UserError, match="clean data only"):
        energy.score(y, least * (1 + 1e-5))


def drawn(energy, step, leaps, chains, draws=1, burn_in=100):
    """Draws of independent chains, of shape (draws, chains, *event)."""
    source = ChainSource(energy, HMC(step, 1.0, leaps), chains, draws, burn_in, 2)
    parts = [source.stored(split).unflatten(0, (draws, -1)) for split in ("train", "test")]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(
    ("energy", "step", "leaps"),
    [(DoubleWell(), 0.12, 8), (LennardJones(4, 3), 0.05, 8)],
    ids=["DW-4", "LJ-4"],
)
def test_chains_keep_the_law_of_the_virial(energy, step, leaps):
    """E[x · ∇u] is the number of degrees of freedom for every confining energy: within six standard
    errors over chains, of a twelfth of it. Of half the temperature it would be half of it."""
    x = drawn(energy, step, leaps, chains=320, draws=40)
    score = energy.score(x.flatten(0, 1), 0.0).reshape(x.shape)
    virial = mean(-(x * score).sum(dim=(2, 3)).mean(dim=0).numpy())
    assert virial.standard_error < energy.domain.dim / 12
    assert virial.value == pytest.approx(energy.domain.dim, abs=6 * virial.standard_error)


def test_the_distance_of_two_particles_has_its_exact_law():
    """In d dimensions its density is ∝ r^(d-1) e^(-v(r)), integrated here by 20,000 points."""
    energy = DoubleWell(particles=2, dims=2, tau=1.5)
    r = torch.linspace(1e-6, 9, 20_001, dtype=torch.float64)
    off = r - 4
    density = r * torch.exp(-(-4 * off**2 + 0.9 * off**4) / 1.5)
    mass = torch.cumulative_trapezoid(density, r)
    cdf = torch.cat((torch.zeros(1, dtype=torch.float64), mass / mass[-1]))

    def law(values):
        place = (values / r[1]).clamp(max=20_000 - 1)
        low = place.floor().long()
        return torch.lerp(cdf[low], cdf[low + 1], place - low)

    x = drawn(energy, 0.25, 6, chains=3000)
    found = ks_test(energy.distances(x[0]).flatten(), law)
    assert found.p_value > 1e-6

"""Atoms on a torus: the law, its field, and what samplers and likelihood make of it."""

import math
from itertools import permutations

import pytest
import torch

from scorefield import (
    DDIM,
    EDM,
    VE,
    VP,
    DPMSolverPlusPlus2M,
    Heun,
    PredictorCorrector,
    ProbabilityFlow,
    Protocol,
    PseudoAtoms,
    cycle_circulation,
    log_prob,
    loop_circulation,
    path_gap,
    round_trip,
)
from scorefield.noise import Noise

SDE = VE(0.001, 0.5)
LINE = PseudoAtoms([[0.25], [0.75]], std=0.03, sde=SDE)
PLANE = PseudoAtoms(
    [[0.2, 0.1], [1.7, 0.5], [0.9, 1.9]], std=0.1, period=(2.0, 2.5), sde=VE(0.001, 1.5)
)


class Boxed(PseudoAtoms):
    """A law that is asked in the box only."""

    def predict(self, x, t, quantity, classes=None):
        assert bool(((x >= 0) & (x < 1)).all())
        return super().predict(x, t, quantity)


def test_the_density_is_the_mean_over_all_orders():
    x = PLANE.domain.uniform(Noise(0), "x", torch.arange(9), dtype=torch.float64)
    for t in (0.1, 0.6, 1.0):
        width = PLANE.effective_width(t).reshape(1)
        total = torch.zeros(9, dtype=torch.float64)
        for order in permutations(range(3)):
            sites = PLANE.positions[list(order)].expand(9, 3, 2)
            delta = PLANE.domain.displacement(sites, x)
            total += PLANE.domain.kernel_log_prob(delta, width).exp() / 6
        torch.testing.assert_close(PLANE.log_density(x, t).exp(), total)


def test_neither_the_order_of_atoms_nor_a_whole_period_matters():
    x = PLANE.domain.uniform(Noise(1), "x", torch.arange(20), dtype=torch.float64)
    order, around = [2, 0, 1], x + torch.tensor([4.0, -2.5], dtype=torch.float64)
    for t in (0.3, 0.9):
        score = PLANE.score(x, t)
        torch.testing.assert_close(PLANE.score(x[:, order], t), score[:, order])
        torch.testing.assert_close(PLANE.score(around, t), score, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(PLANE.log_density(x[:, order], t), PLANE.log_density(x, t))


def test_the_posterior_mean_of_one_atom_is_that_of_its_images():
    """E[x_0 | x_t] in the covering space: a mean over images of the site, weighted by the kernel,
    where the width of the atom itself is small."""
    sigma, site = 0.4, 0.3
    atom = PseudoAtoms([[site]], std=1e-6, sde=EDM(0.001, 1.0))
    x = torch.tensor([[[0.45]], [[0.79]], [[0.8]], [[0.02]]], dtype=torch.float64)
    images = site + torch.arange(-20, 21, dtype=torch.float64)
    weight = (-0.5 * ((x - images) / sigma) ** 2).softmax(dim=2)
    expected = (weight * images).sum(dim=2, keepdim=True)
    torch.testing.assert_close(atom.denoise(x, sigma), expected, rtol=1e-6, atol=1e-6)


def test_samples_have_the_marginal_law_and_every_order():
    n = 40_000
    x = LINE.sample(n, seed=0, dtype=torch.float64, t=0.85)
    assert bool(((x >= 0) & (x < 1)).all())
    for atom in range(2):
        u = x[:, atom, 0].sort().values
        gap = (LINE.marginal_cdf(u, 0.85) - torch.arange(1, n + 1) / n).abs().max()
        assert float(gap) < math.sqrt(math.log(2e7) / (2 * n))  # Dvoretzky, Kiefer, Wolfowitz
    clean = LINE.sample(n, seed=1)
    first = ((clean[:, 0] > 0) & (clean[:, 0] < 0.5)).double().mean()
    assert abs(float(first) - 0.5) < 5.5 * 0.5 / math.sqrt(n)


def test_marginal_density_is_the_derivative_of_the_cdf_and_cells_are_its_integrals():
    u = torch.linspace(0, 2.5, 2001, dtype=torch.float64)[:-1]
    for t in (0.0, 0.5, 1.0):
        middle = 0.5 * (u[1:] + u[:-1])
        slope = PLANE.marginal_cdf(u, t, axis=1).diff() / u.diff()
        torch.testing.assert_close(
            PLANE.marginal_density(middle, t, axis=1), slope, rtol=1e-3, atol=1e-6
        )
    bins = 24
    for law, t in ((LINE, 0.6), (PseudoAtoms([[0.3, 0.6]], 0.1, (1.0, 1.5), VE(0.01, 0.8)), 0.4)):
        mass = law.cell_probabilities(bins, t)
        assert float(mass.sum()) == pytest.approx(1, abs=1e-12)
        fine = 12
        periods = law.domain.periods(mass).expand(law.domain.shape).reshape(-1)
        steps = (torch.arange(bins * fine, dtype=torch.float64) + 0.5) / (bins * fine)
        mesh = torch.stack(torch.meshgrid(*(p * steps for p in periods), indexing="ij"), dim=-1)
        p = law.log_density(mesh.reshape(-1, *law.domain.shape), t).exp()
        p = p.reshape(bins, fine, bins, fine).mean(dim=(1, 3)) * float(periods.prod()) / bins**2
        torch.testing.assert_close(p, mass, rtol=2e-2, atol=1e-7)


def test_eleven_atoms_have_an_exact_score():
    sites = Noise(5).uniform("sites", (3,), torch.arange(11), dtype=torch.float64)
    many = PseudoAtoms(sites, std=0.05, sde=VE(0.001, 0.7))
    x = many.sample(6, seed=0, dtype=torch.float64, t=0.8).requires_grad_()
    (gradient,) = torch.autograd.grad(many.log_density(x, 0.8).sum(), x)
    torch.testing.assert_close(many.score(x, 0.8), gradient)


@pytest.mark.parametrize(
    "sampler",
    [
        Heun(steps=30),
        DDIM(steps=60, eta=1.0, spacing="logsnr"),
        DPMSolverPlusPlus2M(steps=24),
        ProbabilityFlow(rtol=1e-3, atol=1e-3),
        PredictorCorrector(steps=100, corrector=None),
    ],
    ids=lambda s: type(s).__name__,
)
def test_every_kind_of_sampler_gives_the_law_on_the_torus(sampler):
    n = 1000
    x = sampler.sample(LINE, n=n, seed=0, dtype=torch.float64)
    assert bool(((x >= 0) & (x < 1)).all())
    u = x[:, 0, 0].sort().values
    gap = float((LINE.marginal_cdf(u, 0.0) - torch.arange(1, n + 1) / n).abs().max())
    # What the steps add is below 0.04; the rest is chance.
    assert gap < 0.04 + math.sqrt(math.log(2e7) / (2 * n))
    apart = LINE.domain.displacement(x[:, 0], x[:, 1]).abs() > 0.25
    assert float(apart.double().mean()) > 0.99


@pytest.mark.parametrize(
    "sampler",
    [
        Heun(steps=12),
        DDIM(steps=24),
        DPMSolverPlusPlus2M(steps=12),
        ProbabilityFlow(rtol=1e-6, atol=1e-6),
    ],
    ids=lambda s: type(s).__name__,
)
def test_samplers_do_not_see_the_seam(sampler):
    """Atoms, boxes and starting points that are shifted give the samples shifted likewise."""
    domain, shift = LINE.domain, 0.26
    shifted = PseudoAtoms(LINE.positions + shift, std=LINE.width, sde=SDE)
    start = domain.uniform(Noise(2), "start", torch.arange(64), dtype=torch.float64)
    x = sampler.sample(LINE, start=start, dtype=torch.float64)
    y = sampler.sample(shifted, start=domain.wrap(start + shift), dtype=torch.float64)
    assert float(domain.displacement(x + shift, y).abs().max()) < 1e-4


@pytest.mark.parametrize(
    "sampler",
    [Heun(steps=6, churn=2.0), DDIM(steps=6), DPMSolverPlusPlus2M(steps=6), PredictorCorrector(6)],
    ids=lambda s: type(s).__name__,
)
def test_samplers_ask_the_field_inside_the_box(sampler):
    law = Boxed(LINE.positions + 0.26, std=LINE.width, sde=SDE)
    sampler.sample(law, n=64, dtype=torch.float64)


def test_a_round_trip_through_codes_ends_where_it_began():
    """Not in the representative, which may be at the other end of the box."""
    x = LINE.sample(4, seed=0, dtype=torch.float64) - 1
    assert round_trip(LINE, x, rtol=1e-5, atol=1e-5).value < 1e-3


def test_samples_that_are_rounded_to_the_period_are_at_the_origin():
    edge = PseudoAtoms([[1 - 1e-10]], std=1e-12, sde=SDE)
    assert torch.equal(edge.sample(4, seed=0), torch.zeros(4, 1, 1))


@pytest.mark.parametrize("law", [LINE, PLANE], ids=["line", "plane"])
def test_the_log_density_is_exact_up_to_the_prior(law):
    """The flow from a uniform prior: off by no more than the prior is from the law at t_max."""
    x = law.sample(12, seed=3, dtype=torch.float64)
    found = log_prob(law, x, rtol=1e-8, atol=1e-8)
    end = law.domain.uniform(Noise(0), "x", torch.arange(4000), dtype=torch.float64)
    uniform = law.sde.prior(law.domain).log_prob(end)
    off = float((law.log_density(end, 1.0) - uniform).abs().max())
    gap = (found.value - law.log_density(x, 0.0)).abs().max()
    assert float(gap) <= off + 1e-5
    assert off < 1e-2


def test_curl_loops_cycles_and_paths_find_nothing_in_the_exact_field():
    protocol = Protocol((0.02, 0.1, 0.45), n=256)
    for profile in (
        loop_circulation(LINE, LINE, protocol, radius=1.0, rule="gauss-16"),
        cycle_circulation(LINE, LINE, protocol, rule="gauss-16"),
        path_gap(LINE, LINE, Protocol((0.02, 0.1, 0.45), n=64)),
    ):
        for sigma, e in profile:
            low, high = e.interval()
            assert low <= 0 <= high or e.value < 1e-6, (profile.name, sigma, str(e))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PseudoAtoms(torch.tensor([0.25, 0.75]), 0.1), "shape"),
        (lambda: PseudoAtoms([[0.25], [math.nan]], 0.1), "finite"),
        (lambda: PseudoAtoms([[0.25]], 0.0), "standard deviation of an atom must be positive"),
        (lambda: PseudoAtoms([[0.25]], 0.1, period=-1.0), "period of a torus must be positive"),
        (lambda: PseudoAtoms([[k / 17] for k in range(17)], 0.1), "17 atoms .* 16 is the most"),
        (lambda: PseudoAtoms([[0.25]], 0.1, sde=VP()), "shrinks the data"),
        (lambda: LINE.under(VP()), "shrinks the data"),
        (lambda: PLANE.cell_probabilities(8, 0.0), "two coordinates, not 6"),
    ],
)
def test_pseudo_atoms_name_the_setting_that_they_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()

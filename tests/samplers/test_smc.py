"""Weighted particles: the density of the last level, its constant, and what is refused."""

import math

import pytest
import torch

from scorefield import (
    EDM,
    HMC,
    MALA,
    MLP,
    ULA,
    VE,
    VP,
    AnnealedMCMC,
    GaussianMixture,
    PreconditionedField,
    PseudoAtoms,
    product,
    smc,
)
from scorefield.estimate import mean

FAR = 8.0
"""Standard errors of 16 runs: Student's distribution with 15 degrees of freedom is beyond them with
a probability below 1e-6."""


def narrow_and_wide(sde):
    return GaussianMixture([[-2.0], [2.0]], stds=[0.1, 0.4], sde=sde)


def square(sde):
    """The share of the narrow mode in the square of that density at the last level, and the
    integral: components far apart multiply to nothing, and N(x; m, v)² integrates to
    1 / 2 (π v)^½."""
    t = torch.tensor(sde.t_min, dtype=torch.float64)
    v = sde.alpha(t) ** 2 * torch.tensor([0.01, 0.16], dtype=torch.float64) + sde.sigma(t) ** 2
    parts = 0.25 / (2 * (math.pi * v).sqrt())
    return float(parts[0] / parts.sum()), float(parts.sum())


def agrees(values, expected):
    values = torch.tensor(values, dtype=torch.float64)
    error = float(values.std()) / len(values) ** 0.5
    assert error < 0.1 * expected
    assert float(values.mean()) == pytest.approx(expected, abs=FAR * error)


@pytest.mark.parametrize("sde", [EDM(0.03, 10.0), VP(t_min=1e-3)], ids=["EDM", "VP"])
def test_a_square_has_its_weights_and_its_constant(sde):
    """Of two modes, the narrower has four times the mass of the wider in the square, and as much
    in the chains of the level where they part."""
    one = narrow_and_wide(sde)
    both = product(one, one)
    share, constant = square(sde)
    kernel = HMC(0.7, width=0.1, leaps=2)
    runs = [smc(both, 256, 12, kernel, moves=2, seed=seed) for seed in range(16)]
    assert any(level.resampled for level in runs[0].levels)
    agrees([float(run.weights[run.x[:, 0] < 0].sum()) for run in runs], share)
    agrees([math.exp(run.log_constant.value) for run in runs], constant)
    drawn = [float((run.draw(3)[:, 0] < 0).double().mean()) for run in runs]
    agrees(drawn, share)
    chains = AnnealedMCMC(12, kernel, moves=2).sample(both, 1024, seed=0, dtype=torch.float64)
    assert float((chains[:, 0] < 0).double().mean()) < share - 0.1


def test_weights_alone_are_importance_sampling():
    """Without moves and without drawing anew, the weight of a particle is the ratio of the last
    density to the prior."""
    sde = EDM(1.0, 3.0)
    field = GaussianMixture([[0.5], [-0.5]], stds=1.0, sde=sde)
    found = smc(field, 64, 5, moves=0, threshold=0.0)
    x = found.x
    logs = field.log_density(x, 1.0) - sde.prior(field.domain).log_prob(x)
    torch.testing.assert_close(found.weights, logs.softmax(dim=0))
    weights = mean(logs.exp().numpy())
    assert found.log_constant.value == pytest.approx(math.log(weights.value))
    relative = weights.standard_error / weights.value
    assert found.log_constant.standard_error == pytest.approx(relative)
    assert [level.accepted for level in found.levels] == [None] * 5
    assert "accepted" not in repr(found)
    assert found.effective == pytest.approx(float(1 / found.weights.square().sum()))


def test_the_error_of_the_constant_is_its_distance_from_the_truth():
    """The mean square of the distance in standard errors, of 60 runs that draw anew at each level:
    a chi-squared number over its 60 degrees of freedom is beyond these bounds with a probability of
    1e-6, and the number of intervals of 95 % that hold the truth with a smaller one."""
    field = GaussianMixture([[1.0], [-2.0]], stds=0.5, sde=EDM(0.3, 4.0))
    kernel = MALA(1.0, width=0.5)
    runs = [smc(field, 256, 3, kernel, moves=1, threshold=1.0, seed=k) for k in range(60)]
    assert all(level.resampled for level in runs[0].levels)
    found = [run.log_constant for run in runs]
    square = sum((each.value / each.standard_error) ** 2 for each in found) / len(found)
    assert 0.34 < square < 2.2
    assert sum(low <= 0 <= high for low, high in (each.interval() for each in found)) >= 44


def test_the_error_of_an_acceptance_rate_is_its_scatter_over_runs():
    """Steps for the wide mode are rejected in the narrow one, so that the rate of a run follows the
    share of particles there, which copies have in common. The error over ancestors is that of 60
    runs within a factor of two and a half, of whose logarithm 60 runs have a standard error of 0.2;
    one over particles is far too small."""
    field, n = narrow_and_wide(EDM(0.03, 10.0)), 256
    runs = [
        smc(field, n, 12, MALA(1.0, width=0.4), moves=1, threshold=1.0, seed=k) for k in range(60)
    ]
    found = [run.levels[-1].accepted for run in runs]
    scatter = torch.tensor([each.value for each in found]).double().var()
    squares = torch.tensor([each.standard_error**2 for each in found]).double().mean()
    assert 0.4 < float(squares / scatter) < 2.5
    naive = mean([each.value * (1 - each.value) / n for each in found]).value
    assert naive < 0.4 * float(scatter)


def test_particles_live_on_a_torus():
    atoms = PseudoAtoms([[0.25], [0.75]], std=0.05, sde=VE(0.01, 0.5))
    runs = [smc(atoms, 64, 6, MALA(0.8, width=0.05), moves=2, seed=seed) for seed in range(16)]
    assert all(((run.x >= 0) & (run.x < 1)).all() for run in runs)
    agrees([math.exp(run.log_constant.value) for run in runs], 1.0)


def test_runs_have_addresses():
    one = narrow_and_wide(EDM(0.03, 10.0))
    first, again, other = (smc(one, 32, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)


def test_what_has_no_weights_is_an_error():
    one = narrow_and_wide(EDM(0.03, 10.0))
    free = PreconditionedField(MLP(1, 8, 1), EDM(), sigma_data=1.0)
    with pytest.raises(TypeError, match="PreconditionedField has none"):
        smc(free, 16, 4)
    with pytest.raises(ValueError, match="MALA or HMC, not ULA"):
        smc(one, 16, 4, ULA())
    with pytest.raises(ValueError, match="threshold"):
        smc(one, 16, 4, threshold=1.5)

"""R-hat and autocorrelation times: those of known processes, and of chains that do not mix."""

import math

import pytest
import torch

from scorefield import EDM, HMC, MALA, ULA, VE, Gaussian, GaussianMixture, PseudoAtoms, mixing
from scorefield.noise import Noise
from scorefield.samplers.mixing import autocorrelation_time, split_r_hat
from tests.planted import Function

INDEX = torch.arange(64)


def normals(purpose, step=0):
    return Noise(5).normal(purpose, (), INDEX, step, dtype=torch.float64)


def autoregression(phi, draws):
    """Stationary chains y' = φ y + (1 − φ²)^½ z, whose correlation at lag k is φᵏ."""
    y, found = normals("start"), []
    for k in range(draws):
        y = phi * y + (1 - phi**2) ** 0.5 * normals("innovation", k)
        found.append(y)
    return torch.stack(found).unsqueeze(2)


@pytest.mark.parametrize("phi", [-0.99, -0.5, 0.0, 0.8])
def test_the_time_of_an_autoregression_is_known(phi):
    """τ = (1 + φ) / (1 − φ), within a fifth: of 64 chains of 1,000 draws the relative error of τ is
    about √(4 w / 64,000) with a window w of three times τ, 4 % for the longest. It is at least
    1 / log₁₀ 64,000."""
    draws = autoregression(phi, 1000)
    expected = (1 + phi) / (1 - phi)
    time = float(autocorrelation_time(draws)[0])
    assert time == pytest.approx(max(expected, 1 / math.log10(64_000)), rel=0.2, abs=0.03)
    # The variance of the means of 128 halves is τ / 500 of that of the draws, within six standard
    # errors of a χ² with 127 degrees of freedom.
    excess = float(split_r_hat(draws)[0]) ** 2 - 1
    error = 6 * (2 / 127) ** 0.5 * expected / 500
    assert excess == pytest.approx((expected - 1) / 500, abs=error + (expected / 500) ** 2)


def test_chains_that_differ_or_drift_are_seen():
    draws = autoregression(0.0, 200)
    apart = draws + 3.0 * (INDEX % 2).reshape(1, -1, 1)
    assert float(split_r_hat(apart)[0]) > 1.5
    drifting = draws + torch.linspace(-3, 3, 200).reshape(-1, 1, 1)
    assert float(split_r_hat(drifting)[0]) > 1.3
    assert float(autocorrelation_time(apart)[0]) > 50


def runs_of(phi):
    """400 runs of 16 stationary chains of 120 draws, as the values of one."""
    index, noise, found = torch.arange(400 * 16), Noise(6), []
    y = noise.normal("start", (), index, 0, dtype=torch.float64)
    for k in range(120):
        z = noise.normal("innovation", (), index, k, dtype=torch.float64)
        y = phi * y + (1 - phi**2) ** 0.5 * z
        found.append(y)
    return torch.stack(found).reshape(120, 400, 16).permute(0, 2, 1)


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_the_error_of_a_time_is_its_distance_from_the_truth(phi):
    """The mean square of the distance in standard errors, over 400 runs of 16 chains of 120 draws:
    1 for a sum with a fixed end, and between 0.4 and 2 where the draws choose the end."""
    runs = runs_of(phi)
    times, errors = autocorrelation_time(runs)
    square = float(((times - (1 + phi) / (1 - phi)) / errors).square().mean())
    assert 0.4 < square < 2


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_error_of_a_ratio_is_its_scatter_over_runs(shift):
    """The mean square of the jackknife over the variance of 400 runs, of chains that agree and of
    chains whose means differ: both are known to a tenth, so that 0.6 and 1.7 are five standard
    errors away."""
    runs = runs_of(0.6)
    noise = Noise(7).normal("shift", (), torch.arange(400 * 16), dtype=torch.float64)
    ratios, errors = split_r_hat(runs + shift * noise.reshape(400, 16).T)
    assert 0.6 < float(errors.square().mean() / ratios.var()) < 1.7


def test_the_step_of_a_langevin_chain_has_the_time_of_its_autoregression():
    """In N(0, v) a step of ULA is x' = (1 − h² / 2v) x + h z."""
    field = Gaussian(torch.zeros(1), std=1.0, sde=EDM(0.01, 20.0))
    t = float(field.sde.t_min)
    kernel = ULA(size=0.8, width=1.0)
    x = normals("start").unsqueeze(1)
    found = mixing(field, kernel, x, t, moves=400)
    v = 1 + t**2
    phi = 1 - 0.8**2 * (1 + t**2) / (2 * v)
    assert float(found.time) == pytest.approx((1 + phi) / (1 - phi), rel=0.3)
    assert float(found.effective) == pytest.approx(64 * 400 / float(found.time))
    assert found.accepted.value == 1


def test_modes_that_no_move_crosses_are_seen_at_low_noise_and_not_at_high():
    field = GaussianMixture([[-3.0], [3.0]], stds=0.3, sde=EDM(0.05, 20.0))
    x = torch.where(INDEX % 2 == 0, -3.0, 3.0).double().unsqueeze(1)
    low = mixing(field, MALA(1.0, width=0.3), x, 0.05, moves=100)
    assert float(low.r_hat) > 5
    assert "largest R-hat" in repr(low)
    high = mixing(field, HMC(0.7, width=0.3, leaps=3), x, 10.0, moves=100)
    assert float(high.r_hat) < 1.02
    assert high.accepted.value > 0.5
    again = mixing(field, HMC(0.7, width=0.3, leaps=3), x, 10.0, moves=100)
    assert torch.equal(again.x, high.x)


def test_a_torus_has_cosines_and_sines():
    atoms = PseudoAtoms([[0.25], [0.75]], std=0.05, sde=VE(0.001, 0.5))
    x = atoms.sample(16, seed=0, dtype=torch.float64)
    found = mixing(atoms, MALA(1.0, width=0.05), x, 0.1, moves=16)
    assert found.r_hat.shape == found.time.shape == (4,)


def test_what_cannot_be_measured_is_an_error():
    field = Gaussian(torch.zeros(2), std=1.0, sde=EDM())
    x = torch.zeros(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="x must have the event shape"):
        mixing(field, MALA(), x[:, :1], 1.0)
    with pytest.raises(ValueError, match="at least 2"):
        mixing(field, MALA(), x[:1], 1.0)
    with pytest.raises(ValueError, match="t must be finite, got 'a'"):
        mixing(field, MALA(), x, "a")
    with pytest.raises(ValueError, match="moves must be"):
        mixing(field, MALA(), x, 1.0, moves=7)
    with pytest.raises(ValueError, match="fewer than two chains moved in coordinate 0 in 8 moves"):
        mixing(field, MALA(size=1e6), x, 1.0, moves=8)
    broken = Function(lambda x, t: torch.where(x > 0, math.nan, -x))
    with pytest.raises(FloatingPointError, match="did not stay finite"):
        mixing(broken, MALA(), x - 1, 1.0, moves=64)

"""Atoms on a torus against the reference's closed form, tables and steps."""

import math

import numpy as np
import pytest
import torch

from scorefield import VE, PseudoAtoms
from scorefield.domain import Torus
from scorefield.sde.discrete import Exact
from tests.conformance.reference import load, tensor

SDE = VE(0.001, 0.2)
ATOMS = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=SDE)


def read(name, key):
    return tensor(load(name, family="toy")[key])


def close(value, reference):
    scale = max(1.0, float(reference.abs().max()))
    torch.testing.assert_close(value, reference, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.parametrize("k", range(7))
def test_score_and_density_of_two_atoms(k):
    x, t = read("analytic_score", "x"), float(read("analytic_score", "t")[k])
    sigma = read("analytic_score", "sigma")[k]
    close(-ATOMS.predict_noise(x, t), read("analytic_score", "sigma_normalized_score")[k])
    close(sigma * ATOMS.score(x, t), read("analytic_score", "sigma_normalized_score")[k])
    close(ATOMS.log_density(x, t), read("analytic_score", "log_density")[k])
    close(ATOMS.log_density(x, t).exp(), read("analytic_score", "density")[k])


def test_score_and_density_of_the_wrapped_normal():
    u, sigma = (read("wrapped_gaussian", k).reshape(-1) for k in ("u", "sigma"))
    domain = Torus(())
    score = sigma * domain.kernel_score(u, sigma)
    close(score, read("wrapped_gaussian", "sigma_normalized_score").reshape(-1))
    direct = read("wrapped_gaussian", "brute_force").reshape(-1)
    known = ~direct.isnan()
    assert int(known.sum()) == 430  # the others underflow there, and not here
    close(score[known], direct[known])
    # The stored log-density is a sum over the images -4 ... 4 only, too few for a wide kernel.
    log_wrapped = read("wrapped_gaussian", "log_wrapped").reshape(8, 60)
    images = torch.arange(-4, 5, dtype=torch.float64)
    terms = -0.5 * ((u.unsqueeze(1) + images) / sigma.unsqueeze(1)) ** 2
    few = terms.logsumexp(dim=1) - (sigma * math.sqrt(math.tau)).log()
    ours = domain.kernel_log_prob(u, sigma)
    for width, a, b, c in zip(sigma[::60], few.split(60), ours.split(60), log_wrapped, strict=True):
        close(a, c)
        if width < 0.5:
            close(b, c)


@pytest.mark.parametrize("table", ["train50", "reg100", "sample21"])
def test_noise_levels_and_steps_of_the_tables(table):
    time = read("noise_tables", f"{table}_time")
    close(SDE.sigma(time), read("noise_tables", f"{table}_sigma"))
    # The first step begins at time 0, the others at the time before.
    before = torch.cat((time.new_zeros(1), time[:-1]))
    step = Exact().step(SDE, time, before)
    close(step.std**2, read("noise_tables", f"{table}_g_squared"))


def sites(i):
    """The time of the table of 21, with time 0 before the first."""
    time = read("noise_tables", "sample21_time")
    return float(time[i - 1]) if i > 0 else 0.0


def predicted(x, z, i):
    """A reverse-diffusion step from the i-th time of the table, wrapped."""
    t = torch.tensor([sites(i)], dtype=torch.float64)
    forward = Exact().step(SDE, t, torch.tensor([sites(i - 1)], dtype=torch.float64))
    moved = x + forward.std**2 * ATOMS.score(x, float(t)) + forward.std * z
    return ATOMS.domain.wrap(moved)


def corrected(x, z, i):
    """A Langevin step with the reference's size at the i-th level."""
    sigma, first = SDE.sigma(torch.tensor([sites(i), sites(1)], dtype=torch.float64))
    size = 0.5 * 2.5e-8 * (sigma / first) ** 2
    return ATOMS.domain.wrap(x + size * ATOMS.score(x, sites(i)) + (2 * size).sqrt() * z)


def on_the_circle(value, reference):
    """Equality of points that may lie on two sides of the origin."""
    close(ATOMS.domain.displacement(reference, value), torch.zeros_like(reference))


@pytest.mark.parametrize("i", [21, 11, 2])
def test_predictor_steps(i):
    x, z = read("pc_steps", "x0"), read("pc_steps", f"pred_{i}_z")
    on_the_circle(predicted(x, z, i), read("pc_steps", f"pred_{i}"))


@pytest.mark.parametrize("i", [20, 10, 1, 0])
def test_corrector_steps(i):
    x, z = read("pc_steps", "x0"), read("pc_steps", f"corr_{i}_z")
    on_the_circle(corrected(x, z, i), read("pc_steps", f"corr_{i}"))


def test_a_whole_trajectory():
    x, normals = read("pc_steps", "x0"), iter(read("pc_steps", "full_z"))
    for i in range(21, 0, -1):
        x = predicted(x, next(normals), i)
        for _ in range(2):
            x = corrected(x, next(normals), i - 1)
    on_the_circle(x, read("pc_steps", "full_out"))


def test_atoms_in_any_order_have_one_score():
    x = tensor(np.array([[[0.1], [0.7]], [[0.4], [0.2]]]))
    close(ATOMS.score(x, 0.8).flip(1), ATOMS.score(x.flip(1), 0.8))

"""What five models of two distant modes are measured by, for ``two_gaussians.py``: the density of
the energy on a grid, Langevin chains, and samples.
"""

import time
from dataclasses import replace

import numpy as np
import torch
from pages import Row
from scipy.integrate import cumulative_trapezoid
from scipy.signal import find_peaks
from torch import Tensor

import scorefield as sf
from scorefield.config.build import build_field, build_objective, build_source, build_training
from scorefield.config.resolve import load_config
from scorefield.training.trainer import Trainer

LEAST = 0.01
SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0)
X = np.linspace(-10, 10, 201)
Y = np.linspace(-5, 5, 101)
HALF = 1.95
"""Points between the modes have a first coordinate below this size, an edge of the grid's cells."""
EDGES = np.linspace(-10, 10, 21)
PROMINENCE = 0.5
CHAINS, ROUNDS, MOVES, SAMPLES = 256, 8, 64, 4096
KERNEL = sf.ULA(size=0.25, width=1.0)
ERRORS = sf.Protocol((0.02, 0.1, 0.5), n=128)
"""Where the errors of the score and of the Fokker–Planck equation are measured."""


def trained(model: str, seed: int) -> tuple[sf.ScoreField, float]:
    """The field of a preset, and the seconds of processor time of its training."""
    config = load_config(f"two_gaussians/{model}", [f"seed={seed}"])
    source = build_source(config)
    field = build_field(config, source)
    optim, settings = build_training(config)
    objective = build_objective(config, source)
    begin = time.process_time()
    Trainer(field, source, objective, optim, settings, seed, quiet=True).run()
    return field, time.process_time() - begin


def energies(field: sf.ScoreField, sigma: float) -> list[np.ndarray]:
    """The log-density on the grid up to a constant; without a potential, along two paths."""
    grid = torch.cartesian_prod(torch.from_numpy(X), torch.from_numpy(Y))
    shape = len(X), len(Y)
    with torch.no_grad():
        if field.has_potential:
            return [field.potential(grid, sigma).reshape(shape).numpy()]
        score = field.score(grid, sigma).reshape(*shape, 2).numpy()
    along = cumulative_trapezoid(score[..., 0], X, axis=0, initial=0)
    across = cumulative_trapezoid(score[..., 1], Y, axis=1, initial=0)
    # From the centre of the left mode, where both are 0.
    i, j = int(np.abs(X + 5).argmin()), int(np.abs(Y).argmin())
    along, across = along - along[i], across - across[:, j : j + 1]
    return [along[:, j : j + 1] + across, across[i] + along]


def density(energy: np.ndarray) -> np.ndarray:
    weight = np.exp(energy - energy.max())
    return weight / weight.sum()


def between(marginal: np.ndarray) -> float:
    return float(marginal[np.abs(X) < HALF].sum())


def divergence(shares: np.ndarray, truth: np.ndarray) -> float:
    """The Kullback–Leibler divergence of shares of bins from the true ones, in nats."""
    held = shares > 0
    return float((shares[held] * np.log(shares[held] / truth[held])).sum())


def in_bins(marginal: np.ndarray) -> np.ndarray:
    shares = np.histogram(X, EDGES, weights=marginal)[0]
    return shares / shares.sum()


def of_points(x: Tensor, truth: np.ndarray) -> dict[str, float]:
    first = x[:, 0].double().numpy()
    shares = np.histogram(first.clip(EDGES[0], EDGES[-1]), EDGES)[0] / len(first)
    return {
        "between": float((np.abs(first) < HALF).mean()),
        "left": float((first < 0).mean()),
        "divergence": divergence(shares, truth),
    }


def of_energy(field: sf.ScoreField, truth: sf.GaussianMixture) -> Row:
    exact, paths = density(energies(truth, LEAST)[0]), energies(field, LEAST)
    p = density(paths[0])
    marginal = p.sum(axis=1)
    log = np.log(np.maximum(marginal, 1e-300))
    peaks = X[find_peaks(log, prominence=PROMINENCE)[0]]
    seen = exact > 0
    with np.errstate(divide="ignore"):
        whole = float((exact * (np.log(exact) - np.log(np.maximum(p, 1e-300))))[seen].sum())
    coarse = density(paths[0][::2, ::2]).sum(axis=1)
    return {
        "between": between(marginal),
        "left": float(marginal[X < 0].sum()),
        "divergence": divergence(in_bins(marginal), in_bins(exact.sum(axis=1))),
        "kl": whole,
        "modes": len(peaks),
        "false_modes": int((np.abs(peaks) < 4).sum()),
        "barrier": float(log.max() - log[np.abs(X) < 4].min()),
        "coarse": float(coarse[np.abs(X[::2]) < HALF].sum()),
        "other_path": between(density(paths[-1]).sum(axis=1)),
        "log_marginal": log.tolist(),
    }


def of_chains(field: sf.ScoreField, truth: sf.GaussianMixture, seed: int) -> dict[str, float]:
    """Chains that start in the data, and the share of others that stay between the modes."""
    shares = in_bins(density(energies(truth, LEAST)[0]).sum(axis=1))
    inside = truth.sample(CHAINS, seed=1000 + seed, dtype=torch.float64, t=LEAST)
    middle = inside.clone()
    index = torch.arange(CHAINS)
    draws = sf.Noise(seed).uniform("middle", (), index, dtype=torch.float64)
    middle[:, 0] = HALF * (2 * draws - 1)
    x, states = torch.cat((inside, middle)), []
    for k in range(ROUNDS):
        x = sf.mixing(field, KERNEL, x, LEAST, moves=MOVES, seed=100 * seed + k).x
        states.append(x[:CHAINS])
    trapped = float((x[CHAINS:, 0].abs() < HALF).double().mean())
    found = of_points(torch.cat(states[ROUNDS // 2 :]), shares)
    return {**found, "trapped": trapped}


def measured(model: str, seed: int) -> Row:
    """The numbers of a model, and the logarithm of the marginal density of its energy."""
    truth = build_source(load_config("two_gaussians/m0")).truth
    assert isinstance(truth, sf.GaussianMixture)
    field: sf.ScoreField
    field, seconds = (truth, 0.0) if model == "exact" else trained(model, seed)
    shares = in_bins(density(energies(truth, LEAST)[0]).sum(axis=1))
    parts = {
        "energy": of_energy(field, truth),
        "langevin": of_chains(field, truth, seed),
        "samples": of_points(sf.Heun(18).sample(field, SAMPLES, seed=seed), shares),
    }
    row: Row = {"model": model, "seed": seed, "seconds": seconds}
    for part, numbers in parts.items():
        row |= {f"{part}_{name}": value for name, value in numbers.items()}
    for sigma in SIGMAS:
        marginal = density(energies(field, sigma)[0]).sum(axis=1)
        row[f"energy_between_{sigma:g}"] = between(marginal)
    protocol = replace(ERRORS, seed=seed)
    row |= {f"score_error_{s:g}": e.value for s, e in sf.score_error(field, truth, protocol)}
    residuals = sf.fokker_planck_error(field, truth, protocol)
    return row | {f"residual_{s:g}": e.value for s, e in residuals}

"""The weights of modes and the integral of a density, by particles and by Markov chains.

The square of a mixture of a narrow and a wide normal distribution, whose share of mass in the
narrow mode and whose integral are known. ``smc`` runs with the seeds 0, 1, 2, …, and its estimates
of both are averaged over runs; ``AnnealedMCMC`` with the same kernel has one sample. Printed are
the means with 95 % intervals, over runs and over chains. Run as

    python benchmarks/particles.py
"""

import argparse
import math

import torch

import scorefield as sf
from scorefield.estimate import format_interval, mean, share

SDE = sf.EDM(0.05, 5.0)
STDS = (0.1, 0.4)
MODES = sf.GaussianMixture([[-2.0, 0.0], [2.0, 0.0]], stds=list(STDS), sde=SDE)
KERNEL = sf.HMC(size=0.6, width=0.1, leaps=3)


def exact() -> tuple[float, float]:
    """The share of the narrow mode and the integral: N(x; m, v)² integrates to 1 / (4 π v)."""
    parts = [0.25 / (4 * math.pi * (std**2 + SDE.t_min**2)) for std in STDS]
    return parts[0] / sum(parts), sum(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--particles", type=int, default=500)
    parser.add_argument("--chains", type=int, default=4000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    squared, truth = sf.tempered(MODES, 2.0), exact()
    shares, integrals, covered = [], [], 0
    for seed in range(given.runs):
        found = sf.smc(squared, n=given.particles, steps=16, kernel=KERNEL, moves=5, seed=seed)
        shares.append(float(found.weights[found.x[:, 0] < 0].sum()))
        integrals.append(math.exp(found.log_constant.value))
        low, high = found.log_constant.interval()
        covered += low <= math.log(truth[1]) <= high
    sampler = sf.AnnealedMCMC(16, KERNEL, moves=5)
    chains = sampler.sample(squared, n=given.chains, seed=0, dtype=torch.float64)
    left = share(int((chains[:, 0] < 0).sum()), given.chains)
    print(f"share of the narrow mode: exact {truth[0]:.4f}, smc {format_interval(mean(shares))}")
    print(f"  AnnealedMCMC {format_interval(left)}")
    print(f"integral: exact {truth[1]:.4f}, smc {format_interval(mean(integrals))}")
    print(f"  standard deviation of a run {torch.tensor(integrals).std():.4f}")
    print(f"  in its 95 % interval in {format_interval(share(covered, given.runs))} of the runs")


if __name__ == "__main__":
    main()

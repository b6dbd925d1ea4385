"""Posterior fields compared with the exact posterior: mean, covariance, calibration, curl.

Problems in the plane, with exact fields of the prior, so that all error is the method's and, in the
first row of each, the sampler's: normal data and a mixture with one coordinate measured, in noise
and without, and the mixture with its distance from the origin measured. The exact moments are
closed forms, and sums over a fine grid for the distance. A posterior is drawn from by Heun's
method, 20,000 times, and by imposing the measurement on the states of the sampler. Differences of
means are in exact standard deviations, variances in exact variances. Ranks are those of 4,000 data
among 9 draws of the posteriors of their measurements, by Heun's method too. The relative asymmetry
of the Jacobian is that of the posterior of the problem at noise level 0.5. Intervals are 95 % ones.
Run as

    python benchmarks/posteriors.py docs/posteriors
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from pages import table
from torch import Tensor

import scorefield as sf
from scorefield.estimate import Estimate, mean
from scorefield.fields.observation import Operator
from scorefield.fields.posterior import PosteriorField
from scorefield.files import write_file
from scorefield.plotting.axes import contours, label_axes, scatter
from scorefield.plotting.png import new_figure, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SDE = sf.EDM(0.01, 80.0)
NORMAL = sf.Gaussian([0.0, 0.0], covariance=[[1.0, 0.8], [0.8, 1.0]], sde=SDE)
MIXTURE = sf.GaussianMixture(
    [[0.9, 1.0], [-1.0, 0.6], [0.7, -1.1]], stds=[0.35, 0.5, 0.4], weights=[0.4, 0.3, 0.3], sde=SDE
)
FIRST = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
SEED = 0
HARD = 0.01
"""The noise of a measurement that is exact: it has a posterior with a density."""
RANKED = "mixture, $x_1 = 0.5$"
Prior = sf.Gaussian | sf.GaussianMixture
Method = Callable[[sf.ScoreField, sf.Observation], PosteriorField]


def distance(x: Tensor) -> Tensor:
    return x.square().sum(dim=1, keepdim=True).sqrt()


class Problem(NamedTuple):
    prior: Prior
    operator: Operator
    y: float
    noise: float = 0.3

    @property
    def observation(self) -> sf.Observation:
        return sf.Observation(
            self.operator, torch.tensor([self.y], dtype=torch.float64), self.noise
        )

    def many(self, points: Tensor) -> sf.Observation:
        return sf.Observation.of(self.operator, points, self.noise, seed=2)


PROBLEMS = {
    "normal data, $x_1 = 1$": Problem(NORMAL, FIRST, 1.0),
    RANKED: Problem(MIXTURE, FIRST, 0.5),
    "normal data, $x_1 = 1$ exactly": Problem(NORMAL, FIRST, 1.0, HARD),
    "mixture, $x_1 = 0.5$ exactly": Problem(MIXTURE, FIRST, 0.5, HARD),
    r"mixture, $\lvert x \rvert = 1.2$": Problem(MIXTURE, distance, 1.2),
}


def methods(prior: Prior) -> dict[str, Method]:
    return {
        "DPS": sf.DPS,
        "PiGDM": lambda field, y: sf.PiGDM(field, y, sigma_data=prior.std),
        "MMPS": sf.MMPS,
        "ProjectedField": sf.ProjectedField,
    }


class Moments(NamedTuple):
    mean: Tensor
    covariance: Tensor


def exact_moments(problem: Problem) -> Moments:
    if isinstance(problem.operator, Tensor):
        truth = sf.exact_posterior(problem.prior, problem.observation)
        off = truth.means - truth.mean
        parts = truth.covariances + off[:, :, None] * off[:, None, :]
        return Moments(truth.mean, torch.einsum("k,kij->ij", truth.weights, parts))
    axis = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    misfit = (problem.y - problem.observation.measure(x))[:, 0]
    log = problem.prior.log_density(x, 0.0) - 0.5 * (misfit / problem.noise) ** 2
    p = log.softmax(dim=0)
    centre = p @ x
    return Moments(centre, torch.einsum("n,ni,nj->ij", p, x - centre, x - centre))


def cell(estimate: Estimate) -> str:
    low, high = estimate.interval()
    return f"{estimate.value:.3f} ± {(high - low) / 2:.3f}"


def moments(x: Tensor, exact: Moments) -> list[str]:
    """Differences of means, ratios of variances, and the difference of the correlation."""
    off = (x - exact.mean) / exact.covariance.diagonal().sqrt()
    centred = (x - x.mean(dim=0)) / exact.covariance.diagonal().sqrt()
    scale = exact.covariance.diagonal().sqrt()
    known = float(exact.covariance[0, 1] / (scale[0] * scale[1]))
    return [
        *(cell(mean(off[:, k].numpy())) for k in range(2)),
        *(cell(mean(centred[:, k].square().numpy())) for k in range(2)),
        correlation(centred, known),
    ]


def correlation(centred: Tensor, known: float) -> str:
    """The correlation less a known one, with the scatter of the samples' influence on it."""
    spread = centred.std(dim=0)
    if float(spread.min()) < 1e-6:
        return "–"
    z = centred / spread
    product = z[:, 0] * z[:, 1]
    value = float(product.mean())
    influence = product + value * (1 - 0.5 * z.square().sum(dim=1))
    return cell(mean((influence - known).numpy()))


def drawn(problem: Problem, n: int, steps: int) -> dict[str, Tensor]:
    """Samples of every method, that of the exact field first where it is known."""
    fields: dict[str, sf.ScoreField] = {}
    sampler, linear = sf.Heun(steps), isinstance(problem.operator, Tensor)
    if linear:
        fields["exact"] = sf.exact_posterior(problem.prior, problem.observation)
    for name, make in methods(problem.prior).items():
        # The steps of DPS would have to be as fine as the square of the noise.
        if name != "DPS" or problem.noise > HARD:
            fields[name] = make(problem.prior, problem.observation)
    found = {
        name: sampler.sample(field, n, SEED, dtype=torch.float64) for name, field in fields.items()
    }
    if linear:
        y = torch.tensor([[problem.y]], dtype=torch.float64)
        known = sf.LinearMeasurement(FIRST, y)
        found["LinearMeasurement"] = sampler.sample(
            problem.prior, n, SEED, dtype=torch.float64, measurement=known
        )
    return found


def asymmetry(problem: Problem, name: str) -> str:
    field = methods(problem.prior)[name](problem.prior, problem.observation)
    protocol = sf.Protocol([0.5], n=512)
    ((_, found),) = sf.relative_asymmetry(field, problem.prior, protocol)
    return "0" if found.value < 1e-8 else cell(found)


def calibration(n: int, steps: int) -> dict[str, sf.Ranks]:
    problem = PROBLEMS[RANKED]
    points = problem.prior.sample(n, seed=1, dtype=torch.float64)
    observation, sampler = problem.many(points), sf.Heun(steps)
    exact = sf.ExactPosteriors(problem.prior, observation)
    fields: dict[str, PosteriorField | sf.ExactPosteriors] = {"exact": exact}
    for name, make in methods(problem.prior).items():
        fields[name] = make(problem.prior, observation)
    coordinates = {"first": lambda x: x[:, 0], "second": lambda x: x[:, 1]}
    return {
        name: sf.calibration_ranks(field, points, sampler, 9, coordinates, dtype=torch.float64)
        for name, field in fields.items()
    }


def picture(problem: Problem, samples: dict[str, Tensor]) -> Figure:
    """Samples over contours of the exact density."""
    truth = sf.exact_posterior(problem.prior, problem.observation)
    axis = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=2).reshape(-1, 2)
    density = truth.log_density(grid, 0.0).exp().reshape(201, 201).numpy()
    figure = new_figure(2.1 * len(samples), 2.4)
    for axes, (name, x) in zip(figure.subplots(1, len(samples)), samples.items(), strict=True):
        scatter(axes, x[:2000], 2.5, size=2)
        contours(axes, np.asarray(axis), np.asarray(axis), density, (0.05, 0.3, 0.8))
        label_axes(axes, title=name)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--data", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=96)
    options = parser.parse_args()
    files: dict[str, bytes] = {}
    rows = []
    for title, problem in PROBLEMS.items():
        exact = exact_moments(problem)
        samples = drawn(problem, options.samples, options.steps)
        for name, x in samples.items():
            curl = asymmetry(problem, name) if name in methods(problem.prior) else ""
            rows.append([title, code(name), *moments(x, exact), curl])
        if title == RANKED:
            files["samples.png"] = png(picture(problem, samples))
    heads = ["posterior", "field", "mean of $x_1$", "of $x_2$", "variance of $x_1$", "of $x_2$"]
    files["moments.md"] = table([*heads, "correlation", "asymmetry"], rows).encode() + b"\n"
    ranks = calibration(options.data, options.steps // 2)
    files["ranks.png"] = png(sf.plot.ranks(ranks))
    rows = [
        [
            code(name),
            *("< 1e-10" if p < 1e-10 else f"{p:.1g}" for p in found.p_values.values()),
            *(cell(each[key]) for key in found.ranks for each in (found.shift, found.spread)),
        ]
        for name, found in ranks.items()
    ]
    names = ["$x_1$", "$x_2$", "the misfit"]
    heads = ["field", *(f"p of {name}" for name in names)]
    heads += [f"{what} of {name}" for name in names for what in ("shift", "spread")]
    files["ranks.md"] = table(heads, rows).encode() + b"\n"
    for name, content in files.items():
        if name.endswith(".md"):
            print(content.decode())
        if options.folder is not None:
            options.folder.mkdir(exist_ok=True)
            write_file(options.folder / name, content)


def code(name: str) -> str:
    return name if name == "exact" else f"`{name}`"


if __name__ == "__main__":
    main()

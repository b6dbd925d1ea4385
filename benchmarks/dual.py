"""Log-densities in one call: dual score matching against the truth, the flow, and itself.

The data are the ring of eight modes in the plane, and a mixture of four normal distributions in 16
dimensions. Each is divided into two halves, and a potential is trained on either half by denoising
and dual score matching, with the constant of the greatest noise level. Reported of each network, at
fresh points of the data and the least noise level:

* the error of its log-density, and the difference of the two networks;
* the integral of its density, by importance sampling from the truth at more noise;
* the log-density by its probability flow, with its two errors, and the time and calls of both.

Writes ``dual.csv``, the errors by noise level, and ``dual.png`` into a folder, and prints the
numbers of the page. Takes 40 minutes of processor time, in two processes of one thread.
Run as

    python benchmarks/dual.py --out docs/results
"""

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from pages import Row, options, panels, write_csv
from torch import Tensor

from scorefield import (
    EDM,
    MLP,
    DenoisingScoreMatching,
    DualScoreMatching,
    EnergyScaling,
    Estimate,
    GaussianMixture,
    LogProb,
    LogUniform,
    Noise,
    NormalizedField,
    Objective,
    PotentialField,
    fit,
    log_prob,
    normalized,
)
from scorefield.estimate import format_interval, mean

PROBLEMS = ("ring", "16 dimensions")
BATCH, POINTS, DRAWS, REPEATS = 512, 4096, 16_384, 5


@dataclass(frozen=True)
class Problem:
    """A distribution, the number of points of a half, the training, the level that importance
    sampling draws from, and the number of points of the flow."""

    name: str
    truth: GaussianMixture
    half: int
    weight: float
    steps: int
    proposal: float
    flow: int


def problem_of(name: str, scale: float) -> Problem:
    """A problem, and a multiple of its steps of training."""
    if name == "ring":
        ring = GaussianMixture.ring(sde=EDM(0.05, 20.0))
        return Problem(name, ring, 16_384, 0.05, round(12_000 * scale), 0.2, 128)
    means = Noise(0).normal("means", (16,), torch.arange(4), dtype=torch.float64)
    mixture = GaussianMixture(means, stds=0.6, sde=EDM(0.1, 10.0))
    return Problem(name, mixture, 131_072, 0.2, round(16_000 * scale), 0.25, 64)


def trained(problem: Problem, data: Tensor, seed: int) -> NormalizedField:
    truth, spread = problem.truth, float(data.std(dim=0).square().mean().sqrt())
    net = MLP(truth.domain.dim, hidden=128, depth=3, outputs=1, seed=seed)
    field = PotentialField(net, truth.sde, parametrization=EnergyScaling(spread))
    dual = DualScoreMatching(weight=problem.weight, rows=BATCH, sigma_data=spread)
    loss = DenoisingScoreMatching("edm", LogUniform(), spread)
    objective = Objective(loss, [dual])
    fit(
        field,
        data,
        objective=objective,
        steps=problem.steps,
        batch_size=BATCH,
        seed=seed,
        quiet=True,
    )
    return normalized(field)


def integral(problem: Problem, density: NormalizedField) -> Estimate:
    """The integral of the density at the least noise level."""
    truth, t = problem.truth, problem.proposal
    x = truth.sample(DRAWS, seed=3, dtype=torch.float64, t=t)
    return mean((density.log_prob(x) - truth.log_density(x, t)).exp().numpy())


def gap(one: Tensor, other: Tensor) -> Estimate:
    return mean((one - other).abs().numpy(), "nats")


def signed(one: Tensor, other: Tensor) -> Estimate:
    return mean((one - other).numpy(), "nats")


def seconds(density: NormalizedField, x: Tensor) -> float:
    """The least time of one call at all points, a point."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        density.log_prob(x)
        found.append(time.perf_counter() - start)
    return min(found) / len(x)


@dataclass(frozen=True)
class Result:
    """The log-densities of a problem at the least noise level, and its rows of the table."""

    name: str
    lines: list[str]
    exact: Tensor
    found: list[Tensor]
    flow: LogProb
    rows: list[Row]


def measured(name: str, scale: float) -> Result:
    torch.set_num_threads(1)
    problem, start = problem_of(name, scale), time.process_time()
    truth, lines = problem.truth, [f"\n{name}"]
    say = lines.append
    data = truth.sample(2 * problem.half, seed=0)
    halves = data.split(problem.half)
    densities = [trained(problem, half, seed) for seed, half in enumerate(halves)]
    say(f"trained in {time.process_time() - start:.0f} s of processor time")
    x = truth.sample(POINTS, seed=1, dtype=torch.float64)
    least = truth.sde.t_min
    exact = truth.log_density(x, least)
    found = [density.log_prob(x) for density in densities]
    for k, (density, value) in enumerate(zip(densities, found, strict=True)):
        say(f"network {k}, |error|: {format_interval(gap(value, exact))}")
        say(f"network {k}, error: {format_interval(signed(value, exact))}")
        say(f"network {k}, integral: {format_interval(integral(problem, density))}")
        say(f"network {k}, log Z: {density.log_constant:.4f} ± {density.standard_error:.4f}")
    say(f"two networks, |difference|: {format_interval(gap(*found))}")
    few = slice(problem.flow)
    begin = time.perf_counter()
    flow = log_prob(densities[0], x[few])
    spent = (time.perf_counter() - begin) / problem.flow
    say(f"flow, |error|: {format_interval(gap(flow.value, exact[few]))}")
    say(f"flow, error: {format_interval(signed(flow.value, exact[few]))}")
    say(f"potential at the same points, |error|: {format_interval(gap(found[0][few], exact[few]))}")
    say(f"flow from potential: {format_interval(gap(flow.value, found[0][few]))}")
    say(f"flow, mean: {flow.mean()}; standard error of a point 0, the trace is exact")
    say(f"flow, solver error at most: {float(flow.solver_error.max()):.1e} nats")
    calls, one = float(flow.calls.double().mean()), seconds(densities[0], x[few])
    say(
        f"flow: {calls:.0f} calls, {1e3 * spent:.2g} ms a point; "
        f"potential: 1 call, {1e3 * one:.2g} ms"
    )
    rows = []
    low, high = truth.sde.level_range
    for level in torch.linspace(0, 1, 9, dtype=torch.float64).tolist():
        t = low * (high / low) ** level
        noisy = truth.sample(POINTS, seed=2, dtype=torch.float64, t=t)
        at = truth.log_density(noisy, t)
        values = [density.log_prob(noisy, t) for density in densities]
        row: Row = {"data": name, "sigma": t}
        for key, e in {
            "error_0": gap(values[0], at),
            "error_1": gap(values[1], at),
            "difference": gap(*values),
        }.items():
            row[key], row[f"{key}_low"], row[f"{key}_high"] = e.value, *e.interval()
        rows.append(row)
    say(f"{time.process_time() - start:.0f} s of processor time in all")
    return Result(name, lines, exact, found, flow, rows)


def draw(results: list[Result], path: Path) -> None:
    figure, axes = panels(2, len(results), 10, 8)
    for (top, bottom), result in zip(axes.T, results, strict=True):
        exact = result.exact.numpy()
        top.scatter(
            exact, result.found[0].numpy(), s=3, color="#0072B2", label="potential, one call"
        )
        few = len(result.flow.value)
        top.scatter(
            exact[:few], result.flow.value.numpy(), s=14, marker="x", color="#D55E00", label="flow"
        )
        ends = [exact.min(), exact.max()]
        top.plot(ends, ends, color="#000000", linewidth=0.8)
        top.set(xlabel="exact log p [nats]", ylabel="log p [nats]", title=result.name)
        top.legend(frameon=False)
        sigmas = [row["sigma"] for row in result.rows]
        lines = {
            "error_0": "network 0",
            "error_1": "network 1",
            "difference": "difference of the two",
        }
        colours = ("#0072B2", "#009E73", "#999999")
        for (name, label), colour in zip(lines.items(), colours, strict=True):
            low, high = ([row[f"{name}_{end}"] for row in result.rows] for end in ("low", "high"))
            bottom.plot(sigmas, [row[name] for row in result.rows], color=colour, label=label)
            bottom.fill_between(sigmas, low, high, color=colour, alpha=0.25, linewidth=0)
        bottom.axhline(0.1, color="#000000", linewidth=0.8, linestyle=":")
        bottom.set(
            xscale="log", xlabel="noise level", ylabel="mean |error of log p| [nats]", ylim=0
        )
        bottom.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="multiple of the training steps")
    given = parser.parse_args()
    with ProcessPoolExecutor(len(PROBLEMS), get_context("spawn")) as pool:
        results = list(pool.map(partial(measured, scale=given.scale), PROBLEMS))
    for result in results:
        print("\n".join(result.lines))
    given.out.mkdir(parents=True, exist_ok=True)
    rows = [row for result in results for row in result.rows]
    write_csv(rows, given.out / "dual.csv", 4)
    draw(results, given.out / "dual.png")


if __name__ == "__main__":
    main()

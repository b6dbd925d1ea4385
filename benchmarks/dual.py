"""Log-densities in one call: dual score matching against the truth, the flow, and itself.

Of two distributions of known density a potential is trained on either half of the data; measured
are the errors of its log-densities, their integral, and those of its probability flow.

Writes the numbers, a figure and a page, in half an hour of processor time, in two processes of one
thread:

    python benchmarks/dual.py --out docs/results
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pages import Row, options, panels, table, write_csv
from torch import Tensor, nn

from scorefield import (
    EDM,
    MLP,
    DenoisingScoreMatching,
    DualScoreMatching,
    EnergyScaling,
    Estimate,
    GaussianMixture,
    LogUniform,
    Noise,
    NormalizedField,
    Objective,
    Optim,
    PotentialField,
    fit,
    log_prob,
    normalized,
)
from scorefield.estimate import mean

PROBLEMS = ("ring", "16 dimensions")
BATCH, POINTS, DRAWS, REPEATS, LEVELS = 512, 4096, 16_384, 5, 9
HIDDEN, DEPTH, RATE, WEIGHT = 128, 3, 5e-3, 0.05
Number = tuple[float, float, float]


PAGE = """# Log-densities in one call

A potential that is trained by denoising score matching is a log-density up to a constant at each
noise level. Dual score matching ([](../likelihood.md#log-densities-in-one-call)) leaves one
constant, which the prior fixes. How good is the log-density that one call of the network then
gives, is it normalised, and do two networks agree on it?

## Method

Two distributions whose density is known: the ring of eight normal modes in the plane (radius 4,
width 0.35; EDM, noise levels 0.05 to 20), and a mixture of four isotropic normal distributions in
16 dimensions (means standard normal, width 0.6; 0.1 to 10). Each data set is divided into two
halves that share no point, each of {halves}, and one network is trained on either half, for
{steps}, of {batch} points at a base rate of {rate:g}: a function
$a + b\\,|u|^2 + c \\cdot u$ of the scaled point $u$, whose coefficients are the outputs of an
`sf.MLP` (three layers of {hidden}) at that point and noise level, with `sf.EnergyScaling` and a
weight of {weight:g} of dual score matching.

```console
$ python benchmarks/dual.py --out docs/results
```

writes this page, the figure, [`dual.json`](dual.json) with the numbers, and
[`dual.csv`](dual.csv), the errors by noise level. It took {minutes} minutes of processor time in
two processes at a time, on a machine that was not idle.

All numbers are at {points} fresh points of the data, against the exact log-density at the least
noise level, in nats, with 95 % intervals over the points. The integral of the density is by
importance sampling, {draws} draws of the truth at a higher noise level. The flow is that of
network 0, by `sf.log_prob` at its default tolerance, at the first {flow_points} of the points; its
trace is exact.

{table}

![Log-density against the exact one, and its error by noise level](dual.png)

## What it says

* **One call is nearer to the truth than the flow of the same field**, by factors of {gains}, with
  one call in place of {flows}, each of which needs one vector-Jacobian product per dimension. Part
  of the flow's error may be its solver's; the divergence that it integrates no loss trained.
* **The mean absolute error is** {errors}. It was 0.055 and 0.055 on the ring, 0.089 and 0.106 in 16
  dimensions, with a plain network, a weight of 0.2 in 16 dimensions, a rate of 0.002 and fewer
  points. In pilots of 3,000 steps there it was 0.177; 0.153 with the higher rate, 0.154 with the
  smaller weight, and 0.099 with both and the quadratic function.
* **The density is normalised to within its sampling error in 16 dimensions, and to 1.4 % on the
  ring**: the integrals are {integrals}. Before, they were 0.965 and 0.948 in 16 dimensions. Noise
  that the targets of a noise level have in common moves an integral by an estimated 0.01; dual
  score matching now takes most of it away. The other settings changed too.
* **The difference of two networks of disjoint halves estimates their error**: {gaps} nats, to be
  divided by the root of 2 as for independent errors. This needs no truth.
* The constant at the greatest noise level has a standard error of {constants} nats.

## What the numbers do not cover

* **The settings were chosen against these truths**: the function, the weight, the rate,
  `EnergyScaling` and the noise ranges. A quadratic function is nearly the exact form for mixtures
  of isotropic normal distributions. For other data others may be better, and harder to choose.
* **One training on each half**: the intervals cover points, and not trainings.
* **The times compare loosely**: the flow was timed once, the potential five times, of which the
  best is given. Nothing here says that images are as easy.
"""


class Problem(NamedTuple):
    """A distribution, the number of points of a half, the steps of training, the level that
    importance sampling draws from, and the number of points of the flow."""

    truth: GaussianMixture
    half: int
    steps: int
    proposal: float
    flow: int


def problem_of(name: str, scale: float = 1.0) -> Problem:
    """A problem, and a multiple of its steps of training."""
    if name == "ring":
        ring = GaussianMixture.ring(sde=EDM(0.05, 20.0))
        return Problem(ring, 65_536, round(16_000 * scale), 0.2, 128)
    means = Noise(0).normal("means", (16,), torch.arange(4), dtype=torch.float64)
    mixture = GaussianMixture(means, stds=0.6, sde=EDM(0.1, 10.0))
    return Problem(mixture, 262_144, round(16_000 * scale), 0.25, 64)


class Quadratic(nn.Module):
    """The function a + b |u|^2 + c.u of a point, whose coefficients a network has there."""

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        self.coefficients = MLP(dim, HIDDEN, DEPTH, outputs=dim + 2, seed=seed)

    def forward(self, u: Tensor, label: Tensor) -> Tensor:
        a, b, c = self.coefficients(u, label).tensor_split((1, 2), dim=1)
        return a + ((b * u + c) * u).sum(dim=1, keepdim=True)


def trained(problem: Problem, data: Tensor, seed: int) -> NormalizedField:
    truth, spread = problem.truth, float(data.std(dim=0).square().mean().sqrt())
    shape = truth.domain.shape
    net = Quadratic(truth.domain.dim, seed)
    field = PotentialField(net, truth.sde, parametrization=EnergyScaling(spread), shape=shape)
    dual = DualScoreMatching(weight=WEIGHT, rows=BATCH, sigma_data=spread)
    objective = Objective(DenoisingScoreMatching("edm", LogUniform(), spread), [dual])
    steps = problem.steps
    optim = Optim(lr=RATE, warmup=steps // 50, decay="cosine", clip=1.0)
    how: dict[str, Any] = {"objective": objective, "optim": optim, "seed": seed, "quiet": True}
    fit(field, data, steps=steps, batch_size=BATCH, **how)
    return normalized(field)


def integral(problem: Problem, density: NormalizedField) -> Estimate:
    """The integral of the density at the least noise level."""
    truth, t = problem.truth, problem.proposal
    x = truth.sample(DRAWS, seed=3, dtype=torch.float64, t=t)
    return mean((density.log_prob(x) - truth.log_density(x, t)).exp().numpy())


def number(found: Estimate) -> Number:
    return (found.value, *found.interval())


def gap(one: Tensor, other: Tensor) -> Number:
    return number(mean((one - other).abs().numpy()))


def seconds(density: NormalizedField, x: Tensor) -> float:
    """The least time of one call at all points, a point."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        density.log_prob(x)
        found.append(time.perf_counter() - start)
    return min(found) / len(x)


class Result(NamedTuple):
    """The numbers of a problem, its rows of the table, and what is drawn."""

    numbers: dict[str, Any]
    rows: list[Row]
    exact: Tensor
    potential: Tensor
    flow: Tensor


def settings(scale: float) -> dict[str, Any]:
    """What the page states of a training."""
    ring, many = (problem_of(name, scale) for name in PROBLEMS)
    return {
        "halves": f"{ring.half:,} points on the ring and {many.half:,} in 16 dimensions",
        "steps": f"{ring.steps:,} steps on the ring and {many.steps:,} in 16 dimensions",
        "flow_points": f"{ring.flow} and {many.flow}",
        "batch": BATCH,
        "hidden": HIDDEN,
        "rate": RATE,
        "weight": WEIGHT,
        "points": f"{POINTS:,}",
        "draws": f"{DRAWS:,}",
    }


def measured(name: str, scale: float) -> Result:
    torch.set_num_threads(1)
    problem, start = problem_of(name, scale), time.process_time()
    truth, least, few = problem.truth, problem.truth.sde.t_min, slice(problem.flow)
    halves = truth.sample(2 * problem.half, seed=0).split(problem.half)
    densities = [trained(problem, half, seed) for seed, half in enumerate(halves)]
    x = truth.sample(POINTS, seed=1, dtype=torch.float64)
    exact = truth.log_density(x, least)
    found = [density.log_prob(x) for density in densities]
    begin = time.perf_counter()
    flow = log_prob(densities[0], x[few])
    spent = (time.perf_counter() - begin) / problem.flow
    numbers = {
        "error": [gap(value, exact) for value in found],
        "signed": [number(mean((value - exact).numpy())) for value in found],
        "integral": [number(integral(problem, density)) for density in densities],
        "constant": [density.standard_error for density in densities],
        "difference": gap(*found),
        "flow": gap(flow.value, exact[few]),
        "there": gap(found[0][few], exact[few]),
        "apart": gap(flow.value, found[0][few]),
        "solver": float(flow.solver_error.max()),
        "calls": float(flow.calls.double().mean()),
        "flow_ms": 1e3 * spent,
        "one_ms": 1e3 * seconds(densities[0], x[few]),
    }
    rows = []
    low, high = truth.sde.level_range
    for place in range(LEVELS):
        t = low * (high / low) ** (place / (LEVELS - 1))
        noisy = truth.sample(POINTS, seed=2, dtype=torch.float64, t=t)
        at = truth.log_density(noisy, t)
        one, other = (density.log_prob(noisy, t) for density in densities)
        row: Row = {"data": name, "sigma": t}
        gaps = {"error_0": gap(one, at), "error_1": gap(other, at), "difference": gap(one, other)}
        for key, ends in gaps.items():
            row |= dict(zip((key, f"{key}_low", f"{key}_high"), ends, strict=True))
        rows.append(row)
    numbers["seconds"] = time.process_time() - start
    numbers["settings"] = settings(scale)
    print(name, numbers, flush=True)
    return Result(numbers, rows, exact, found[0], flow.value)


def draw(results: dict[str, Result], path: Path) -> None:
    figure, axes = panels(2, len(results), 10, 8)
    for (top, bottom), (name, result) in zip(axes.T, results.items(), strict=True):
        exact, few = result.exact.numpy(), len(result.flow)
        top.scatter(exact, result.potential.numpy(), s=3, color="#0072B2", label="one call")
        top.scatter(
            exact[:few], result.flow.numpy(), s=14, marker="x", color="#D55E00", label="flow"
        )
        ends = [exact.min(), exact.max()]
        top.plot(ends, ends, color="#000000", linewidth=0.8)
        top.set(xlabel="exact log p [nats]", ylabel="log p [nats]", title=name)
        top.legend(frameon=False)
        sigmas = [row["sigma"] for row in result.rows]
        names = ("network 0", "network 1", "difference of the two")
        lines = dict(zip(("error_0", "error_1", "difference"), names, strict=True))
        colours = ("#0072B2", "#009E73", "#999999")
        for (key, label), colour in zip(lines.items(), colours, strict=True):
            low, high = ([row[f"{key}_{end}"] for row in result.rows] for end in ("low", "high"))
            bottom.plot(sigmas, [row[key] for row in result.rows], color=colour, label=label)
            bottom.fill_between(sigmas, low, high, color=colour, alpha=0.25, linewidth=0)
        bottom.axhline(0.1, color="#000000", linewidth=0.8, linestyle=":")
        bottom.set(xscale="log", xlabel="noise level", ylabel="mean |error of log p| [nats]")
        bottom.set(ylim=0)
        bottom.legend(frameon=False)
    figure.savefig(path, dpi=110)


def cell(numbers: Number) -> str:
    value, low, high = numbers
    return f"{value:.3f} ({low:.3f} to {high:.3f})".replace("-", "−")


def table_of(found: dict[str, dict[str, Any]]) -> str:
    """The table of the page: a column a problem."""
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("mean absolute error, network 0", lambda n: cell(n["error"][0])),
        ("network 1", lambda n: cell(n["error"][1])),
        ("mean error with its sign, network 0", lambda n: cell(n["signed"][0])),
        ("network 1", lambda n: cell(n["signed"][1])),
        ("integral of the density, network 0", lambda n: cell(n["integral"][0])),
        ("network 1", lambda n: cell(n["integral"][1])),
        ("difference of the two networks, in size", lambda n: cell(n["difference"])),
        ("the flow's points: error in size, flow", lambda n: cell(n["flow"])),
        ("the same points, potential", lambda n: cell(n["there"])),
        ("difference of flow and potential, in size", lambda n: cell(n["apart"])),
        ("largest solver error of the flow", lambda n: f"{n['solver']:.3f}"),
        ("calls of a point, flow / potential", lambda n: f"{n['calls']:.0f} / 1"),
        ("ms a point, flow / potential", lambda n: f"{n['flow_ms']:.0f} / {n['one_ms']:.3f}"),
    ]
    return table(["", *found], [[title, *map(of, found.values())] for title, of in rows])


def page_of(folder: Path) -> str:
    """The page, with the numbers that the folder has."""
    found = json.loads((folder / "dual.json").read_text(encoding="utf-8"))
    problems = found.values()

    def each(form: Callable[[dict[str, Any]], str]) -> str:
        return " and ".join(form(n) for n in problems)

    def pair(key: str) -> str:
        ends = (f"{n[key][0][0]:.3f} and {n[key][1][0]:.3f}" for n in problems)
        return " on the ring, ".join(ends) + " in 16 dimensions"

    return PAGE.format(
        table=table_of(found),
        gains=each(lambda n: f"{n['flow'][0] / n['there'][0]:.1f}"),
        flows=each(lambda n: f"{n['calls']:.0f}"),
        minutes=each(lambda n: f"{n['seconds'] / 60:.0f}"),
        gaps=each(lambda n: f"{n['difference'][0]:.3f}"),
        constants=each(lambda n: f"{max(n['constant']):.4f}"),
        errors=pair("error"),
        integrals=pair("integral"),
        **next(iter(problems))["settings"],
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="multiple of the training steps")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.page:
        with ProcessPoolExecutor(len(PROBLEMS), get_context("spawn")) as pool:
            of_problem = pool.map(partial(measured, scale=given.scale), PROBLEMS)
            results = dict(zip(PROBLEMS, of_problem, strict=True))
        numbers = {name: result.numbers for name, result in results.items()}
        (given.out / "dual.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
        write_csv([row for r in results.values() for row in r.rows], given.out / "dual.csv", 4)
        draw(results, given.out / "dual.png")
    (given.out / "dual.md").write_text(page_of(given.out), encoding="utf-8")


if __name__ == "__main__":
    main()

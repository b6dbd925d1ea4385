"""Distilled energies: what the conservative projection of a field loses, and what it gains.

Of two distributions of the plane, and for each seed, M0 is trained (a plain network), its distilled
potential, and M2 (the same potential, trained directly). Measured are their errors, and the
distance of samples of the product from its density, which is known. Writes all numbers and a page:

    python benchmarks/distilled.py --out docs/results
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from pages import Row, options, panels, read_csv, table, write_csv
from torch import Tensor

import scorefield as sf
from scorefield.estimate import format_interval, mean, paired_difference
from scorefield.samplers.kernels import Kernel

SEEDS = range(5)
STEPS, BATCH, HIDDEN = 1500, 256, 64
SDE = sf.EDM(0.2, 10.0)
DATA = {
    "ring": sf.GaussianMixture.ring(modes=6, radius=2.0, std=0.5, sde=SDE),
    "pair": sf.GaussianMixture([[1.2, 0.6], [-1.0, -0.8]], stds=0.9, weights=[0.65, 0.35], sde=SDE),
}
M0, DISTILLED, M2 = MODELS = ("M0", "distilled", "M2")
SIGMAS = (0.2, 0.5, 1.2, 3.0, 8.0)
PROTOCOL = sf.Protocol(sigmas=list(SIGMAS), n=1024)
CHAINS, LEVELS, MOVES = 2000, 10, 8
HMC, ULA = sf.HMC(size=0.6, width=0.4, leaps=3), sf.ULA(size=0.3, width=0.4)
LEVEL = SDE.t_min  # of the samples
EXACT, LINES = "exact samples", "M0, HMC, line integrals"
TRUE_FLOW, FLOW = (f"{fields}, flow of the summed scores" for fields in ("exact fields", M0))
TRUE_ULA, UNADJUSTED = (f"{fields}, ULA of the summed scores" for fields in ("exact fields", M0))
TRUE, OWN, DIRECT = (f"{f}, HMC, exact acceptance" for f in ("exact fields", DISTILLED, M2))

COLUMNS = ("seed", "quantity", "data", "model", "sigma", "value")
Fields = dict[str, sf.ScoreField]


def trained(data: str, seed: int) -> Fields:
    """The three fields."""
    truth = DATA[data]
    fields: Fields = {}
    direct = sf.DenoisingScoreMatching("edm", sf.LogNormal(-0.2, 1.2), truth.std)
    for model in MODELS:
        kind, outputs = (sf.PotentialField, 1) if model != M0 else (sf.PreconditionedField, None)
        field = kind(sf.MLP(2, HIDDEN, outputs=outputs, seed=seed), SDE, sigma_data=truth.std)
        loss: Any = direct
        if model == DISTILLED:
            loss = sf.Distillation("edm", direct.law, truth.std, teacher=fields[M0])
        how: dict[str, Any] = {"objective": sf.Objective(loss), "seed": seed, "quiet": True}
        sf.fit(field, truth, steps=STEPS, batch_size=BATCH, ema_decay=0.995, **how)
        fields[model] = field
    # Differences of log-densities have few digits in single precision.
    return {model: field.double() for model, field in fields.items()}


def of_levels(data: str, fields: Fields) -> Iterator[tuple[str, str, float, float]]:
    """Quantity, model, noise level and value of the properties of fields."""
    truth = DATA[data]
    for model, field in fields.items():
        for sigma, error in sf.score_error(field, truth, PROTOCOL):
            yield "score error", model, sigma, error.value
        for sigma, curl in sf.relative_asymmetry(field, truth, PROTOCOL):
            yield "curl", model, sigma, curl.value
    x = truth.sample(PROTOCOL.n, seed=7, dtype=torch.float64)
    z = sf.Noise(7).normal("points", (2,), torch.arange(len(x)), dtype=torch.float64)
    for sigma, rest in sf.hodge_split(fields[M0], truth, PROTOCOL, features=128).rest:
        t = torch.full((len(x),), sigma, dtype=torch.float64)
        with torch.no_grad():
            own, other = (fields[m].predict_noise(x + sigma * z, t) for m in (M0, DISTILLED))
        yield "distance", DISTILLED, sigma, float((own - other).square().mean().sqrt())
        energy = float(own.square().mean()) * max(rest.value, 0.0)
        yield "no gradient", M0, sigma, math.sqrt(energy)


def multiplied(one: sf.GaussianMixture, other: sf.GaussianMixture) -> sf.GaussianMixture:
    """The product of two isotropic mixtures at the noise level of the samples, as a mixture."""
    v, w = (m.covariances[0, 0, 0] + LEVEL**2 for m in (one, other))
    m, n = one.means[:, None], other.means[None]
    logs = one.weights[:, None].log() + other.weights.log()
    logs = logs - (m - n).square().sum(dim=2) / (2 * (v + w))
    centres = ((m * w + n * v) / (v + w)).reshape(-1, 2)
    std = float((v * w / (v + w)).sqrt())
    return sf.GaussianMixture(centres, stds=std, weights=logs.flatten().softmax(dim=0), sde=SDE)


def misplaced(x: Tensor, law: sf.GaussianMixture) -> float:
    """The mass that is in a wrong quadrant: total variation between the four."""
    right, above = torch.special.ndtr(law.means / law.covariances[0, 0, 0].sqrt()).T
    each = [a * b for a in (1 - right, right) for b in (1 - above, above)]
    places = torch.bincount(2 * (x[:, 0] > 0).long() + (x[:, 1] > 0).long(), minlength=4)
    return 0.5 * float((places / len(x) - torch.stack(each) @ law.weights).abs().sum())


def of_samples(fields: dict[str, Fields], seed: int) -> Iterator[tuple[str, str, float]]:
    """Quantity, sampler and value of samples of the product."""
    law = multiplied(*DATA.values())
    reference = law.sample(20_000, seed=100 + seed, dtype=torch.float64)
    composed = {m: sf.product(*(fields[data][m] for data in DATA)) for m in MODELS}
    true = sf.product(*DATA.values())
    found: dict[str, float] = {}

    def chains(field: sf.ScoreField, kernel: Kernel, moves: int = MOVES) -> Tensor:
        sampler = sf.AnnealedMCMC(LEVELS, kernel, moves=moves, t_end=LEVEL)
        rates = sf.AcceptanceRates()

        def watch(state: Any) -> None:
            rates(state)
            found["calls"] = state.nfe

        x = sampler.sample(field, CHAINS, seed=seed, dtype=torch.float64, callback=watch)
        if kernel is HMC:
            found["accepted"] = mean([share.value for share in rates.levels.values()]).value
        if rates.path_gap is not None:
            found["path gap"] = rates.path_gap.value
        return x

    def flow(field: sf.ScoreField) -> Tensor:
        sampler = sf.Heun(20)
        found["calls"] = sampler.nfe or 0
        return sampler.sample(field, CHAINS, seed=seed, dtype=torch.float64)

    makers: dict[str, Callable[[], Tensor]] = {
        EXACT: lambda: law.sample(CHAINS, seed=seed, dtype=torch.float64),
        TRUE_FLOW: lambda: flow(true),
        TRUE_ULA: lambda: chains(true, ULA, 3 * MOVES),
        TRUE: lambda: chains(true, HMC),
        FLOW: lambda: flow(composed[M0]),
        UNADJUSTED: lambda: chains(composed[M0], ULA, 3 * MOVES),
        LINES: lambda: chains(composed[M0], HMC),
        OWN: lambda: chains(composed[DISTILLED], HMC),
        DIRECT: lambda: chains(composed[M2], HMC),
    }
    for name, make in makers.items():
        found.clear()
        x = make()
        found["distance"] = sf.sliced_wasserstein(x, reference).value
        found["misplaced"] = misplaced(x, law)
        yield from ((quantity, name, value) for quantity, value in found.items())


def of_seed(seed: int) -> Iterator[Row]:
    """All numbers of a seed."""
    fields = {data: trained(data, seed) for data in DATA}
    found: list[tuple[str | float, ...]] = []
    for data in DATA:
        found += [(q, data, m, sigma, v) for q, m, sigma, v in of_levels(data, fields[data])]
    found += [(q, "product", m, "", v) for q, m, v in of_samples(fields, seed)]
    yield from (dict(zip(COLUMNS, (seed, *row), strict=True)) for row in found)


class Numbers:
    """The numbers of all seeds, by what they are of."""

    def __init__(self, rows: list[Row]) -> None:
        self.seeds = len({row["seed"] for row in rows})
        self.found: dict[tuple[str, ...], list[float]] = {}
        for row in rows:
            key = tuple(str(row[k]) for k in ("quantity", "data", "model", "sigma"))
            self.found.setdefault(key, []).append(float(row["value"]))
        self.samplers = [k[2] for k in self.found if k[0] == "misplaced"]

    def of(self, quantity: str, data: str, model: str, sigma: float | str = "") -> list[float]:
        return self.found.get((quantity, data, model, str(sigma)), [])

    def total(self, quantity: str, data: str, model: str) -> list[float]:
        """The root mean square over noise levels, of each seed."""
        each = [self.of(quantity, data, model, sigma) for sigma in SIGMAS]
        squares = zip(*each, strict=True)
        return [math.sqrt(sum(v**2 for v in one) / len(one)) for one in squares]


def cell(values: list[float]) -> str:
    return format_interval(mean(values)) if values else ""


def verdict(one: list[float], other: list[float], words: tuple[str, str]) -> str:
    """The words for less or more, or that the 95 % interval of the difference holds zero."""
    difference = paired_difference(one, other)
    low, high = difference.interval()
    word = "not distinguishable from" if low <= 0 <= high else words[difference.value > 0]
    return f"{word} %s, {format_interval(difference)}"


def of_errors(n: Numbers, data: str) -> str:
    m0, distilled, m2 = (n.total("score error", data, model) for model in MODELS)
    one, other = (verdict(distilled, e, ("better than", "worse than")) for e in (m0, m2))
    return f"* **{data}**: {one % 'its teacher'}; {other % 'M2'}."


def of_pair(n: Numbers, one: str, other: str) -> str:
    own, than = (n.of("distance", "product", model) for model in (one, other))
    return f"* **{one}**: {verdict(own, than, ('nearer than', 'farther than')) % f'*{other}*'}."


def page_of(folder: Path) -> str:
    """The page, all of whose numbers are those that the folder has, and of the settings."""
    n = Numbers(read_csv(folder / "distilled.csv"))
    about = json.loads((folder / "distilled.json").read_text(encoding="utf-8"))
    errors, fits, samples = [], [], []
    for data in DATA:
        for model in MODELS:
            each = (n.total(quantity, data, model) for quantity in ("score error", "curl"))
            errors.append([data, model, *map(cell, each)])
        apart, rest = n.total("distance", data, DISTILLED), n.total("no gradient", data, M0)
        share = [r**2 / d**2 for d, r in zip(apart, rest, strict=True)]
        fits.append([data, *map(cell, (apart, rest, share))])
    quantities = ("misplaced", "distance", "accepted", "path gap", "calls")
    for model in n.samplers:
        samples.append([model, *(cell(n.of(q, "product", model)) for q in quantities)])
    pairs = [(OWN, other) for other in (LINES, UNADJUSTED, FLOW, DIRECT, TRUE)]
    pairs += [(LINES, UNADJUSTED), (TRUE, EXACT), (TRUE_ULA, EXACT), (TRUE_FLOW, EXACT)]
    calls = (mean(n.of("calls", "product", model)).value for model in (LINES, OWN))
    points = "\n".join(of_pair(n, one, other) for one, other in pairs)
    return f"""# Distilled energies

A plain network is no gradient, and has no log-density by which a sampler could accept a move. A
potential that is fitted to its score has one ([](../composition.md)). What does that lose, and
what does it gain where fields are composed?

## Method

Two distributions of the plane: a *ring* of six modes (radius 2, width 0.5), and a *pair* of modes
(width 0.9, weights 0.65 and 0.35); EDM, noise levels {SDE.sigma_min:g} to {SDE.sigma_max:g}. For
each and for each of {n.seeds} seeds, three fields are trained for {STEPS:,} steps of {BATCH} fresh
points, with `sf.MLP` of three layers of {HIDDEN}: **M0**, a plain network; **distilled**, a
potential fitted to the averaged M0 by `sf.Distillation`; and **M2**, the same potential from the
same initial weights, trained directly. The distilled potential has M0's training besides its own.

```console
$ python benchmarks/distilled.py --out docs/results
```

writes this page, the figure and [`distilled.csv`](distilled.csv), every number of every seed; on
{about["date"]} with {about["versions"]}, in {about["seconds"]} s of processor
time of one thread, on a machine that was not idle. Intervals are 95 %
over seeds, of trainings and samples together; a difference is first less second, seed by seed.

## What is lost

Root mean squares in units of the noise, over the points of a level and over the levels
{", ".join(f"{s:g}" for s in SIGMAS)}. Curl is the asymmetry of the Jacobian relative to its size.

{table(["data", "field", "score error", "curl"], errors)}

The squared distance of the distilled field from its teacher is the sum of two: the part of the
teacher that is no gradient under the noisy density, which no potential can follow, and the error
of the fit. The first is by the Hodge split with random features, an upper bound.

{table(["data", "distance", "no gradient", "share of the square"], fits)}

The score error of the distilled potential is, with the difference:

{chr(10).join(of_errors(n, data) for data in DATA)}

![Score errors, distance from the teacher, and samples of the product](distilled.png)

## What is gained

Sampled is the product of the densities of ring and pair at the noise level {LEVEL:g}, a known
mixture of twelve normal distributions. {CHAINS:,} samples each. Chains visit {LEVELS} noise levels,
with {MOVES} moves of `sf.HMC` (three leaps) at each, or {3 * MOVES} of `sf.ULA`. The flow is
`sf.Heun(20)` with the sum of the scores, at higher noise not that of the noised product.

*Misplaced* is the mass in a wrong quadrant, *distance* the sliced Wasserstein distance from 20,000
exact samples; as many exact samples as are drawn show what chance makes of both. *Path gap* is the
mean difference in nats between line integrals along two paths. Calls are those of the product for
a sample, for line integrals with those that measure the gap.

{table(["fields and sampler", *quantities], samples)}

In distance, with the difference:

{points}

Line integrals, with their path gap, take {next(calls) / next(calls):.1f} times the calls of the
potential, whose calls have a gradient in them; they need no second training.

## What the numbers do not cover

Two coordinates, small networks, one length of training, the same step sizes for all fields, and
modes between which the chains move. Smaller differences are not seen with {n.seeds} seeds.

Sources: *Composition and control with distilled energy diffusion models and sequential Monte Carlo*
(Thornton et al., 2025, arXiv 2502.12786). Line integrals: {{py:mod}}`scorefield.samplers.kernels`.
"""


def draw(rows: list[Row], path: Path) -> None:
    n = Numbers(rows)
    figure, (errors, samples) = panels(1, 2, 12, 4.6)
    colours = {M0: "#D55E00", DISTILLED: "#0072B2", M2: "#009E73"}
    lines = [("score error", model, model, "-") for model in MODELS]
    lines += [("distance", DISTILLED, "distilled, from its teacher", "--")]
    lines += [("no gradient", M0, "the teacher's part that is no gradient", ":")]
    for quantity, model, label, style in lines:
        each = [n.of(quantity, "ring", model, sigma) for sigma in SIGMAS]
        colour, centre = colours[model], [mean(values).value for values in each]
        errors.plot(SIGMAS, centre, style, color=colour, label=label)
        errors.plot(SIGMAS, each, ".", color=colour, markersize=4)
    errors.set(yscale="log", xlabel="noise level", title="ring: score errors in units of the noise")
    errors.legend(frameon=False)
    for k, model in enumerate(n.samplers):
        values = n.of("distance", "product", model)
        colour = next((c for m, c in colours.items() if model.startswith(m)), "#777777")
        samples.plot(values, [k] * len(values), "o", color=colour, alpha=0.7)
    samples.set(xlabel="distance from the product", title="samples of the product, by seed")
    samples.set_yticks(range(len(n.samplers)), n.samplers)
    samples.invert_yaxis()
    for panel, ticks in ((errors, SIGMAS), (samples, (0.03, 0.1, 0.3, 1.0))):
        panel.set_xscale("log")
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set_xticks([], minor=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    given = parser.parse_args()
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    if not given.page:
        torch.set_num_threads(1)
        start = time.process_time()
        rows = [row for seed in SEEDS for row in of_seed(seed)]
        about = {
            "date": time.strftime("%Y-%m-%d"),
            "versions": f"scorefield {sf.__version__} and torch {torch.__version__}",
            "seconds": round(time.process_time() - start),
        }
        write_csv(rows, out / "distilled.csv")
        (out / "distilled.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        draw(rows, out / "distilled.png")
    (out / "distilled.md").write_text(page_of(out), encoding="utf-8")


if __name__ == "__main__":
    main()

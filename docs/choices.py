"""Write the pages on choosing a sampler and a regulariser from the measured tables in
`docs/results`: `python docs/choices.py`.
"""

import csv
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
BUDGETS = ("8", "16", "32", "64", "128", "1000")
METHODS = {
    "Euler": "Euler(steps)",
    "Heun": "Heun(steps)",
    "DPM-Solver++(2M)": "DPMSolverPlusPlus2M(steps)",
    "DDIM, η = 1": "DDIM(steps, eta=1.0)",
    "Euler-Maruyama": "PredictorCorrector(steps, EulerMaruyama())",
    "reverse diffusion": "PredictorCorrector(steps, ReverseDiffusion())",
    "ancestral": "PredictorCorrector(steps, Ancestral())",
    "reverse diffusion + annealed": (
        "PredictorCorrector(steps, ReverseDiffusion(), AnnealedLangevin(snr=0.16))"
    ),
}
MODELS = {
    "m1": ("asymmetry, by one probe", "Asymmetry(weight)"),
    "m3": ("circulation", "LoopCirculation(weight)`, `sf.CycleCirculation(weight)"),
    "m2": ("gradient of a potential", "PotentialField(network, sde)"),
    "m4": ("potential at low noise", "HybridField(low, high, sigma_c)"),
}

SAMPLER = """\
# Choosing a sampler

How far samples are from the exact distribution at a number of network calls, where the score is
exact: on a ring of eight normal modes, under EDM, VE and VP. `python docs/choices.py` writes the
tables of this page from {{download}}`samplers.csv <results/samplers.csv>`;
[](results/samplers.md) has the method, all samplers and the reasons.

## The answer

| you want | take |
|---|---|
| samples in about 8 calls | `sf.DDIM(8)`: none is good, and low order does least harm |
| samples in 16 to 32 calls | `sf.DPMSolverPlusPlus2M(steps)`, one call a step |
| samples, whatever the number of calls | `sf.ProbabilityFlow(0.01, 0.01)`: {calls} calls here |
| latent codes, the flow itself | `sf.ProbabilityFlow(1e-5, 1e-5)` |
| noise that forgets a network's errors | `sf.DDIM(steps, eta=1.0)`, with four times the calls |

With an exact score no sampler is better than another once the calls suffice. A trained network
has errors of its own, and noise can make up for some of them: measure it, as below.

## Error against calls

The sliced Wasserstein distance to real samples, in multiples of that between two real sets: 1 is
a perfect sampler (standard deviation 0.20). Ranges are those over the three processes; the
smallest worst value of a column is bold, where it is above 1.3.

{floors}

`sf.ProbabilityFlow` chooses its steps for each sample:

{flow}

## The same for your field

```python
import scorefield as sf

truth = sf.GaussianMixture.ring(modes=8, radius=4.0, std=0.35, sde=sf.EDM())
field = truth  # a field of yours, and real points in place of the truth's
real = truth.sample(2048, seed=1)
for calls in (8, 16, 32):
    for kind in (sf.DDIM, sf.DPMSolverPlusPlus2M, sf.Heun):
        sampler = kind.for_nfe(calls)
        x = sampler.sample(field, n=2048, seed=0)
        print(calls, kind.__name__, sf.sliced_wasserstein(x, real))
print(sf.sliced_wasserstein(truth.sample(2048, seed=2), real))  # two real sets: the floor
```

`scorefield eval RUN --nfe 8,16,32 --sampler ddim` adds another sampler to the evaluation of a
run.
"""

REGULARIZER = """\
# Choosing a regulariser

What each means of making a field a gradient costs and does, in comparison with the same network
trained by denoising score matching alone. `python docs/choices.py` writes the table from the
files of [](results/five_models.md): eight modes in the plane, ten trainings each, ratios to the
plain network with 95 % intervals.

| means | step time | circulation | asymmetry | path gap | score error | samples |
|---|---|---|---|---|---|---|
{table}

Circulation is that around loops of radius σ/2, asymmetry the relative one of the Jacobian.
Samples of 63 network calls are compared by the sliced Wasserstein distance. Of a potential only
rounding and the error of the quadrature are left.

| means | in Python | preset |
|---|---|---|
{names}

## Which one

* **You want better samples: none of them.** Samples of all five are not distinguishable from 17
  calls on, and [curl alone does no harm](results/dose_response.md). Train longer instead.
* **On images the penalties harmed.** With the weights of the presets, early in training, both made
  denoising and log-densities worse; the potential did not, at four times the cost of a step
  ([](results/fashion_mnist.md)).
* **You need an exact gradient** (energies, density ratios, Metropolis corrections): a potential.
  It is the only one without curl, and had the smallest score error. On digits its best head,
  `inner`, was not distinguishable from a plain network at equal cost ([](results/heads.md)).
* **You need log-densities in one call**: a potential and dual score matching
  (`sf.DualScoreMatching`), at about twice the cost of its step ([](results/dual.md)).
* **You want less curl in a network that you keep**: circulation. Of the two penalties it reduces
  every measure of curl more, and its loss needs no derivative of the network by its input.
* **Asymmetry by probes** reduces curl less, and made the score error larger.
* **A potential at low noise only** cost as much as a whole one, and gained nothing here.
* **The Fokker–Planck residual** halved the score error on two atoms at equal steps, and not at
  equal time: its step costs three plain ones. Consistency along a model's own trajectories was
  unstable there ([](results/atoms.md)).

These are small problems, one weight for each term. On images of your own, measure: train both,
and compare.

```python
import scorefield as sf

truth = sf.GaussianMixture.ring(modes=8, radius=4.0, std=0.35, sde=sf.EDM(0.01, 40.0))
protocol = sf.Protocol(sigmas=[0.3, 1.0, 3.0], n=256)
for regularizers in ([], [sf.LoopCirculation(weight=0.1)], [sf.Asymmetry(weight=0.1)]):
    field = sf.PreconditionedField(sf.MLP(dim=2), truth.sde, sigma_data=truth.std)
    fit = sf.fit(field, truth, steps=2000, seed=0, regularizers=regularizers, quiet=True)
    print([type(r).__name__ for r in regularizers], f"{{fit.seconds:.0f}} s")
    print(sf.relative_asymmetry(field, truth, protocol))
    print(sf.score_error(field, truth, protocol))
```

A regulariser of your own: [](own_regularizer.md). On the command line `scorefield sweep toy/m0
toy/m1 toy/m3 --seeds 0,1,2 --eval` and `scorefield report` make the comparison, with intervals
over seeds.
"""


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def span(values: list[float], digits: int = 2) -> str:
    """The range of values, to some digits."""
    low, high = (f"{v:.{digits}g}" if v < 100 else f"{v:.0f}" for v in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def table(head: list[str], lines: list[list[str]]) -> str:
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def sampler_page() -> str:
    measured = rows("samplers.csv")

    def floors(**wanted: str) -> list[float]:
        chosen = [r for r in measured if all(r[k] == v for k, v in wanted.items())]
        return [float(r["floors"]) for r in chosen]

    cells = {m: [floors(method=m, budget=b) for b in BUDGETS] for m in METHODS}
    best = [min(max(cells[m][k]) for m in METHODS) for k in range(len(BUDGETS))]
    lines = []
    for method, own in cells.items():
        shown = [span(values) for values in own]
        # At 128 calls and more several are at the floor, and none is the best.
        bold = [
            max(values) == least and least > 1.3 for values, least in zip(own, best, strict=True)
        ]
        marked = [f"**{text}**" if b else text for text, b in zip(shown, bold, strict=True)]
        noisy = next(r["stochastic"] for r in measured if r["method"] == method)
        lines.append([f"`sf.{METHODS[method]}`", "yes" if noisy == "True" else "no", *marked])
    head = ["sampler", "stochastic", *(f"{b} calls" for b in BUDGETS)]
    flow = [r for r in measured if r["method"] == "ProbabilityFlow"]
    tolerances = sorted({float(r["tolerance"]) for r in flow}, reverse=True)[1:-1]
    adaptive = []
    for tolerance in tolerances:
        there = [r for r in flow if float(r["tolerance"]) == tolerance]
        calls, errors, ratio = ([float(r[k]) for r in there] for k in ("calls", "rms", "floors"))
        adaptive.append([f"{tolerance:g}", span(calls), span(errors, 1), span(ratio)])
    usual = span([float(r["calls"]) for r in flow if float(r["tolerance"]) == 0.01])
    return SAMPLER.format(
        calls=usual,
        floors=table(head, lines),
        flow=table(["tolerance", "calls", "distance to the flow", "distance / floor"], adaptive),
    )


def regularizer_page() -> str:
    paired = rows("five_models/paired_differences.csv")
    cost = {r["model_id"]: r for r in rows("five_models/compute_budget_by_dataset.csv")}

    def ratio(model: str, metric: str, **wanted: str) -> str:
        (r,) = (
            r
            for r in paired
            if (r["model_id"], r["metric_name"], r["sigma"]) == (model, metric, "")
            and all(r[k] == v for k, v in wanted.items())
            and not r["budget_fraction"]
        )
        value, low, high = (float(r[f"ratio_{k}"]) for k in ("mean", "low", "high"))
        if value < 0.01:
            return f"{value:.0e}"
        return f"{value:.2f} ({low:.2f} to {high:.2f})"

    lines = []
    plain = float(cost["m0"]["seconds_per_step"])
    for model, (means, _) in MODELS.items():
        seconds = float(cost[model]["seconds_per_step"]) / plain
        lines.append([
            means, f"{seconds:.2f}", ratio(model, "loop_circulation", scale_delta="0.5"),
            ratio(model, "relative_asymmetry"), ratio(model, "path_gap"),
            ratio(model, "score_error"), ratio(model, "sliced_wasserstein", nfe="63"),
        ])  # fmt: skip
    return REGULARIZER.format(
        table="\n".join(f"| {' | '.join(line)} |" for line in lines),
        names="\n".join(
            f"| {means} | `sf.{call}` | `toy/{model}` |" for model, (means, call) in MODELS.items()
        ),
    )


PAGES = {
    HERE / "choose_sampler.md": sampler_page,
    HERE / "choose_regularizer.md": regularizer_page,
}


if __name__ == "__main__":
    for path, text in PAGES.items():
        path.write_text(text(), encoding="utf-8")

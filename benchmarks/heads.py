"""Which scalar of a network makes the best potential: heads compared at equal cost.

The data are 64 of the handwritten digits, 8 x 8 pixels, as a distribution of that many points,
whose diffused score is known exactly. One small U-Net is trained as a plain field, and as a
potential under each head:

* ``sum``: the sum over all pixels of the network's outputs, a sum of local energies;
* ``inner``: the inner product of the input with the output;
* ``denoising``: half the squared distance of the input from the output.

All potentials cost the same in a step; the plain network, of half the cost by multiply-adds, is
trained for as many steps, and for twice as many. Reported is the error of the score in units of
the noise, :math:`\\sigma^2 |s - s_*|^2 / D`, on the same points of each noise level: means over
seeds with a 95 % interval, and the ratio to ``inner`` of the mean over levels, paired over seeds.
Run as

    python benchmarks/heads.py --steps 400 --seeds 3
"""

import argparse
import math
import statistics

import torch
from pages import table

from scorefield import (
    EDM,
    EDMScaling,
    Optim,
    PotentialField,
    PreconditionedField,
    ScoreField,
    UNet,
    fit,
)
from scorefield.data.arrays import digits
from scorefield.estimate import mean
from scorefield.fields.potential import Head
from scorefield.noise import Noise
from scorefield.targets.empirical import Empirical

KINDS: dict[str, Head | None] = {
    "plain": None,
    "plain, twice": None,
    "sum": "sum",
    "inner": "inner",
    "denoising": "denoising",
}
SIGMAS = (0.1, 0.2, 0.5, 1.0, 2.0)


def field_of(head: Head | None, spread: float, seed: int) -> ScoreField:
    network = UNet((1, 8, 8), channels=8, multipliers=(1, 2), seed=seed)
    scaling = EDMScaling(spread)
    if head is None:
        return PreconditionedField(network, EDM(), parametrization=scaling)
    return PotentialField(network, EDM(), parametrization=scaling, head=head)


def errors(field: ScoreField, truth: Empirical, n: int = 128) -> list[float]:
    index, found = torch.arange(n), []
    exact = truth.under(field.sde)
    for k, sigma in enumerate(SIGMAS):
        x = truth.sample(n, seed=1000 + k).float()
        x = x + sigma * Noise(k).normal("points", x.shape[1:], index).float()
        t = field.sde.time(torch.full((n,), sigma))
        with torch.no_grad():
            gap = field.score(x, t) - exact.score(x.double(), t.double()).float()
        found.append(float((sigma**2 * gap.square()).mean()))
    return found


def cell(values: list[float]) -> str:
    e = mean(values)
    low, high = e.interval()
    return f"{e.value:.4f} ± {(high - low) / 2:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    x = digits().reference(64, seed=0, split="train")
    truth = Empirical(x)
    lengths = {"plain": given.steps, "plain, twice": 2 * given.steps}
    found: dict[str, list[list[float]]] = {}
    for kind, head in KINDS.items():
        for seed in range(given.seeds):
            field = field_of(head, float(x.std()), seed)
            steps = lengths.get(kind, given.steps)
            optim = Optim(lr=3e-3, warmup=steps // 10, decay="cosine", clip=1.0)
            fit(
                field,
                truth,
                steps=steps,
                batch_size=64,
                ema_decay=0.99,
                optim=optim,
                seed=seed,
                quiet=True,
            )
            found.setdefault(kind, []).append(errors(field, truth))
            print(kind, seed, [f"{e:.4f}" for e in found[kind][-1]], flush=True)
    lines = []
    base = [math.log(statistics.mean(row)) for row in found["inner"]]
    for kind, rows in found.items():
        cells = [cell([row[k] for row in rows]) for k in range(len(SIGMAS))]
        logs = [math.log(statistics.mean(row)) - b for row, b in zip(rows, base, strict=True)]
        e = mean(logs)
        low, high = map(math.exp, e.interval())
        ratio = "1" if kind == "inner" else f"{math.exp(e.value):.2f} ({low:.2f} to {high:.2f})"
        lines.append([kind, *cells, ratio])
    heads = ["", *(f"σ = {s:g}" for s in SIGMAS), "mean, ratio to `inner`"]
    print("\n" + table(heads, lines))


if __name__ == "__main__":
    main()

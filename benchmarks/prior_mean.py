"""Two claims about the sampling of score_sde, measured on Fashion-MNIST.

Under VE, pixels in [0, 1] end at a normal distribution around the mean of the data, where the
published code starts at 0; and it has the corrector first, where the published algorithm has the
predictor first. A rewrite of that code reports a lower FID with the mean, from one run of each.

Small U-Nets are trained from several seeds, under VE with noise levels from 0.01 to 50. From the
same noise each is then sampled with the prior around 0 and around the mean of the data, in either
order, and along the probability flow. Printed are, over seeds with 95 % intervals, the brightness
of samples less that of the data, what the prior's mean and the order change of it, and of two
distances from held-out images.

In the direction of brightness, the data have the standard deviation s. The linear flow multiplies
an error of the start by s / sqrt(s^2 + sigma_max^2), and the reverse process by its square, so that
noise forgets what the flow keeps; that is printed as the prediction. Run as

    python benchmarks/prior_mean.py
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pages import table
from torch import Tensor

import scorefield as sf
from scorefield.estimate import Estimate, mean
from scorefield.progress import Stages
from scorefield.training.classifier import classifier_features

SIGMA_MIN, SIGMA_MAX = 0.01, 50.0
ORDERS: tuple[Literal["corrector", "predictor"], ...] = ("corrector", "predictor")


def process(prior_mean: float = 0.0) -> sf.VE:
    return sf.VE(SIGMA_MIN, SIGMA_MAX, prior_mean, t_min=1e-5)


def with_prior(field: sf.PreconditionedField, level: float) -> sf.ScoreField:
    """The same network under a process whose prior has another mean."""
    return sf.PreconditionedField(
        field.backbone,
        process(level),
        parametrization=field.parametrization,
        shape=field.domain.shape,
    ).eval()


def methods(steps: int) -> dict[str, sf.Sampler]:
    return {
        **{
            f"{first} first": sf.PredictorCorrector(steps, corrector=sf.Langevin(0.16), first=first)
            for first in ORDERS
        },
        "probability flow": sf.Heun(18),
    }


def trained(source: sf.DataSource, seed: int, steps: int) -> sf.PreconditionedField:
    backbone = sf.UNet((1, 28, 28), 16, (1, 2), patch=2, seed=seed)
    scaling = sf.EDMScaling(source.std)
    field = sf.PreconditionedField(backbone, process(), parametrization=scaling)
    loss = sf.DenoisingScoreMatching("edm", sf.LogUniform(), source.std)
    sf.fit(
        field,
        source,
        objective=sf.Objective(loss),
        steps=steps,
        batch_size=64,
        seed=seed,
        quiet=True,
    )
    return field


def shown(estimate: Estimate, scale: float = 1.0) -> str:
    low, high = estimate.interval()
    return f"{scale * estimate.value:+.3g} ({scale * low:+.3g} to {scale * high:+.3g})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=1500)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    source = sf.images(dataset="fashion_mnist", centered=False)
    real = source.reference(options.samples, seed=0)
    features = classifier_features(source, Path("data/classifiers/fashion_mnist"))
    data = source.reference(10_000, seed=0)
    level, spread = float(data.mean()), float(data.flatten(1).mean(1).std())
    distances: dict[str, Callable[[Tensor], float]] = {
        "Fréchet": lambda x: sf.frechet_distance(x, real, features).value,
        "sliced Wasserstein": lambda x: sf.sliced_wasserstein(x, real).value,
    }
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    with Stages(False) as stages:
        for seed in range(options.seeds):
            field = trained(source, seed, options.train)
            for name, sampler in methods(options.steps).items():
                for prior in (0.0, level):
                    x = sampler.sample(with_prior(field, prior), options.samples, seed=seed)
                    numbers = {key: measure(x) for key, measure in distances.items()}
                    numbers["brightness"] = float(x.mean()) - level
                    found.setdefault((name, prior), []).append(numbers)
                    stages.note(f"seed {seed}, {name}, prior mean {prior:.2f}: {numbers}")
    width = math.prod((28, 28)) ** 0.5 * spread
    kept = width / math.hypot(width, SIGMA_MAX)

    def change(a: tuple[str, float], b: tuple[str, float], key: str) -> Estimate:
        pairs = zip(found[a], found[b], strict=True)
        return mean([one[key] - other[key] for one, other in pairs])

    rows = []
    for (name, prior), each in found.items():
        cells = [shown(mean([e["brightness"] for e in each]), 100)]
        cells += [shown(mean([e[key] for e in each])) for key in distances]
        rows.append([name, f"{prior:.2f}", *cells])
    print(table(["sampler", "prior mean", "brightness less the data's, %", *distances], rows))
    rows = []
    for name in methods(options.steps):
        expected = level * (kept if name == "probability flow" else kept**2)
        pair = (name, level), (name, 0.0)
        cells = [shown(change(*pair, "brightness"), 100), f"{100 * expected:+.2f}"]
        cells += [shown(change(*pair, key)) for key in distances]
        rows.append([f"the mean in place of 0, {name}", *cells])
    one, other = ((f"{first} first", 0.0) for first in ORDERS)
    cells = [shown(change(one, other, "brightness"), 100), ""]
    cells += [shown(change(one, other, key)) for key in distances]
    rows.append(["the corrector first, prior mean 0", *cells])
    print("\n" + table(["what changes", "brightness, %", "predicted, %", *distances], rows))


if __name__ == "__main__":
    main()

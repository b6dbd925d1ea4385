"""What guided fields sample, compared with the distribution that is claimed for them.

Two classes on a line, each a mixture of two normal distributions, so that every field is exact and
the claimed density p(x | c)^w p(x)^(1 - w), or p_a(x)^w p_b(x)^(1 - w) with a wider mixture b for
autoguidance, is known up to its integral. Printed are the Kolmogorov-Smirnov gap of samples from
that density and from the class itself, and mean and standard deviation, all with 95 % intervals,
beside the claimed ones. All densities are those at the last noise level. Run as

    python benchmarks/guidance.py
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from pages import line, table
from torch import Tensor

import scorefield as sf
from scorefield import estimate
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Times
from scorefield.metrics.exact_law import Cdf, KolmogorovSmirnov

SDE = sf.EDM(0.02, 20.0)
MEANS, STDS, WEIGHTS = [[-1.2], [0.6], [1.4], [2.6]], [0.45, 0.4, 0.5, 0.4], [0.2, 0.3, 0.3, 0.2]
ALL = sf.GaussianMixture(MEANS, stds=STDS, weights=WEIGHTS, sde=SDE)
CLASSES = [
    sf.GaussianMixture(MEANS[a:b], stds=STDS[a:b], weights=WEIGHTS[a:b], sde=SDE)
    for a, b in ((0, 2), (2, 4))
]
WEAK = sf.GaussianMixture(MEANS[:2], stds=[0.8, 0.75], weights=[0.5, 0.5], sde=SDE)


class Known(sf.ScoreField):
    """The mixture, and the part of it of each class."""

    classes = 2

    def __init__(self) -> None:
        super().__init__(SDE, ALL.domain)

    def score(self, x: Batch, t: Times, classes: Classes = None) -> Batch:
        return self._of(lambda field: field.score(x, t), self.class_rows(classes, x), x)

    has_potential = True

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Tensor:
        return self._of(lambda field: field.potential(x, t), self.class_rows(classes, x), x)

    def _of(
        self, evaluate: Callable[[sf.ScoreField], Tensor], rows: Tensor | None, x: Tensor
    ) -> Tensor:
        if rows is None:
            return evaluate(ALL)
        return torch.stack([*map(evaluate, (*CLASSES, ALL))])[rows, torch.arange(len(x))]


def law(strong: sf.ScoreField, weak: sf.ScoreField, scale: float) -> tuple[Cdf, float, float]:
    """The distribution function of the quotient of powers, its mean and standard deviation."""
    x = torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    t = torch.tensor(SDE.t_min, dtype=torch.float64)
    log = scale * strong.potential(x[:, None], t) + (1 - scale) * weak.potential(x[:, None], t)
    p = (log - log.max()).exp()
    # A weak density that decays slower than the power leaves no integral.
    assert max(p[0], p[-1]) < 1e-12
    p = p / p.sum()
    total = (p.cumsum(0) - p / 2).numpy()
    mean = float((p * x).sum())
    std = float((p * (x - mean) ** 2).sum().sqrt())
    return lambda u: torch.from_numpy(np.interp(u.numpy(), x.numpy(), total)), mean, std


def shown(gap: KolmogorovSmirnov) -> str:
    return f"{gap.value:.3f} ({gap.low:.3f} to {gap.high:.3f})"


def within(value: estimate.Estimate) -> str:
    low, high = value.interval()
    return f"{value.value:.3f} ± {(high - low) / 2:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=20_000)
    options = parser.parse_args()
    known, one = Known(), CLASSES[0]
    flow = sf.Heun(64)
    chains = sf.AnnealedMCMC(16, sf.HMC(size=0.5, width=0.4, leaps=3), moves=12)
    free = sf.ClassifierFreeGuidance(known, 3.0)
    auto = sf.autoguidance(one, WEAK, 2.0)
    limits = (0.3, 1.5)
    cases = [
        ("the class itself", known, flow, law(one, one, 1.0), 0),
        ("classifier-free, 3", free, flow, law(one, ALL, 3.0), 0),
        ("classifier-free, 3", free, chains, law(one, ALL, 3.0), 0),
        (
            "the same at 0.3 to 1.5",
            sf.guidance_interval(free, known, *limits),
            flow,
            law(one, ALL, 3.0),
            0,
        ),
        ("autoguidance, 2", auto, flow, law(one, WEAK, 2.0), None),
        ("autoguidance, 2", auto, chains, law(one, WEAK, 2.0), None),
        (
            "the same at 0.3 to 1.5",
            sf.guidance_interval(auto, one, *limits),
            flow,
            law(one, WEAK, 2.0),
            None,
        ),
    ]
    own = law(one, one, 1.0)[0]
    heads = ("field", "sampler", "gap from the claim", "gap from the class", "mean", "std")
    print(table(heads, ()))
    for name, field, sampler, (cdf, mean, std), classes in cases:
        x = sampler.sample(field, options.samples, seed=0, classes=classes, dtype=torch.float64)[
            :, 0
        ]
        std_of_x, square = float(x.std()), (x - x.mean()).square()
        error = float(square.std()) / (2 * std_of_x * len(x) ** 0.5)
        cells = (
            name,
            f"`{type(sampler).__name__}`",
            shown(sf.ks_test(x, cdf)),
            shown(sf.ks_test(x, own)),
            f"{within(estimate.mean(x.numpy()))} (claim {mean:.3f})",
            f"{within(estimate.Estimate(std_of_x, error, len(x)))} (claim {std:.3f})",
        )
        print(line(*cells))


if __name__ == "__main__":
    main()

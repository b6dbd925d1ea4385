"""What the physics regularisers add to a training step.

A step of the trainer on ``atoms/no_regularizer`` (two atoms on a circle, batch 512, a symmetrised
perceptron of three layers of 64) against the same step with each regulariser, at the published
sizes: the Fokker-Planck residual at 64 points, evaluated at every step; consistency along five
steps from 512 points. The claims are ratios of at most 4 for Fokker-Planck in either form and 3
for consistency.

Each round times all of them, in an order of its own, so that a busy machine slows all of them;
printed are the median of the rounds' ratios and the quartiles around it. Times are those of the
processor. Run as

    python benchmarks/regularizers.py
"""

import argparse
import statistics
import time
from functools import partial

import torch
from rounds import in_turns, ratios, told

from scorefield.comparison.timing import short_training
from scorefield.config.config import Config
from scorefield.config.resolve import load_config

FOKKER_PLANCK = "objective.fokker_planck"
CONSISTENCY = "objective.consistency"
VARIANTS = {
    "plain": ("atoms/no_regularizer", []),
    "analytical regression": ("atoms/analytical_regression", []),
    "Fokker-Planck, as preset": ("atoms/fokker_planck", []),
    "Fokker-Planck, gradient form, 64 points": (
        "atoms/fokker_planck",
        [f"{FOKKER_PLANCK}.every=1", f"{FOKKER_PLANCK}.rows=64", f"{FOKKER_PLANCK}.form=gradient"],
    ),
    "Fokker-Planck, component form, 64 points": (
        "atoms/fokker_planck",
        [f"{FOKKER_PLANCK}.every=1", f"{FOKKER_PLANCK}.rows=64", f"{FOKKER_PLANCK}.form=component"],
    ),
    "consistency, as preset": ("atoms/consistency", []),
    "consistency, 5 steps, 512 points": (
        "atoms/consistency",
        [f"{CONSISTENCY}.every=1", f"{CONSISTENCY}.rows=512", f"{CONSISTENCY}.steps=5"],
    ),
    "consistency with analytical guide": ("atoms/consistency_with_analytical_guide", []),
}
CLAIMS = {"Fokker-Planck": 4.0, "consistency": 3.0}


def step(config: Config, steps: int) -> float:
    """Processor seconds a step of the trainer."""
    trainer = short_training(config, steps)
    start = time.process_time()
    trainer.run()
    return (time.process_time() - start) / steps


def claim(name: str) -> str:
    found = [f"claim {limit:g}" for start, limit in CLAIMS.items() if name.startswith(start)]
    return found[0] if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=256)
    # On a small network, more threads only wait for each other.
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    configs = {name: load_config(preset, changes) for name, (preset, changes) in VARIANTS.items()}
    for config in configs.values():
        step(config, 8)
    actions = {name: partial(step, config, arguments.steps) for name, config in configs.items()}
    seconds = in_turns(actions, arguments.rounds)
    print(f"{'plain':<42} {1e3 * statistics.median(seconds['plain']):.2f} ms a step")
    for name in list(seconds)[1:]:
        print(f"{name:<42} {told(ratios(seconds, name, 'plain'))}  {claim(name)}")


if __name__ == "__main__":
    main()

"""What a training step costs, and what each of the five models adds to it.

A step of the trainer on ``toy`` (batch 512, a multilayer perceptron of three layers of 128; data,
average of the weights, clipping and logging to disk included) against forward, backward and Adam
of the same network on one fixed batch, written by hand; then the presets M1 to M4 against M0. The
claims are ratios of at most 1.25 for M0 to the bare step, and 1.6, 1.9, 1.6, 1.8 for M1 to M4 to
M0.

Each round times all of them, in an order of its own, so that a busy machine slows all of them;
printed are the median of the rounds' ratios and the quartiles around it. Times are those of the
processor, which others on the machine disturb less than those of the clock. Run as

    python benchmarks/training_step.py
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rounds import in_turns, ratios, told

from scorefield import MLP
from scorefield.comparison.timing import short_training
from scorefield.config.config import Config
from scorefield.config.resolve import load_config

MODELS = ("m0", "m1", "m2", "m3", "m4")
CLAIMS = {"m0": 1.25, "m1": 1.6, "m2": 1.9, "m3": 1.6, "m4": 1.8}


def bare(config: Config, steps: int, fused: bool | None = None) -> float:
    """Seconds a step of the network alone."""
    network, batch = MLP(2), config.train.batch_size
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=fused)
    x, target, label = torch.randn(batch, 2), torch.randn(batch, 2), torch.randn(batch)
    start = time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (network(x, label) - target).square().mean()
        loss.backward()
        optimizer.step()
    return (time.process_time() - start) / steps


def whole(config: Config, steps: int) -> float:
    """Seconds a step of the trainer, with all that it does, a checkpoint at the end included."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = short_training(config, steps, Path(folder))
        start = time.process_time()
        trainer.run()
        return (time.process_time() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=512)
    # On a small network, more threads only wait for each other.
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    configs = {model: load_config(f"toy/{model}") for model in MODELS}
    base = configs["m0"]
    timed: dict[str, Callable[[int], float]] = {
        "bare": partial(bare, base),
        "bare, fused Adam": partial(bare, base, fused=True),
        **{model: partial(whole, config) for model, config in configs.items()},
    }
    for action in timed.values():
        action(2)
    actions = {name: partial(action, arguments.steps) for name, action in timed.items()}
    seconds = in_turns(actions, arguments.rounds)

    def against(name: str, other: str) -> str:
        return told(ratios(seconds, name, other))

    print(f"{arguments.rounds} rounds of {arguments.steps} steps, {arguments.threads} thread(s)")
    for name, values in seconds.items():
        print(f"  {name:17s} {1e3 * statistics.median(values):6.2f} ms a step")
    print(f"  m0 / bare         {against('m0', 'bare')}, at most {CLAIMS['m0']}")
    print(f"  m0 / bare, fused  {against('m0', 'bare, fused Adam')}")
    for model in MODELS[1:]:
        print(f"  {model} / m0           {against(model, 'm0')}, at most {CLAIMS[model]}")


if __name__ == "__main__":
    main()

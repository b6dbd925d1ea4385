"""What reading a batch of packed images costs of a training step.

A batch of `images/m0` from a pack, a map of a file in the page cache, with all that is done to it:
the order, the bytes, mirroring, scaling; against the whole step of the trainer on the same pack.
The claim is a share of at most 5 % at every size. With `--images`, the pack has so many, of random
bytes, in a file of their size.

Each round times all of them, in an order of its own; printed are the median of the shares and the
quartiles around it. Times are those of the processor, which others on the machine disturb less than
those of the clock. Run as

    python benchmarks/reading.py
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from scorefield.comparison.timing import short_training
from scorefield.config.build import build_source
from scorefield.config.config import Config
from scorefield.config.resolve import load_config
from scorefield.data.form import Form
from scorefield.data.layouts import contents_of
from scorefield.data.pack import pack
from scorefield.noise import Noise

CLAIM = 0.05
CASES = {"small": (28, 1, 16), "medium": (32, 3, 64), "large": (64, 3, 64)}
"""Side, channels of an image, and channels of the network."""


def packed(folder: Path, name: str, images: int) -> Config:
    """A configuration whose images are packed."""
    side, channels, width = CASES[name]
    array = np.random.default_rng(0).integers(0, 256, (images, channels, side, side), np.uint8)
    path = folder / f"{name}.npy"
    np.save(path, array)
    pack(path, contents_of(path), Form(channels, side), folder / name)
    network = [f"field.network.channels={width}", "field.network.multipliers=[1,2]"]
    return load_config("images/m0", [f"data.path={folder / name}", "data.flip=true", *network])


def reading(config: Config, batches: int) -> float:
    """Seconds a batch."""
    source, noise = build_source(config), Noise(config.seed)
    source.batch(noise, 0, config.train.batch_size)
    start = time.process_time()
    for step in range(batches):
        source.batch(noise, step, config.train.batch_size)
    return (time.process_time() - start) / batches


def step(config: Config, steps: int) -> float:
    """Seconds a step of the trainer, with all that it does, a checkpoint at the end included."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = short_training(config, steps, Path(folder))
        start = time.process_time()
        trainer.run()
        return (time.process_time() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    order = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        configs = {name: packed(Path(folder), name, arguments.images) for name in arguments.cases}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in configs}
        for _ in range(arguments.rounds):
            for name in order.sample(list(configs), len(configs)):
                config = configs[name]
                pair = reading(config, arguments.batches), step(config, arguments.steps)
                times[name].append(pair)
    print(f"{arguments.rounds} rounds, batches of {config.train.batch_size} images")
    for name, pairs in times.items():
        side, channels, width = CASES[name]
        batch, whole = (1e3 * statistics.median(some) for some in zip(*pairs, strict=True))
        low, share, high = statistics.quantiles([a / b for a, b in pairs], n=4)
        print(
            f"  {channels} × {side} × {side}, {width} channels in the network: {batch:.2f} ms a "
            f"batch, {whole:.0f} ms a step: {share:.3%} ({low:.3%} to {high:.3%}), at most "
            f"{CLAIM:.0%}"
        )


if __name__ == "__main__":
    main()

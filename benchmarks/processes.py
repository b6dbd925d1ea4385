"""How much faster two processes of one thread train and evaluate than one process of one thread.

Both take the same steps of the same batch, and evaluate the same run by the same protocol. Printed
are times by the clock and their ratio, the speed-up; and the ratio of the processor time of the one
to the larger of the two, which other work on the machine disturbs less, and which bounds the
speed-up. The claim is a speed-up of 1.7. Run on an idle machine with two cores as

    python benchmarks/processes.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimiser imports it: better once, before the forks
from pages import line, table

from scorefield.comparison.timing import short_training
from scorefield.config.build import build_engine
from scorefield.config.config import Config
from scorefield.config.resolve import load_config
from scorefield.evaluation.evaluate import evaluate
from scorefield.runs.run import Run
from scorefield.world import World

PRESETS = ("digits/ncsnpp_ve", "digits/m0", "digits/m1")
SIZES = (1, 2)
WARM, STEPS, ROUNDS = 16, 32, 5
BATCHES = (64, 256)

Times = tuple[float, float]
"""Seconds by the clock, and of the processor."""


def now() -> Times:
    return time.perf_counter(), time.process_time()


def since(then: Times) -> Times:
    return time.perf_counter() - then[0], time.process_time() - then[1]


def training(config: Config, world: World) -> Times:
    """What a step takes, the draws of as many steps as are drawn at once included."""
    take = short_training(config, WARM + STEPS, engine={"world": world}).stepper.take
    for step in range(WARM):
        take(step)
    world.any(False)
    then = now()
    for step in range(WARM, WARM + STEPS):
        take(step)
    clock, processor = since(then)
    return clock / STEPS, processor / STEPS


def evaluation(folder: Path, world: World) -> Times:
    """What an evaluation takes."""
    run = Run.open(folder)
    world.any(False)
    then = now()
    evaluate(run, overwrite=True, engine=build_engine(run.config, world=world))
    return since(then)


def by_processes(size: int, work: Callable[[World], Times]) -> Times:
    """The times of the slowest of so many processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    members = [context.Process(target=_member, args=(r, size, port, work, queue))
               for r in range(size)]  # fmt: skip
    for member in members:
        member.start()
    times = [queue.get() for _ in members]
    for member in members:
        member.join()
    return max(clock for clock, _ in times), max(processor for _, processor in times)


def _member(rank: int, size: int, port: int, work: Callable[[World], Times], queue: Any) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    with build_engine(load_config("digits/m0")).joined() as engine:
        queue.put(work(engine.world))


def row(name: str, unit: float, rounds: int, work: Callable[[World], Times]) -> str:
    """The times of one process and of two, in turns, their speed-up and its bound."""
    times = [[by_processes(size, work) for size in SIZES] for _ in range(rounds)]
    one, two = (statistics.median(each[k][0] for each in times) for k in range(2))
    speed = statistics.median(a[0] / b[0] for a, b in times)
    bound = statistics.median(a[1] / b[1] for a, b in times)
    return line(name, f"{one / unit:.1f}", f"{two / unit:.1f}", f"{speed:.2f}", f"{bound:.2f}")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(table(["", "one process", "two", "speed-up", "by processor time"], ()))
    for preset in given.presets.split(","):
        for batch in map(int, given.batches.split(",")):
            config = load_config(preset, [f"train.batch_size={batch}"])
            words = f"`{preset}`, a step of {batch}, ms"
            print(row(words, 1e-3, given.rounds, partial(training, config)), flush=True)
        with tempfile.TemporaryDirectory() as root:
            run = Run.create(
                load_config(preset, ["train.steps=50", "eval.along=false"]), Path(root)
            )
            run.train(quiet=True)
            folder = run.folder
            print(
                row(f"`{preset}`, an evaluation, s", 1.0, given.rounds,
                    partial(evaluation, folder)), flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()

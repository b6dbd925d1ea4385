"""What curl costs to measure, and what it costs to train against.

At d = 784, on the minimal U-Net (64, 128, 256 channels, 28 x 28 pixels, float32, one image):

* the exact exterior derivative against ``torch.autograd.functional.jacobian`` as published code
  calls it, with ``create_graph=True``: it goes back once a row and records a graph of all of it.
  The claims, of at least its speed and at most a third of its memory (the growth of the resident
  set in a process of its own), are against this call alone. The same function with its default
  arguments, which records no such graph, is measured beside it, and nothing is claimed against it;
* the probe estimate, stopped at a standard error of 1 % (that which the probes add at the given
  points), against the exact value at the same points; the claim is 8 times its speed.

Then the training step of M3 against that of M0; the claim is a ratio of at most 1.6.

Each round times all of them, in an order of its own; printed are the median of the rounds' ratios,
the quartiles around it, and whether the claim holds; the exit status is 1 if one does not. Times
are those of the processor. Needs Linux, for the memory. Run as

    python benchmarks/diagnostics.py
"""

import argparse
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from training_step import told, whole

from scorefield import (
    EDM,
    MinimalUNet,
    PreconditionedField,
    Protocol,
    exterior_derivative,
    jacobian,
)
from scorefield.calculus.asymmetry import exact_asymmetry
from scorefield.config.resolve import load_config
from scorefield.noise import Noise

SHAPE = (1, 28, 28)
SIGMA, PRECISION, POINTS = 0.5, 0.01, 2


def network() -> PreconditionedField:
    return PreconditionedField(MinimalUNet(SHAPE, (64, 128, 256)), EDM(), sigma_data=0.5).eval()


def images(n: int) -> Tensor:
    return 0.5 * Noise(0).normal("benchmark", SHAPE, torch.arange(n))


def exact(field: PreconditionedField) -> float:
    t = torch.full((1,), SIGMA)
    return float(exact_asymmetry(jacobian(field.denoise, images(1), t))[0].sqrt())


def rows(field: PreconditionedField, create_graph: bool) -> float:
    def flat(x: Tensor) -> Tensor:
        return field.denoise(x.reshape(1, *SHAPE), SIGMA).reshape(-1)

    j = torch.autograd.functional.jacobian(flat, images(1).reshape(-1), create_graph=create_graph)
    return float((j - j.mT).detach().double().norm())


JACOBIANS: dict[str, Callable[[PreconditionedField], float]] = {
    "exact": exact,
    "published": partial(rows, create_graph=True),
    "plain": partial(rows, create_graph=False),
}


def profiled(field: PreconditionedField, probes: int | None) -> tuple[float, dict[str, object]]:
    protocol = Protocol((SIGMA,), n=POINTS, dtype=torch.float32, precision=PRECISION)
    profile = exterior_derivative(field, images(POINTS), protocol, probes=probes)
    return profile.estimates[0].value, dict(profile.estimates[0].settings)


def peak() -> float:
    """The largest resident set of this process so far, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("the system does not tell the largest resident set of a process")
    return int(found[1]) / 1024


def growth(name: str, threads: int) -> float:
    """The growth of the resident set in a fresh process, in MiB."""
    command = [sys.executable, __file__, "--memory-of", name, "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grown(name: str) -> float:
    field = network()
    x = images(1).requires_grad_()
    torch.autograd.grad(field.denoise(x, SIGMA).sum(), x)
    before = peak()
    JACOBIANS[name](field)
    return peak() - before


def verdict(name: str, ratio: str, claim: str, holds: bool) -> bool:
    print(f"  {name:34s} {ratio:24s} claim {claim:14s} {'holds' if holds else 'FAILS'}", flush=True)
    return holds


def seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> int:
    """Measures, prints, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=256, help="training steps a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-of", choices=tuple(JACOBIANS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(grown(arguments.memory_of))
        return 0

    field = network()
    found = ", ".join(f"{name} {action(field):.6g}" for name, action in JACOBIANS.items())
    at_points, _ = profiled(field, None)
    estimate, used = profiled(field, 4)
    print(f"exterior derivative, one image: {found}")
    print(
        f"exterior derivative, {POINTS} images: {at_points:.6g}, by {used['probes']} probes each "
        f"{estimate:.6g}, standard error of the probes {100 * float(used['probe_error']):.2f} %"
    )
    configs = {model: load_config(f"toy/{model}") for model in ("m0", "m3")}
    timed: dict[str, Callable[[], object]] = {
        **{name: partial(action, field) for name, action in JACOBIANS.items()},
        "exact at points": lambda: profiled(field, None),
        "probes": lambda: profiled(field, 4),
        **{m: lambda c=c: whole(c, arguments.steps) for m, c in configs.items()},
    }
    for model in configs:
        whole(configs[model], 2)
    times: dict[str, list[float]] = {name: [] for name in timed}
    order = random.Random(0)
    for _ in range(arguments.rounds):
        for name in order.sample(list(timed), len(timed)):
            result = seconds(timed[name]) if name not in configs else timed[name]()
            times[name].append(result)

    def ratios(name: str, other: str) -> list[float]:
        return [a / b for a, b in zip(times[name], times[other], strict=True)]

    print(f"{arguments.rounds} rounds, {arguments.threads} thread(s)")
    for name, values in times.items():
        unit = "a step" if name in configs else ""
        print(f"  {name:17s} {1e3 * statistics.median(values):9.2f} ms {unit}")
    memory = {name: growth(name, arguments.threads) for name in JACOBIANS}
    print("  memory: " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in memory.items()))
    share = memory["exact"] / memory["published"]
    plain = memory["exact"] / memory["plain"]
    faster, probed = ratios("published", "exact"), ratios("exact at points", "probes")
    step = ratios("m3", "m0")
    failed = [
        name
        for name, ratio, claim, holds in (
            ("time, published / exact", told(faster), ">= 1", statistics.median(faster) >= 1),
            ("time, exact / probes", told(probed), ">= 8", statistics.median(probed) >= 8),
            ("training step, m3 / m0", told(step), "<= 1.6", statistics.median(step) <= 1.6),
            ("memory, exact / published", f"{share:.3f}", "<= 1/3", share <= 1 / 3),
        )
        if not verdict(name, ratio, claim, holds)
    ]
    print(f"  {'time, plain / exact':34s} {told(ratios('plain', 'exact')):24s} no claim")
    print(f"  {'memory, exact / plain':34s} {f'{plain:.3f}':24s} no claim")
    print(f"claims that fail: {'; '.join(failed)}" if failed else "all claims hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

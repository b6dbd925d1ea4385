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
import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from rounds import (
    by_processor,
    concluded,
    in_turns,
    least,
    memory_of,
    most,
    ratios,
    resident,
    told,
    verdict,
)
from torch import Tensor
from training_step import whole

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


def profiled(field: PreconditionedField, probes: int | None) -> tuple[float, Mapping[str, Any]]:
    protocol = Protocol((SIGMA,), n=POINTS, dtype=torch.float32, precision=PRECISION)
    profile = exterior_derivative(field, images(POINTS), protocol, probes=probes)
    return profile.estimates[0].value, profile.estimates[0].settings


def grown(name: str) -> float:
    """The growth of the resident set by a Jacobian, in MiB."""
    field = network()
    x = images(1).requires_grad_()
    torch.autograd.grad(field.denoise(x, SIGMA).sum(), x)
    before = resident("HWM")
    JACOBIANS[name](field)
    return resident("HWM") - before


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
        f"{estimate:.6g}, standard error of the probes {100 * used['probe_error']:.2f} %"
    )
    configs = {model: load_config(f"toy/{model}") for model in ("m0", "m3")}
    measured: dict[str, Callable[[], object]] = {
        **{name: partial(action, field) for name, action in JACOBIANS.items()},
        "exact at points": partial(profiled, field, None),
        "probes": partial(profiled, field, 4),
    }
    for config in configs.values():
        whole(config, 2)
    timed = {
        **{name: partial(by_processor, action) for name, action in measured.items()},
        **{model: partial(whole, config, arguments.steps) for model, config in configs.items()},
    }
    times = in_turns(timed, arguments.rounds)
    print(f"{arguments.rounds} rounds, {arguments.threads} thread(s)")
    for name, values in times.items():
        unit = "a step" if name in configs else ""
        print(f"  {name:17s} {1e3 * statistics.median(values):9.2f} ms {unit}")
    memory = {name: memory_of(__file__, arguments.threads, name) for name in JACOBIANS}
    print("  memory: " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in memory.items()))
    share = memory["exact"] / memory["published"]
    plain = memory["exact"] / memory["plain"]
    failed = [
        *least("time, published / exact", ratios(times, "published", "exact"), 1),
        *least("time, exact / probes", ratios(times, "exact at points", "probes"), 8),
        *most("training step, m3 / m0", ratios(times, "m3", "m0"), 1.6),
        *verdict("memory, exact / published", f"{share:.3f}", "<= 1/3", share <= 1 / 3),
    ]
    print(f"  {'time, plain / exact':40s} {told(ratios(times, 'plain', 'exact')):24s} no claim")
    print(f"  {'memory, exact / plain':40s} {f'{plain:.3f}':24s} no claim")
    return concluded(failed)


if __name__ == "__main__":
    sys.exit(main())

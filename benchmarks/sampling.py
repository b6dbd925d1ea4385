"""What sampling costs beyond the bare network calls.

Heun's method on a toy-sized network (a multilayer perceptron of three layers of 128, batch 4096)
against its calls ``backbone(u, label)`` alone, on the same inputs; the claim is a ratio of at most
1.05. Each repeat times both, one after the other in alternating order, so that a busy machine
slows both, and the median of the repeats' ratios is printed. Run as

    python benchmarks/sampling.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from scorefield import EDM, MLP, SDE, VP, Heun, PotentialField, PreconditionedField, ScoreField

BATCH = 4096


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def inputs(field: ScoreField, sampler: Heun) -> list[tuple[Tensor, Tensor]]:
    """What the network is called with while a batch is sampled, as plain tensors."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(module: torch.nn.Module, args: tuple[Tensor, Tensor]) -> None:
        seen.append((args[0].detach().clone(), args[1].detach().contiguous()))

    handle = field.backbone.register_forward_pre_hook(keep)
    sampler.sample(field, n=BATCH)
    handle.remove()
    return seen


def bare(field: ScoreField, calls: list[tuple[Tensor, Tensor]]) -> None:
    """The network calls alone; for a potential, with the gradient that is its output."""
    if isinstance(field, PotentialField):
        for u, label in calls:
            x = u.requires_grad_()
            torch.autograd.grad(field.backbone(x, label).sum(), x)
        return
    with torch.no_grad():
        for u, label in calls:
            field.backbone(u, label)


def measure(field: ScoreField, sampler: Heun, repeats: int) -> tuple[float, float]:
    """The median ratio, and the median seconds of a bare call."""

    def sample() -> object:
        return sampler.sample(field, n=BATCH)

    recorded = inputs(field, sampler)
    assert len(recorded) == sampler.nfe

    def calls() -> None:
        bare(field, recorded)

    calls()
    ratios, times = [], []
    for repeat in range(repeats):
        if repeat % 2:
            own, alone = seconds(sample), seconds(calls)
        else:
            alone, own = seconds(calls), seconds(sample)
        ratios.append(own / alone)
        times.append(alone / sampler.nfe)
    return statistics.median(ratios), statistics.median(times)


def cases() -> list[tuple[str, ScoreField]]:
    def network(sde: SDE) -> PreconditionedField:
        return PreconditionedField(MLP(2), sde, sigma_data=2.8)

    def potential(sde: SDE) -> PotentialField:
        return PotentialField(MLP(2, outputs=1), sde, sigma_data=2.8)

    return [
        ("network, EDM", network(EDM())),
        ("network, VP", network(VP())),
        ("potential, EDM", potential(EDM())),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--steps", type=int, default=18)
    arguments = parser.parse_args()
    sampler = Heun(arguments.steps)
    print(f"Heun, {sampler.steps} steps, {sampler.nfe} network calls, batch {BATCH}")
    for name, field in cases():
        ratio, call = measure(field, sampler, arguments.repeats)
        print(f"{name:16s} {ratio:.3f} x the bare calls ({1e3 * call:.2f} ms each)")


if __name__ == "__main__":
    main()

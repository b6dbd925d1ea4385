"""What the published trainings would take on 1, 8 and 64 GPUs: arithmetic, not a measurement.

Run as ``python benchmarks/scaling.py``. Networks are built without memory, on torch's device
``meta``, and their operations counted. A training step is three forward passes (one forward, two
backward) at a stated rate. Each process has a share of the batch, and the gradient is summed over
all of them by a ring: of :math:`N` bytes, each of :math:`W` processes sends :math:`2 N (W-1)/W`.
Nothing is sent while the backward pass is running, the worst case.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from scorefield.config.build import build_field, build_source
from scorefield.config.resolve import load_config

PRESETS = (
    "cifar10/ddpm_vp",
    "cifar10/ncsnpp_continuous_ve",
    "cifar10/ncsnpp_deep_continuous_ve",
    "celeba/ncsnv2_ve",
    "bedroom/ncsnpp_continuous_ve",
    "ffhq_256/ncsnpp_continuous_ve",
    "ffhq_1024/ncsnpp_continuous_ve",
)
NODE = 8
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Machine:
    """Sustained operations a second of a GPU; bytes a second that it sends, inside of a node and
    to other nodes.
    """

    rate: float
    inside: float
    between: float


@dataclass(frozen=True)
class Training:
    """The weights of a network, operations of its forward pass on an image, batch and steps."""

    name: str
    weights: int
    forward: float
    batch: int
    steps: int

    def computed(self, machine: Machine, width: int) -> float:
        """Seconds of computation of a step; the largest share of the batch counts."""
        return 3 * self.forward * -(-self.batch // width) / machine.rate

    def sent(self, width: int) -> float:
        """Bytes that each process sends in a step."""
        return 2 * FLOAT * self.weights * (width - 1) / width

    def step(self, machine: Machine, width: int) -> float:
        """Seconds of a step."""
        speed = machine.inside if width <= NODE else machine.between
        return self.computed(machine, width) + self.sent(width) / speed

    def balance(self, machine: Machine, speed: float) -> float:
        """The number of processes at which a step sends for as long as it computes."""
        return self.computed(machine, 1) * speed / (2 * FLOAT * self.weights) + 1


def counted(name: str) -> Training:
    """A preset, with its operations."""
    config = load_config(name, ("data.path=images",))
    with torch.device("meta"):
        field = build_field(config, build_source(config))
        x, t = torch.zeros(1, *field.domain.shape), torch.full((1,), 0.5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        field.score(x, t)
    weights = sum(p.numel() for p in field.parameters())
    train = config.train
    return Training(name, weights, counter.get_total_flops(), train.batch_size, train.steps)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, default=68.0, help="TFLOP/s of a training step")
    parser.add_argument("--inside", type=float, default=450.0, help="GB/s inside of a node")
    parser.add_argument("--between", type=float, default=50.0, help="GB/s between nodes")
    given = parser.parse_args()
    machine = Machine(1e12 * given.rate, 1e9 * given.inside, 1e9 * given.between)
    columns = ["preset", "weights", "forward", "batch", "steps", "sent", "1 GPU", "8", "64", "even"]
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for name in PRESETS:
        training = counted(name)
        widths = [n for n in (1, NODE, 64) if n <= training.batch]
        days = [training.steps * training.step(machine, n) / 86400 for n in widths]
        cells = [
            f"`{name}`",
            f"{training.weights / 1e6:.1f} M",
            f"{training.forward / 1e9:.1f} GFLOP",
            f"{training.batch}",
            f"{training.steps:,}",
            f"{training.sent(NODE) / 1e6:.0f} MB",
            *(f"{each:.2f} days" for each in days),
            *["–"] * (3 - len(days)),
            f"{training.balance(machine, machine.between):.0f}",
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

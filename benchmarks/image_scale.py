"""What diagnostics of image models cost, and how precise they then are.

A small U-Net with random weights (16 and 32 channels)
at D = 784, 3,072, 12,288 and 196,608, in float32, at a few noisy images of one noise level.
Asymmetry draws probes until those add a standard error below the requested one; the Fokker-Planck
residual has 8 probes a point, the others one loop, one pair of paths and four trajectories.

Every diagnostic runs in a process of its own, of one thread. Printed are processor seconds, the
growth of the resident set, the value with its standard error, and that in per cent, which is due to
the few points as well. Needs Linux, for the memory. Run as

    python benchmarks/image_scale.py --points 8 --precision 0.1
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from scorefield import (
    EDM,
    EDMScaling,
    PreconditionedField,
    Protocol,
    UNet,
    consistency_error,
    exterior_derivative,
    fokker_planck_error,
    loop_circulation,
    path_gap,
)
from scorefield.diagnostics.protocol import Profile
from scorefield.noise import Noise

SHAPES = ((1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 256, 256))
SIGMA = 0.5
Diagnostic = Callable[[PreconditionedField, torch.Tensor, Protocol], Profile]
DIAGNOSTICS: dict[str, Diagnostic] = {
    "asymmetry, by probes": lambda f, x, p: exterior_derivative(f, x, p, probes=2),
    "loops, 8 sides": lambda f, x, p: loop_circulation(f, x, p),
    "two paths": lambda f, x, p: path_gap(f, x, p, tolerance=1e-2),
    "Fokker-Planck, by probes": lambda f, x, p: fokker_planck_error(f, x, p, probes=8),
    "consistency": lambda f, x, p: consistency_error(f, x, p, steps=4, trajectories=4),
}


def network(shape: tuple[int, ...]) -> PreconditionedField:
    """A network whose branches do not begin at zero."""
    torch.manual_seed(0)
    backbone = UNet(shape, 16, (1, 2))
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return PreconditionedField(backbone, EDM(), parametrization=EDMScaling(0.5)).eval()


def resident() -> int:
    """The largest resident set so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def one(size: int, name: str, points: int, precision: float) -> None:
    """Measures one diagnostic in this process, and prints it as JSON."""
    torch.set_num_threads(1)
    shape = SHAPES[size]
    field, x = network(shape), 0.5 * Noise(0).normal("images", shape, torch.arange(points))
    protocol = Protocol((SIGMA,), points, dtype=torch.float32, precision=precision)
    with torch.no_grad():
        field.score(x[:1], torch.tensor(SIGMA))
    before, start = resident(), time.process_time()
    found = DIAGNOSTICS[name](field, x, protocol).estimates[0]
    print(
        json.dumps(
            {
                "seconds": time.process_time() - start,
                "memory": resident() - before,
                "value": found.value,
                "error": found.standard_error,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--precision", type=float, default=0.1)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(range(len(SHAPES))))
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.one:
        one(int(options.one[0]), options.one[1], options.points, options.precision)
        return
    print("| D | diagnostic | processor time | memory | value | standard error |")
    print("|---|---|---|---|---|---|")
    for size in options.sizes:
        for name in DIAGNOSTICS:
            command = [sys.executable, __file__, "--one", str(size), name]
            command += ["--points", str(options.points), "--precision", str(options.precision)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            relative = 100 * found["error"] / abs(found["value"])
            print(
                f"| {torch.Size(SHAPES[size]).numel():,} | {name} | {found['seconds']:.1f} s "
                f"| {found['memory'] / 2**20:.0f} MiB | {found['value']:.3g} | {relative:.1f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What the equivariant local score costs: beside its arithmetic, in memory, and beside the
published code.

1,000 random images of 28 x 28 pixels, float32, zeros beyond the border, t = 0.5 of the published
cosine process, for each patch size:

* the seconds of an image in a batch of 16 against its floor: for every pair of a pixel and a
  training patch that it is compared with, 2 (k^2 + 1) operations of a product of matrices and one
  exponential. The rates of both are measured in every round and are the fastest of several sizes,
  in cache and beyond; that of products is of square matrices, which have more to reuse than patches
  (claim: at most 2.5 times the floor);
* the same against the published code, which takes one image at a time (claims: a fifth of its time
  for patches of 3 and 7 pixels, a third for 11 and 17);
* the growth of the resident set beyond the images, in a process of its own, for 1,000 and 10,000 of
  them (claim: at most 400 MiB).

Each round times all of them, in an order of its own; printed are the median of the rounds' ratios,
the quartiles around it, and whether the claim holds; the exit status is 1 if one does not. Times
are those of the clock: two threads wait for each other. Without ``--original``, a checkout of the
published code, what needs it is left out. ``--fashion-mnist`` adds one sample from all of its
60,000 images, with the published patch sizes of a network. Needs Linux, for the memory. Run as

    python benchmarks/patches.py --original PATH
"""

import argparse
import ctypes
import importlib.util
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rounds import (
    by_clock,
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
from torch import Tensor, nn

from scorefield import DDIM, Cosine, EquivariantLocalScore, PatchSizes
from scorefield.data.images import images as image_set
from scorefield.noise import Noise
from scorefield.samplers.step import SamplerState

SIDE, BATCH, TIME = 28, 16, 0.5
IMAGES = (1_000, 10_000)
CLAIMS = {3: 5.0, 7: 5.0, 11: 3.0, 17: 3.0}
"""How many times faster than the published code, by patch size."""
MATRICES = (512, 1024, 2048)
VECTORS = (1 << 15, 1 << 17, 1 << 18, 1 << 20, 1 << 22)

STEPS = 20
PUBLISHED = (3, 3, 5, 5, 7, 7, 9, 9, 9, 11, 11, 11, 13, 13, 13, 15, 15, 15, 17, 17)
"""Patch sizes at t = 1/20 ... 1, calibrated by the authors on a ResNet for Fashion-MNIST."""


def process(t_min: float) -> Cosine:
    return Cosine(offset=0.0, margin=0.008, t_min=t_min, t_max=1.0)


def images(n: int, purpose: str = "images") -> Tensor:
    return Noise(0).normal(purpose, (1, SIDE, SIDE), torch.arange(n))


def logits(size: int, n: int) -> int:
    """How many pairs of a pixel and a patch an image takes: pixels that see a border are compared
    with those that see it as they do.
    """
    inner, reach = SIDE - 2 * (size // 2), size // 2
    return n * (inner**2 + 2 * reach) ** 2


def fastest(actions: dict[int, tuple[Callable[[], object], float]]) -> float:
    """The largest rate of several actions, each given with how much it does."""
    best = 0.0
    for action, amount in actions.values():
        action()
        repeats = max(3, int(0.02 / by_clock(action)))
        best = max(best, *(amount / by_clock(action) for _ in range(repeats)))
    return best


def multiplication() -> float:
    """Operations a second of products of square matrices."""
    operands = {n: [torch.rand(n, n) for _ in range(3)] for n in MATRICES}
    return fastest(
        {n: (partial(torch.mm, a, b, out=c), 2.0 * n**3) for n, (a, b, c) in operands.items()}
    )


def exponentiation() -> float:
    """Exponentials a second, of numbers whose exponentials are normal numbers."""
    operands = {n: (-20 * torch.rand(n), torch.empty(n)) for n in VECTORS}
    return fastest({n: (partial(torch.exp, a, out=b), n) for n, (a, b) in operands.items()})


class Original:
    """The published code, over the same images."""

    def __init__(self, path: Path, data: Tensor) -> None:
        # It imports what it has for data sets, of which nothing is used here.
        vision = types.ModuleType("torchvision")
        for name in ("transforms", "datasets", "models"):
            part = types.ModuleType(f"torchvision.{name}")
            setattr(vision, name, part)
            sys.modules[part.__name__] = part
        sys.modules["torchvision"] = vision
        file = path / "src/utils/idealscore.py"
        spec = importlib.util.spec_from_file_location("original", file)
        if spec is None or spec.loader is None:
            raise SystemExit(f"{file} is no module of Python")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        labelled = [(image, 0) for image in data]
        self.score: nn.Module = module.LocalEquivBordersScoreModule(
            labelled, image_size=SIDE, channels=1
        )

    def __call__(self, x: Tensor, size: int) -> Tensor:
        with torch.no_grad():
            return self.score(torch.full((1,), TIME), x[:1], device="cpu", k=size)


def speed(original: Original | None, data: Tensor, rounds: int) -> list[str]:
    """Times, floors and the published code; returns the claims that fail."""
    x = images(BATCH, "points")
    fields = {k: EquivariantLocalScore(data, process(0.01), k) for k in CLAIMS}

    def an_image(action: Callable[[], object], n: int) -> float:
        return by_clock(action) / n

    timed: dict[str, Callable[[], float]] = {
        "multiplication": multiplication,
        "exponentiation": exponentiation,
        **{
            f"ours, k = {k}": partial(an_image, partial(field.score, x, TIME), BATCH)
            for k, field in fields.items()
        },
    }
    if original is not None:
        timed |= {
            f"published, k = {k}": partial(an_image, partial(original, x, k), 1) for k in CLAIMS
        }
        for k, field in fields.items():
            wanted = original(x, k)
            error = (field.score(x[:1], TIME) - wanted).abs().max() / wanted.abs().max()
            print(f"  k = {k:<2d}: largest difference from the published {float(error):.1e}")
    with torch.no_grad():
        times = in_turns(timed, rounds)
    products, exponentials = times["multiplication"], times["exponentiation"]
    print(f"  products of matrices, fastest of each round {told([r / 1e9 for r in products])} G/s")
    print(f"  exponentials, fastest of each round {told([r / 1e9 for r in exponentials])} G/s")
    failed = []
    for k, claim in CLAIMS.items():
        count = logits(k, len(data))
        floors = times["floor"] = [
            count * (2 * (k**2 + 1) / product + 1 / exponential)
            for product, exponential in zip(products, exponentials, strict=True)
        ]
        ours = times[f"ours, k = {k}"]
        print(
            f"  k = {k:<2d}: {statistics.median(ours):.3f} s an image, floor "
            f"{statistics.median(floors):.3f} s, the fastest of both {min(ours):.3f} and "
            f"{min(floors):.3f} s",
            flush=True,
        )
        failed += most(f"ours / floor, k = {k}", ratios(times, f"ours, k = {k}", "floor"), 2.5)
        if original is None:
            continue
        theirs = times[f"published, k = {k}"]
        print(f"  k = {k:<2d}: published {statistics.median(theirs):.3f} s an image", flush=True)
        faster = ratios(times, f"published, k = {k}", f"ours, k = {k}")
        failed += least(f"published / ours, k = {k}", faster, claim)
    return failed


def grown(size: int, n: int) -> float:
    """The growth of the resident set by a batch, with all that is made of the images, in MiB."""
    data, x = images(n), images(BATCH, "points")
    EquivariantLocalScore(data[:8].clone(), process(0.01), size).score(x, TIME)
    # What was freed before and is still resident could be taken again unseen.
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("RSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest, from now on
    EquivariantLocalScore(data, process(0.01), size).score(x, TIME)
    return resident("HWM") - before


def memory(threads: int) -> list[str]:
    """Memory against the number of images, each in a fresh process; returns the claims that
    fail.
    """
    failed = []
    for size in CLAIMS:
        for n in IMAGES:
            mib = memory_of(__file__, threads, size, n)
            name = f"memory, k = {size}, {n:,} images"
            failed += verdict(name, f"{mib:.0f} MiB", "<= 400", mib <= 400)
    return failed


def fashion_mnist() -> None:
    """One sample from all images of Fashion-MNIST, step by step."""
    source = image_set(dataset="fashion_mnist", centered=True)
    data = source.reference(source.count("train"), 0, "train")
    sde = process(1 / STEPS)
    levels = sde.noise_level(torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS)
    sizes = PatchSizes(levels.tolist(), PUBLISHED)
    field = EquivariantLocalScore(data, sde, sizes)
    start = last = time.perf_counter()

    def told_of(state: SamplerState) -> None:
        nonlocal last
        now = time.perf_counter()
        size = int(sizes.at(torch.tensor(state.sigma)))
        print(f"  noise {state.sigma:8.3f}, k = {size:<2d} {now - last:7.1f} s", flush=True)
        last = now

    DDIM(STEPS, spacing="time").sample(field, 1, callback=told_of)
    print(f"  one sample of {STEPS} steps, {len(data):,} images: {last - start:.0f} s")


def main() -> int:
    """Measures, prints, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--original", type=Path, help="a checkout of the published code")
    parser.add_argument("--fashion-mnist", action="store_true", help="one sample from all of it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.memory_of:
        print(grown(*arguments.memory_of))
        return 0
    print(f"{arguments.rounds} rounds, {arguments.threads} thread(s), {BATCH} images at once")
    data = images(IMAGES[0])
    original = None if arguments.original is None else Original(arguments.original, data)
    failed = [*speed(original, data, arguments.rounds), *memory(arguments.threads)]
    if arguments.fashion_mnist:
        print("Fashion-MNIST")
        fashion_mnist()
    return concluded(failed)


if __name__ == "__main__":
    sys.exit(main())

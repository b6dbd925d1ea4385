"""What the score-SDE networks, samplers and likelihoods cost, beside the published code.

NCSN++ in the structure for CIFAR-10 (62.8 million weights, 32 x 32 pixels), with the same weights:

* forward and training step (forward and backward) in float32, against the published network with
  the resampling that it falls back to without its compiled extension (claims: 1.25 and 1.4 times
  its speed), and with that replaced by depthwise convolutions (claim: never slower);
* forward under bfloat16 against the published network in float32 (claim: twice its speed, which
  takes a processor that multiplies bfloat16 faster than float32);
* the memory of attention against the number of pixels (claim: linear);
* the network passes of a likelihood at equal tolerance, on a Gaussian whose score is known: of one
  integration, which is all that the published code does (claim: half of its passes);
* predictor-corrector sampling against its bare network calls (claim: at most 3 % more).

Each round times all of them, in an order of its own; printed are the median of the rounds' ratios,
the quartiles around it, and whether the claim holds; the exit status is 1 if one does not. Times
are those of the clock: two threads wait for each other. Without ``--original``, a checkout of
the published PyTorch code, what needs it is left out. Needs Linux, for the memory. Run as

    python benchmarks/score_sde.py --original PATH
"""

import argparse
import importlib
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

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
    verdict,
)
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield import (
    VE,
    VP,
    Langevin,
    NoisePrediction,
    PreconditionedField,
    PredictorCorrector,
    ReverseDiffusion,
    ScorePrediction,
    log_prob,
)
from scorefield.fields.labels import SigmaLabel, TimeLabel
from scorefield.interop.score_sde.build import build, state_of
from scorefield.networks.blocks import PixelAttention, Style

CONFIG: dict[str, dict[str, Any]] = {
    "training": {"continuous": True},
    "data": {"image_size": 32, "num_channels": 3, "centered": False},
    "model": {
        "name": "ncsnpp",
        "sigma_min": 0.01,
        "sigma_max": 50,
        "num_scales": 1000,
        "dropout": 0.0,
        "embedding_type": "fourier",
        "scale_by_sigma": True,
        "nonlinearity": "swish",
        "nf": 128,
        "ch_mult": (1, 2, 2, 2),
        "num_res_blocks": 4,
        "attn_resolutions": (16,),
        "resamp_with_conv": True,
        "conditional": True,
        "fir": True,
        "fir_kernel": [1, 3, 3, 1],
        "skip_rescale": True,
        "resblock_type": "biggan",
        "progressive": "none",
        "progressive_input": "residual",
        "progressive_combine": "sum",
        "init_scale": 1.0,
        "fourier_scale": 16,
    },
}
SIDES = (16, 32, 64)


class Original:
    """The published code, with either resampling."""

    def __init__(self, path: Path) -> None:
        sys.path.insert(0, str(path))
        # It compiles an extension for GPUs when it is imported, which it does not use here.
        with patch("torch.utils.cpp_extension.load"):
            self.models = importlib.import_module("models.utils")
            importlib.import_module("models.ncsnpp")
            self.resampling: Any = importlib.import_module("models.up_or_down_sampling")
            self.native = importlib.import_module("op.upfirdn2d").upfirdn2d_native

    def network(self) -> nn.Module:
        config = SimpleNamespace(**{k: SimpleNamespace(**v) for k, v in CONFIG.items()})
        return self.models.get_model("ncsnpp")(config)

    def use(self, depthwise: bool) -> None:
        self.resampling.upfirdn2d = depthwise_resampling if depthwise else self.fallback

    def fallback(
        self, x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """What it takes without its compiled extension, on any device."""
        return self.native(x, kernel, up, up, down, down, *pad, *pad)


def depthwise_resampling(
    x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> Tensor:
    channels, taps = x.shape[1], kernel.shape[0]
    if up == 1:
        weight = kernel.flip(0, 1).expand(channels, 1, taps, taps)
        x = F.pad(x, (*pad, *pad))
        return F.conv2d(x, weight, stride=down, groups=channels)
    weight = kernel.expand(channels, 1, taps, taps)
    return F.conv_transpose2d(x, weight, stride=up, padding=taps - 1 - pad[0], groups=channels)


Pass = Callable[[nn.Module, Tensor, Tensor], None]


def forward(network: nn.Module, x: Tensor, label: Tensor) -> None:
    with torch.no_grad():
        network(x, label)


def low_precision(network: nn.Module, x: Tensor, label: Tensor) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(x, label)


def training_step(network: nn.Module, x: Tensor, label: Tensor) -> None:
    network.zero_grad()
    network(x, label).square().mean().backward()


def timed(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each action in each round, after one that does not count."""
    for action in actions.values():
        action()
    times = in_turns({n: partial(by_clock, action) for n, action in actions.items()}, rounds)
    for name, values in times.items():
        print(f"  {name:40s} {1e3 * statistics.median(values):9.1f} ms", flush=True)
    return times


def networks(original: Original | None, batch: int, rounds: int) -> list[str]:
    """Forward, training step and bfloat16; returns the claims that fail."""
    ours = build(CONFIG)
    x, label = torch.rand(batch, 3, 32, 32), torch.rand(batch) + 0.1
    theirs: dict[str, Callable[[Pass], None]] = {}
    if original is not None:
        published = original.network()
        published.load_state_dict(state_of(ours, CONFIG))
        error = (published(x, label) - ours(x, label)).detach().abs().amax()
        print(f"largest difference of the outputs: {float(error):.1e}")

        def run(original: Original, depthwise: bool, action: Pass) -> None:
            original.use(depthwise)
            action(published, x, label)

        theirs["published"] = partial(run, original, False)
        theirs["published, depthwise"] = partial(run, original, True)
    failed = []
    passes: tuple[tuple[str, Pass, float], ...] = (
        ("forward", forward, 1.25),
        ("training step", training_step, 1.4),
    )
    for name, action, claim in passes:
        actions: dict[str, Callable[[], object]] = {name: partial(action, ours, x, label)}
        if action is forward:
            actions["forward, bfloat16"] = partial(low_precision, ours, x, label)
        times = timed(actions | {n: partial(run, action) for n, run in theirs.items()}, rounds)
        if not theirs:
            continue
        for other, own, claimed in (
            ("published", name, claim),
            ("published, depthwise", name, 1.0),
            *([("published", "forward, bfloat16", 2.0)] if action is forward else []),
        ):
            failed += least(f"{other} / {own}", ratios(times, other, own), claimed)
    return failed


def grown(side: int) -> float:
    """The growth of the resident set by attention, forward and backward, in MiB."""
    layer = PixelAttention(64, Style(nn.SiLU(), None, 0.0, rescale=True))
    x = torch.randn(16, 64, side, side)
    layer(x[..., :8, :8]).sum().backward()
    before = resident("HWM")
    layer(x).sum().backward()
    return resident("HWM") - before


def attention(threads: int) -> list[str]:
    """Memory against pixels, each in a fresh process; returns the claims that fail."""
    memory = []
    for side in SIDES:
        memory.append(memory_of(__file__, threads, side))
        print(f"  attention, {side} x {side}, 16 images {memory[-1]:9.1f} MiB", flush=True)
    ratio = memory[-1] / memory[-2]
    return verdict("four times the pixels", f"{ratio:.2f}", "<= 5", ratio <= 5)


class Gaussian(nn.Module):
    """The network of data from a normal law, for VP, which counts its calls."""

    def __init__(self, shape: tuple[int, ...], deviation: float) -> None:
        super().__init__()
        self.event_shape, self.variance, self.passes = shape, deviation**2, 0

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        self.passes += 1
        alpha = torch.exp(-0.25 * (label / 999) ** 2 * 19.9 - 0.5 * (label / 999) * 0.1)
        alpha = alpha.reshape(-1, *[1] * (x.dim() - 1))
        std = (1 - alpha**2).sqrt()
        return std * x / (alpha**2 * self.variance + std**2)


def likelihood(original: Original | None) -> list[str]:
    """Network passes of a log-density; returns the claims that fail."""
    network = Gaussian((3, 4, 4), 0.5)
    x = 0.5 * torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    field = PreconditionedField(network, VP(), parametrization=NoisePrediction(TimeLabel(999.0)))
    density = partial(log_prob, field, x, trace="probes", n_probes=1, t_min=1e-5)
    density()
    print(f"  passes of the network, ours, with the solver's error {network.passes}")
    network.passes = 0
    # The published code integrates once, and tells no error.
    density(solver_error="embedded")
    ours = network.passes
    print(f"  passes of the network, ours, one integration {ours}")
    if original is None:
        return []
    published = importlib.import_module("likelihood")
    process = importlib.import_module("sde_lib").VPSDE()
    network.passes = 0
    published.get_likelihood_fn(process, lambda u: u)(network, x)
    print(f"  passes of the network, published {network.passes}")
    ratio = network.passes / ours
    return verdict("passes, published / ours", f"{ratio:.2f}", ">= 2", ratio >= 2)


def sampling(batch: int, rounds: int, steps: int = 5) -> list[str]:
    """Predictor-corrector sampling and its bare network calls; returns the claims that fail."""
    network = build(CONFIG).eval()
    process = VE(sigma_min=0.01, sigma_max=50.0)
    field = PreconditionedField(network, process, parametrization=ScorePrediction(SigmaLabel()))
    sampler = PredictorCorrector(steps, ReverseDiffusion(), Langevin(snr=0.16))
    x, label = torch.rand(batch, 3, 32, 32), torch.rand(batch) + 0.1

    def bare() -> None:
        with torch.no_grad():
            for _ in range(2 * steps):
                network(x, label)

    whole = partial(sampler.sample, field, batch)
    times = timed({"sampling": whole, "bare calls": bare}, rounds)
    return most("sampling / bare calls", ratios(times, "sampling", "bare calls"), 1.03)


def main() -> int:
    """Measures, prints, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, help="a checkout of the published PyTorch code")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.memory_of:
        print(grown(arguments.memory_of))
        return 0
    original = None if arguments.original is None else Original(arguments.original)
    print(f"{arguments.rounds} rounds, {arguments.threads} thread(s), {arguments.batch} images")
    failed = [
        *networks(original, arguments.batch, arguments.rounds),
        *attention(arguments.threads),
        *likelihood(original),
        *sampling(arguments.batch, arguments.rounds),
    ]
    return concluded(failed)


if __name__ == "__main__":
    sys.exit(main())

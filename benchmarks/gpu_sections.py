"""The sections of ``gpu.py``: what is timed on a device, row by row."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import torch
from score_sde import CONFIG, Original
from torch import Tensor

from scorefield import (
    VE,
    Engine,
    EquivariantLocalScore,
    Heun,
    LogProb,
    PatchSizes,
    PotentialField,
    PreconditionedField,
    PredictorCorrector,
    ScoreField,
    ScorePrediction,
    SigmaLabel,
    UNet,
    fit,
    jacobian,
    log_prob,
    walk,
)
from scorefield.comparison.timing import short_training
from scorefield.config.build import build_field, build_source
from scorefield.config.resolve import load_config
from scorefield.engine import exact
from scorefield.interop.score_sde.build import build
from scorefield.noise import Noise


@dataclass(frozen=True)
class Row:
    """A measured number, what was wanted, and what there was to say."""

    section: str
    name: str
    value: float | None
    unit: str
    wanted: str = ""
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """The device, and how much of everything."""

    device: torch.device
    quick: bool
    original: Path | None

    @property
    def batch(self) -> int:
        return 4 if self.quick else 128

    def seconds(self, action: Callable[[], object], rounds: int = 5) -> float:
        """The median time of an action, after two that do not count."""
        rounds = 1 if self.quick else rounds
        for _ in range(1 if self.quick else 2):
            action()
        return statistics.median(self._once(action) for _ in range(rounds))

    def _once(self, action: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        action()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def images(self, n: int) -> Tensor:
        shape = (1, 8, 8) if self.quick else (3, 32, 32)
        return Noise(0).uniform("images", shape, torch.arange(n, device=self.device))


def network(bench: Bench) -> ScoreField:
    """NCSN++ in the structure for CIFAR-10, untrained; in a rehearsal, that for digits."""
    if not bench.quick:
        field = PreconditionedField(
            build(CONFIG), VE(0.01, 50.0), parametrization=ScorePrediction(SigmaLabel())
        )
        return field.to(bench.device)
    config = load_config("digits/ncsnpp_ve")
    return build_field(config, build_source(config)).to(bench.device)


def score_network(bench: Bench) -> Iterator[Row]:
    n = bench.batch
    x = bench.images(n)
    for precision in ("float32", "tf32", "bfloat16"):
        for compiled in (False, True):
            if (precision == "tf32" and bench.device.type != "cuda") or (compiled and bench.quick):
                continue
            field = network(bench)
            engine = Engine(str(bench.device), precision, compiled, channels_last=compiled)
            engine.place(field)
            optimizer = torch.optim.Adam(field.parameters(), fused=True)

            def forward(engine: Engine = engine, field: ScoreField = field) -> None:
                with torch.no_grad(), engine.running():
                    field.predict_noise(x, 0.5)

            def step(
                engine: Engine = engine,
                field: ScoreField = field,
                optimizer: torch.optim.Optimizer = optimizer,
            ) -> None:
                optimizer.zero_grad()
                with engine.running():
                    field.predict_noise(x, 0.5).square().mean().backward()
                optimizer.step()

            name = f"{precision}{', compiled' if compiled else ''}, batch {n}"
            yield Row("ncsnpp", f"forward, {name}", 1e3 * bench.seconds(forward), "ms", "<= 14")
            if bench.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            yield Row("ncsnpp", f"step, {name}", 1e3 * bench.seconds(step), "ms", "<= 45")
            if bench.device.type == "cuda":
                peak = torch.cuda.max_memory_allocated() / 2**30
                yield Row("ncsnpp", f"memory of a step, {name}", peak, "GiB", "<= 9")
    if bench.original is None:
        return
    original = Original(bench.original)
    peer = original.network().to(bench.device)
    x = Noise(0).uniform("images", (3, 32, 32), torch.arange(n, device=bench.device))
    label = torch.full((n,), 0.5, device=bench.device)

    def call() -> None:
        with torch.no_grad():
            peer(x, label)

    def published() -> None:
        peer.zero_grad()
        peer(x, label).square().mean().backward()

    # Its compiled extension has to be built where it runs.
    for depthwise, resampling in ((False, "its fallback"), (True, "depthwise resampling")):
        original.use(depthwise)
        for name, action in (("forward", call), ("step", published)):
            told = f"published, {resampling}, {name}, float32, batch {n}"
            yield Row("ncsnpp", told, 1e3 * bench.seconds(action), "ms")


def precisions(bench: Bench) -> Iterator[Row]:
    """The losses of 50 steps of the trainer, from the same weights and draws."""
    steps, found = 2 if bench.quick else 50, {}
    images = bench.images(8 if bench.quick else 512)
    for precision in ("float32", "bfloat16"):
        fitted = fit(
            network(bench), images, steps=steps, batch_size=min(128, len(images)), log_every=1,
            quiet=True, engine=Engine(str(bench.device), precision),
        )  # fmt: skip
        found[precision] = [float(row["loss"]) for row in fitted.history]
    exact, half = (statistics.fmean(losses) for losses in found.values())
    name = f"mean loss of {steps} steps, bfloat16 from float32"
    yield Row("precisions", name, 100 * abs(half / exact - 1), "%", "<= 1")


def potentials(bench: Bench) -> Iterator[Row]:
    """What the step of a potential costs beside that of the same network as a field."""
    networks: dict[int, Callable[[tuple[int, int, int]], UNet]]
    networks = {8: partial(UNet, channels=32, multipliers=(1, 2)), 32: UNet}
    for side, network in networks.items():
        if bench.quick and side > 8:
            continue
        x = Noise(0).uniform("p", (3, side, side), torch.arange(bench.batch, device=bench.device))
        times = []
        for kind in (PreconditionedField, PotentialField):
            field = kind(network((3, side, side)), VE(0.01, 50.0), sigma_data=0.5).to(bench.device)

            def step(field: ScoreField = field, x: Tensor = x) -> None:
                field.zero_grad()
                field.predict_noise(x, 0.5).square().mean().backward()

            times.append(bench.seconds(step))
        name = f"step to that of a plain field, {side}×{side}"
        yield Row("potentials", name, times[1] / times[0], "", "<= 2.3")


def model_step(bench: Bench, preset: str, graphs: bool = False) -> Callable[[], object]:
    """A whole step of the trainer: draws, averages and clipping included."""
    engine = Engine(str(bench.device), graphs=graphs)
    chosen = {f.name: getattr(engine, f.name) for f in fields(engine) if f.name != "world"}
    trainer = short_training(load_config(preset), 10**6, engine=chosen)
    trainer.field.train()
    numbers = iter(range(10**6))
    return lambda: trainer.stepper.take(next(numbers))


def five_models(bench: Bench) -> Iterator[Row]:
    most = {"toy": ("0.5", "2", "2", "2", "2"), "digits": ("3", "", "8", "", "")}
    for data, limits in most.items():
        for k, limit in enumerate(limits):
            if bench.quick and (data, k) not in (("toy", 0), ("digits", 3)):
                continue
            wanted = f"<= {limit}" if limit else ""
            for graphs in (False, True) if bench.device.type == "cuda" else (False,):
                step = model_step(bench, f"{data}/m{k}", graphs)
                name = f"{data} M{k}, step{', graph' if graphs else ''}"
                yield Row("models", name, 1e3 * bench.seconds(step, 64), "ms", wanted)


def noise(bench: Bench) -> Iterator[Row]:
    index = torch.arange(bench.batch, device=bench.device)
    found = bench.seconds(lambda: Noise(0).normal("p", (3, 32, 32), index), 20)
    yield Row("noise", f"normals of {len(index)}×3×32×32", 1e3 * found, "ms", "<= 0.2")


def sampling(bench: Bench) -> Iterator[Row]:
    field, n = network(bench), 2 if bench.quick else 64
    x = bench.images(n)

    def bare() -> None:
        with torch.no_grad():
            field.predict_noise(x, 0.5)

    field.eval()
    for sampler in (Heun(3), PredictorCorrector(3)):
        whole = bench.seconds(partial(sampler.sample, field, n), 3)
        ratio = whole / (sampler.nfe * bench.seconds(bare))
        yield Row("sampling", f"{type(sampler).__name__}, to bare calls", ratio, "", "<= 1.03")
    one = Heun(3 if bench.quick else 18)
    told = bench.seconds(lambda: walk(field, one, n=1), 3)
    yield Row("sampling", f"one trajectory of {one.nfe} calls, kept", 1e3 * told, "ms")


def derivatives(bench: Bench) -> Iterator[Row]:
    field, x = network(bench).eval(), bench.images(1)
    t = torch.full((1,), 0.5, device=bench.device)
    found = bench.seconds(lambda: jacobian(field.denoise, x, t), 1)
    yield Row("derivatives", "exact Jacobian of a point", found, "s", "<= 2.5")
    x = bench.images(1 if bench.quick else 16)

    def density() -> LogProb:
        return log_prob(
            field, x, rtol=0.1, atol=0.1, trace="probes", n_probes=1, solver_error="embedded"
        )

    def product() -> None:
        u = x.clone().requires_grad_()
        with exact(), torch.enable_grad():
            (field.velocity(u, 0.5) * signs).sum().backward(inputs=[u])

    signs = Noise(0).signs("p", field.domain.shape, torch.arange(len(x), device=x.device))
    whole, calls = bench.seconds(density, 1), float(density().calls.double().mean())
    yield Row("derivatives", f"log-density of {len(x)}, {calls:.0f} calls", whole, "s")
    ratio = whole / (calls * bench.seconds(product, 3))
    yield Row("derivatives", "log-density, to its bare products", ratio, "", "<= 1.15")


def local_scores(bench: Bench) -> Iterator[Row]:
    n, side = (50, 8) if bench.quick else (60_000, 28)
    images = Noise(0).uniform("els", (1, side, side), torch.arange(n)).to(bench.device)
    x = images[: 2 if bench.quick else 16]
    for k in (3,) if bench.quick else (3, 7, 11, 17):
        field = EquivariantLocalScore(images, VE(0.01, 50.0), PatchSizes([1.0], [k]))
        found = bench.seconds(partial(field.score, x, 0.5), 3)
        yield Row("els", f"{n} images, {len(x)} points, k = {k}", found, "s", "<= 0.6")


SECTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "noise": noise,
    "models": five_models,
    "ncsnpp": score_network,
    "potentials": potentials,
    "precisions": precisions,
    "sampling": sampling,
    "els": local_scores,
    "derivatives": derivatives,
}

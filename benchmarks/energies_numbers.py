"""What is measured of models of particles: importance weights under their exact energies."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import scorefield as sf
from scorefield.config.build import build_source
from scorefield.data.source import Split
from scorefield.estimate import mean
from scorefield.runs.run import Run


@dataclass(frozen=True)
class System:
    """A family of presets: its name on the page, the numbers of samples and of held-out points, and
    the tolerance of the flow."""

    title: str
    samples: int
    held_out: int
    rtol: float


SYSTEMS = {
    "dw4": System("DW-4", 256, 128, 3e-4),
    "lj13": System("LJ-13", 64, 32, 1e-2),
}
Numbers = dict[str, NDArray[np.float64]]


def source_of(family: str) -> sf.ChainSource:
    source = build_source(sf.load_config(f"{family}/m0"))
    assert isinstance(source, sf.ChainSource)
    return source


def last_draws(source: sf.ChainSource, split: Split) -> Tensor:
    """The last draw of each chain: those of different chains are independent."""
    return source.stored(split).unflatten(0, (source.draws, -1))[-1]


def measured(preset: str, seed: int, source: sf.ChainSource, root: Path) -> Numbers:
    """The numbers of a run, which are computed once."""
    file = root / "energies" / f"{preset.replace('/', '-')}-{seed}.npz"
    if file.is_file():
        with np.load(file) as stored:
            return {name: stored[name] for name in stored.files}
    system = SYSTEMS[preset.partition("/")[0]]
    run = Run.create(sf.load_config(preset, [f"seed={seed}"]), root)
    begin = time.process_time()
    if not run.finished:
        run.train(quiet=True)
    trained = time.process_time() - begin
    field, rtol = run.field(), system.rtol
    drawn = sf.flow_samples(field, system.samples, seed=seed, rtol=rtol, atol=rtol)
    data = source.reference(system.held_out, seed, dtype=torch.float64)
    there = sf.log_prob(field, data, rtol=rtol, atol=rtol)
    found = {
        "x": drawn.x,
        "log_q": drawn.log_prob.value,
        "solver_error": drawn.log_prob.solver_error,
        "data_log_weights": -source.energy.energy(data) - there.value,
        "data_solver_error": there.solver_error,
        "calls": drawn.log_prob.calls,
    }
    numbers = {name: value.numpy() for name, value in found.items()}
    numbers["trained"] = np.array(trained)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, allow_pickle=False, **numbers)
    print(f"{preset}, seed {seed}, is trained and weighed", flush=True)
    return numbers


@dataclass(frozen=True)
class Result:
    """The weights of a run, its divergence from the energy, and the energies of its samples."""

    seed: int
    found: sf.Importance
    divergence: sf.Estimate
    energies: Tensor
    distances: Tensor
    seconds: float
    calls: float


def result(seed: int, numbers: Numbers, source: sf.ChainSource) -> Result:
    x, log_q, errors = (torch.from_numpy(numbers[k]) for k in ("x", "log_q", "solver_error"))
    none, whole = torch.zeros_like(log_q), torch.zeros_like(log_q, dtype=torch.int64)
    density = sf.LogProb(log_q, none, errors, whole, whole, x, whole == 0)
    found = sf.importance(source.energy, x, density)
    at_data, constant = mean(numbers["data_log_weights"]), found.log_constant
    divergence = sf.Estimate(
        at_data.value - constant.value,
        math.hypot(at_data.standard_error, constant.standard_error),
        at_data.n,
        "nats",
        numerical_error=constant.numerical_error + float(numbers["data_solver_error"].mean()),
    )
    seconds = float(numbers["trained"])
    energies, distances = source.energy.energy(x), source.energy.distances(x)
    return Result(
        seed, found, divergence, energies, distances, seconds, float(numbers["calls"].mean())
    )


def gap(one: Tensor, other: Tensor) -> sf.Estimate:
    """Wasserstein's distance of order 1 between numbers."""
    return sf.sliced_wasserstein(one.reshape(-1, 1), other.reshape(-1, 1), order=1)

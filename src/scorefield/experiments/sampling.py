"""Samples of a run, as files."""

from __future__ import annotations

import io
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.torch import save as save_tensors
from torch import Tensor

from scorefield.experiments import schema
from scorefield.experiments.build import build_sampler
from scorefield.experiments.errors import RunError
from scorefield.experiments.pictures import picture
from scorefield.experiments.progress import Stages
from scorefield.experiments.run import Run
from scorefield.samplers import Sampler
from scorefield.samplers.base import Callback, SamplerState
from scorefield.training.files import replace_file

_ENDINGS = (".npz", ".safetensors")
_MOST_SAMPLES = 10_000_000
_MOST_CALLS = 1_000_000
_PATIENCE = 2.0  # seconds
_LINE_EVERY = 5.0  # seconds


@dataclass(frozen=True)
class Drawn:
    """Samples that were drawn and written down.

    Attributes:
        samples: The samples.
        file: Where they are.
        picture: Where their picture is; ``None`` if there is none of such data.
        nfe: The network calls that each sample took.
        seconds: How long sampling took.
    """

    samples: Tensor
    file: Path
    picture: Path | None
    nfe: int
    seconds: float


class SamplingProgress:
    """Shows a long sampling: a bar on a terminal, plain lines elsewhere, nothing of a short one."""

    def __init__(self) -> None:
        self._shown = ExitStack()
        self._stages: Stages | None = None
        self._next = time.monotonic() + _PATIENCE

    def __enter__(self) -> SamplingProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._shown.close()

    def __call__(self, state: SamplerState) -> None:
        """Is told of a step of the sampler."""
        now = time.monotonic()
        if self._stages is None:
            if now < self._next:
                return
            self._stages = self._shown.enter_context(Stages())
        done, total = state.block * state.steps + state.step + 1, state.blocks * state.steps
        self._stages.show("sampling", done, total)
        if now >= self._next:
            self._next = now + _LINE_EVERY
            self._stages.say(f"sampling: {100 * done // total} %")


def choose_sampler(
    run: Run,
    kind: str | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    churn: float | None = None,
) -> Sampler:
    """The sampler of a run's configuration, with changes.

    Arguments:
        run: The run.
        kind: The method.
        steps: The number of steps.
        nfe: In place of ``steps``, the number of network calls that a sample may take.
        churn: The amount of churn.

    Raises:
        RunError: If both ``steps`` and ``nfe`` are given, or one is out of bounds.
        ConfigError: If the sampler section has no such value.
    """
    if steps is not None and nfe is not None:
        raise RunError("give either steps or nfe: each says how long sampling takes")
    for name, count in {"steps": steps, "nfe": nfe}.items():
        if count is not None:
            _check_count(name, count, _MOST_CALLS)
    changes = {"kind": kind, "steps": steps, "churn": churn}
    section = {key: value for key, value in changes.items() if value is not None}
    document = run.config.document()
    document["sampler"].update(section)
    sampler = build_sampler(schema.validate(document, "sample").sampler)
    if nfe is None:
        return sampler
    settings = {k: v for k, v in vars(sampler).items() if k != "steps"}
    return type(sampler).for_nfe(nfe, **settings)


def draw(
    run: Run,
    n: int,
    sampler: Sampler,
    seed: int = 0,
    weights: Literal["ema", "raw"] = "ema",
    step: int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    callback: Callback | None = None,
) -> Drawn:
    """Draws samples of a trained field, and writes them and a picture of them.

    Arguments:
        run: The run.
        n: Their number.
        sampler: The sampler.
        seed: The seed of the starting noise.
        weights: ``ema`` or ``raw``.
        step: Which checkpoint; the newest that can be read by default.
        out: The file, ``.npz`` or ``.safetensors``; by default one in the run's ``samples``
            folder, named after all that it depends on.
        overwrite: Whether ``out``, or the picture that is written next to it, may exist.
        callback: Is told of each step of the sampler.

    Raises:
        RunError: If ``n`` is out of bounds, ``out`` or its picture exists, ``out`` has another
            ending, or the run has no such checkpoint.
        CheckpointError: If the checkpoint cannot be read.
        FloatingPointError: If samples diverge.
    """
    _check_count("n", n, _MOST_SAMPLES)
    if out is not None and out.suffix not in _ENDINGS:
        raise RunError(f"{out} must end in {' or '.join(_ENDINGS)}")
    if out is not None and not overwrite:
        for file in (out, out.with_suffix(".png")):
            if file.exists():
                raise RunError(f"{file} exists; overwrite it, or give another name")
    found = run.checkpoint(step)
    field = run.field(weights, found.step)
    start = time.perf_counter()
    samples = sampler.sample(field, n, seed, callback=callback).cpu()
    seconds = time.perf_counter() - start
    settings = {"sampler": type(sampler).__name__.lower(), **vars(sampler)}
    record = {
        "run": run.config.name,
        "run_seed": run.config.seed,
        "step": found.step,
        "weights": weights,
        **settings,
        "nfe": sampler.nfe,
        "seed": seed,
        "n": n,
    }
    file = run.folder / "samples" / f"{_stem(record)}.npz" if out is None else out
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, _content(samples, record, file.suffix))
    title = f"{run.config.name}, {settings['sampler']}, {sampler.nfe} network calls"
    image = picture(samples, run.source().truth, title)
    if image is not None:
        replace_file(file.with_suffix(".png"), image)
    return Drawn(
        samples, file, None if image is None else file.with_suffix(".png"), sampler.nfe, seconds
    )


def _check_count(name: str, count: int, most: int) -> None:
    if count < 1:
        raise RunError(f"{name} is {count}, it must be at least 1")
    if count > most:
        raise RunError(f"{name} is {count}, it must be at most {most}")


def _stem(record: dict[str, Any]) -> str:
    churn = f"_churn{record['churn']:g}" if record["churn"] else ""
    return (
        f"{record['sampler']}_nfe{record['nfe']}{churn}_n{record['n']}_seed{record['seed']}"
        f"_{record['weights']}_step{record['step']:08d}"
    )


def _content(samples: Tensor, record: dict[str, Any], ending: str) -> bytes:
    text = json.dumps(record)
    if ending == ".safetensors":
        return save_tensors({"samples": samples.contiguous()}, {"scorefield": text})
    content = io.BytesIO()
    np.savez(content, samples=samples.numpy(), record=np.array(text))
    return content.getvalue()

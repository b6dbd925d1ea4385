"""Samples of a model, as files."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from scorefield.config import schema
from scorefield.config.build import build_sampler
from scorefield.config.config import Config
from scorefield.config.resolve import load_config
from scorefield.engine import Engine
from scorefield.errors import RunError
from scorefield.evaluation.pixels import pixels_of
from scorefield.fields.base import ScoreField
from scorefield.fields.composed import ClassifierFreeGuidance
from scorefield.files import check_writable, write_files
from scorefield.plotting import MOST_IMAGES, png, samples_figure
from scorefield.progress import Stages
from scorefield.runs.classes import class_name, of_class
from scorefield.runs.subject import Subject
from scorefield.samplers.base import Sampler
from scorefield.samplers.step import Callback, SamplerState
from scorefield.training.identity import check_same, of_weights
from scorefield.world import World

_ENDINGS = (".npz", ".safetensors")
_MOST_SAMPLES = 10_000_000
_MOST_CALLS = 1_000_000


class Calls(NamedTuple):
    """How many times the network was evaluated for a sample: the fewest, the mean, the most."""

    least: int
    mean: float
    most: int


@dataclass(frozen=True)
class Drawn:
    """Samples that were drawn and written down, in so many seconds; other data has no picture."""

    samples: Tensor
    file: Path
    picture: Path | None
    calls: Calls
    seconds: float


def following(stages: Stages, stage: str = "sampling") -> Callback:
    """What shows how far a sampler is, and the time that is left."""

    def callback(state: SamplerState) -> None:
        done, total = state.block * state.steps + state.step + 1, state.blocks * state.steps
        stages.advance(stage, done, total, "steps")

    return callback


def choose_sampler(
    config: Config | None,
    kind: str | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    churn: float | None = None,
) -> Sampler:
    """The sampler of a configuration, with changes; of a model without one, Heun's method.

    Arguments:
        config: The configuration of a run.
        kind: The method; one of another kind than the run's has its usual settings.
        nfe: In place of ``steps``, the number of network calls that a sample may take.

    Raises:
        RunError: If both ``steps`` and ``nfe`` are given, or one is out of bounds.
        ConfigError: If the sampler section has no such key or value.
        ValueError: If the method cannot keep to ``nfe``.
    """
    if steps is not None and nfe is not None:
        raise RunError("give either steps or nfe: each sets the number of steps")
    for name, count in {"steps": steps, "nfe": nfe}.items():
        if count is not None:
            _check_count(name, count, _MOST_CALLS)
    changes = {"kind": kind, "steps": steps, "churn": churn}
    section = {key: value for key, value in changes.items() if value is not None}
    # Of the preset, only its sampler matters.
    document = (load_config("toy/m0") if config is None else config).document()
    siblings = schema.keys(("sampler",), document["sampler"]["kind"])
    if kind is None or schema.keys(("sampler",), kind) == siblings:
        section = document["sampler"] | section
    source = "sample" if kind is None else "--sampler"
    sampler = build_sampler(schema.validate(document | {"sampler": section}, source).sampler)
    return sampler if nfe is None else sampler.at_budget(nfe)


def draw(
    subject: Subject,
    n: int,
    sampler: Sampler,
    seed: int = 0,
    out: Path | None = None,
    overwrite: bool = False,
    callback: Callback | None = None,
    label: int | None = None,
    guidance: float | None = None,
    engine: Engine | None = None,
    vae: Path | None = None,
) -> Drawn:
    """Draws samples of a trained field, and writes them and a picture of them.

    Arguments:
        subject, n, sampler: The model, the number of samples, and how they are drawn.
        seed: The seed of the starting noise.
        out: The file, ``.npz`` or ``.safetensors``; by default one in the folder ``samples`` of
            the run, or of the working directory, named after all that it depends on.
        overwrite: Whether ``out``, or the picture that is written next to it, may exist.
        callback: Receives the state after each step of the sampler.
        label: The class of the samples, for a field that knows classes; of any by default.
        guidance: The scale of :class:`~.ClassifierFreeGuidance`.
        engine: What it runs on; that of the configuration by default.
        vae: Where the autoencoder of latents is, as of :func:`~.pixels_of`; latents are written as
            they are, and decoded for the picture.

    Raises:
        UserError: If the engine's device is not on this machine, or latents cannot be decoded.
        RunError: If a number, the file or the label is not a possible one.
        FloatingPointError: If samples diverge.
    """
    _check_count("n", n, _MOST_SAMPLES)
    if out is not None and out.suffix not in _ENDINGS:
        raise RunError(f"{out} must end in {' or '.join(_ENDINGS)}")
    if out is not None:
        check_writable(out.parent)
    if out is not None and not overwrite:
        for file in (out, out.with_suffix(".png")):
            if file.exists():
                raise RunError(f"{file} exists; overwrite it, or give another name")
    engine = subject.engine() if engine is None else engine
    engine.check()
    check_same(engine.world, checkpoint=subject.about, samples=(n, seed, sampler))
    if label is None or guidance not in (None, 1):
        subject.of_class(None)
    pixels = pixels_of(subject.source, subject.centered, engine.torch_device, vae)
    field = _steered(engine.place(subject.field), label, guidance)
    counter = _Counter(callback)
    start = time.perf_counter()
    with engine.running():
        samples = engine.world.map(n, lambda index: counter.sample(sampler, field, seed, index))
    seconds = time.perf_counter() - start
    # Guidance asks the network twice at every point, with the class and without.
    calls = counter.calls(1 if guidance is None else 2, engine.world, n)
    method = {"sampler": type(sampler).__name__.lower(), **_plain(sampler)}
    record = {
        **subject.about,
        **method,
        "label": label,
        "guidance": guidance,
        "precision": engine.precision,
        "nfe": calls.most,
        "seed": seed,
        "n": n,
    }
    file = _folder(subject) / f"{_stem(record)}.npz" if out is None else out
    files = {file.name: _content(samples, record, file.suffix)}
    title = f"{subject.name}, {method['sampler']}, {calls.most} network calls"
    if label is not None:
        title += f", class {class_name(label, subject.source)}"
    truth = None if subject.source is None else subject.source.truth
    some = samples if pixels.autoencoder is None else pixels.images(samples[:MOST_IMAGES])
    figure = samples_figure(some, truth, title, pixels.black)
    shown = None if figure is None else file.with_suffix(".png")
    if figure is not None and shown is not None:
        files[shown.name] = png(figure)
    if engine.world.first:
        write_files(file.parent, files)
    return Drawn(samples, file, shown, calls, seconds)


class _Counter:
    """A callback that counts network calls, and passes the state on."""

    def __init__(self, callback: Callback | None) -> None:
        self._callback = callback
        self._blocks: dict[int, Tensor] = {}

    def __call__(self, state: SamplerState) -> None:
        own = None if state.solution is None else state.solution.calls
        every = torch.full(state.index.shape, state.nfe)
        self._blocks[state.block] = every if own is None else own.cpu()
        if self._callback is not None:
            self._callback(state)

    def sample(self, sampler: Sampler, field: ScoreField, seed: int, index: Tensor) -> Tensor:
        """The samples of some indices, on the CPU."""
        return sampler.sample(field, seed=seed, index=index, callback=self).cpu()

    def calls(self, each: int, world: World, n: int) -> Calls:
        """What the ``n`` samples of all processes took, where a call evaluates the network ``each``
        times a sample.
        """
        own = world.rows(n)
        counts = each * torch.cat(list(self._blocks.values()))[: own.stop - own.start]
        counts = world.gather(counts, n)
        return Calls(int(counts.min()), float(counts.double().mean()), int(counts.max()))


def _steered(field: ScoreField, label: int | None, guidance: float | None) -> ScoreField:
    if label is None:
        if guidance is not None:
            raise RunError("guidance leads towards a class: give a label too")
        return field
    known = of_class(field, label)
    return known if guidance is None else of_class(ClassifierFreeGuidance(field, guidance), label)


def _folder(subject: Subject) -> Path:
    """Where samples are written by default; two models without a run never share a folder."""
    if subject.folder is not None:
        return subject.folder / "samples"
    name = re.sub(r"[^\w.+=,@-]+", "_", Path(subject.name).name)
    return Path("samples") / f"{name}_{of_weights(subject.field)[:8]}"


def _plain(method: object) -> dict[str, Any]:
    """The settings of a sampler as plain values, those of its parts with their kind."""
    return {
        key: {"kind": type(value).__name__.lower(), **_plain(value)}
        if is_dataclass(value)
        else value
        for key, value in vars(method).items()
    }


def _check_count(name: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        bound = "at least 1" if count < 1 else f"at most {most}"
        raise RunError(f"{name} is {count}, it must be {bound}")


def _stem(record: dict[str, Any]) -> str:
    churn = f"_churn{record['churn']:g}" if record.get("churn") else ""
    label = "" if record["label"] is None else f"_label{record['label']}"
    guidance = "" if record["guidance"] is None else f"_guidance{record['guidance']:g}"
    precision = "" if record["precision"] == "float32" else f"_{record['precision']}"
    which = f"_{record['weights']}_step{record['step']:08d}" if "step" in record else ""
    return (
        f"{record['sampler']}_nfe{record['nfe']}{churn}{label}{guidance}{precision}_n{record['n']}"
        f"_seed{record['seed']}{which}"
    )


def _content(samples: Tensor, record: dict[str, Any], ending: str) -> bytes:
    text = json.dumps(record)
    if ending == ".safetensors":
        return save_tensors({"samples": samples.contiguous()}, {"scorefield": text})
    content = io.BytesIO()
    np.savez(content, samples=samples.numpy(), record=np.array(text))
    return content.getvalue()

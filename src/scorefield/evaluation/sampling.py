"""Samples of a run, as files and as a picture."""

from __future__ import annotations

import io
import json
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from scorefield.config import schema
from scorefield.config.sampler import build_sampler
from scorefield.errors import RunError
from scorefield.fields import ClassifierFreeGuidance, ScoreField
from scorefield.files import write_file
from scorefield.runs.progress import Stages
from scorefield.runs.run import Run, check_unconditional, of_class
from scorefield.samplers import Callback, Sampler, SamplerState
from scorefield.targets import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENDINGS = (".npz", ".safetensors")
_MOST_SAMPLES = 10_000_000
_MOST_CALLS = 1_000_000
_PATIENCE = 2.0  # seconds
_LINE_EVERY = 5.0  # seconds


class Calls(NamedTuple):
    """How many times the network was evaluated for a sample: the fewest, the mean, the most."""

    least: int
    mean: float
    most: int

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.most} network calls each"
        return f"{self.mean:.1f} network calls each, from {self.least} to {self.most}"


@dataclass(frozen=True)
class Drawn:
    """Samples that were drawn and written down, in so many seconds; other data has no picture."""

    samples: Tensor
    file: Path
    picture: Path | None
    calls: Calls
    seconds: float


class SamplingProgress(ExitStack):
    """Shows a long sampling: a bar on a terminal, plain lines elsewhere, nothing of a short one."""

    def __init__(self) -> None:
        super().__init__()
        self._stages: Stages | None = None
        self._next = time.monotonic() + _PATIENCE

    def __call__(self, state: SamplerState) -> None:
        """Is told of a step of the sampler."""
        now = time.monotonic()
        if self._stages is None:
            if now < self._next:
                return
            self._stages = self.enter_context(Stages())
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
        kind: The method; one of another kind than the run's has its usual settings.
        nfe: In place of ``steps``, the number of network calls that a sample may take.

    Raises:
        RunError: If both ``steps`` and ``nfe`` are given, or one is out of bounds.
        ConfigError: If the sampler section has no such key or value.
        ValueError: If the method cannot keep to ``nfe``.
    """
    if steps is not None and nfe is not None:
        raise RunError("give either steps or nfe: each says how long sampling takes")
    for name, count in {"steps": steps, "nfe": nfe}.items():
        if count is not None:
            _check_count(name, count, _MOST_CALLS)
    changes = {"kind": kind, "steps": steps, "churn": churn}
    section = {key: value for key, value in changes.items() if value is not None}
    document = run.config.document()
    siblings = schema.keys(("sampler",), document["sampler"]["kind"])
    if kind is None or schema.keys(("sampler",), kind) == siblings:
        section = document["sampler"] | section
    source = "sample" if kind is None else "--sampler"
    sampler = build_sampler(schema.validate(document | {"sampler": section}, source).sampler)
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
    label: int | None = None,
    guidance: float | None = None,
) -> Drawn:
    """Draws samples of a trained field, and writes them and a picture of them.

    Arguments:
        run, n, sampler: The run, the number of samples, and how they are drawn.
        seed: The seed of the starting noise.
        step: Which checkpoint; the newest that can be read by default.
        out: The file, ``.npz`` or ``.safetensors``; by default one in the run's ``samples``
            folder, named after all that it depends on.
        overwrite: Whether ``out``, or the picture that is written next to it, may exist.
        callback: Is told of each step of the sampler.
        label: The class of the samples, for a field that knows classes; of any by default.
        guidance: The scale of :class:`~scorefield.fields.ClassifierFreeGuidance`.

    Raises:
        RunError: If a number, the file, the label or the checkpoint is not a possible one.
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
    if label is None or guidance not in (None, 1):
        check_unconditional(run.config, field)
    field = _steered(field, label, guidance)
    counter = _Counter(callback)
    start = time.perf_counter()
    samples = sampler.sample(field, n, seed, callback=counter).cpu()
    seconds = time.perf_counter() - start
    # Guidance asks the network twice at every point, with the class and without.
    calls = counter.calls(1 if guidance is None else 2)
    method = {"sampler": type(sampler).__name__.lower(), **_plain(sampler)}
    record = {
        "run": run.config.name,
        "run_seed": run.config.seed,
        "step": found.step,
        "weights": weights,
        **method,
        "label": label,
        "guidance": guidance,
        "nfe": calls.most,
        "seed": seed,
        "n": n,
    }
    file = run.folder / "samples" / f"{_stem(record)}.npz" if out is None else out
    write_file(file, _content(samples, record, file.suffix))
    title = f"{run.config.name}, {method['sampler']}, {calls.most} network calls"
    black = -1.0 if run.config.centered else 0.0
    image, shown = picture(samples, run.source().truth, title, black), None
    if image is not None:
        shown = file.with_suffix(".png")
        write_file(shown, image)
    return Drawn(samples, file, shown, calls, seconds)


class _Counter:
    """A callback that counts network calls, and passes on what it is told."""

    def __init__(self, callback: Callback | None) -> None:
        self._callback = callback
        self._blocks: dict[int, Tensor] = {}

    def __call__(self, state: SamplerState) -> None:
        own = None if state.solution is None else state.solution.calls
        every = torch.full(state.index.shape, state.nfe)
        self._blocks[state.block] = every if own is None else own.cpu()
        if self._callback is not None:
            self._callback(state)

    def calls(self, each: int) -> Calls:
        """What the samples took, where a call evaluates the network ``each`` times a sample."""
        counts = each * torch.cat(list(self._blocks.values()))
        return Calls(int(counts.min()), float(counts.double().mean()), int(counts.max()))


def _steered(field: ScoreField, label: int | None, guidance: float | None) -> ScoreField:
    if label is None:
        if guidance is not None:
            raise RunError("guidance leads towards a class: give a label too")
        return field
    known = of_class(field, label)
    return known if guidance is None else of_class(ClassifierFreeGuidance(field, guidance), label)


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
    return (
        f"{record['sampler']}_nfe{record['nfe']}{churn}{label}{guidance}_n{record['n']}"
        f"_seed{record['seed']}_{record['weights']}_step{record['step']:08d}"
    )


def _content(samples: Tensor, record: dict[str, Any], ending: str) -> bytes:
    text = json.dumps(record)
    if ending == ".safetensors":
        return save_tensors({"samples": samples.contiguous()}, {"scorefield": text})
    content = io.BytesIO()
    np.savez(content, samples=samples.numpy(), record=np.array(text))
    return content.getvalue()


_LARGEST_GRID = 256
_LARGEST_SCATTER = 20_000


def picture(samples: Tensor, truth: Target | None, title: str, black: float) -> bytes | None:
    """A PNG of points of the plane, with contours of their law, or images; ``None`` of others."""
    from matplotlib.figure import Figure

    event = tuple(samples.shape[1:])
    figure = Figure(figsize=(5, 5), layout="constrained")
    if event == (2,):
        _scatter(figure.add_subplot(aspect="equal"), samples[:_LARGEST_SCATTER], truth)
    elif len(event) == 3 and event[0] in (1, 3):
        images = samples[:_LARGEST_GRID].cpu()
        columns = math.ceil(math.sqrt(len(images)))
        figure.set_size_inches(5, 5 * math.ceil(len(images) / columns) / columns + 0.3)
        axes = figure.add_subplot()
        axes.imshow(sheet(images, columns, black).numpy())
        axes.set_axis_off()
    else:
        return None
    figure.suptitle(title, fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _scatter(axes: Axes, samples: Tensor, truth: Target | None) -> None:
    points = samples.double().cpu()
    reach = 1.1 * float(points.abs().max())
    if truth is not None:
        reach = max(reach, float(truth.mean.abs().max()) + 2 * truth.std)
        line = torch.linspace(-reach, reach, 201, dtype=torch.float64)
        grid = torch.cartesian_prod(line, line)
        density = truth.log_density(grid, 0.0).exp().reshape(201, 201).T
        peak = float(density.max())
        # One and two standard deviations from the mode of a normal law.
        levels = [peak * math.exp(-0.5 * z**2) for z in (2, 1)]
        axes.contour(line.numpy(), line.numpy(), density.numpy(), levels, colors="tab:red")
    axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=4, alpha=0.5, linewidths=0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))


def sheet(images: Tensor, columns: int, black: float) -> Tensor:
    """Images with values from ``black`` to 1, side by side, as one in red, green, blue."""
    n, _, height, width = images.shape
    found = torch.ones(-(-n // columns) * (height + 1) + 1, columns * (width + 1) + 1, 3)
    pixels = images.double().sub(black).div(1 - black).clamp(0, 1).permute(0, 2, 3, 1)
    for k, image in enumerate(pixels):
        top, left = k // columns * (height + 1) + 1, k % columns * (width + 1) + 1
        found[top : top + height, left : left + width] = image
    return found

"""The likelihood of a data set under a field: log-densities, point by point and on average."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.calculus.trace import ProbeKind
from scorefield.data.array_files import read_arrays
from scorefield.engine import Engine
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate
from scorefield.evaluation.given import open_data
from scorefield.evaluation.levels import Levels, levels_of, within_cells
from scorefield.evaluation.parts import Parts
from scorefield.files import check_writable, reason, write_files
from scorefield.likelihood.compute import log_prob
from scorefield.likelihood.density import BitsPerDim, DataTransform, LogProb
from scorefield.progress import Stages
from scorefield.runs.cells import csv_text, numbers
from scorefield.runs.subject import Subject
from scorefield.samplers.trajectory import directly
from scorefield.training.identity import check_same

POINTS, SUMMARY = "likelihood.csv", "likelihood.json"
_CHUNK = 64


@dataclass(frozen=True)
class LikelihoodSettings:
    """How :func:`~.log_prob` is called; the seed is that of all random numbers."""

    rtol: float = 1e-5
    atol: float = 1e-5
    probes: ProbeKind = "rademacher"
    n_probes: int = 8
    standard_error: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class DataLikelihood:
    """Log-densities of points, in bits too for integers; ``about`` is what they are of, ``parts``
    what is kept of them until they are written.
    """

    points: LogProb
    bits: BitsPerDim | None
    about: dict[str, Any]
    seconds: float
    parts: Parts | None = None

    def rows(self) -> list[dict[str, Any]]:
        """The means over points, a row each."""
        rows = [{"quantity": "log-density", "value": self._mean(self.points)}]
        if self.bits is not None:
            rows.append({"quantity": "bits/dim", "value": self._mean(self.bits)})
        return [{**row, "points": len(self.points.value)} for row in rows]

    def notes(self) -> list[str]:
        """How the numbers were computed, and which are not as good as was requested."""
        calls = self.points.calls.double()
        trace = "the exact trace"
        if bool((self.points.n_probes > 0).any()):
            most, error = int(self.points.n_probes.max()), float(self.points.standard_error.max())
            trace = f"{most} {self.about['probes']} probes or fewer, ± {error:.2g} nats or less"
        found = [f"{float(calls.mean()):.0f} network calls a point, {trace}"]
        if self.bits is not None:
            found.append(f"data: {self.bits.transform}")
        missed = int((~self.points.reached).sum())
        if missed:
            found.append(f"{missed} points did not reach the requested standard error")
        return found

    def write(self, folder: Path) -> list[Path]:
        """Writes a row a point, and a summary; both are replaced or none."""
        p, bits = self.points, self.bits
        columns: dict[str, Any] = {
            "point": torch.arange(len(p.value)),
            "log_prob": p.value,
            "standard_error": p.standard_error,
            "solver_error": p.solver_error,
            "probes": p.n_probes,
            "calls": p.calls,
        }
        if bits is not None:
            columns["bits_per_dim"] = bits.value
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        summary = {
            **self.about,
            "nats": numbers(self._mean(p)),
            "bits_per_dim": bits and numbers(self._mean(bits)),
            "transform": bits and {**asdict(bits.transform), "offset": bits.transform.offset},
            "calls_mean": float(p.calls.double().mean()),
            "calls_max": int(p.calls.max()),
            "points_short_of_standard_error": int((~p.reached).sum()),
            "seconds": self.seconds,
        }
        files = {
            POINTS: csv_text([dict(zip(columns, row, strict=True)) for row in rows]),
            SUMMARY: json.dumps(summary, indent=2) + "\n",
        }
        written = write_files(folder, files)
        if self.parts is not None:
            self.parts.remove()
        return written

    @staticmethod
    def _mean(found: LogProb | BitsPerDim) -> Estimate:
        return replace(found.mean(), settings={})


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Checks before the work that tables can be written to a folder, which need not exist, and that
    none are there that may not be replaced.
    """
    check_writable(folder)
    for file in (folder / POINTS, folder / SUMMARY):
        if file.exists() and not overwrite:
            raise RunError(f"{file} exists; overwrite it, or give another folder")


def data_likelihood(
    subject: Subject,
    data: str,
    n: int | None,
    settings: LikelihoodSettings,
    engine: Engine | None = None,
    folder: Path | None = None,
) -> DataLikelihood:
    """Log-densities of points under a field, shown as they come.

    Points are integrated in double precision, whatever the precision of the network, which is
    evaluated exactly on the device of the engine. Integer data
    are dequantised by uniform noise at the addresses ``("dequantize", point)``, unless they came
    with noise; bits per dimension are given of them alone.

    Arguments:
        data: ``test`` or ``train`` for a split of its data; a file ending in ``.npz`` with one
            array: images of bytes, or points, which are taken as they are; or other data with a
            name, see :func:`~scorefield.evaluation.given.open_data`, whose test split is taken.
        n: How many points; 100, or all of a file, if not given.
        engine: What it runs on; that of the configuration by default.
        folder: Where blocks of points are kept until all are done, so that a killed computation
            goes on with those that it lacks.

    Raises:
        RunError: If there are no such data, too few points, or they have another shape.
        StalledError: If the flow of a point cannot be followed.
    """
    if n is not None and n < 2:
        raise RunError(f"n is {n}, an average with an error takes at least 2 points")
    if data.endswith(".npz"):
        x, transform = _file(Path(data), subject, n, settings.seed)
    else:
        x, transform = _split(subject, data, n or 100, settings.seed)
    engine = subject.engine() if engine is None else engine
    field, device, world = engine.place(subject.field), engine.torch_device, engine.world
    content = hashlib.blake2b(x.numpy().tobytes()).hexdigest()
    check_same(world, checkpoint=subject.about, points=content, settings=settings)
    own = world.rows(len(x))
    # A process without points of its own does the first, to know what they look like.
    points = torch.arange(len(x))[own] if own.stop > own.start else torch.arange(1)
    options = {key: value for key, value in vars(settings).items() if key != "seed"}

    def block(index: Tensor) -> tuple[float, dict[str, Tensor]]:
        start = time.monotonic()
        part = log_prob(
            field, x[index].to(device), seed=settings.seed, index=index.to(device),
            solver_error="two_tolerances", **options,
        )  # fmt: skip
        found = {f.name: getattr(part, f.name).cpu() for f in fields(LogProb)}
        return time.monotonic() - start, found

    kept, seconds, parts = None, 0.0, []
    if folder is not None:
        kept = Parts(folder, "likelihood", {**vars(settings), "points": content}, engine)
    once = directly if kept is None else kept.of(field)
    with Stages() as stages:
        for index in points.split(_CHUNK):
            first, last = int(index[0]), int(index[-1])
            took, part = once((first, last), partial(block, index))
            seconds += took
            parts.append(part)
            stages.advance("likelihood", last + 1 - int(points[0]), len(points), "points")
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    count = own.stop - own.start
    found = LogProb(**{name: world.gather(v[:count], len(x)) for name, v in whole.items()})
    bits = None if transform is None else found.bits_per_dim(transform)
    about = {**subject.about, "data": data, "n": len(x), **vars(settings)}
    return DataLikelihood(found, bits, about, seconds, kept)


def _split(subject: Subject, data: str, n: int, seed: int) -> tuple[Tensor, DataTransform | None]:
    """Points of a split of its data, or of the test split of others, and how they became so if they
    are integers.
    """
    shape = subject.field.domain.shape
    try:
        if data not in ("test", "train"):
            source, levels = open_data(data, shape, subject.transform)
        elif subject.source is None or subject.config is None:
            raise RunError("the model comes without data: give --data a name or a file")
        else:
            source, levels = subject.source, levels_of(subject.config.data)
        if source.shape != shape:
            raise RunError(f"{data} has points of shape {source.shape}, the field takes {shape}")
        x = source.reference(n, seed, "train" if data == "train" else "test", torch.float64)
    except ValueError as error:
        raise RunError(str(error)) from error
    return (x, None) if levels is None else (within_cells(x, levels, seed), levels.transform)


def _file(
    path: Path, subject: Subject, n: int | None, seed: int
) -> tuple[Tensor, DataTransform | None]:
    """Points of a file, and how they became so if they are bytes."""
    try:
        points = {name: array for name, array in read_arrays(path).items() if array.ndim > 0}
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from error
    except UserError as error:
        raise RunError(f"{path}: {error}") from error
    if len(points) != 1:
        raise RunError(f"{path} must hold one array of points, it holds {len(points)}")
    ((name, values),) = points.items()
    shape, integral = subject.field.domain.shape, values.dtype == np.uint8
    known = np.issubdtype(values.dtype, np.floating) or (integral and subject.transform is not None)
    if values.shape[1:] != shape or not known:
        also = " or bytes" if subject.transform is not None else ""
        raise RunError(
            f"{path}: the points {name!r} are {values.dtype} of shape {values.shape}, the field "
            f"takes floating ones{also} of shape (n, {', '.join(map(str, shape))})"
        )
    if len(values) < max(2, n or 0):
        raise RunError(f"{path} has {len(values)} points, {max(2, n or 0)} were requested")
    x = torch.as_tensor(values[:n], dtype=torch.float64)
    if not bool(x.isfinite().all()):
        raise RunError(f"{path}: the points {name!r} are not all finite")
    if not integral or subject.transform is None:
        return x, None
    x = subject.transform.shift + subject.transform.scale * x / (subject.transform.levels - 1)
    return within_cells(x, Levels(subject.transform), seed), subject.transform

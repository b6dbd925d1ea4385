"""What a check found, and the folder that it is kept in."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.array_files import read_arrays
from scorefield.errors import RunError
from scorefield.estimate import Estimate, Variance
from scorefield.files import DOCUMENT, check_writable, read_file, write_files
from scorefield.health.page import page
from scorefield.health.plan import Done, Found, Number
from scorefield.health.typical import Like
from scorefield.health.verdicts import Verdict, headline
from scorefield.html import table
from scorefield.runs.cells import numbers

RECORD, SAMPLES, PAGE = "check.json", "samples.npz", "index.html"
_ARRAYS = {"samples": "", "neighbours": "_neighbours"}
"""What is kept of a measurement as an array, and how its name ends in the file of arrays."""


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        claims: What the model claims to be.
        verdicts: What the numbers show, the most serious first.
        done: The measurements, by name.
        about: The data, the seed, the time and the versions.
        like: What good models show on data of this kind, where that is known.
    """

    claims: list[tuple[str, str]]
    verdicts: list[Verdict]
    done: Mapping[str, Done]
    about: Mapping[str, Any] = field(default_factory=dict)
    like: Like | None = None

    @property
    def headline(self) -> str:
        """One sentence over all."""
        return headline(self.verdicts)

    @property
    def numbers(self) -> list[Number]:
        """All numbers."""
        return [number for one in self.done.values() for number in one.found.numbers]

    def _repr_html_(self) -> str:
        return table(self.headline, [(v.grade, v.words) for v in self.verdicts])

    def __str__(self) -> str:
        marks = {"fault": "✗", "notice": "!", "good": "✓"}
        lines = [self.headline, ""]
        lines += [f"{marks[v.grade]} {v.words}" for v in self.verdicts]
        if self.about.get("left_out"):
            lines.append(f"Not measured, as there was no time: {', '.join(self.about['left_out'])}")
        return "\n".join(lines)


def read(folder: Path, identity: str) -> dict[str, Done]:
    """What an earlier check of the same model on the same data measured.

    Raises:
        RunError: If the folder holds another check, or cannot hold this one.
    """
    path, drawn = folder / RECORD, folder / SAMPLES
    if not path.exists():
        _check_free(folder)
        return {}
    try:
        record = json.loads(read_file(path, DOCUMENT))
        owner = record["about"]["identity"]
        done = {name: _read(one) for name, one in record["measured"].items()}
        arrays = read_arrays(drawn) if drawn.exists() else {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(f"the check in {folder} cannot be read: {error}") from error
    if owner != identity:
        raise RunError(
            f"{folder} holds the check of another model, other data or another seed: "
            "overwrite it, or give another folder"
        )
    for name, one in done.items():
        kept = {
            key: torch.from_numpy(arrays[name + ending])
            for key, ending in _ARRAYS.items()
            if name + ending in arrays
        }
        found = Found(one.found.numbers, {**one.found.kept, **kept})
        done[name] = Done(one.size, one.seconds, found)
    return done


def delete(folder: Path) -> None:
    """Deletes the check in a folder, whatever it is of; nothing where there is none."""
    if (folder / RECORD).exists():
        # The record last: it is what shows that the others are of a check.
        for name in (PAGE, SAMPLES, RECORD):
            (folder / name).unlink(missing_ok=True)


def _check_free(folder: Path) -> None:
    """Raises ``RunError`` where nothing can be written, or what is there is of something else."""
    check_writable(folder)
    for name in (PAGE, SAMPLES):
        if (folder / name).exists():
            raise RunError(f"{folder / name} exists and is not of a check: give another folder")


def _read(one: Mapping[str, Any]) -> Done:
    read = tuple(
        Number(n["name"], n["title"],
               Estimate(n["value"], n["standard_error"], n["n"], n["unit"],
                        numerical_error=n["numerical_error"], freedom=n["freedom"],
                        variance=Variance(*v) if (v := n.get("variance")) else None),
               n["sigma"], *_bounds(*n["bounds"]))
        for n in one["numbers"]
    )  # fmt: skip
    return Done(int(one["size"]), float(one["seconds"]), Found(read, one["kept"]))


def _bounds(least: float | None, most: float | None) -> tuple[float, float]:
    return -math.inf if least is None else least, math.inf if most is None else most


def write_page(folder: Path, found: Check, real: Tensor) -> None:
    """Writes the page; ``real`` are points of the data, to be shown next to samples."""
    whole = page(found.claims, found.verdicts, found.done, found.about, real, found.like)
    write_files(folder, {PAGE: whole})


def write(folder: Path, found: Check) -> None:
    """Writes the numbers, the samples and their neighbours."""
    like = found.like
    measured = {
        name: {
            "size": one.size,
            "seconds": one.seconds,
            "kept": {k: v for k, v in one.found.kept.items() if k not in _ARRAYS},
            "numbers": [
                {
                    "name": n.name,
                    "title": n.title,
                    "sigma": n.sigma,
                    "interval": n.interval(),
                    "bounds": [b if math.isfinite(b) else None for b in (n.least, n.most)],
                    "typical": {} if like is None else like.beside(n),
                    "variance": n.estimate.variance,
                    **numbers(n.estimate),
                }
                for n in one.found.numbers
            ],
        }
        for name, one in found.done.items()
    }
    record = {
        "headline": found.headline,
        "claims": found.claims,
        "verdicts": [v._asdict() for v in found.verdicts],
        "about": dict(found.about),
        "typical": None if like is None else {"data": like.data, "origin": like.origin},
        "measured": measured,
    }
    arrays = {
        name + ending: one.found.kept[key].numpy()
        for name, one in found.done.items()
        for key, ending in _ARRAYS.items()
        if key in one.found.kept
    }
    files: dict[str, bytes | str] = {
        RECORD: json.dumps(record, indent=2, allow_nan=False) + "\n",
    }
    if arrays:
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        files[SAMPLES] = content.getvalue()
    write_files(folder, files)

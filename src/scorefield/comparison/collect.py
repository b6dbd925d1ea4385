"""The evaluations under a folder, of which only those of one protocol are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from scorefield.errors import RunError
from scorefield.evaluation.records import SUMMARY, Evaluation

BASELINES = ("m0", "no_regularizer")
"""The presets that the others of their family are compared with."""


def collect(root: Path) -> list[Evaluation]:
    """Every evaluation in ``root/dataset/model/seed``, in the order of data set, model and seed.

    The model of a data set that the others are compared with comes first: the preset that is plain
    denoising, or without it the first by name.

    Raises:
        RunError: If there is none, one cannot be read, or the models of a data set were evaluated
            by different protocols.
    """
    folders = sorted(path.parent.parent for path in root.glob(f"*/*/seed*/eval/{SUMMARY}"))
    if not folders:
        raise RunError(f"{root} holds no evaluated run: run `scorefield eval RUN` on each first")
    evaluations = sorted(
        (Evaluation.read(folder) for folder in folders),
        key=lambda e: (e.dataset, not _is_baseline(e), e.model, e.seed),
    )
    for dataset, members in groupby(evaluations, lambda e: e.dataset):
        first, *others = members
        for other in others:
            for key, a, b in _differences(first.protocol, other.protocol):
                raise RunError(
                    f"{first.folder} and {other.folder} were evaluated by different protocols, so "
                    f"that no table of {dataset} can hold both: {key} is {a} and {b}; evaluate "
                    "both again with the same settings"
                )
    return evaluations


def _is_baseline(e: Evaluation) -> bool:
    return str(e.about.get("preset")).rpartition("/")[2] in BASELINES


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What two protocols differ in, down to the single setting."""
    for key in sorted(a.keys() | b.keys()):
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from ((f"{key}.{name}", x, y) for name, x, y in _differences(one, other))
        elif one != other:
            yield key, one, other

"""The exterior-derivative analysis as files: arrays in two formats, a summary, pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from scorefield.estimate import Estimate, mean
from scorefield.runs import results_folder
from scorefield.studies.exterior import Analysis, Course, Floats

Measure = Literal["exterior", "relative"]

SUMMARY = "summary_stats.json"
DDOF = 1
"""Standard deviations are those of a sample, with the number of starts less one below the root."""


class Place(NamedTuple):
    """Where results lie: a folder, and how the names of its files begin."""

    folder: str
    stem: str


SINGLE = Place("single_realization", "ed_analysis_single")
MULTIPLE = Place("multiple_realizations", "ed_analysis_aggregated")


def values(course: Course, measure: Measure) -> tuple[Floats, Floats, Floats]:
    """One of the two numbers of a course: its values, their probe errors and what is rounding, a
    row a start and a column a step.
    """
    if measure == "exterior":
        return course.exterior, course.exterior_error, course.rounding
    rounding = np.full_like(course.relative, course.relative_rounding)
    return course.relative, course.relative_error, rounding


def over_steps(course: Course, measure: Measure = "exterior") -> Estimate:
    """The mean over steps and starts; its standard error is that over starts, or of one start that
    of its probes, and its numerical error is what rounding may have made.
    """
    value, error, rounding = values(course, measure)
    numerical = float(rounding.mean())
    if len(value) > 1:
        return replace(mean(value.mean(axis=1)), numerical_error=numerical)
    probed = float(np.sqrt((error**2).sum())) / value.size
    # How many draws stand behind the scatter between probes is of no account: they are many.
    return Estimate(float(value.mean()), probed, int(probed > 0), numerical_error=numerical)


def at_step(course: Course, step: int, measure: Measure = "exterior") -> Estimate:
    """The mean over starts at a step; errors as of :func:`over_steps`."""
    value, error, rounding = (table[:, step] for table in values(course, measure))
    numerical = float(rounding.mean())
    if len(value) > 1:
        return replace(mean(value), numerical_error=numerical)
    probed = float(error[0])
    return Estimate(float(value[0]), probed, int(probed > 0), numerical_error=numerical)


def summary(analysis: Analysis) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean, standard deviation and maximum of each model at each kind of points, as plain values
    with 95 % intervals.

    The mean is that over steps of the mean over starts; the standard deviation is that over
    starts, averaged over steps; the maximum is the largest mean over starts of a step.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in analysis.models}
    for (name, where), course in analysis.courses.items():
        record: dict[str, Any] = {
            "num_realizations": len(course.exterior),
            "num_steps": course.exterior.shape[1],
        }
        for measure, key in (("exterior", "ed_magnitude"), ("relative", "relative_asymmetry")):
            record |= _summary(analysis, course, measure, key)  # type: ignore[arg-type]
        found[name][where] = record
    return found


def arrays(analysis: Analysis) -> dict[str, npt.NDArray[Any]]:
    """Everything as flat arrays, called ``model/points/number``.

    Of each number there are all values, a row a start and a column a step; where there are several
    starts, mean, standard deviation and standard error over them too.
    """
    flat: dict[str, npt.NDArray[Any]] = {
        "noise_levels": analysis.sigmas,
        "times": analysis.times,
    }
    for (name, where), course in analysis.courses.items():
        for measure, key in (("exterior", "exterior"), ("relative", "relative_asymmetry")):
            value, error, rounding = values(course, measure)  # type: ignore[arg-type]
            start = f"{name}/{where}/{key}"
            flat |= {start: value, f"{start}_probe_error": error, f"{start}_rounding": rounding}
            if len(value) > 1:
                std = value.std(axis=0, ddof=DDOF)
                flat |= {
                    f"{start}_mean": value.mean(axis=0),
                    f"{start}_std": std,
                    f"{start}_standard_error": std / np.sqrt(len(value)),
                }
        flat[f"{name}/{where}/probes"] = np.array(course.probes)
    for name, images in analysis.images.items():
        flat[f"{name}/final_images"] = images.cpu().numpy()
    return flat


def nested(flat: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """The arrays as tensors, in dictionaries of dictionaries by the parts of their names."""
    tree: dict[str, Any] = {}
    for name, array in flat.items():
        *path, last = name.split("/")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = torch.from_numpy(np.ascontiguousarray(array))
    return tree


def contents(analysis: Analysis, place: Place, settings: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of an analysis but for its pictures: their names and what is in them."""
    settings = {**settings, "std_ddof": DDOF}
    flat = arrays(analysis)
    packed, saved = io.BytesIO(), io.BytesIO()
    np.savez_compressed(packed, **flat, settings=np.array(json.dumps(settings)))  # type: ignore[arg-type]
    torch.save({**nested(flat), "settings": settings}, saved)
    files = {f"{place.stem}.npz": packed.getvalue(), f"{place.stem}.pt": saved.getvalue()}
    if place == MULTIPLE:
        record = {"settings": settings, "models": summary(analysis)}
        files[SUMMARY] = (json.dumps(record, indent=2) + "\n").encode()
    return files


def check_free(folder: Path, overwrite: bool) -> None:
    """Checks that results may be written into a folder, before they are computed.

    Raises:
        RunError: If it exists and is not to be overwritten, holds other things than results, or
            lies where nothing can be written.
    """
    results_folder.check_free(folder, overwrite, _ours)


def write(folder: Path, files: Mapping[str, bytes], overwrite: bool = False) -> list[Path]:
    """Writes all files of a folder or none.

    Arguments:
        folder: The folder, which is made.
        files: What is to be in it, by name.
        overwrite: Whether it may exist; what is in it is gone then.

    Raises:
        RunError: As of :func:`check_free`.
        OSError: If a file cannot be written; nothing is changed then.
    """
    return results_folder.write(folder, files, overwrite, _ours)


def _ours(name: str) -> bool:
    return name == SUMMARY or name.startswith((SINGLE.stem, MULTIPLE.stem))


def _summary(analysis: Analysis, course: Course, measure: Measure, key: str) -> dict[str, Any]:
    average = over_steps(course, measure)
    value = values(course, measure)[0]
    steps = [at_step(course, step, measure) for step in range(value.shape[1])]
    top = max(range(len(steps)), key=lambda step: steps[step].value)
    spread = float(value.std(axis=0, ddof=DDOF).mean()) if len(value) > 1 else None
    return {
        f"mean_{key}": average.value,
        f"mean_{key}_standard_error": average.standard_error,
        f"mean_{key}_interval_95": list(average.interval()),
        f"std_{key}": spread,
        f"max_{key}": steps[top].value,
        f"max_{key}_interval_95": list(steps[top].interval()),
        f"max_{key}_noise_level": float(analysis.sigmas[top]),
        f"{key}_is_rounding": average.value <= average.numerical_error,
    }

"""The exterior derivatives as estimates, a summary, and arrays in two formats."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from scorefield.estimate import Estimate, mean
from scorefield.studies.exterior.compute import Analysis, Floats, Profile
from scorefield.studies.results import npz_bytes

Measure = Literal["exterior", "relative"]

KEYS: dict[Measure, tuple[str, str]] = {
    "exterior": ("exterior", "ed_magnitude"),
    "relative": ("relative_asymmetry", "relative_asymmetry"),
}
"""What each measure is called in the arrays, and in the summary."""
DDOF = 1
"""Standard deviations are those of a sample, with the number of starts less one below the root."""


def values(profile: Profile, measure: Measure) -> tuple[Floats, Floats, Floats]:
    """A measure of a profile: its values, their probe errors and what is rounding, a row a start
    and a column a step.
    """
    if measure == "exterior":
        return profile.exterior, profile.exterior_error, profile.rounding
    rounding = np.full_like(profile.relative, profile.relative_rounding)
    return profile.relative, profile.relative_error, rounding


def over_steps(profile: Profile, measure: Measure = "exterior") -> Estimate:
    """The mean over steps and starts; its standard error is that over starts, or of one start that
    of its probes, and its numerical error is what rounding may have made.
    """
    return _mean(*values(profile, measure))


def at_step(profile: Profile, step: int, measure: Measure = "exterior") -> Estimate:
    """The mean over starts at a step; errors as of :func:`over_steps`."""
    value, error, rounding = values(profile, measure)
    step_of = np.s_[:, step : step + 1]
    return _mean(value[step_of], error[step_of], rounding[step_of])


def _mean(value: Floats, error: Floats, rounding: Floats) -> Estimate:
    numerical = float(rounding.mean())
    if len(value) > 1:
        return replace(mean(value.mean(axis=1)), numerical_error=numerical)
    probed = float(np.sqrt((error**2).sum())) / value.size
    # The number of draws behind the scatter between probes is of no account: they are many.
    return Estimate(float(value.mean()), probed, int(probed > 0), numerical_error=numerical)


def summary(analysis: Analysis) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean, standard deviation and maximum of each model at each kind of points, as plain values
    with 95 % intervals.

    The mean is that over steps of the mean over starts; the standard deviation is that over
    starts, averaged over steps; the maximum is the largest mean over starts of a step.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in analysis.models}
    for (name, points), profile in analysis.profiles.items():
        starts, steps = profile.exterior.shape
        record: dict[str, Any] = {"num_realizations": starts, "num_steps": steps}
        for measure, (_, key) in KEYS.items():
            average, value = over_steps(profile, measure), values(profile, measure)[0]
            by_step = [at_step(profile, step, measure) for step in range(steps)]
            top = max(range(steps), key=lambda step, e=by_step: e[step].value)
            spread = float(value.std(axis=0, ddof=DDOF).mean()) if starts > 1 else None
            record |= {
                f"mean_{key}": average.value,
                f"mean_{key}_standard_error": average.standard_error,
                f"mean_{key}_interval_95": list(average.interval()),
                f"std_{key}": spread,
                f"max_{key}": by_step[top].value,
                f"max_{key}_interval_95": list(by_step[top].interval()),
                f"max_{key}_noise_level": float(analysis.sigmas[top]),
                f"{key}_is_rounding": average.value <= average.numerical_error,
            }
        found[name][points] = record
    return found


def arrays(analysis: Analysis) -> dict[str, npt.NDArray[Any]]:
    """Everything as flat arrays, called ``model/points/number``.

    Of each number there are all values, a row a start and a column a step; where there are several
    starts, mean, standard deviation and standard error over them too.
    """
    flat: dict[str, npt.NDArray[Any]] = {"noise_levels": analysis.sigmas, "times": analysis.times}
    for (name, points), profile in analysis.profiles.items():
        for measure, (key, _) in KEYS.items():
            value, error, rounding = values(profile, measure)
            start = f"{name}/{points}/{key}"
            flat |= {start: value, f"{start}_probe_error": error, f"{start}_rounding": rounding}
            if len(value) > 1:
                std = value.std(axis=0, ddof=DDOF)
                flat |= {
                    f"{start}_mean": value.mean(axis=0),
                    f"{start}_std": std,
                    f"{start}_standard_error": std / np.sqrt(len(value)),
                }
        flat[f"{name}/{points}/probes"] = np.array(profile.probes)
    for name, images in analysis.images.items():
        flat[f"{name}/final_images"] = images.cpu().numpy()
    return flat


def npz(analysis: Analysis, settings: Mapping[str, Any]) -> bytes:
    """All arrays as an npz, with the settings as JSON."""
    return npz_bytes({**arrays(analysis), "settings": np.array(json.dumps(settings))})


def tensors(analysis: Analysis, settings: Mapping[str, Any]) -> bytes:
    """All arrays as tensors, in dictionaries of dictionaries by the parts of their names."""
    tree: dict[str, Any] = {}
    for name, array in arrays(analysis).items():
        *path, last = name.split("/")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = torch.from_numpy(np.ascontiguousarray(array))
    saved = io.BytesIO()
    torch.save({**tree, "settings": dict(settings)}, saved)
    return saved.getvalue()

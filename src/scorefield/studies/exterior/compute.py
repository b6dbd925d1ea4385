r"""The exterior derivative along the way from noise to images, of several models at once.

The derivative of a field's 1-form has the components :math:`J - J^\top`, and vanishes where the
field is a gradient. Each model is evaluated at three kinds of points:

* along the *trajectory* on which its own deterministic sampler takes the starting noise to an
  image,
* at the starting *noise* itself, at all noise levels, as published code does,
* at held-out *data* with that noise at each noise level: points at which a model was trained.

Starting noise, data and process are common to all models, and so is the form of the field.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.diagnostics.asymmetry import Probing, asymmetry_at
from scorefield.diagnostics.trajectories import State, Walk, walk
from scorefield.engine import device_of
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate, mean
from scorefield.evaluation.catalogue.curl import RELATIVE_ASYMMETRY
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.noise import Noise
from scorefield.samplers.solvers import DDIM
from scorefield.studies.frame import Work, npz_bytes
from scorefield.studies.settings import Exterior, Points

Floats = npt.NDArray[np.float64]

LABELS = {"unet": "U-Net", "resnet": "ResNet", "els": "ELS", "ls": "LS", "is": "IS"}
"""What the models are called, in the order in which they are shown."""
SMALL = 256
"""Up to so many coordinates, an exact Jacobian costs less than the probes for a precision."""

_FIRST = 16


@dataclass(frozen=True, eq=False)
class CurlProfile:
    r"""One model at one kind of points: a row a start, a column a step.

    Attributes:
        exterior: :math:`\|J - J^\top\|_F`.
        exterior_error: The standard error that probes add to it; 0 where there are none.
        rounding: What rounding alone may make of it.
        relative: The relative asymmetry :math:`\|J - J^\top\|_F / 2\|J\|_F`, in [0, 1].
        relative_error: The standard error that probes add to it.
        relative_rounding: What rounding alone may make of it, everywhere.
        probes: The number of probes a point at each step; 0 where the Jacobian is exact.
    """

    exterior: Floats
    exterior_error: Floats
    rounding: Floats
    relative: Floats
    relative_error: Floats
    relative_rounding: float
    probes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Analysis:
    """The exterior derivatives of several models."""

    settings: Exterior
    sigmas: Floats
    times: Floats
    profiles: Mapping[tuple[str, Points], CurlProfile]
    images: Mapping[str, Float[Tensor, "n *event"]]

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models, in their order."""
        return tuple(self.images)


def analyse(
    fields: Mapping[str, ScoreField],
    sampler: DDIM,
    settings: Exterior,
    held_out: Float[Tensor, "n *event"] | None = None,
    work: Work | None = None,
) -> Analysis:
    """Follows each model and measures how far its Jacobians are from symmetric."""
    work = Work() if work is None else work
    _check(fields, sampler, settings, held_out)
    profiles: dict[tuple[str, Points], CurlProfile] = {}
    trajectories: dict[str, Walk] = {}
    dtype = getattr(torch, settings.dtype)
    for name, field in fields.items():
        with evaluation_mode(field):
            with _named(name):
                follow = partial(walk, field, sampler, settings.n, settings.seed, dtype=dtype)
                trajectories[name] = work.part(f"{name}/walk", follow)
            for points in settings.points:
                places = _places(points, field, trajectories[name], settings, held_out)
                profiles[name, points] = _profile(name, field, points, places, settings, work)
    states = trajectories[name].states
    sigmas, times = (np.array([state[k] for state in states]) for k in range(2))
    images = {name: found.samples for name, found in trajectories.items()}
    return Analysis(settings, sigmas, times, profiles, images)


def _check(
    fields: Mapping[str, ScoreField], sampler: DDIM, settings: Exterior, held_out: Tensor | None
) -> None:
    if not fields:
        raise UserError("an analysis takes at least one model")
    if sampler.stochastic:
        raise UserError("an analysis follows a deterministic sampler, eta must be 0")
    first, *others = fields.items()
    for name, field in others:
        if field.domain.shape != first[1].domain.shape or field.sde != first[1].sde:
            raise UserError(f"{name} and {first[0]} differ in the shape or the process")
    if "data" in settings.points and (held_out is None or len(held_out) != settings.n):
        raise UserError(f"points of the data take {settings.n} held-out images")


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Adds to a failure where it happened."""
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        raise RunError(f"{what}: {error}") from error


def _places(
    points: Points,
    field: ScoreField,
    trajectory: Walk,
    settings: Exterior,
    held_out: Tensor | None,
) -> list[State]:
    """The points at each step."""
    device = device_of(field)
    states = [state._replace(x=state.x.to(device)) for state in trajectory.states]
    start = states[0].x
    if points == "trajectory":
        return states
    if points == "noise":
        return [state._replace(x=start) for state in states]
    assert held_out is not None
    index = torch.arange(len(held_out), device=device)
    # At the addresses of the starting noise.
    z = Noise(settings.seed).normal("prior", field.domain.shape, index, dtype=start.dtype)
    clean = held_out.to(z)
    return [
        state._replace(
            x=field.sde.perturb(
                clean, torch.tensor([state.t], dtype=torch.float64).to(z.device), z, field.domain
            ).to(z.dtype)
        )
        for state in states
    ]


def _profile(
    name: str,
    field: ScoreField,
    points: Points,
    places: list[State],
    settings: Exterior,
    work: Work,
) -> CurlProfile:
    steps, label = len(places), LABELS.get(name, name)
    found: list[dict[str, Tensor]] = []
    for step, state in enumerate(places):
        purpose = f"exterior/{points}/{step}"
        columns = partial(_columns, field, state.x, state.t, purpose, settings)
        with _named(
            f"{name}, {points}: step {step + 1} of {steps}, at noise level {state.sigma:.4g}"
        ):
            found.append(work.part(f"{name}/{points}/{step}", columns))
        done = settings.points.index(points) * steps + step + 1
        work.show(label, done, len(settings.points) * steps, points)
    work.report(f"{label}, {points}: {steps} steps")

    rounding = float(found[0].pop("relative_rounding"))
    probes = tuple(int(step.pop("probes")) for step in found)
    tables: dict[str, Floats] = {
        column: torch.stack([step[column] for step in found], dim=1).double().cpu().numpy()
        for column in found[0]
    }
    return CurlProfile(**tables, relative_rounding=rounding, probes=probes)


def _columns(
    field: ScoreField, x: Tensor, t: float, purpose: str, settings: Exterior
) -> dict[str, Tensor]:
    """The norms at the points of one step."""
    probing = None
    precision = settings.probe_precision
    if field.has_jacobian:
        # Its skew part is small beside the whole, and the closed form knows it to all digits.
        x = x.double()
    elif precision is not None and field.domain.dim > SMALL:
        index = torch.arange(len(x), device=x.device)
        # The purpose has the step, so that the errors of steps are independent.
        probing = Probing(Noise(settings.seed), index, _FIRST, precision, purpose, x.dtype)
    times = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
    norms = asymmetry_at(field, x, times, settings.units, probing)
    if not bool(norms.relative.isfinite().all()):
        raise UserError("the Jacobian is zero, and has no relative asymmetry")
    return {
        "exterior": norms.exterior,
        "exterior_error": norms.exterior_error,
        "rounding": norms.rounding * norms.whole.mean(dim=0).sqrt(),
        "relative": norms.relative,
        "relative_error": norms.relative_error,
        "relative_rounding": torch.tensor(0.5 * norms.rounding, dtype=torch.float64),
        "probes": torch.tensor(norms.probes or 0),
    }


Measure = Literal["exterior", "relative"]

KEYS: dict[Measure, tuple[str, str]] = {
    "exterior": ("exterior", "ed_magnitude"),
    "relative": (RELATIVE_ASYMMETRY.name, RELATIVE_ASYMMETRY.name),
}
"""What each measure is called in the arrays, and in the summary."""
DDOF = 1
"""Standard deviations are those of a sample, with the number of starts less one below the root."""


def values(profile: CurlProfile, measure: Measure) -> tuple[Floats, Floats, Floats]:
    """A measure of a profile: its values, their probe errors and what is rounding, a row a start
    and a column a step.
    """
    if measure == "exterior":
        return profile.exterior, profile.exterior_error, profile.rounding
    rounding = np.full_like(profile.relative, profile.relative_rounding)
    return profile.relative, profile.relative_error, rounding


def over_steps(
    profile: CurlProfile, measure: Measure = "exterior", steps: slice = slice(None)
) -> Estimate:
    """The mean over steps and starts; its standard error is that over starts, or of one start that
    of its probes, and its numerical error is what rounding may have made.
    """
    value, error, rounding = (x[:, steps] for x in values(profile, measure))
    numerical = float(rounding.mean())
    if len(value) > 1:
        return replace(mean(value.mean(axis=1)), numerical_error=numerical)
    probed = float(np.sqrt((error**2).sum())) / value.size
    # The number of draws behind the scatter between probes is of no account: they are many.
    return Estimate(float(value.mean()), probed, int(probed > 0), numerical_error=numerical)


def summary(analysis: Analysis) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean, standard deviation and maximum of each model at each kind of points, as plain values
    with 95 % intervals.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in analysis.models}
    for (name, points), profile in analysis.profiles.items():
        starts, steps = profile.exterior.shape
        record: dict[str, Any] = {"num_realizations": starts, "num_steps": steps}
        for measure, (_, key) in KEYS.items():
            average, value = over_steps(profile, measure), values(profile, measure)[0]
            by_step = [over_steps(profile, measure, slice(k, k + 1)) for k in range(steps)]
            top = int(np.argmax([e.value for e in by_step]))
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
    """Everything as flat arrays, called ``model/points/number``."""
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

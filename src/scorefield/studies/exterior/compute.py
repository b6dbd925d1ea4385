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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.diagnostics.asymmetry import Norms, Probing, asymmetry_at
from scorefield.diagnostics.trajectories import State, Walk, walk
from scorefield.errors import RunError, UserError
from scorefield.fields import ScoreField, evaluation_mode
from scorefield.noise import Noise
from scorefield.samplers import DDIM
from scorefield.studies.settings import Exterior, Points
from scorefield.studies.work import Work

Floats = npt.NDArray[np.float64]

LABELS = {"unet": "U-Net", "resnet": "ResNet", "els": "ELS", "ls": "LS", "is": "IS"}
"""What the models are called, in the order in which they are shown."""
SMALL = 256
"""Up to so many coordinates, an exact Jacobian costs less than the probes for a precision."""
PARTS = (Walk, State)
"""The classes that kept parts are made of."""

_FIRST = 16


@dataclass(frozen=True, eq=False)
class Profile:
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
    """The exterior derivatives of several models.

    Attributes:
        settings: The settings.
        sigmas: The noise levels, falling.
        times: Their times.
        profiles: The norms of each model, by its name and the kind of points.
        images: The ends of each model's trajectories.
    """

    settings: Exterior
    sigmas: Floats
    times: Floats
    profiles: Mapping[tuple[str, Points], Profile]
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
    """Follows each model and measures how far its Jacobians are from symmetric.

    Probes of a network stop at the precision of the settings; Jacobians of closed forms and of at
    most :data:`SMALL` coordinates are always exact, those in closed form in float64.

    Arguments:
        fields: The models by name, all under one process and on images of one shape.
        sampler: The deterministic sampler, whose steps the noise levels are.
        settings: Starts, points, form and precision.
        held_out: As many clean images as there are starts, for the points ``data``.
        work: Keeps the parts that are done, and shows the progress.

    Raises:
        RunError: If a model fails somewhere; names model, step and noise level.
        ValueError: If there is no model, images are missing, or the models differ in shape or
            process.
    """
    work = Work() if work is None else work
    _check(fields, sampler, settings, held_out)
    profiles: dict[tuple[str, Points], Profile] = {}
    trajectories: dict[str, Walk] = {}
    dtype = getattr(torch, settings.dtype)
    for name, field in fields.items():
        with evaluation_mode(field):
            with _named(name):
                follow = partial(walk, field, sampler, settings.starts, settings.seed, dtype=dtype)
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
    if "data" in settings.points and (held_out is None or len(held_out) != settings.starts):
        raise UserError(f"points of the data take {settings.starts} held-out images")


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
    states, start = trajectory.states, trajectory.states[0].x
    if points == "trajectory":
        return list(states)
    if points == "noise":
        return [state._replace(x=start) for state in states]
    assert held_out is not None
    index = torch.arange(len(held_out), device=start.device)
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
) -> Profile:
    steps, label = len(places), LABELS.get(name, name)
    found: list[dict[str, Tensor]] = []
    for step, state in enumerate(places):

        def columns(step: int = step, t: float = state.t, x: Tensor = state.x) -> dict[str, Tensor]:
            return _columns(_norms(field, x, t, f"exterior/{points}/{step}", settings))

        with _named(
            f"{name}, {points}: step {step + 1} of {steps}, at noise level {state.sigma:.4g}"
        ):
            found.append(work.part(f"{name}/{points}/{step}", columns))
        done = settings.points.index(points) * steps + step + 1
        work.show(label, done, len(settings.points) * steps, points)
    work.report(f"{label}, {points}: {steps} steps")

    def table(column: str) -> Floats:
        return torch.stack([step[column] for step in found], dim=1).double().cpu().numpy()

    return Profile(
        table("exterior"),
        table("exterior_error"),
        table("rounding"),
        table("relative"),
        table("relative_error"),
        float(found[0]["relative_rounding"]),
        tuple(int(step["probes"]) for step in found),
    )


def _columns(norms: Norms) -> dict[str, Tensor]:
    """What is kept of the norms at the points of one step."""
    return {
        "exterior": norms.exterior,
        "exterior_error": norms.exterior_error,
        "rounding": norms.rounding * norms.whole.mean(dim=0).sqrt(),
        "relative": norms.relative,
        "relative_error": norms.relative_error,
        "relative_rounding": torch.tensor(0.5 * norms.rounding, dtype=torch.float64),
        "probes": torch.tensor(norms.probes or 0),
    }


def _norms(field: ScoreField, x: Tensor, t: float, purpose: str, settings: Exterior) -> Norms:
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
    return norms

r"""The exterior derivative along the way from noise to images, of several models at once.

The derivative of a field's 1-form has the components :math:`J - J^\top`, and vanishes where the
field is a gradient. Each model is asked at three kinds of points:

* along the *trajectory* on which its own deterministic sampler takes the starting noise to an
  image,
* at the starting *noise* itself, at all noise levels, as published code does,
* at held-out *data* with that noise at each noise level: points at which a model was trained.

Starting noise, data and process are common to all models, and so is the form of the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.diagnostics.asymmetry import Norms, Probing, asymmetry_at
from scorefield.diagnostics.states import Walk, walk
from scorefield.errors import RunError, UserError
from scorefield.fields import ScoreField, evaluation_mode
from scorefield.noise import Noise
from scorefield.progress import Stages
from scorefield.samplers import DDIM

Where = Literal["trajectory", "noise", "data"]
Unit = Literal["score", "noise", "denoiser"]
Floats = npt.NDArray[np.float64]

LABELS = {"unet": "U-Net", "resnet": "ResNet", "els": "ELS", "ls": "LS", "is": "IS"}
"""The models, in the order in which they are always told, and what they are called."""
SMALL = 256
"""Up to so many coordinates, an exact Jacobian costs less than the probes for a precision."""

_FIRST = 16


@dataclass(frozen=True)
class Terms:
    """What is asked.

    Arguments:
        realizations: The number of starting points.
        seed: The seed of starting points and probes.
        unit: The form of the fields whose Jacobians are meant.
        points: The kinds of points.
        precision: The relative standard error, at each point, at which probes of a network stop;
            exact Jacobians if not given. Those of closed forms and of at most :data:`SMALL`
            coordinates are always exact.
        dtype: The dtype of points and derivatives; a network computes in its own, and Jacobians in
            closed form are float64.

    Raises:
        ValueError: If there is no starting point or no kind of points, one is named twice, or the
            precision is not in (0, 1).
    """

    realizations: int = 1
    seed: int = 0
    unit: Unit = "score"
    points: tuple[Where, ...] = ("trajectory", "noise")
    precision: float | None = 0.01
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.realizations < 1:
            raise UserError(f"an analysis has at least one start, got {self.realizations}")
        if not self.points or len(set(self.points)) != len(self.points):
            raise UserError(f"kinds of points are named once each, got {list(self.points)}")
        if self.precision is not None and not 0 < self.precision < 1:
            raise UserError(f"a precision lies in (0, 1), got {self.precision}")


@dataclass(frozen=True, eq=False)
class Course:
    r"""What one model shows at one kind of points: a row a start, a column a step.

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
    """What several models show.

    Arguments:
        terms: What was asked.
        sigmas: The noise levels, falling.
        times: Their times.
        courses: What each model shows, by its name and the kind of points.
        images: What each model's trajectories end in.
    """

    terms: Terms
    sigmas: Floats
    times: Floats
    courses: Mapping[tuple[str, Where], Course]
    images: Mapping[str, Float[Tensor, "n *event"]]

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models, in their order."""
        return tuple(self.images)


def analyse(
    fields: Mapping[str, ScoreField],
    sampler: DDIM,
    terms: Terms,
    held_out: Float[Tensor, "n *event"] | None = None,
    stages: Stages | None = None,
) -> Analysis:
    """Follows each model and measures how far its Jacobians are from symmetric.

    Arguments:
        fields: The models by name, all under one process and on images of one shape.
        sampler: The deterministic sampler, whose steps the noise levels are.
        terms: What is asked.
        held_out: As many clean images as there are starts, for the points ``data``.
        stages: Shows how far the work is.

    Raises:
        RunError: If a model fails somewhere; names model, step and noise level.
        ValueError: If there is no model, images are missing, or the models differ in shape or
            process.
    """
    _check(fields, sampler, terms, held_out)
    courses: dict[tuple[str, Where], Course] = {}
    images = {}
    for name, field in fields.items():
        with evaluation_mode(field):
            with _named(name):
                way = walk(field, sampler, terms.realizations, terms.seed, dtype=terms.dtype)
            images[name] = way.samples
            for where in terms.points:
                courses[name, where] = _course(name, field, where, way, terms, held_out, stages)
    sigmas, times = (np.array([state[k] for state in way.states]) for k in range(2))
    return Analysis(terms, sigmas, times, courses, images)


def _check(
    fields: Mapping[str, ScoreField], sampler: DDIM, terms: Terms, held_out: Tensor | None
) -> None:
    if not fields:
        raise UserError("an analysis takes at least one model")
    if sampler.stochastic:
        raise UserError("an analysis follows a deterministic sampler, eta must be 0")
    first, *others = fields.items()
    for name, field in others:
        if field.domain.shape != first[1].domain.shape or field.sde != first[1].sde:
            raise UserError(f"{name} and {first[0]} differ in the shape or the process")
    if "data" in terms.points and (held_out is None or len(held_out) != terms.realizations):
        raise UserError(f"points of the data take {terms.realizations} held-out images")


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Says of a failure where it happened."""
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        raise RunError(f"{what}: {error}") from error


def _course(
    name: str,
    field: ScoreField,
    where: Where,
    way: Walk,
    terms: Terms,
    held_out: Tensor | None,
    stages: Stages | None,
) -> Course:
    found: list[Norms] = []
    steps, label = len(way.states), LABELS.get(name, name)
    for step, state in enumerate(way.states):
        sigma, t = state.sigma, state.t
        with _named(f"{name}, {where}: step {step + 1} of {steps}, at noise level {sigma:.4g}"):
            x = _points(where, field, way, step, terms, held_out)
            found.append(_norms(field, x, t, f"exterior/{where}/{step}", terms))
        if stages is not None:
            done = terms.points.index(where) * steps + step + 1
            stages.show(label, done, len(terms.points) * steps, where)
    if stages is not None:
        stages.say(f"{label}, {where}: {steps} steps")

    def table(columns: Iterable[Tensor]) -> Floats:
        return torch.stack(list(columns), dim=1).double().cpu().numpy()

    return Course(
        table(n.exterior for n in found),
        table(n.exterior_error for n in found),
        table(n.rounding * n.whole.mean(dim=0).sqrt() for n in found),
        table(n.relative for n in found),
        table(n.relative_error for n in found),
        0.5 * found[0].rounding,
        tuple(n.probes or 0 for n in found),
    )


def _points(
    where: Where,
    field: ScoreField,
    way: Walk,
    step: int,
    terms: Terms,
    held_out: Tensor | None,
) -> Tensor:
    state = way.states[step]
    if where == "trajectory":
        return state.x
    if where == "noise":
        return way.states[0].x
    assert held_out is not None
    index = torch.arange(len(held_out), device=state.x.device)
    # At the addresses of the starting noise.
    z = Noise(terms.seed).normal("prior", field.domain.shape, index, dtype=terms.dtype)
    t = torch.full((1,), state.t, dtype=torch.float64, device=state.x.device)
    return field.sde.perturb(held_out.to(z), t, z, field.domain).to(terms.dtype)


def _norms(field: ScoreField, x: Tensor, t: float, purpose: str, terms: Terms) -> Norms:
    probing = None
    if field.has_jacobian:
        # Its skew part is small beside the whole, and the closed form knows it to all digits.
        x = x.double()
    elif terms.precision is not None and field.domain.dim > SMALL:
        index = torch.arange(len(x), device=x.device)
        # The purpose tells the step, so that the errors of steps are independent.
        probing = Probing(Noise(terms.seed), index, _FIRST, terms.precision, purpose, x.dtype)
    times = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
    norms = asymmetry_at(field, x, times, terms.unit, probing)
    if not bool(norms.relative.isfinite().all()):
        raise UserError("the Jacobian is zero, and has no relative asymmetry")
    return norms

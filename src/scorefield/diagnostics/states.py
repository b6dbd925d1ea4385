r"""The noisy points along sampling trajectories, at which fields are compared."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields import Classes, ScoreField
from scorefield.noise import Noise
from scorefield.samplers import Sampler, SamplerState


class State(NamedTuple):
    r"""Points of one noise level.

    Arguments:
        sigma: The noise level :math:`\sigma / \alpha`, in units of the data.
        t: Its time.
        x: The noisy points at that time.
        classes: The class of each, where they have been given any.
    """

    sigma: float
    t: float
    x: Float[Tensor, "batch *event"]
    classes: Int[Tensor, " batch"] | None = None


class Walk(NamedTuple):
    """The trajectories of a sampler.

    Arguments:
        states: The points on its grid of noise levels, from the first to the last above zero.
        samples: The final samples.
    """

    states: tuple[State, ...]
    samples: Float[Tensor, "batch *event"]


def walk(
    field: ScoreField,
    sampler: Sampler,
    n: int,
    seed: int = 0,
    first: int = 0,
    dtype: torch.dtype = torch.float32,
    classes: Classes = None,
) -> Walk:
    """The points along the sampling trajectories of a field, in one batch.

    Two fields of one process start from the same noise under one seed.

    Arguments:
        field: The field.
        sampler: A sampler with one grid of noise levels for all samples.
        n: The number of samples.
        seed: The seed of their noise.
        first: The index of the first.
        dtype: The dtype of the points.
        classes: The class of all samples, or of each.

    Raises:
        ValueError: If the number is not positive, or the sampler is adaptive.
        FloatingPointError: If a point is not finite.
    """
    if n < 1:
        raise UserError(f"a walk needs at least one sample, got {n}")
    if sampler.nfe is None:
        raise UserError(f"{type(sampler).__name__} has no noise levels that all samples share")
    sde = field.sde
    device = next((b.device for b in (*field.parameters(), *field.buffers())), None)
    index = torch.arange(first, first + n, device=device)
    start = sde.prior(field.domain).sample(Noise(seed), index, dtype)
    top = torch.tensor(sde.t_max, dtype=torch.float64)
    places = [(sde.sigma_max, start / float(sde.alpha(top)))]

    def watch(state: SamplerState) -> None:
        places.append((state.sigma_next, state.x.clone()))

    known = field.class_rows(classes, index)
    samples = sampler.sample(
        field,
        seed=seed,
        index=index,
        start=start,
        dtype=dtype,
        batch_size=n,
        callback=watch,
        classes=known,
    )
    states = []
    for sigma, x in places[:-1]:
        t = sde.time(torch.tensor(sigma, dtype=torch.float64))
        states.append(State(sigma, float(t), x * float(sde.alpha(t)), known))
    return Walk(tuple(states), samples)

"""Samples, and how a sampler arrives at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.classes import Classes
from scorefield.plot.models import AnyModel, black_of, model_of
from scorefield.plotting.axes import image_grid, samples_figure, show_image
from scorefield.plotting.axes import trajectories as draw_trajectories
from scorefield.plotting.planar import density_contours, reach_of
from scorefield.plotting.png import new_figure
from scorefield.samplers.base import Sampler
from scorefield.samplers.solvers import Heun
from scorefield.samplers.step import SamplerState
from scorefield.targets.base import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEPS = 18
_SHOWN = 8  # states of a trajectory of images
_ROOM = 1.6


def samples(
    x: Tensor | AnyModel,
    n: int = 64,
    truth: Target | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    classes: Classes = None,
) -> Figure:
    """Draw samples: a scatter in the plane, a sheet of images.

    Arguments:
        x: Samples, or a model that is sampled.
        n: The number of samples of a model.
        truth: The distribution of the data in the plane, drawn as contours.
        sampler: How a model is sampled; by default Heun's method in 18 steps.
        seed: The seed of the samples of a model.
        classes: The class of each sample of a model, or one for all.

    Raises:
        ValueError: If the samples are neither points of the plane nor images.
    """
    if not isinstance(x, Tensor):
        x = (sampler or Heun(_STEPS)).sample(model_of(x), n, seed, classes=classes)
    figure = samples_figure(x, truth, black=black_of(x))
    if figure is None:
        raise UserError(
            f"samples of shape {tuple(x.shape[1:])} are neither points of the plane nor images"
        )
    return figure


def trajectories(
    x: Float[Tensor, "steps samples *event"] | AnyModel,
    n: int = 32,
    truth: Target | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    classes: Classes = None,
) -> Figure:
    r"""Draw the trajectories of a sampler, scaled to no drift, :math:`x_t / \alpha(t)`: lines in
    the plane, a row of states for each of up to eight images.

    Arguments:
        x: States, of which the first axis is the step, or a model that is sampled.
        n: The number of samples of a model.
        truth: The distribution of the data in the plane, drawn as contours.
        sampler, seed, classes: See :func:`samples`.

    Raises:
        ValueError: If the samples are neither points of the plane nor images.
    """
    if not isinstance(x, Tensor):
        model, states = model_of(x), []

        def follow(state: SamplerState) -> None:
            states.append(state.x.cpu())

        chosen = sampler or Heun(_STEPS)
        chosen.sample(model, n, seed, callback=follow, batch_size=n, classes=classes)
        x = torch.stack(states)
    event = tuple(x.shape[2:])
    if event == (2,):
        figure = new_figure(5, 5)
        axes = figure.add_subplot()
        if truth is not None:
            density_contours(axes, truth, 0.0, reach_of(truth.std, 0.0))
        draw_trajectories(axes, x)
        # The noise that they come from would leave no room for where they end.
        reach = _ROOM * float(x[-1].abs().max())
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        return figure
    if len(event) != 3 or event[0] not in (1, 3):
        raise UserError(f"trajectories of points of shape {event} are not drawn")
    steps = torch.linspace(0, len(x) - 1, min(_SHOWN, len(x))).round().long()
    chosen_states = x[steps, : min(_SHOWN, x.shape[1])].transpose(0, 1).flatten(0, 1)
    sheet = image_grid(chosen_states, len(steps), black_of(x[-1]))
    figure = new_figure(6, 6 * sheet.shape[1] / sheet.shape[2])
    axes = figure.add_subplot()
    show_image(axes, sheet, black_of(x[-1]))
    axes.set_axis_off()
    return figure

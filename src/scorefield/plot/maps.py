"""Maps of planar fields, and models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from scorefield.errors import UserError
from scorefield.fields.base import ScoreField
from scorefield.fields.classes import Classes
from scorefield.noise import Noise
from scorefield.plot.models import AnyModels, are_planar, black_of, models_of, spread_of
from scorefield.plotting.axes import image_grid, scatter, show_image
from scorefield.plotting.palette import EXACT, looks
from scorefield.plotting.planar import (
    density_contours,
    draw_map,
    field_map,
    reach_of,
    shared_scale,
)
from scorefield.plotting.png import new_figure
from scorefield.points import Given, numbers_of
from scorefield.samplers.base import Sampler
from scorefield.samplers.solvers import Heun
from scorefield.targets.base import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Levels: TypeAlias = float | Sequence[float]

_PANEL = 3.2
_STEPS = 18
_SHEET = 16


def field(
    models: AnyModels, sigma: Levels, data: Target | Given | None = None, classes: Classes = None
) -> Figure:
    r"""Draw planar fields at noise levels: arrows of the displacement
    :math:`\mathbb{E}[x_0 \mid x_t] - x_t` to the posterior mean, over a map of the curl of the
    denoiser.

    A row is a model, a column a noise level, whose maps share one scale.

    Arguments:
        models: The models, whose points are of the plane.
        sigma: The noise level :math:`\sigma/\alpha`, or several.
        data: The data, which set the size of the map: a distribution, whose density is drawn as
            contours, or points. By default the model itself, if it is an exact field.
        classes: A class for all points, of models that know classes.

    Raises:
        ValueError: If the points are not of the plane, or the size of the map is not known.
    """
    return _maps(models, sigma, data, classes, arrows=True)


def curl(
    models: AnyModels, sigma: Levels, data: Target | Given | None = None, classes: Classes = None
) -> Figure:
    r"""Draw the curl :math:`\partial_1 D_2 - \partial_2 D_1` of the denoisers of planar fields, a
    pure number, which is zero everywhere for a gradient. Arguments and errors are those of
    :func:`field`.
    """
    return _maps(models, sigma, data, classes, arrows=False)


def compare(
    models: AnyModels,
    sigma: float,
    data: Target | Given | None = None,
    n: int = 512,
    sampler: Sampler | None = None,
    seed: int = 0,
) -> Figure:
    """Draw models side by side, in two rows: their samples from the same noise; and in the plane
    their fields at a noise level, of images what they make of the same noisy images.

    Beside them are real points, if there are any, and the exact field of a known distribution.

    Arguments:
        models: Models of the plane, or of images.
        sigma: The noise level.
        data: See :func:`field`; of models of images, images.
        n: The number of samples, of images at most 16.
        sampler, seed: See :func:`samples`.

    Raises:
        ValueError: If the models are of points of another shape, or there are no images.
    """
    chosen = models_of(models)
    if are_planar(chosen):
        return _compare_planar(chosen, sigma, data, n, sampler or Heun(_STEPS), seed)
    if data is None or isinstance(data, Target):
        raise UserError("models of images are compared on noisy images: give data=")
    real = numbers_of("the data", data)[0][: min(n, _SHEET)]
    z = Noise(seed).normal("plot", real.shape[1:], torch.arange(len(real)))
    columns: dict[str, tuple[Tensor, Tensor]] = {"data, below with noise": (real, real + sigma * z)}
    for label, model in chosen.items():
        t = model.sde.time(torch.tensor(sigma))
        x = (sampler or Heun(_STEPS)).sample(model, len(real), seed)
        with torch.no_grad():
            seen = model.denoise(model.sde.perturb(real, t.expand(len(real)), z), t)
        columns[label] = x, seen
    figure = new_figure(_PANEL * len(columns), 2 * _PANEL + 0.4)
    panels, black = figure.subplots(2, len(columns), squeeze=False), black_of(real)
    for k, (label, pair) in enumerate(columns.items()):
        for axes, x in zip(panels[:, k], pair, strict=True):
            show_image(axes, image_grid(x, black=black), black)
        panels[0, k].set_title(label, fontsize=10)
    panels[0, 0].set_ylabel("samples")
    panels[1, 0].set_ylabel(f"denoised at σ = {sigma:g}")
    return figure


def _compare_planar(
    chosen: dict[str, ScoreField],
    sigma: float,
    data: Target | Given | None,
    n: int,
    sampler: Sampler,
    seed: int,
) -> Figure:
    truth = data if isinstance(data, Target) else None
    shown = {**chosen, **({} if truth is None else {"exact": truth})}
    std = spread_of(chosen, data)
    reach, wide = reach_of(std, sigma), reach_of(std, 0.0)
    maps = {label: field_map(model, sigma, reach) for label, model in shown.items()}
    scale = shared_scale([maps[label] for label in chosen], reach, truth, sigma)
    look = {**looks(chosen), "exact": EXACT}
    figure = new_figure(_PANEL * len(shown), 2 * _PANEL + 0.4)
    panels = figure.subplots(2, len(shown), squeeze=False)
    for (label, model), above, below in zip(shown.items(), *panels, strict=True):
        scatter(above, sampler.sample(model, n, seed), wide, look[label].colour)
        above.set_title(label, fontsize=10)
        draw_map(below, maps[label], reach, scale)
        if truth is not None:
            density_contours(above, truth, 0.0, wide)
            density_contours(below, truth, sigma, reach)
    panels[0, 0].set_ylabel("samples")
    panels[1, 0].set_ylabel(f"field at σ = {sigma:g}")
    _scale_bar(figure, panels[1], scale)
    return figure


def _maps(
    models: AnyModels,
    sigma: Levels,
    data: Target | Given | None,
    classes: Classes,
    arrows: bool,
) -> Figure:
    chosen = models_of(models)
    if not are_planar(chosen):
        raise UserError(
            "maps are drawn of fields of the plane: of others, see sf.plot.profile and samples"
        )
    if data is None:
        data = next((m for m in chosen.values() if isinstance(m, Target)), None)
    sigmas = [float(s) for s in ([sigma] if isinstance(sigma, float | int) else sigma)]
    truth, std = data if isinstance(data, Target) else None, spread_of(chosen, data)
    figure = new_figure(_PANEL * len(sigmas) + 0.6, _PANEL * len(chosen) + 0.5)
    panels = figure.subplots(len(chosen), len(sigmas), squeeze=False)
    for column, level in enumerate(sigmas):
        reach = reach_of(std, level)
        maps = [field_map(model, level, reach, classes) for model in chosen.values()]
        scale = shared_scale(maps, reach, truth, level)
        for row, (label, values) in enumerate(zip(chosen, maps, strict=True)):
            axes = panels[row, column]
            draw_map(axes, values, reach, scale, arrows)
            if truth is not None:
                density_contours(axes, truth, level, reach)
            if not column:
                axes.set_ylabel(label)
            if not row:
                axes.set_title(f"σ = {level:g}", fontsize=10)
        _scale_bar(figure, panels[:, column], scale)
    return figure


def _scale_bar(figure: Figure, panels: Any, scale: float) -> None:
    """The scale of the curl that maps share, below them."""
    where: dict[str, Any] = {"ax": list(panels), "orientation": "horizontal", "extend": "both"}
    bar = figure.colorbar(panels[0].images[0], **where, shrink=0.9, aspect=30, pad=0.02)
    bar.set_label("curl of the denoiser", fontsize=8)
    bar.set_ticks([-scale, 0, scale], labels=[f"{v:.2g}" for v in (-scale, 0, scale)])
    bar.ax.tick_params(labelsize=7)

r"""What is drawn on axes: planar fields and their curl, profiles over noise levels, samples,
trajectories.

A planar field is drawn as arrows over a map of a scalar, usually its curl
:math:`\partial_1 f_2 - \partial_2 f_1`. Grids are given by the places along both axes, and values
on them row by row of the second coordinate, as ``numpy.meshgrid`` orders them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scorefield.estimate import Estimate
from scorefield.plotting.palette import DIVERGING, GUIDE, INK, MODELS, Look
from scorefield.plotting.png import new_figure
from scorefield.targets.base import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.quiver import Quiver

Floats = npt.NDArray[np.float64]

_MOST_POINTS = 20_000
MOST_IMAGES = 256
"""The most images of a figure."""
_FOOT = 0.03  # of the length of a logarithmic axis
_CONTOURED = 201


def label_axes(
    axes: Axes, x: str = "", y: str = "", title: str = "", grid: Any = "both", **settings: Any
) -> None:
    """Label axes over a light grid; ``settings`` are those of ``matplotlib.axes.Axes.set``."""
    axes.set(xlabel=x, ylabel=y, **settings)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(axis=grid, alpha=0.3)


def legend(part: Any, looks: Mapping[str, Look], hollow: str = "", **settings: Any) -> None:
    """Draw one legend of a figure for all of its axes, with what is hollow as its last entry."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], label=label, **look.line(6)) for label, look in looks.items()]
    if hollow:
        style: dict[str, Any] = {"markerfacecolor": "white", "linestyle": "none", "marker": "v"}
        lines.append(Line2D([], [], color=GUIDE, label=hollow, **style))
    part.legend(handles=lines, frameon=False, **settings)


def quiver(
    axes: Axes,
    x: Floats,
    y: Floats,
    vectors: Floats,
    longest: float | None = None,
    colour: str = INK,
) -> Quiver:
    """Draw a planar field as arrows about the points of a grid, their lengths proportional to the
    norms of the vectors.

    Arguments:
        axes: The axes, in the units of the grid.
        x, y: The places of both coordinates, ascending.
        vectors: The vectors, of shape (len(y), len(x), 2).
        longest: The length of the longest arrow; 1.6 spacings of the grid by default.
        colour: The colour.
    """
    peak = float(np.linalg.norm(vectors, axis=-1).max())
    if longest is None:
        longest = 1.6 * float(min(x[1] - x[0], y[1] - y[0]))
    arrows = vectors * (longest / peak if peak > 0 else 0.0)
    style: dict[str, Any] = {"headwidth": 4, "headlength": 4.5, "headaxislength": 4, "zorder": 3}
    style |= {"angles": "xy", "scale_units": "xy", "scale": 1, "pivot": "mid", "width": 0.004}
    return axes.quiver(x, y, arrows[..., 0], arrows[..., 1], color=colour, **style)


def curl_map(axes: Axes, curl: Floats, reach: float, scale: float) -> AxesImage:
    """Draw a scalar such as the curl, on a regular grid of shape (rows, columns) over the square
    from ``-reach`` to ``reach``; ``-scale`` is blue, and ``scale`` red.
    """
    extent = (-reach, reach, -reach, reach)
    style: dict[str, Any] = {"cmap": DIVERGING, "origin": "lower", "interpolation": "bilinear"}
    return axes.imshow(curl, vmin=-scale, vmax=scale, extent=extent, **style)


def contours(
    axes: Axes, x: Floats, y: Floats, density: Floats, shares: Sequence[float], **style: Any
) -> None:
    """Draw contours of a density at ``shares`` of its greatest value, ascending."""
    levels = [share * float(density.max()) for share in shares]
    axes.contour(x, y, density, levels, **{"colors": INK, "linewidths": 0.7, "alpha": 0.7, **style})


def noise_profile(
    axes: Axes,
    sigmas: Sequence[float] | Floats,
    estimates: Sequence[Estimate],
    look: Look = MODELS[0],
    label: str | None = None,
    clear: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    errors: Sequence[tuple[float, float]] | None = None,
    **style: Any,
) -> None:
    """Draw estimates against the noise level, on logarithmic axes, with 95 % intervals.

    What is not ``clear`` of zero, by default what has an interval that is not above zero, is a
    hollow triangle at the bottom of the axes, whose limits are set before. ``errors`` are the ends
    of the error bars, by default of the intervals, and ``style`` has other arguments of
    ``matplotlib.axes.Axes.errorbar``.
    """
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    ends = [e.interval() for e in estimates] if errors is None else list(errors)
    seen = np.array([a > 0 for a, _ in ends] if clear is None else clear, dtype=bool)
    x, y = np.asarray(sigmas, dtype=float), np.array([e.value for e in estimates])
    # On a logarithmic axis a bar that would pass zero leaves the picture.
    bars = [
        [max(v - max(a, low / 10), 0.0), max(b - v, 0.0)] for v, (a, b) in zip(y, ends, strict=True)
    ]
    shown = np.where(seen, y, np.nan)
    settings = {**look.line(), "linewidth": 1.3, "elinewidth": 1, "capsize": 2, **style}
    axes.errorbar(x, shown, np.array(bars).T, label=label, **settings)
    if not seen.all():
        foot = np.full((~seen).sum(), low * (high / low) ** _FOOT)
        hollow = {**look.line(6), "marker": "v", "markerfacecolor": "white", "linestyle": "none"}
        axes.plot(x[~seen], foot, clip_on=False, **hollow)


def scatter(
    axes: Axes, points: Tensor, reach: float, colour: str = MODELS[0].colour, size: float = 4
) -> int:
    """Draw points of the plane within ``reach`` of the origin, and return how many lie outside."""
    x = points.double().cpu().numpy()
    axes.scatter(x[:, 0], x[:, 1], s=size, alpha=0.5, linewidths=0, color=colour)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    return int((np.abs(x) > reach).any(axis=1).sum())


def trajectories(axes: Axes, paths: Tensor, colour: str = MODELS[0].colour) -> None:
    """Draw trajectories in the plane, of shape (steps, samples, 2), with a dot at their ends."""
    x = paths.double().cpu().numpy()
    axes.plot(x[..., 0], x[..., 1], color=colour, linewidth=0.8, alpha=0.6)
    axes.plot(x[-1, :, 0], x[-1, :, 1], ".", color=colour, markersize=5)
    axes.set_aspect("equal")


def show_image(axes: Axes, image: Tensor, black: float = -1.0) -> None:
    """Draw one image of shape (channels, height, width), with values from ``black`` to 1."""
    pixels = image.double().cpu().sub(black).div(1 - black).clamp(0, 1)
    style: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    axes.imshow(pixels.permute(1, 2, 0).numpy().squeeze(), **style)
    axes.set(xticks=[], yticks=[])


def image_grid(images: Tensor, columns: int | None = None, black: float = -1.0) -> Tensor:
    """Images of shape (n, channels, height, width) side by side as one image of shape (channels,
    height, width), with white lines between and around them; ``black`` is the value of black, 1 of
    white, and by default there are about as many columns as rows.
    """
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    rows = math.ceil(n / columns)
    sheet = torch.ones(channels, rows * (height + 1) + 1, columns * (width + 1) + 1)
    for k, image in enumerate(images.cpu().clamp(black, 1)):
        top, left = k // columns * (height + 1) + 1, k % columns * (width + 1) + 1
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def samples_figure(
    samples: Tensor, truth: Target | None = None, title: str = "", black: float = -1.0
) -> Figure | None:
    """Samples as a figure: a scatter in the plane over contours of the true density, or a grid of
    images, in which ``black`` is the value of black and the channels, where there are neither 1 nor
    3, are beside each other; ``None`` where they are neither.
    """
    event = tuple(samples.shape[1:])
    if event == (2,):
        figure = new_figure(5, 5)
        axes = figure.add_subplot()
        points = samples[:_MOST_POINTS].double().cpu()
        reach = 1.1 * float(points.abs().max())
        if truth is not None:
            reach = max(reach, float(truth.mean.abs().max()) + 2 * truth.std)
            line = torch.linspace(-reach, reach, _CONTOURED, dtype=torch.float64)
            grid = torch.cartesian_prod(line, line)
            density = truth.log_density(grid, 0.0).exp().reshape(len(line), -1).T.numpy()
            # One and two standard deviations from the mode of a normal distribution.
            shares = [math.exp(-0.5 * z**2) for z in (2, 1)]
            contours(axes, line.numpy(), line.numpy(), density, shares)
        scatter(axes, points, reach)
    elif len(event) == 3:
        images = samples[:MOST_IMAGES]
        if event[0] not in (1, 3):
            images = images.transpose(1, 2).flatten(2)[:, None]
        sheet = image_grid(images, black=black)
        figure = new_figure(5, 5 * sheet.shape[1] / sheet.shape[2] + 0.3)
        axes = figure.add_subplot()
        show_image(axes, sheet, black)
        axes.set_axis_off()
    else:
        return None
    figure.suptitle(title, fontsize=9)
    return figure

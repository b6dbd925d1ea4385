"""Samples as a picture: a scatter in the plane, or a grid of images."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scorefield.targets import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LARGEST_GRID = 256
_LARGEST_SCATTER = 20_000


def picture(
    samples: Tensor, truth: Target | None = None, title: str = "", black: float = -1.0
) -> bytes | None:
    """A PNG of samples; ``None`` where they are neither points of the plane nor images.

    The law of the data is drawn as contours where it is known; images are from ``black`` to 1.
    """
    event = tuple(samples.shape[1:])
    if event == (2,):
        figure = _scatter(samples, truth)
    elif len(event) == 3 and event[0] in (1, 3):
        figure = _grid(samples, black)
    else:
        return None
    if title:
        figure.suptitle(title, fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _scatter(samples: Tensor, truth: Target | None) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    points = samples[:_LARGEST_SCATTER].double().cpu()
    reach = 1.1 * float(points.abs().max())
    if truth is not None:
        reach = max(reach, float(truth.mean.abs().max()) + 2 * truth.std)
        line = torch.linspace(-reach, reach, 201, dtype=torch.float64)
        grid = torch.cartesian_prod(line, line)
        density = truth.log_density(grid, 0.0).exp().reshape(201, 201).T
        peak = float(density.max())
        # One and two standard deviations from the mode of a normal law.
        levels = [peak * math.exp(-0.5 * z**2) for z in (2, 1)]
        axes.contour(line.numpy(), line.numpy(), density.numpy(), levels, colors="tab:red")
    axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=4, alpha=0.5, linewidths=0)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    return figure


def _grid(samples: Tensor, black: float) -> Figure:
    """Images with values from ``black`` to 1, side by side."""
    from matplotlib.figure import Figure

    images = samples[:_LARGEST_GRID].double().cpu().sub(black).div(1 - black).clamp(0, 1)
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = torch.ones(channels, rows * (height + 1) - 1, columns * (width + 1) - 1)
    for k, image in enumerate(images):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        sheet[:, top : top + height, left : left + width] = image
    figure = Figure(figsize=(5, 5 * rows / columns + 0.3), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(sheet.permute(1, 2, 0).numpy().squeeze(), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    return figure

r"""Planar fields at one noise level: arrows over a map of the curl.

Arrows are the posterior mean's displacement :math:`\mathbb{E}[x_0 \mid x_t] - x_t = \sigma^2 s`
(at :math:`\alpha = 1`), and the curl is :math:`\partial_1 D_2 - \partial_2 D_1` of the denoiser
:math:`D`, a pure number. Points of a torus are drawn about the middle of its box.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scorefield.calculus.derivatives import jacobian
from scorefield.domain import Domain, Torus
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.plotting.axes import contours, curl_map, quiver
from scorefield.targets.base import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

_MAP, _ARROWS = 97, 19
_INSIDE = 0.94
_CONTOURS = (0.01, 0.1, 0.4, 0.8)
_NOTHING = 1e-6


class FieldMap(NamedTuple):
    """A field at one noise level on a grid: its curl on a fine grid, its arrows on a coarse one."""

    curl: Array
    arrows: Array


def field_map(field: ScoreField, sigma: float, reach: float, classes: Classes = None) -> FieldMap:
    """The curl and the displacement of a planar field on the square of half-width ``reach``."""
    fine, coarse = (
        _points(field.domain, side, part * reach)
        for side, part in ((_MAP, 1.0), (_ARROWS, _INSIDE))
    )
    t = float(field.sde.time(torch.tensor(sigma, dtype=torch.float64)))

    def denoiser(x: Tensor, times: Tensor) -> Tensor:
        return field.predict(x, times, "denoiser", classes)

    with evaluation_mode(field), torch.no_grad():
        j = jacobian(denoiser, fine, torch.full((len(fine),), t, dtype=fine.dtype))
        arrows = field.denoise(coarse, t, classes) - coarse
    curl = (j[:, 1, 0] - j[:, 0, 1]).reshape(_MAP, _MAP).numpy()
    return FieldMap(curl, arrows.reshape(_ARROWS, _ARROWS, 2).numpy())


def reach_of(std: float, sigma: float, domain: Domain | None = None) -> float:
    """The half-width of a square that holds nearly all noisy points of centred data; on a torus,
    that of its box.
    """
    return middle_of(domain) or 1.9 * std + 1.6 * sigma


def middle_of(domain: Domain | None) -> float:
    """Both coordinates of the middle of a picture: of the box of a torus, or zero."""
    if not isinstance(domain, Torus):
        return 0.0
    period = domain.period
    return max(period if isinstance(period, tuple) else (period,)) / 2


def shared_scale(
    maps: Iterable[FieldMap], reach: float, truth: Target | None = None, sigma: float = 0.0
) -> float:
    """The curl at the ends of a colour scale: the 99 % quantile over the map, or where the
    distribution of the data is known over its points with data on them, of the map that has most.
    """
    inside = np.ones((_MAP, _MAP), dtype=bool)
    if truth is not None:
        density = _density(truth, sigma, reach, _MAP)
        inside = density > _CONTOURS[0] * density.max()
    largest = max(float(np.quantile(np.abs(m.curl)[inside], 0.99)) for m in maps)
    return max(largest, _NOTHING)


def draw_map(axes: Axes, values: FieldMap, reach: float, scale: float, arrows: bool = True) -> None:
    """Draw the curl of a field, from ``-scale`` in blue to ``scale`` in red, and its arrows."""
    curl_map(axes, values.curl, reach, scale)
    if arrows:
        ticks = np.linspace(-_INSIDE * reach, _INSIDE * reach, _ARROWS)
        norm = np.linalg.norm(values.arrows, axis=2, keepdims=True)
        # Lengths are roots of the norms, so that arrows near the data are visible too.
        roots = values.arrows / np.sqrt(np.maximum(norm, 1e-12))
        longest = 2.5 * reach / _ARROWS * float(np.sqrt(norm.max() / reach))
        quiver(axes, ticks, ticks, roots, longest)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))


def density_contours(
    axes: Axes, truth: Target, sigma: float, reach: float, side: int = _MAP
) -> None:
    """Draw contours of the exact density at a noise level."""
    line = np.linspace(-reach, reach, side)
    contours(axes, line, line, _density(truth, sigma, reach, side), _CONTOURS)


def _points(domain: Domain, side: int, reach: float) -> Tensor:
    """Points of a square about the middle of a domain, row by row from the bottom."""
    line = torch.linspace(-reach, reach, side, dtype=torch.float64) + middle_of(domain)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), dim=-1).reshape(-1, *domain.shape)


@lru_cache(maxsize=16)
def _density(truth: Target, sigma: float, reach: float, side: int) -> Array:
    t = 0.0 if sigma == 0 else float(truth.sde.time(torch.tensor(sigma, dtype=torch.float64)))
    values: Array = truth.log_density(_points(truth.domain, side, reach), t).exp().numpy()
    return values.reshape(side, side)

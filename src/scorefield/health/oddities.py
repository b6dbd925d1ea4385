"""What no score does: to be random, to depend on other points, to have its values clipped."""

from __future__ import annotations

from typing import NamedTuple

import torch

from scorefield.engine import device_of, exact
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.health.points import Points

_ROUNDING, _FEW_ENDS = 1e-2, 1e-2


class Oddities(NamedTuple):
    """What no score does, as shares: how much two evaluations at the same points differ, and one
    with other points beside them, in units of the noise; and the share of the coordinates of
    denoised points that have the largest or the smallest value exactly.
    """

    random: float
    together: float
    saturated: float


def oddities(field: ScoreField, points: Points, sigma: float) -> Oddities:
    """Whether a field is random, depends on what else is in a batch, or is clipped, at a noise
    level; differences that rounding explains are none.
    """
    device = device_of(field)
    t = field.sde.time(torch.full((len(points.clean),), sigma, dtype=torch.float64))
    noisy = field.sde.perturb(points.clean, t, points.noise, field.domain)
    few = max(1, len(t) // 4)
    known = (None, None) if points.classes is None else (points.classes, points.classes[:few])
    with exact(), evaluation_mode(field), torch.no_grad():
        first, second = (
            field.predict_noise(noisy.to(device), t.to(device), known[0]).cpu() for _ in range(2)
        )
        alone = field.predict_noise(noisy[:few].to(device), t[:few].to(device), known[1]).cpu()
        denoised = field.denoise(noisy.to(device), t.to(device), known[0]).cpu().flatten(1)
    random, together = (float((a - b).abs().max()) for a, b in
                        ((first, second), (first[:few], alone)))  # fmt: skip
    varied = points.clean.flatten(1).std(dim=0) > 0
    values = denoised[:, varied]
    ends = (values == values.max()) | (values == values.min())
    rest = values[~ends]
    # A denoiser that gives training points has their values, of which there are few.
    lattice = rest.numel() == 0 or rest.unique().numel() < 0.9 * rest.numel()
    # One value is the largest, and one the smallest, in any case.
    share = 0.0 if lattice else max(0, int(ends.sum()) - 2) / ends.numel()
    return Oddities(
        random if random > _ROUNDING else 0.0,
        together if together > _ROUNDING else 0.0,
        share if share > _FEW_ENDS else 0.0,
    )

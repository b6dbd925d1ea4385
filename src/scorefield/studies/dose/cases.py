"""The errors that are planted: their kinds, sizes and noise levels."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch

from scorefield.fields.planted import Band
from scorefield.noise import Noise
from scorefield.studies.settings import Dose

KINDS = Dose.kinds
MIXTURE = "mixture"
"""The kind of mixtures of all kinds, and in place of the name of their bands."""

BANDS: dict[str, Band] = {
    "all": Band(),
    "low": Band(high=0.35),
    "middle": Band(0.35, 4.0),
    "high": Band(low=4.0),
}
"""Bands that part the noise levels at the width of a mode and at the radius of the ring."""

SIGMA_MIN, SIGMA_MAX = 0.01, 80.0


class FieldCase(NamedTuple):
    """An error: its kind, the band where it is planted and the band's name, its dose, and the
    number of a mixture; of a trained field, its name, its noise levels and its data.
    """

    kind: str
    band_name: str
    band: Band
    dose: float
    number: int = 0

    def __str__(self) -> str:
        low, high = self.ends
        return f"{self.kind}, dose {self.dose:g}, noise levels {low:.3g} to {high:.3g}"

    @property
    def ends(self) -> tuple[float, float]:
        """The edges of the band within the noise levels of the process."""
        high = self.band.high
        return self.band.low or SIGMA_MIN, high if math.isfinite(high) else SIGMA_MAX


def cases(settings: Dose) -> list[FieldCase]:
    """Everything that is planted, one at a time."""
    edges = torch.logspace(
        math.log10(SIGMA_MIN), math.log10(SIGMA_MAX), settings.slices + 1, dtype=torch.float64
    ).tolist()
    bands = [(name, BANDS[name], dose) for name in settings.bands for dose in settings.doses]
    bands += [("slice", Band(a, b), settings.slice_dose) for a, b in pairwise(edges)]
    planted = [FieldCase(kind, *band) for kind in settings.kinds for band in bands]
    return [*planted, *_mixtures(settings)]


def _mixtures(settings: Dose) -> list[FieldCase]:
    """Mixtures of all kinds, in one of the bands, with doses between the least and the largest."""
    index = torch.arange(settings.mixtures)
    drawn = Noise(settings.seed).uniform("dose/mixture", (2,), index, dtype=torch.float64)
    low, high = min(settings.doses), max(settings.doses)
    found = []
    for k, (place, size) in enumerate(drawn.tolist()):
        band = BANDS[settings.bands[int(place * len(settings.bands))]]
        found.append(FieldCase(MIXTURE, MIXTURE, band, low * (high / low) ** size, k))
    return found

"""What good models show on data of the same kind, for comparison with the numbers of a check.

The figures are in ``typical.json``, which ``benchmarks/check.py`` measures and writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from scorefield.health.plan import Number

FILE = "typical.json"
_LEVELS, _SPREADS = 1.25, 1.1
"""Up to which factor two noise levels, in units of the spread of the data, and two spreads are
taken for the same."""
_OF_SETS = "distance"
"""How the names begin of what depends on the number of points, beyond its error."""
_OF_DATA = "floor"
"""How the names begin of what no model changes; draws of it are pairs of sets."""


@dataclass(frozen=True)
class Like:
    """Figures of models on data of the same shape and scale as those of a check.

    Attributes:
        data: The name of these data.
        std: Their spread.
        models: What was measured of each model, by its name: the name of a number, the noise level
            in units of the spread, the number of draws, and the value.
        origin: How, when and with which seed they were measured.
    """

    data: str
    std: float
    models: Mapping[str, Sequence[Mapping[str, Any]]]
    origin: str

    def beside(self, number: Number) -> dict[str, float]:
        """What each model shows of a number, where it was measured of it at this noise level, and
        for what depends on it, with as many points.
        """
        found = {}
        for model, figures in self.models.items():
            for one in figures:
                if one["name"] == number.name and self._same(one, number):
                    found[model] = float(one["value"])
        return found

    def _same(self, one: Mapping[str, Any], number: Number) -> bool:
        if number.name.startswith(_OF_DATA):
            return False
        if number.name.startswith(_OF_SETS) and one["n"] != number.estimate.n:
            return False
        if number.sigma is None or one["level"] is None:
            return number.sigma is None and one["level"] is None
        return _alike(one["level"], number.sigma / self.std, _LEVELS)


def like(shape: tuple[int, ...], std: float) -> Like | None:
    """The figures for data of a shape and a spread; ``None`` where there are none of such data."""
    record = _record()
    for name, one in record["data"].items():
        if tuple(one["shape"]) == shape and _alike(one["std"], std, _SPREADS):
            return Like(name, std, one["models"], record["origin"])
    return None


@cache
def _record() -> Any:
    return json.loads(files("scorefield.health").joinpath(FILE).read_text(encoding="utf-8"))


def _alike(a: float, b: float, factor: float) -> bool:
    return b > 0 and abs(math.log(a / b)) <= math.log(factor)

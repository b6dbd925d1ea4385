r"""The error rates of diagnostics on fields whose answer is known.

Each instrument is evaluated many times over, with fresh points and probes:

* on conservative fields: how often does its 95 % interval exclude zero (*false alarms*)?
* on fields with planted curl: how far is its mean from the truth (*bias*), how often does the
  interval hold the truth (*coverage*), and how often does it exclude zero (*power*)?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scorefield.estimate import Estimate, mean, proportion
from scorefield.studies.calibrate.fields import Distribution, Shape, conservative, planted
from scorefield.studies.calibrate.instruments import INSTRUMENTS, Counting

SIZES = (0.01, 0.05, 0.2)
SIZE = 0.05
"""The relative asymmetry at which coverage is measured."""
ZERO = 1e-10
"""What is below, in float64 and for fields of order one, is rounding."""


class Case(NamedTuple):
    """An instrument and the field that it is evaluated on; of plain values, so that it can go to
    another process.
    """

    instrument: str
    dim: int
    law: Distribution
    shape: Shape
    size: float
    lean: bool
    repeats: int

    def __str__(self) -> str:
        curl = "no curl" if self.shape == "none" else f"curl of {self.size:.0%}, {self.shape}"
        return f"{self.instrument}, D = {self.dim}, {self.law}, {curl}, {self.repeats} repeats"


@dataclass(frozen=True)
class Rates:
    """The values and intervals of an instrument over repetitions of a case.

    Attributes:
        case: The case.
        points: The number of noisy points of one measurement.
        calls: The network calls of one measurement.
        average: The mean over repetitions, with its standard error.
        truth: The right answer, where it is known.
        largest: The largest value.
        alarms: The number of intervals that exclude zero.
        covered: The number of intervals that hold the truth; ``None`` where it is not known.
        unit: The unit.
    """

    case: Case
    points: int
    calls: float
    average: Estimate
    truth: float | None
    largest: float
    alarms: int
    covered: int | None
    unit: str

    @property
    def bias(self) -> Estimate | None:
        """The mean's relative distance from the truth; absolute where the truth is zero."""
        if self.truth is None:
            return None
        scale = abs(self.truth) or 1.0
        return Estimate(
            (self.average.value - self.truth) / scale,
            self.average.standard_error / scale,
            self.average.n,
        )

    @property
    def coverage(self) -> int | None:
        """The number of intervals of the full setting that hold a truth of :data:`SIZE`."""
        return self.covered if self.case.size == SIZE and not self.case.lean else None

    @property
    def detections(self) -> int | None:
        """The number of intervals that exclude zero where power is measured: on the Gaussian, by
        the lean setting if there is one, of an instrument that detects curl.
        """
        instrument = INSTRUMENTS[self.case.instrument]
        curl = self.case.shape != "none" and self.case.law == "gaussian" and instrument.detects
        return self.alarms if curl and (self.case.lean or instrument.lean is None) else None

    def row(self) -> dict[str, Any]:
        """The rates as a record of a table."""
        case, bias = self.case, self.bias
        share = None if self.covered is None else proportion(self.covered, case.repeats)
        alarms = proportion(self.alarms, case.repeats)
        return {
            "instrument": case.instrument,
            "dim": case.dim,
            "law": case.law,
            "shape": case.shape,
            "relative_asymmetry": case.size,
            "setting": "lean" if case.lean else "full",
            "points": self.points,
            "calls": self.calls,
            "repeats": case.repeats,
            "unit": self.unit,
            "mean": self.average.value,
            "mean_standard_error": self.average.standard_error,
            "largest": self.largest,
            "truth": "" if self.truth is None else self.truth,
            "bias": "" if bias is None else bias.value,
            "bias_standard_error": "" if bias is None else bias.standard_error,
            "coverage": "" if share is None else share[0],
            "coverage_low": "" if share is None else share[1],
            "coverage_high": "" if share is None else share[2],
            "excludes_zero": alarms[0],
            "excludes_zero_low": alarms[1],
            "excludes_zero_high": alarms[2],
        }


def cases(repeats: int, dims: Sequence[int], names: Sequence[str]) -> list[Case]:
    """All cases, the most expensive first.

    Arguments:
        repeats: The number of repetitions behind a coverage on the Gaussian; a tenth of it (at
            least 40) stands behind one on the mixture, behind a power, and where an instrument is
            costly, a twentieth (at least 20) behind the false alarms on each conservative field.
        dims: The dimensions.
        names: The instruments.
    """
    few, some = max(20, repeats // 20), max(40, repeats // 10)
    found: list[Case] = []
    for name in names:
        instrument = INSTRUMENTS[name]
        for dim in (dim for dim in dims if dim in instrument.full.points):
            found += [Case(name, dim, law, "none", 0.0, False, few) for law in instrument.nulls]
            if not instrument.curl:
                continue
            shapes: tuple[Shape, ...] = ("plane",) if dim == 2 else ("plane", "spread")
            many = some if dim in instrument.costly else repeats
            lean = instrument.lean is not None
            for shape in shapes:
                found.append(Case(name, dim, "gaussian", shape, SIZE, False, many))
                found.append(Case(name, dim, "mixture", shape, SIZE, False, some))
                found += [Case(name, dim, "gaussian", shape, s, lean, some) for s in SIZES]
    return sorted(set(found), key=lambda c: -c.dim * c.repeats)


def measure(case: Case) -> Rates:
    """Evaluates an instrument on a field, as often as the case says."""
    test = (
        conservative(case.law, case.dim)
        if case.shape == "none"
        else planted(case.law, case.dim, case.shape, case.size)
    )
    instrument = INSTRUMENTS[case.instrument]
    setting = instrument.lean if case.lean and instrument.lean is not None else instrument.full
    counting = Counting(test.field)
    found = [setting(counting, test.data, seed) for seed in range(case.repeats)]
    truth = 0.0 if case.shape == "none" else test.answers.get(case.instrument)
    intervals = [e.interval() for e in found]
    covered = None
    if truth is not None and case.shape != "none":
        slack = ZERO * max(1.0, abs(truth))
        covered = sum(low - slack <= truth <= high + slack for low, high in intervals)
    return Rates(
        case,
        setting.points[case.dim],
        (instrument.calls * counting.rows + 2 * counting.back) / case.repeats,
        mean([e.value for e in found]),
        truth,
        max(abs(e.value) for e in found),
        sum(low > ZERO or high < -ZERO for low, high in intervals),
        covered,
        found[0].unit,
    )

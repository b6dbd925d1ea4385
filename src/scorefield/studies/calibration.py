r"""What the instruments say of fields whose answer is known.

Each instrument is asked many times over, with fresh points and probes:

* of conservative fields: how often does its 95 % interval miss zero (*false alarms*)?
* of fields with planted curl: how far is its mean from the truth (*bias*), how often does the
  interval hold the truth (*coverage*), and how often does it exclude zero (*power*)?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scipy import stats

from scorefield.estimate import Estimate, mean
from scorefield.studies.instruments import INSTRUMENTS, Counting
from scorefield.studies.specimens import Law, Shape, conservative, planted

DIMS = (2, 64, 784)
SIZES = (0.01, 0.05, 0.2)
SIZE = 0.05
"""The relative asymmetry at which coverage is measured."""
ZERO = 1e-10
"""What is below, in float64 and for fields of order one, is rounding."""


class Question(NamedTuple):
    """What is asked of an instrument; of plain values, so that it can go to another process."""

    instrument: str
    dim: int
    law: Law
    shape: Shape
    size: float
    lean: bool
    repeats: int


@dataclass(frozen=True)
class Answer:
    """What an instrument said.

    Attributes:
        question: What was asked.
        points: The number of noisy points of one measurement.
        calls: The network calls of one measurement.
        average: The mean over repetitions, with its standard error.
        truth: The right answer, where it is known.
        largest: The largest value.
        alarms: How many intervals exclude zero.
        covered: How many intervals hold the truth; none where it is not known.
        unit: The unit.
    """

    question: Question
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

    def row(self) -> dict[str, Any]:
        """The plain record."""
        q, bias = self.question, self.bias
        share = None if self.covered is None else proportion(self.covered, q.repeats)
        alarms = proportion(self.alarms, q.repeats)
        return {
            "instrument": q.instrument,
            "dim": q.dim,
            "law": q.law,
            "shape": q.shape,
            "relative_asymmetry": q.size,
            "setting": "lean" if q.lean else "full",
            "points": self.points,
            "calls": self.calls,
            "repeats": q.repeats,
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


def questions(
    repeats: int, dims: Sequence[int] = DIMS, names: Sequence[str] = tuple(INSTRUMENTS)
) -> list[Question]:
    """All that is asked, the most expensive first.

    Arguments:
        repeats: The number of repetitions behind a coverage on the Gaussian; a tenth of it (at
            least 40) stands behind one on the mixture, behind a power, and where an instrument is
            costly, a twentieth (at least 20) behind the false alarms on each conservative field.
        dims: The dimensions.
        names: The instruments.
    """
    few, some = max(20, repeats // 20), max(40, repeats // 10)
    asked: list[Question] = []
    for name in names:
        instrument = INSTRUMENTS[name]
        for dim in (dim for dim in dims if dim in instrument.full.points):
            asked += [Question(name, dim, law, "none", 0.0, False, few) for law in instrument.nulls]
            if not instrument.curl:
                continue
            shapes: tuple[Shape, ...] = ("plane",) if dim == 2 else ("plane", "spread")
            many = some if dim in instrument.costly else repeats
            lean = instrument.lean is not None
            for shape in shapes:
                asked.append(Question(name, dim, "gaussian", shape, SIZE, False, many))
                asked.append(Question(name, dim, "mixture", shape, SIZE, False, some))
                asked += [Question(name, dim, "gaussian", shape, s, lean, some) for s in SIZES]
    return sorted(set(asked), key=lambda q: -q.dim * q.repeats)


def ask(question: Question) -> Answer:
    """Asks an instrument."""
    q = question
    specimen = (
        conservative(q.law, q.dim) if q.shape == "none" else planted(q.law, q.dim, q.shape, q.size)
    )
    instrument = INSTRUMENTS[q.instrument]
    setting = instrument.lean if q.lean and instrument.lean is not None else instrument.full
    counting = Counting(specimen.field)
    found = [setting(counting, specimen.data, seed) for seed in range(q.repeats)]
    truth = 0.0 if q.shape == "none" else specimen.answers.get(q.instrument)
    intervals = [e.interval() for e in found]
    zero = sum(low > ZERO or high < -ZERO for low, high in intervals)
    covered = None
    if truth is not None and q.shape != "none":
        slack = ZERO * max(1.0, abs(truth))
        covered = sum(low - slack <= truth <= high + slack for low, high in intervals)
    return Answer(
        q,
        setting.points[q.dim],
        (instrument.calls * counting.rows + 2 * counting.back) / q.repeats,
        mean([e.value for e in found]),
        truth,
        max(abs(e.value) for e in found),
        zero,
        covered,
        found[0].unit,
    )


def proportion(k: int, n: int) -> tuple[float, float, float]:
    """A proportion and its 95 % interval (Wilson)."""
    found = stats.binomtest(k, n).proportion_ci(method="wilson")
    return k / n, float(found.low), float(found.high)

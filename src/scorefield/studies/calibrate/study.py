r"""The error rates of diagnostics on fields whose answer is known.

Each instrument is evaluated many times over, with fresh points and probes:

* on conservative fields: how often does its 95 % interval exclude zero (*false alarms*)?
* on fields with planted curl: how far is its mean from the truth (*bias*), how often does the
  interval hold the truth (*coverage*), and how often does it exclude zero (*power*)?
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from scorefield import plotting
from scorefield.errors import ConfigError, hint
from scorefield.estimate import Estimate, mean, share
from scorefield.evaluation.catalogue.curl import RELATIVE_ASYMMETRY
from scorefield.studies.calibrate.fields import Distribution, Shape, conservative, planted
from scorefield.studies.calibrate.instruments import DIMS, INSTRUMENTS, Counting
from scorefield.studies.frame import Cell, Study, Table, Work, csv_bytes, prepare_process
from scorefield.studies.settings import Calibration

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

    Points and network calls are those of one measurement; ``alarms`` intervals exclude zero, and
    ``covered`` hold the truth, where it is known.
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
        scale, found = abs(self.truth) or 1.0, self.average
        return Estimate((found.value - self.truth) / scale, found.standard_error / scale, found.n)

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
        return {
            "instrument": case.instrument,
            "dim": case.dim,
            "law": case.law,
            "shape": case.shape,
            RELATIVE_ASYMMETRY.name: case.size,
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
            **_columns("coverage", self.covered, case.repeats),
            **_columns("excludes_zero", self.alarms, case.repeats),
        }


def _columns(name: str, count: int | None, repeats: int) -> dict[str, Any]:
    """The share of repetitions with its interval, in columns of a record."""
    keys = (name, f"{name}_low", f"{name}_high")
    if count is None:
        return dict.fromkeys(keys, "")
    found = share(count, repeats)
    return dict(zip(keys, (found.value, *found.interval()), strict=True))


def cases(repeats: int, dims: Sequence[int], names: Sequence[str]) -> list[Case]:
    """All cases, the most expensive first."""
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


COLUMNS = (
    "instrument",
    "D",
    "false alarms",
    "largest on null",
    "bias",
    "lowest coverage",
    "highest coverage",
    *(f"power at {size:.0%}" for size in SIZES),
    "calls",
)


class CalibrationStudy(Study[Calibration, list[Rates]]):
    """The calibration of all diagnostics, or of some."""

    kinds = (Case, Rates, Estimate)

    @classmethod
    def open(cls, settings: Calibration) -> CalibrationStudy:
        for name in settings.only:
            if name not in INSTRUMENTS:
                raise ConfigError(f"--only has {name!r}; {hint(name, INSTRUMENTS, 'all')}")
        if unknown := [dim for dim in settings.dims if dim not in DIMS]:
            raise ConfigError(
                f"diagnostics are calibrated in 2, 64 and 784 dimensions, not {unknown[0]}"
            )
        return cls(settings)

    def compute(self, work: Work) -> list[Rates]:
        names = list(self.settings.only or INSTRUMENTS)
        wanted = cases(self.settings.repeats, self.settings.dims, names)
        found = [rates for case in wanted if (rates := work.kept(repr(case))) is not None]
        rest = [case for case in wanted if case not in {rates.case for rates in found}]
        context = multiprocessing.get_context("spawn")
        # Leaving the pool, for whatever reason, ends its processes at once.
        with context.Pool(self.settings.jobs, prepare_process) as pool:
            for rates in pool.imap_unordered(measure, rest):
                found.append(work.keep(repr(rates.case), rates))
                work.show("calibration", len(found), len(wanted), rates.case.instrument)
                work.report(f"{len(found)} of {len(wanted)}  {rates.case}")

        def order(rates: Rates) -> tuple[object, ...]:
            name, dim, law, shape, size, lean, _ = rates.case
            return names.index(name), dim, size, shape, law, lean

        return sorted(found, key=order)

    def files(self, result: list[Rates], work: Work) -> Mapping[str, Callable[[], bytes]]:
        return {
            "calibration.csv": lambda: csv_bytes(rates.row() for rates in result),
            "calibration.png": lambda: figure(result),
        }

    def table(self, result: list[Rates]) -> Table:
        return table(result)


STUDY = CalibrationStudy


def table(found: Sequence[Rates]) -> Table:
    """One line an instrument and dimension, under :data:`COLUMNS`."""
    lines: list[list[Cell]] = []
    for (name, dim), group in groupby(found, lambda r: (r.case.instrument, r.case.dim)):
        some = list(group)
        nulls = [r for r in some if r.truth == 0]
        full = [r for r in some if r.coverage is not None]
        powers = [r for r in some if r.detections is not None]
        alarms = sum(r.alarms for r in nulls), sum(r.case.repeats for r in nulls)
        biases = [bias for r in full if (bias := r.bias) is not None]
        covered = [share(r.coverage or 0, r.case.repeats) for r in full]
        lines.append(
            [
                name,
                dim,
                share(*alarms) if nulls else None,
                max((r.largest for r in nulls), default=None),
                max(biases, key=lambda b: abs(b.value), default=None),
                min(covered, key=_value, default=None),
                max(covered, key=_value, default=None),
                *(
                    min(
                        (share(r.alarms, r.case.repeats) for r in powers if r.case.size == size),
                        key=_value,
                        default=None,
                    )
                    for size in SIZES
                ),
                max((round(r.calls) for r in powers), default=None),
            ]
        )
    return Table(COLUMNS, lines)


def figure(found: Sequence[Rates]) -> bytes:
    """False alarms, coverage and power, one line an instrument, one marker a dimension."""
    names = list(dict.fromkeys(r.case.instrument for r in found))
    looks = plotting.looks(map(str, DIMS))
    sheet = plotting.new_figure(11, 0.42 * len(names) + 1.6)
    axes = sheet.subplots(1, 3, sharey=True)
    panels: tuple[tuple[str, Callable[[Rates], int | None]], ...] = (
        ("false alarms on conservative fields", lambda r: r.alarms if r.truth == 0 else None),
        (f"coverage of the 95 % interval, curl of {SIZE:.0%}", lambda r: r.coverage),
        (
            f"power, curl of {SIZE:.0%}",
            lambda r: r.detections if r.case.size == SIZE else None,
        ),
    )
    for ax, (title, count) in zip(axes, panels, strict=True):
        for rates in found:
            case, k = rates.case, count(rates)
            if k is None:
                continue
            part = share(k, case.repeats)
            low, high = part.interval()
            look = looks[str(case.dim)]
            place = -names.index(case.instrument) - 0.25 * (DIMS.index(case.dim) - 1)
            style = {**look.line(4), "linestyle": "none", "elinewidth": 1, "clip_on": False}
            ax.errorbar(part.value, place, xerr=[[part.value - low], [high - part.value]], **style)
        plotting.label_axes(ax, title=title, grid="y")
    axes[1].axvspan(0.93, 0.97, color=plotting.palette.PALE, linewidth=0, zorder=0)
    axes[0].set_yticks([-float(i) for i in range(len(names))], names)
    for dim, look in looks.items():
        axes[2].plot([], [], label=f"D = {dim}", linestyle="none", **look.line())
    axes[2].legend(fontsize=8, loc="lower left")
    return plotting.png(sheet, dpi=150)


def _value(estimate: Estimate) -> float:
    return estimate.value

"""The calibration as a study: cases in several processes, a table and a figure."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import torch

from scorefield import plotting
from scorefield.errors import ConfigError, hint
from scorefield.estimate import Estimate, proportion
from scorefield.studies.calibrate.instruments import DIMS, INSTRUMENTS
from scorefield.studies.calibrate.measure import SIZE, SIZES, Case, Rates, cases, measure
from scorefield.studies.frame import Study, Table
from scorefield.studies.results import csv_bytes
from scorefield.studies.settings import Calibration
from scorefield.studies.work import Work

COLUMNS = (
    "instrument",
    "D",
    "false alarms",
    "largest on null",
    "bias",
    "coverage",
    *(f"power at {size:.0%}" for size in SIZES),
    "calls",
)


class CalibrationStudy(Study[Calibration, list[Rates]]):
    """The calibration of all diagnostics, or of some."""

    kinds = (Case, Rates, Estimate)

    def __init__(self, settings: Calibration) -> None:
        self.settings = settings
        self.names = list(settings.only or INSTRUMENTS)
        self.about = {}

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
        wanted = cases(self.settings.repeats, self.settings.dims, self.names)
        found = [rates for case in wanted if (rates := work.kept(repr(case))) is not None]
        rest = [case for case in wanted if case not in {rates.case for rates in found}]
        context = multiprocessing.get_context("spawn")
        # Leaving the pool, for whatever reason, ends its processes at once.
        with context.Pool(self.settings.jobs, _prepare_process) as pool:
            for rates in pool.imap_unordered(measure, rest):
                found.append(work.keep(repr(rates.case), rates))
                work.show("calibration", len(found), len(wanted), rates.case.instrument)
                work.report(f"{len(found)} of {len(wanted)}  {rates.case}")
        return sorted(found, key=lambda r: self._order(r.case))

    def files(self, result: list[Rates], work: Work) -> Mapping[str, Callable[[], bytes]]:
        return {
            "calibration.csv": lambda: csv_bytes(rates.row() for rates in result),
            "calibration.png": lambda: figure(result),
        }

    def table(self, result: list[Rates]) -> Table:
        return table(result)

    def _order(self, case: Case) -> tuple[object, ...]:
        place = self.names.index(case.instrument)
        return place, case.dim, case.size, case.shape, case.law, case.lean


STUDY = CalibrationStudy


def table(found: Sequence[Rates]) -> Table:
    """One line an instrument and dimension, under :data:`COLUMNS`.

    False alarms are those on every field of which the right answer is zero. Bias and coverage are
    those of the full setting at a curl of :data:`SIZE`, the worst over data and shapes of the curl.
    """
    lines = []
    for (name, dim), group in groupby(found, lambda r: (r.case.instrument, r.case.dim)):
        some = list(group)
        nulls = [r for r in some if r.truth == 0]
        full = [r for r in some if r.coverage is not None]
        powers = [r for r in some if r.detections is not None]
        alarms = f"{sum(r.alarms for r in nulls)} of {sum(r.case.repeats for r in nulls)}"
        lines.append(
            [
                name,
                str(dim),
                alarms if nulls else "",
                f"{max(r.largest for r in nulls):.1e}" if nulls else "",
                _format_bias([b for r in full if (b := r.bias) is not None]),
                _format_coverage([(r.coverage or 0) / r.case.repeats for r in full]),
                *(
                    _format_power([r.alarms / r.case.repeats for r in powers if r.case.size == s])
                    for s in SIZES
                ),
                f"{max(r.calls for r in powers):.0f}" if powers else "",
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
            share, low, high = proportion(k, case.repeats)
            look = looks[str(case.dim)]
            ax.errorbar(
                share,
                -names.index(case.instrument) - 0.25 * (DIMS.index(case.dim) - 1),
                xerr=[[share - low], [high - share]],
                fmt=look.marker,
                color=look.colour,
                markersize=4,
                linewidth=1,
                clip_on=False,
            )
        ax.set_title(title, fontsize=9)
        ax.grid(axis="y", alpha=0.3)
        ax.tick_params(labelsize=8)
    axes[1].axvspan(0.93, 0.97, color=plotting.palette.PALE, linewidth=0, zorder=0)
    axes[0].set_yticks([-float(i) for i in range(len(names))], names)
    for dim, look in looks.items():
        axes[2].plot([], [], look.marker, color=look.colour, label=f"D = {dim}", markersize=5)
    axes[2].legend(fontsize=8, loc="lower left")
    return plotting.png(sheet, dpi=150)


def _prepare_process() -> None:
    """One thread; an interrupt is left to the process that started this one."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _format_bias(biases: Sequence[Estimate]) -> str:
    if not biases:
        return ""
    worst = max(biases, key=lambda b: abs(b.value))
    if abs(worst.value) < 1e-8:
        return "exact"
    return f"{100 * worst.value:+.2f} ± {100 * worst.standard_error:.2f} %"


def _format_coverage(shares: Sequence[float]) -> str:
    if not shares:
        return ""
    low, high = min(shares), max(shares)
    return f"{100 * low:.1f} %" if low == high else f"{100 * low:.1f} to {100 * high:.1f} %"


def _format_power(shares: Sequence[float]) -> str:
    return f"{100 * min(shares):.0f} %" if shares else ""

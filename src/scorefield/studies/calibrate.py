"""The calibration as a command: it asks, prints a table, and writes a file and a picture."""

from __future__ import annotations

import io
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scorefield.errors import ConfigError, hint
from scorefield.files import write_file
from scorefield.progress import Stages
from scorefield.runs.cells import csv_text
from scorefield.studies.calibration import (
    DIMS,
    SIZE,
    SIZES,
    Answer,
    Question,
    ask,
    proportion,
    questions,
)
from scorefield.studies.instruments import INSTRUMENTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE, PICTURE = "calibration.csv", "calibration.png"

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


def named(option: str, text: str | None) -> list[str]:
    """The instruments of a list such as ``loops;path gap``; all of them if there is none.

    Raises:
        ConfigError: If there is none of such a name; tells the nearest.
    """
    names = list(INSTRUMENTS) if text is None else [name.strip() for name in text.split(";")]
    for name in names:
        if name not in INSTRUMENTS:
            raise ConfigError(f"{option} has {name!r}; {hint(name, INSTRUMENTS, 'all')}")
    return names


def calibrate(
    repeats: int,
    out: Path,
    dims: Sequence[int] = DIMS,
    names: Sequence[str] = tuple(INSTRUMENTS),
    jobs: int = 2,
) -> list[Answer]:
    """Asks everything, in processes of one thread each, and writes table and picture.

    The table is written anew after each answer: an interrupt loses none.

    Arguments:
        repeats: The number of repetitions behind each coverage.
        out: The folder of the table.
        dims: The dimensions.
        names: The instruments.
        jobs: How many processes work at the same time.

    Raises:
        ConfigError: If there are no instruments for a dimension.
        OSError: If a file cannot be written.
    """
    if unknown := [dim for dim in dims if dim not in DIMS]:
        raise ConfigError(
            f"instruments are calibrated in 2, 64 and 784 dimensions, not {unknown[0]}"
        )
    out.mkdir(parents=True, exist_ok=True)
    asked = questions(repeats, dims, names)
    answers: list[Answer] = []
    context = multiprocessing.get_context("spawn")
    # Leaving the pool, for whatever reason, ends its processes at once.
    with Stages() as stages, context.Pool(jobs, _begin) as pool:
        for answer in pool.imap_unordered(ask, asked):
            answers.append(answer)
            answers.sort(key=lambda a: _place(a.question, names))
            write_file(out / TABLE, csv_text([a.row() for a in answers]))
            stages.show("calibration", len(answers), len(asked), answer.question.instrument)
            stages.say(f"{len(answers)} of {len(asked)}  {_told(answer.question)}")
    write_file(out / PICTURE, picture(answers))
    return answers


def table(answers: Sequence[Answer]) -> list[list[str]]:
    """One line an instrument and dimension; the columns are :data:`COLUMNS`.

    False alarms are those on every field of which the right answer is zero. Bias and coverage are
    those of the full setting at a curl of :data:`SIZE`, the worst over laws and shapes of the curl.
    """
    lines = []
    for (name, dim), group in groupby(answers, lambda a: (a.question.instrument, a.question.dim)):
        found = list(group)
        nulls = [a for a in found if a.truth == 0]
        true = [a for a in found if _held(a) is not None]
        powers = [a for a in found if _power(a)]
        lines.append(
            [
                name,
                str(dim),
                _alarms(nulls),
                f"{max(a.largest for a in nulls):.1e}" if nulls else "",
                _bias(true),
                _coverage(true),
                *(_powers([a for a in powers if a.question.size == size]) for size in SIZES),
                f"{max(a.calls for a in powers):.0f}" if powers else "",
            ]
        )
    return lines


def picture(answers: Sequence[Answer]) -> bytes:
    """False alarms, coverage and power, one line an instrument, one mark a dimension."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(a.question.instrument for a in answers))
    figure = Figure(figsize=(11, 0.42 * len(names) + 1.6), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    parts: tuple[tuple[Axes, str, Callable[[Answer], int | None]], ...] = (
        (axes[0], "false alarms on conservative fields", _null_alarms),
        (axes[1], f"coverage of the 95 % interval, curl of {SIZE:.0%}", _held),
        (axes[2], f"power, curl of {SIZE:.0%}", _detected),
    )
    marks = {2: ("o", "tab:blue"), 64: ("s", "tab:orange"), 784: ("^", "tab:green")}
    for ax, title, count in parts:
        for answer in answers:
            q, k = answer.question, count(answer)
            if k is None:
                continue
            share, low, high = proportion(k, q.repeats)
            marker, colour = marks[q.dim]
            ax.errorbar(
                share,
                -names.index(q.instrument) - 0.25 * (list(marks).index(q.dim) - 1),
                xerr=[[share - low], [high - share]],
                fmt=marker,
                color=colour,
                markersize=4,
                linewidth=1,
                clip_on=False,
            )
        ax.set_title(title, fontsize=9)
        ax.grid(axis="y", alpha=0.3)
        ax.tick_params(labelsize=8)
    axes[1].axvspan(0.93, 0.97, color="tab:gray", alpha=0.25, linewidth=0)
    axes[0].set_yticks([-float(i) for i in range(len(names))], names)
    for dim, (marker, colour) in marks.items():
        axes[2].plot([], [], marker, color=colour, label=f"D = {dim}", markersize=5)
    axes[2].legend(fontsize=8, loc="lower left")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def _begin() -> None:
    """Readies a process: one thread; an interrupt is left to the one that started it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _place(q: Question, names: Sequence[str]) -> tuple[object, ...]:
    return names.index(q.instrument), q.dim, q.size, q.shape, q.law, q.lean


def _told(q: Question) -> str:
    curl = "no curl" if q.shape == "none" else f"curl of {q.size:.0%}, {q.shape}"
    return f"{q.instrument}, D = {q.dim}, {q.law}, {curl}, {q.repeats} repeats"


def _power(a: Answer) -> bool:
    """Whether an answer is there for the power: on the Gaussian, by the lean setting if any, of an
    instrument that has something to find.
    """
    q, instrument = a.question, INSTRUMENTS[a.question.instrument]
    chosen = q.lean or instrument.lean is None
    return q.shape != "none" and q.law == "gaussian" and instrument.detects and chosen


def _null_alarms(a: Answer) -> int | None:
    return a.alarms if a.truth == 0 else None


def _held(a: Answer) -> int | None:
    q = a.question
    return a.covered if q.size == SIZE and not q.lean else None


def _detected(a: Answer) -> int | None:
    return a.alarms if _power(a) and a.question.size == SIZE else None


def _alarms(nulls: Sequence[Answer]) -> str:
    if not nulls:
        return ""
    return f"{sum(a.alarms for a in nulls)} of {sum(a.question.repeats for a in nulls)}"


def _bias(found: Sequence[Answer]) -> str:
    biases = [b for a in found if (b := a.bias) is not None]
    if not biases:
        return ""
    worst = max(biases, key=lambda b: abs(b.value))
    if abs(worst.value) < 1e-8:
        return "exact"
    return f"{100 * worst.value:+.2f} ± {100 * worst.standard_error:.2f} %"


def _coverage(found: Sequence[Answer]) -> str:
    if not found:
        return ""
    shares = [a.covered / a.question.repeats for a in found if a.covered is not None]
    low, high = min(shares), max(shares)
    return f"{100 * low:.1f} %" if low == high else f"{100 * low:.1f} to {100 * high:.1f} %"


def _powers(found: Sequence[Answer]) -> str:
    if not found:
        return ""
    return f"{100 * min(a.alarms / a.question.repeats for a in found):.0f} %"

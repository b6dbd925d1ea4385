"""Curves: diagnostics by noise level, and the course of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scorefield.diagnostics.protocol import Profile
from scorefield.errors import UserError
from scorefield.evaluation.catalogue import find
from scorefield.evaluation.records import Evaluation
from scorefield.plot.models import labels_of, paths_of
from scorefield.plotting.axes import label_axes, legend, noise_profile
from scorefield.plotting.palette import looks
from scorefield.plotting.png import new_figure
from scorefield.training.record import Row, read_rows
from scorefield.training.result import Fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def profile(
    profiles: Profile | Mapping[str, Profile] | str | Path | Sequence[str | Path],
    metric: str = "relative_asymmetry",
) -> Figure:
    """Draw diagnostics by noise level, with 95 % intervals. What is not distinguishable from zero
    is a hollow triangle at the bottom.

    Arguments:
        profiles: What a diagnostic returned, or several of one diagnostic by label; or the folders
            of evaluated runs.
        metric: The diagnostic that is read from the evaluations of runs.

    Raises:
        ValueError: If the profiles are of several diagnostics, or an evaluation has no such one.
        RunError: If a folder has no evaluation.
    """
    if isinstance(profiles, Profile):
        profiles = {"": profiles}
    if isinstance(profiles, Mapping):
        names = {p.name for p in profiles.values()}
        if len(names) != 1:
            raise UserError(f"one diagnostic is drawn at a time, got {', '.join(sorted(names))}")
        lines = {label: list(p) for label, p in profiles.items()}
        metric = names.pop()
    else:
        lines = {}
        paths = paths_of(profiles)
        for label, path in zip(labels_of(paths), paths, strict=True):
            found = Evaluation.read(path)
            lines[label] = [(v.sigma, v.estimate) for v in found.profile(metric)]
    lines = {label: line for label, line in lines.items() if line}
    if not lines:
        raise UserError(f"there is no {metric} in these evaluations")
    descriptor, look = find(metric), looks(lines)
    figure = new_figure(5.5, 3.6)
    axes = figure.add_subplot()
    unit = next(iter(lines.values()))[0][1].unit
    title = metric if descriptor is None else descriptor.title
    label_axes(axes, "noise level σ", unit or "a pure number", title)
    ends = [e.interval() for line in lines.values() for _, e in line]
    seen = [low for low, _ in ends if low > 0] or [high for _, high in ends if high > 0]
    axes.set(xscale="log", yscale="log")
    if seen:
        axes.set_ylim(min(seen) / 10, 2 * max(high for _, high in ends))
    for label, line in lines.items():
        noise_profile(axes, [s for s, _ in line], [e for _, e in line], look[label], label)
    if any(lines):
        legend(axes, look, "not distinguishable from 0", fontsize=8)
    return figure


def training(
    runs: Fit | Mapping[str, Fit] | str | Path | Sequence[str | Path], term: str = "loss"
) -> Figure:
    """Draw the course of trainings.

    Arguments:
        runs: What :func:`~scorefield.training.fitting.fit` returned, or several by label; or the
            folders of runs.
        term: The column of the metrics: ``loss``, a term of it, ``grad_norm`` or ``lr``.

    Raises:
        ValueError: If there is no such column.
        RunError: If a folder has no metrics.
    """
    if isinstance(runs, Fit):
        runs = {"": runs}
    histories: dict[str, Sequence[Row]] = {}
    if isinstance(runs, Mapping):
        histories = {label: fit.history for label, fit in runs.items()}
    else:
        paths = paths_of(runs)
        for label, path in zip(labels_of(paths), paths, strict=True):
            file = path / "metrics.csv"
            if not file.is_file():
                raise UserError(f"{path} is no folder of a run: it has no metrics.csv")
            histories[label] = read_rows(file)
    look = looks(histories)
    figure = new_figure(5.5, 3.6)
    axes = figure.add_subplot()
    for label, rows in histories.items():
        found = [(row["step"], float(row[term])) for row in rows if row.get(term) is not None]
        if not found:
            there = sorted({key for row in rows for key in row} - {"step", "images"})
            raise UserError(
                f"a training has no column {term!r}, its columns are {', '.join(there)}"
            )
        axes.plot(*zip(*found, strict=True), color=look[label].colour, linewidth=1.3, label=label)
    label_axes(axes, "step", term.replace("_", " "), yscale="log" if term == "loss" else "linear")
    if any(histories):
        axes.legend(frameon=False, fontsize=8)
    return figure

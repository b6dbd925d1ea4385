"""Pictures of a comparison of a network with patches of its training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scorefield.diagnostics import ScaleCalibration
from scorefield.estimate import Median
from scorefield.studies.patches import (
    IDEAL,
    LOCAL,
    NETWORK,
    QUANTITIES,
    REAL,
    PatchStudy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which keep apart under the common colour blindnesses.
_COLOURS = {NETWORK: "#009E73", LOCAL: "#0072B2", IDEAL: "#D55E00", REAL: "#333333"}
_MARKS = {NETWORK: "s", LOCAL: "o", IDEAL: "^", REAL: "D"}
_SHOWN = 10
_FLOOR = -0.5
"""Where the axis of r² ends; what lies below is marked there."""


def sizes_picture(found: PatchStudy) -> Figure:
    """The sizes by noise level, and the curves that they are the minima of."""
    from matplotlib.figure import Figure

    c = found.calibration
    figure = Figure(figsize=(12.5, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    best = c.best
    for level, sigma in enumerate(c.sigmas):
        for size in np.unique(best[:, level]):
            share = float((best[:, level] == size).mean())
            left.scatter(sigma, size, s=160 * share, color="0.8", linewidths=0, zorder=1)
    left.scatter([], [], s=160, color="0.8", linewidths=0, label="all samples")
    left.scatter([], [], s=40, color="0.8", linewidths=0, label="a quarter of them")
    lines = {"median": ("#0072B2", "o-"), "mode": ("#E69F00", "x:"), "monotone": ("#D55E00", "--")}
    for name, (colour, style) in lines.items():
        sizes = getattr(c, name).sizes
        chosen = name == found.plan.choice
        label = f"{name}, which the machine is given" if chosen else name
        width = 2.2 if chosen else 1.2
        left.plot(c.sigmas, sizes, style, color=colour, linewidth=width, markersize=5, label=label)
    left.set_xscale("log")
    left.set_yticks(c.sizes)
    left.set_ylim(c.sizes[0] - 1, c.sizes[-1] + 1)
    left.set_xlabel("noise level σ/α, in units of the data")
    left.set_ylabel("best patch size, in pixels")
    left.set_title(f"Patch size most like the network, {best.shape[0]} samples", fontsize=10)
    left.legend(fontsize=8, loc="lower right")
    left.grid(alpha=0.25)
    _curves(right, c)
    return figure


def agreement_picture(found: PatchStudy) -> Figure:
    """Medians of r and of r² by noise level with their intervals, for score and denoiser."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.4), layout="constrained")
    panels = figure.subplots(2, len(QUANTITIES), sharex=True, sharey="row")
    for column, quantity in enumerate(QUANTITIES):
        for name in (LOCAL, IDEAL):
            levels = found.levels[name, quantity]
            _course(panels[0, column], found, name, [a.median_correlation for a in levels])
            _course(panels[1, column], found, name, [a.median_determination for a in levels])
        panels[0, column].set_title(
            f"{quantity}s of network and model, pixel by pixel", fontsize=10
        )
        panels[1, column].set_xlabel("noise level σ/α, in units of the data")
    panels[0, 0].set_ylabel("correlation r")
    panels[1, 0].set_ylabel("determination r² = 1 − residual / total")
    for axes in panels[1]:
        axes.set_ylim(max(_FLOOR, axes.get_ylim()[0]), 1.05)
    panels[0, 0].legend(fontsize=9, loc="best")
    n = len(found.finals[LOCAL])
    interval = f"{100 * found.finals[LOCAL].median_correlation.confidence:.3g} % intervals"
    title = f"Agreement with the network along its own trajectories: medians of {n} samples"
    figure.suptitle(f"{title}, {interval}", fontsize=11)
    return figure


def scatter_picture(found: PatchStudy) -> Figure:
    """Each sample's agreement with the local machine against that with the ideal score."""
    from matplotlib.figure import Figure

    local, ideal = found.finals[LOCAL], found.finals[IDEAL]
    figure = Figure(figsize=(9.4, 4.9), layout="constrained")
    parts = (
        ("correlation r", ideal.correlation, local.correlation),
        ("determination r²", ideal.determination, local.determination),
    )
    for axes, (name, x, y) in zip(figure.subplots(1, 2), parts, strict=True):
        low = min(0.9, float(np.min([x, y]))) - 0.05
        axes.plot([low, 1], [low, 1], color="0.6", linewidth=1, zorder=0)
        axes.scatter(x, y, s=26, color=_COLOURS[LOCAL], alpha=0.75, linewidths=0)
        middle = float(np.median(x)), float(np.median(y))
        axes.plot(*middle, "+", color="black", markersize=13, markeredgewidth=1.6)
        axes.annotate("medians", middle, (7, -13), textcoords="offset points", fontsize=8)
        axes.set_xlim(low, 1.02)
        axes.set_ylim(low, 1.02)
        axes.set_aspect("equal")
        axes.set_xlabel(f"{name}, network and ideal score")
        axes.set_ylabel(f"{name}, network and local machine")
        axes.grid(alpha=0.25)
    wins = local.beats(ideal)
    figure.suptitle(
        f"Final images of the same starting noise: for {wins} of {len(local)} the local machine is "
        "nearer to the network",
        fontsize=11,
    )
    return figure


def images_picture(found: PatchStudy) -> Figure:
    """The final images of network, local machine and ideal score, one column a starting noise."""
    from matplotlib.figure import Figure

    n = min(_SHOWN, len(found.finals[LOCAL]))
    figure = Figure(figsize=(max(6.5, 1.1 * n + 1.3), 4.2), layout="constrained")
    panels = figure.subplots(3, n, squeeze=False)
    for row, name in zip(panels, (NETWORK, LOCAL, IDEAL), strict=True):
        pixels = found.images[name][:n].double().cpu().add(1).div(2).clamp(0, 1)
        for k, axes in enumerate(row):
            image = pixels[k].permute(1, 2, 0).numpy().squeeze()
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if name != NETWORK:
                axes.set_xlabel(f"r = {found.finals[name].correlation[k]:.2f}", fontsize=8)
        row[0].set_ylabel(name, fontsize=10)
    title = "Images from the same starting noise, and their correlation with the network's"
    figure.suptitle(title, fontsize=11)
    return figure


def statistics_picture(found: PatchStudy) -> Figure:
    """How far patches are from the training set by their size, and spectra."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, by_size in found.distances.items():
        estimates = list(by_size.values())
        left.errorbar(
            list(by_size),
            [e.value for e in estimates],
            yerr=[1.96 * e.standard_error for e in estimates],
            color=_COLOURS[name],
            marker=_MARKS[name],
            markersize=5,
            capsize=3,
            label=name,
        )
    left.set_ylim(bottom=0)
    left.set_xticks(list(found.distances[NETWORK]))
    left.set_xlabel("patch size, in pixels")
    left.set_ylabel("distance to the nearest training patch,\nroot mean square a pixel")
    left.legend(fontsize=8)
    for name, spectrum in found.spectra.items():
        power = [e.value for e in spectrum.estimates()]
        right.plot(
            spectrum.frequency[1:].numpy(),
            power[1:],
            color=_COLOURS[name],
            marker=_MARKS[name],
            markersize=3.5,
            linewidth=1.2,
            label=name,
        )
    right.set_yscale("log")
    right.set_xlabel("frequency, in cycles per pixel")
    right.set_ylabel("mean power of a Fourier mode")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    return figure


def _curves(axes: Axes, calibration: ScaleCalibration) -> None:
    """How unlike the network machines are, by size, one line a noise level."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    scale = ScalarMappable(LogNorm(calibration.sigmas[0], calibration.sigmas[-1]), "viridis")
    colours = scale.to_rgba(np.array(calibration.sigmas))
    for level in range(len(calibration.sigmas)):
        curve = calibration.curve(level)
        values = [pair[0 if calibration.by == "cosine" else 1] for pair in curve.values()]
        axes.errorbar(
            list(curve),
            [e.value for e in values],
            yerr=[e.standard_error for e in values],
            color=colours[level],
            marker=".",
            linewidth=1,
        )
    axes.figure.colorbar(scale, ax=axes, label="noise level σ/α")
    axes.set_yscale("log")
    axes.set_xticks(calibration.sizes)
    axes.set_xlabel("patch size, in pixels")
    names = {"cosine": "1 − cosine of the scores", "l2": "difference of the scores, times σ"}
    axes.set_ylabel(names[calibration.by])
    axes.set_title("Means over samples with standard errors", fontsize=10)
    axes.grid(alpha=0.25)


def _course(axes: Axes, found: PatchStudy, name: str, medians: list[Median]) -> None:
    colour, x = _COLOURS[name], found.sigmas
    values = np.array([m.value for m in medians])
    label = f"{name} and network"
    axes.plot(x, values, _MARKS[name] + "-", color=colour, markersize=4, label=label)
    low, high = [m.low for m in medians], [m.high for m in medians]
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    below = values < _FLOOR
    if below.any():
        places = np.asarray(x)[below]
        axes.plot(places, np.full(len(places), _FLOOR), "v", color=colour, clip_on=False)
    axes.set_xscale("log")
    axes.grid(alpha=0.25)

"""The comparison of a network with patches as a study: tables, arrays and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield import plotting
from scorefield.diagnostics import Agreement, ScaleCalibration
from scorefield.estimate import Median
from scorefield.plotting.palette import EXACT, GUIDE, INK, PALE, SEQUENTIAL
from scorefield.studies.frame import (
    Study,
    Table,
    Work,
    csv_bytes,
    fingerprint,
    json_bytes,
    npz_bytes,
)
from scorefield.studies.networks import (
    class_of,
    open_networks,
    padding_of,
    read_images,
    reverse_process,
    scales_json,
    with_process,
)
from scorefield.studies.patches.compute import (
    IDEAL,
    LOCAL,
    NETWORK,
    PARTS,
    QUANTITIES,
    REAL,
    Comparison,
    Subjects,
    compare,
)
from scorefield.studies.settings import Patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS = {**plotting.looks((LOCAL, IDEAL, NETWORK)), REAL: EXACT}
_CHOICES = plotting.looks(("median", "mode", "monotone"))
_SHOWN = 10
_FLOOR = -0.5
"""Where the axis of r² ends; what is below is marked there."""
_LEVEL = "noise level σ/α, in units of the data"


def sizes(found: Comparison) -> bytes:
    """The sizes by noise level, and the curves that they are the minima of."""
    c = found.calibration
    sheet = plotting.new_figure(12.5, 4.8)
    left, right = sheet.subplots(1, 2)
    for level, sigma in enumerate(c.sigmas):
        for size, count in zip(*np.unique(c.best[:, level], return_counts=True), strict=True):
            share = count / len(c.best)
            left.scatter(sigma, size, s=160 * share, color=PALE, linewidths=0, zorder=1)
    left.scatter([], [], s=160, color=PALE, linewidths=0, label="all samples")
    left.scatter([], [], s=40, color=PALE, linewidths=0, label="a quarter of them")
    for name, look in _CHOICES.items():
        chosen = name == found.choice
        label = f"{name}, which the local score is given" if chosen else name
        style = {"color": look.colour, "marker": look.marker, "markersize": 5}
        width = 2.2 if chosen else 1.0
        left.plot(c.sigmas, getattr(c, name).sizes, linewidth=width, label=label, **style)
    left.set_xscale("log")
    left.set_yticks(c.sizes)
    left.set_ylim(c.sizes[0] - 1, c.sizes[-1] + 1)
    left.set_xlabel(_LEVEL)
    left.set_ylabel("best patch size, in pixels")
    left.set_title(f"Patch size most like the network, {len(c.best)} samples", fontsize=10)
    left.legend(fontsize=8, loc="lower right")
    left.grid(alpha=0.25)
    _draw_losses(right, c)
    return plotting.png(sheet)


def agreement(found: Comparison) -> bytes:
    """Medians of r and of r² by noise level with their intervals, for score and denoiser."""
    sheet = plotting.new_figure(11, 7.4)
    panels = sheet.subplots(2, len(QUANTITIES), sharex=True, sharey="row")
    for column, quantity in enumerate(QUANTITIES):
        for name in (LOCAL, IDEAL):
            levels = found.levels[name, quantity]
            _draw_medians(panels[0, column], found, name, [a.median_correlation for a in levels])
            _draw_medians(panels[1, column], found, name, [a.median_determination for a in levels])
        title = f"{quantity}s of network and model, pixel by pixel"
        panels[0, column].set_title(title, fontsize=10)
        panels[1, column].set_xlabel(_LEVEL)
    panels[0, 0].set_ylabel("correlation r")
    panels[1, 0].set_ylabel("determination r² = 1 − residual / total")
    for axes in panels[1]:
        axes.set_ylim(max(_FLOOR, axes.get_ylim()[0]), 1.05)
    panels[0, 0].legend(fontsize=9, loc="best")
    n = len(found.finals[LOCAL])
    interval = f"{100 * found.finals[LOCAL].median_correlation.confidence:.3g} % intervals"
    title = f"Agreement with the network along its own trajectories: medians of {n} samples"
    sheet.suptitle(f"{title}, {interval}", fontsize=11)
    return plotting.png(sheet)


def scatter(found: Comparison) -> bytes:
    """Each sample's agreement with the local score against that with the ideal score."""
    local, ideal = found.finals[LOCAL], found.finals[IDEAL]
    sheet = plotting.new_figure(9.4, 4.9)
    measures = (
        ("correlation r", ideal.correlation, local.correlation),
        ("determination r²", ideal.determination, local.determination),
    )
    for axes, (name, x, y) in zip(sheet.subplots(1, 2), measures, strict=True):
        low = min(0.9, float(np.min([x, y]))) - 0.05
        axes.plot([low, 1], [low, 1], color=GUIDE, linewidth=1, zorder=0)
        axes.scatter(x, y, s=26, color=_LOOKS[LOCAL].colour, alpha=0.75, linewidths=0)
        middle = float(np.median(x)), float(np.median(y))
        axes.plot(*middle, "+", color=INK, markersize=13, markeredgewidth=1.6)
        axes.annotate("medians", middle, (7, -13), textcoords="offset points", fontsize=8)
        axes.set_xlim(low, 1.02)
        axes.set_ylim(low, 1.02)
        axes.set_aspect("equal")
        axes.set_xlabel(f"{name}, network and ideal score")
        axes.set_ylabel(f"{name}, network and local score")
        axes.grid(alpha=0.25)
    wins = f"for {local.beats(ideal)} of {len(local)} the local score is nearer to the network"
    sheet.suptitle(f"Final images of the same starting noise: {wins}", fontsize=11)
    return plotting.png(sheet)


def images(found: Comparison) -> bytes:
    """The final images of network, local score and ideal score, one column a starting noise."""
    n = min(_SHOWN, len(found.finals[LOCAL]))
    sheet = plotting.new_figure(max(6.5, 1.1 * n + 1.3), 4.2)
    panels = sheet.subplots(3, n, squeeze=False)
    for row, name in zip(panels, (NETWORK, LOCAL, IDEAL), strict=True):
        for k, axes in enumerate(row):
            plotting.show_image(axes, found.images[name][k])
            if name != NETWORK:
                axes.set_xlabel(f"r = {found.finals[name].correlation[k]:.2f}", fontsize=8)
        row[0].set_ylabel(name, fontsize=10)
    title = "Images from the same starting noise, and their correlation with the network's"
    sheet.suptitle(title, fontsize=11)
    return plotting.png(sheet)


def statistics(found: Comparison) -> bytes:
    """How far patches are from the training set by their size, and spectra."""
    sheet = plotting.new_figure(10.5, 4.4)
    left, right = sheet.subplots(1, 2)
    for name, by_size in found.distances.items():
        value = [e.value for e in by_size.values()]
        error = [1.96 * e.standard_error for e in by_size.values()]
        style = {"color": _LOOKS[name].colour, "marker": _LOOKS[name].marker, "label": name}
        left.errorbar(list(by_size), value, yerr=error, markersize=5, capsize=3, **style)
        spectrum = found.spectra[name]
        power = [e.value for e in spectrum.estimates()]
        frequency = spectrum.frequency.numpy()
        right.plot(frequency[1:], power[1:], markersize=3.5, linewidth=1.2, **style)
    left.set_ylim(bottom=0)
    left.set_xticks(list(found.distances[NETWORK]))
    left.set_xlabel("patch size, in pixels")
    left.set_ylabel("distance to the nearest training patch,\nroot mean square a pixel")
    left.legend(fontsize=8)
    right.set_yscale("log")
    right.set_xlabel("frequency, in cycles per pixel")
    right.set_ylabel("mean power of a Fourier mode")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    return plotting.png(sheet)


def _draw_losses(axes: Axes, calibration: ScaleCalibration) -> None:
    """How unlike the network local scores are, by size, one line a noise level."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    scale = ScalarMappable(LogNorm(calibration.sigmas[0], calibration.sigmas[-1]), SEQUENTIAL)
    colours = scale.to_rgba(np.array(calibration.sigmas))
    for level, colour in enumerate(colours):
        curve = calibration.curve(level)
        losses = [pair[0 if calibration.by == "cosine" else 1] for pair in curve.values()]
        value, error = zip(*((e.value, e.standard_error) for e in losses), strict=True)
        axes.errorbar(list(curve), value, yerr=error, color=colour, marker=".", linewidth=1)
    axes.figure.colorbar(scale, ax=axes, label="noise level σ/α")
    axes.set_yscale("log")
    axes.set_xticks(calibration.sizes)
    axes.set_xlabel("patch size, in pixels")
    names = {"cosine": "1 − cosine of the scores", "l2": "difference of the scores, times σ"}
    axes.set_ylabel(names[calibration.by])
    axes.set_title("Means over samples with standard errors", fontsize=10)
    axes.grid(alpha=0.25)


def _draw_medians(axes: Axes, found: Comparison, name: str, medians: list[Median]) -> None:
    look, x = _LOOKS[name], np.asarray(found.sigmas)
    values = np.array([m.value for m in medians])
    style = {"color": look.colour, "marker": look.marker, "markersize": 4}
    axes.plot(x, values, label=f"{name} and network", **style)  # type: ignore[arg-type]
    low, high = [m.low for m in medians], [m.high for m in medians]
    axes.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)
    below = x[values < _FLOOR]
    if len(below):  # nothing, unclipped, would extend the figure to its corner
        axes.plot(below, np.full(len(below), _FLOOR), "v", color=look.colour, clip_on=False)
    axes.set_xscale("log")
    axes.grid(alpha=0.25)


HEADINGS = ("model", "median r (interval)", "median r² (interval)", "better than the ideal score")


class PatchesStudy(Study[Patches, Comparison]):
    """A network and the local score that is most like it."""

    kinds = PARTS

    def __init__(self, settings: Patches, subjects: Subjects) -> None:
        self.settings = settings
        self.subjects = subjects
        self.about = {**subjects.about, "fingerprint": fingerprint(subjects.network)}

    @classmethod
    def open(cls, settings: Patches) -> PatchesStudy:
        # Windows that end at the border are those of a closed form only; its points are tori.
        seen = "circular" if settings.padding == "valid" else settings.padding
        networks = open_networks(
            settings.dataset,
            {"--network": settings.network},
            settings.label,
            seen,
            settings.trust_code,
        )
        network, label = networks["--network"], settings.label
        images = read_images(settings.dataset, settings.data_path, settings.images, networks)
        train = images.images if label is None else class_of(images, label)
        sde, sampler = reverse_process(network.field.sde, settings.nsteps)
        about = {
            "dataset": settings.dataset,
            "images": len(train),
            "steps": settings.nsteps,
            "label": label,
            **network.about,
        }
        held_out = images.held_out(settings.samples)
        field = with_process(network.field, sde)
        padding = padding_of(networks)
        return cls(settings, Subjects(field, train, held_out, sampler, padding, about))

    def compute(self, work: Work) -> Comparison:
        return compare(self.subjects, self.settings, work)

    def files(self, result: Comparison, work: Work) -> Mapping[str, Callable[[], bytes]]:
        return {
            "scales.json": lambda: scales_json(result.calibration, result.choice, result.about),
            "calibration.csv": lambda: csv_bytes(result.calibration.rows()),
            "agreement.csv": lambda: csv_bytes(result.rows()),
            "nearest_patches.csv": lambda: csv_bytes(_distance_rows(result)),
            "spectra.csv": lambda: csv_bytes(_spectrum_rows(result)),
            "summary.json": lambda: json_bytes(result.summary()),
            "sizes.png": lambda: sizes(result),
            "agreement.png": lambda: agreement(result),
            "scatter.png": lambda: scatter(result),
            "images.png": lambda: images(result),
            "patch_statistics.png": lambda: statistics(result),
            "agreement.npz": lambda: npz_bytes(_arrays(result)),
        }

    def table(self, result: Comparison) -> Table:
        """The agreement of final images, one line a model, under :data:`HEADINGS`."""
        local, ideal = result.finals[LOCAL], result.finals[IDEAL]
        wins = f"{local.beats(ideal)} of {len(local)}"
        rows = [
            [name, str(a.median_correlation), str(a.median_determination), wins * (name == LOCAL)]
            for name, a in result.finals.items()
        ]
        return Table(HEADINGS, rows)


STUDY = PatchesStudy


def _arrays(found: Comparison) -> dict[str, Any]:
    """Everything behind the medians."""
    arrays: dict[str, Any] = {"sigmas": np.array(found.sigmas)}
    agreements: dict[str, tuple[Agreement, ...]] = {
        f"{name}/{quantity}": levels for (name, quantity), levels in found.levels.items()
    }
    agreements |= {f"{name}/final image": (final,) for name, final in found.finals.items()}
    for name, some in agreements.items():
        arrays[f"{name}/r"] = np.stack([a.correlation for a in some])
        arrays[f"{name}/r2"] = np.stack([a.determination for a in some])
    return arrays | {f"{name}/images": x.cpu().numpy() for name, x in found.images.items()}


def _distance_rows(found: Comparison) -> list[dict[str, Any]]:
    return [
        {"images": name, "size": size, "distance": e.value, "distance_se": e.standard_error}
        for name, by_size in found.distances.items()
        for size, e in by_size.items()
    ]


def _spectrum_rows(found: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "images": name,
            "frequency": float(spectrum.frequency[k]),
            "modes": int(spectrum.modes[k]),
            "power": e.value,
            "power_se": e.standard_error,
        }
        for name, spectrum in found.spectra.items()
        for k, e in enumerate(spectrum.estimates())
    ]

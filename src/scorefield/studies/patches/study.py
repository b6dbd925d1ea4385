"""The comparison of a network with patches as a study: tables, arrays and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield import plotting
from scorefield.diagnostics.scales import ScaleCalibration
from scorefield.diagnostics.trajectories import Agreement
from scorefield.fields.base import ScoreField
from scorefield.median import Median
from scorefield.plotting.palette import EXACT, GUIDE, INK, PALE, SEQUENTIAL
from scorefield.studies.frame import (
    Cell,
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
    left.scatter([], [], s=40, color=PALE, linewidths=0, label="a quarter of the samples")
    for name, look in _CHOICES.items():
        chosen = name == found.choice
        label = f"{name} (used by the local score)" if chosen else name
        width = 2.2 if chosen else 1.0
        left.plot(c.sigmas, getattr(c, name).sizes, linewidth=width, label=label, **look.line())
    title = f"Patch size that agrees best with the network, {len(c.best)} samples"
    limits: dict[str, Any] = {"yticks": c.sizes, "ylim": (c.sizes[0] - 1, c.sizes[-1] + 1)}
    label = "best patch size, in pixels"
    plotting.label_axes(left, _LEVEL, label, title, xscale="log", **limits)
    left.legend(fontsize=8, loc="lower right")
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
        first = column == 0
        title = f"{quantity}s of network and model, pixel by pixel"
        plotting.label_axes(panels[0, column], "", "correlation r" * first, title, xscale="log")
        label = "determination r² = 1 − residual / total" * first
        limits = (max(_FLOOR, panels[1, column].get_ylim()[0]), 1.05)
        plotting.label_axes(panels[1, column], _LEVEL, label, xscale="log", ylim=limits)
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
        labels = [f"{name}, network and {model} score" for model in ("ideal", "local")]
        limits: dict[str, Any] = {"xlim": (low, 1.02), "ylim": (low, 1.02), "aspect": "equal"}
        plotting.label_axes(axes, *labels, **limits)
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
        style = {**_LOOKS[name].line(), "label": name}
        left.errorbar(list(by_size), value, yerr=error, capsize=3, **style)
        spectrum = found.spectra[name]
        power = [e.value for e in spectrum.estimates()]
        frequency = spectrum.frequency.numpy()
        right.plot(frequency[1:], power[1:], linewidth=1.2, **style)
    distance = "distance to the nearest training patch,\nroot mean square a pixel"
    limits: dict[str, Any] = {"ylim": (0, None), "xticks": list(found.distances[NETWORK])}
    plotting.label_axes(left, "patch size, in pixels", distance, **limits)
    left.legend(fontsize=8)
    power_label = "mean power of a Fourier mode"
    plotting.label_axes(right, "frequency, in cycles per pixel", power_label, yscale="log")
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
    names = {"cosine": "1 − cosine of the scores", "l2": "difference of the scores, times σ"}
    labels = ("patch size, in pixels", names[calibration.by])
    title, ticks = "Means over samples with standard errors", calibration.sizes
    plotting.label_axes(axes, *labels, title, yscale="log", xticks=ticks)


def _draw_medians(axes: Axes, found: Comparison, name: str, medians: list[Median]) -> None:
    look, x = _LOOKS[name], np.asarray(found.sigmas)
    values = np.array([m.value for m in medians])
    axes.plot(x, values, label=f"{name} and network", **look.line(4))
    low, high = [m.low for m in medians], [m.high for m in medians]
    axes.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)
    below = x[values < _FLOOR]
    if len(below):  # nothing, unclipped, would extend the figure to its corner
        axes.plot(below, np.full(len(below), _FLOOR), "v", color=look.colour, clip_on=False)


HEADINGS = ("model", "median r (interval)", "median r² (interval)", "better than the ideal score")


class PatchesStudy(Study[Patches, Comparison]):
    """A network and the local score that is most like it."""

    kinds = (ScaleCalibration, Agreement)

    def __init__(self, settings: Patches, subjects: Subjects) -> None:
        self.settings = settings
        self.subjects = subjects
        self.about = {**subjects.about, "fingerprint": fingerprint(subjects.network)}

    @classmethod
    def open(cls, settings: Patches) -> PatchesStudy:
        # Windows that end at the border are those of a closed form only; its points are tori.
        seen = "circular" if settings.padding == "valid" else settings.padding
        label, runs = settings.label, {"--network": settings.network}
        networks = open_networks(settings.dataset, runs, label, seen, settings.trust_code)
        network = networks["--network"]
        images = read_images(settings.dataset, settings.data, settings.images, networks)
        train = class_of(images, label)
        sde, sampler = reverse_process(network.field.sde, settings.steps)
        about = {
            "dataset": settings.dataset,
            "images": len(train),
            "steps": settings.steps,
            "label": label,
            **network.about,
        }
        held_out = images.held_out(settings.n)
        field = with_process(network.field, sde)
        padding = padding_of(networks)
        return cls(settings, Subjects(field, train, held_out, sampler, padding, about))

    def evaluated(self) -> Iterable[ScoreField]:
        return (self.subjects.network,)

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
        rows: list[list[Cell]] = [
            [name, a.median_correlation, a.median_determination, wins * (name == LOCAL)]
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

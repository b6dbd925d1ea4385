r"""The pictures of a data set, as films: samples over the number of network calls, fields over the
noise level, trajectories over the steps of a sampler.

A film has a panel for each model, and a frame of each panel is shown at a time. Fields of two
coordinates are arrows over a map of their curl; of images, what their denoisers make of the same
noisy images.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield import plotting
from scorefield.comparison.groups import Group
from scorefield.domain import Domain
from scorefield.evaluation.measure import (
    Floors,
    measure_levels,
    measure_samples,
    validate,
)
from scorefield.evaluation.pixels import Pixels, pixels_of
from scorefield.evaluation.protocol import Benchmark, Protocol
from scorefield.fields.base import ScoreField, evaluation_mode
from scorefield.noise import Noise
from scorefield.plotting.palette import EXACT, INK, Look
from scorefield.plotting.planar import (
    density_contours,
    draw_map,
    field_map,
    middle_of,
    reach_of,
    shared_scale,
)
from scorefield.runs.run import Run
from scorefield.samplers.step import SamplerState
from scorefield.targets.base import Target

T = TypeVar("T")

_INCHES, _DPI, _QUALITY = 3.3, 80, 55
_SIDE = 360  # of a sheet of images, in pixels
_LEVELS, _STEPS, _CALLS = 6, 8, 3
_PICTURES = 48  # of a film, but for two frames a model


class Panel(NamedTuple):
    """One place of a film: whose it is, a text for those who cannot see it, a picture a frame."""

    label: str
    alt: str
    frames: list[str]


class Film(NamedTuple):
    """Panels side by side that one slider moves together.

    ``frames`` are the places of the slider in words, ``shown`` the one that it starts at,
    ``scales`` the curl at the ends of the colour scale of each frame, if there is one, and
    ``pixels`` whether a browser enlarges the pixels as they are.
    """

    key: str
    title: str
    caption: str
    frames: list[str]
    shown: int
    panels: list[Panel]
    scales: list[float]
    pixels: bool = False

    def place(self, panel: Panel) -> int:
        """The frame of a panel that is in the page; of real data there is a single one."""
        return min(self.shown, len(panel.frames) - 1)

    def data(self) -> dict[str, Any]:
        """What the page's script needs; nothing in the place of pictures that are in the page."""
        frames = [
            [None if k == self.place(p) else uri for k, uri in enumerate(p.frames)]
            for p in self.panels
        ]
        return {"places": self.frames, "scales": self.scales, "frames": frames}


class Plane:
    """Points by their first two coordinates, over contours of the true density of two."""

    samples, followed, pixels = 1000, 200, False

    def __init__(self, domain: Domain, std: float, truth: Target | None) -> None:
        self.domain, self.std = domain, std
        self.truth = truth if domain.dim == 2 else None
        self.note = "" if truth is None else "Lines are contours of the true density."
        if domain.dim > 2:
            self.note = "The first two coordinates are drawn."

    def draw(self, x: Tensor, colour: str, sigma: float = 0.0) -> str:
        """A scatter; points outside of it are counted."""
        reach = reach_of(self.std, sigma, self.domain)
        figure = plotting.new_figure(_INCHES, _INCHES, layout=None)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        if self.truth is not None:
            density_contours(axes, self.truth, sigma, reach, 161)
        points = x.flatten(1)[:, :2] - middle_of(self.domain)
        outside = plotting.scatter(
            axes, points, reach, colour, 3.0 if len(x) > self.followed else 6.0
        )
        if outside:
            note = f"{outside} of {len(x)} outside"
            axes.text(-0.95 * reach, -0.94 * reach, note, fontsize=9, color=INK)
        axes.set_axis_off()
        return _uri(plotting.webp(figure, _DPI, _QUALITY))

    def fields(self, models: Mapping[str, ScoreField], sigmas: Sequence[float]) -> Film | None:
        """Arrows over the curl, with contours of the true density; on one scale at a level."""
        if self.domain.dim != 2:
            return None
        shown = models if self.truth is None else {"exact field": self.truth, **models}
        drawn: dict[str, list[str]] = {label: [] for label in shown}
        scales = []
        for sigma in sigmas:
            reach = reach_of(self.std, sigma, self.domain)
            maps = {label: field_map(field, sigma, reach) for label, field in shown.items()}
            scales.append(shared_scale([maps[m] for m in models], reach, self.truth, sigma))
            for label, values in maps.items():
                figure = plotting.new_figure(_INCHES, _INCHES, layout=None)
                axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
                draw_map(axes, values, reach, scales[-1])
                if self.truth is not None:
                    density_contours(axes, self.truth, sigma, reach)
                axes.set_axis_off()
                drawn[label].append(_uri(plotting.webp(figure, _DPI, _QUALITY)))
        return Film(
            "fields",
            "Fields and their curl",
            "Arrows lead from a noisy point towards its posterior mean; their lengths grow as the "
            "square root of the displacement. Colour is the curl of the denoiser, a pure number "
            "that vanishes for a gradient. All panels of a noise level share one scale, which ends "
            "at the 99th percentile of the curl over the places with data, in the model with the "
            f"largest. {self.note}".strip(),
            [f"σ = {s:g}" for s in sigmas],
            min(range(len(sigmas)), key=lambda k: abs(math.log(sigmas[k] / (0.4 * self.std)))),
            [Panel(m, f"Vector field of {m} over a map of its curl", drawn[m]) for m in shown],
            scales,
        )


class Sheets:
    """Images in grey or colour, side by side."""

    samples, followed, note, pixels = 64, 16, "", True

    def __init__(self, real: Tensor, how: Pixels) -> None:
        self.real, self.how = real, how

    def draw(self, x: Tensor, colour: str = "", sigma: float = 0.0) -> str:
        """As many images as can be recognised, in a square."""
        columns = min(math.isqrt(len(x)), max(2, _SIDE // (x.shape[-1] * self.how.factor)))
        black = self.how.black
        sheet = plotting.image_grid(self.how.images(x[: columns**2]), columns, black)
        values = sheet.permute(1, 2, 0).sub(black).div(1 - black).clamp(0, 1)
        pixels = values.mul(255).round().byte().numpy()
        if pixels.shape[2] == 1:
            return _uri(plotting.webp(Image.fromarray(pixels.squeeze(2))))
        # The loss is not to be seen in pixels that are enlarged before.
        times = max(1, _SIDE // pixels.shape[1])
        image = Image.fromarray(pixels.repeat(times, 0).repeat(times, 1))
        return _uri(plotting.webp(image, quality=_QUALITY))

    def fields(self, models: Mapping[str, ScoreField], sigmas: Sequence[float]) -> Film:
        """What the denoisers make of the same noisy images."""
        clean = self.real[: self.followed]
        noise = Noise(0).normal("report", clean.shape[1:], torch.arange(len(clean)))
        drawn: dict[str, list[str]] = {"noisy": [], **{label: [] for label in models}}
        for sigma in sigmas:
            drawn["noisy"].append(self.draw(clean + sigma * noise))
            for label, model in models.items():
                t = model.sde.time(torch.tensor(sigma))
                with evaluation_mode(model), torch.no_grad():
                    x = model.sde.perturb(clean, t.expand(len(clean)), noise)
                    drawn[label].append(self.draw(model.denoise(x, t)))
        texts = {label: f"Noisy images denoised by {label}" for label in models}
        texts["noisy"] = "Images with noise"
        return Film(
            "fields",
            "Denoised images",
            "The posterior mean that each model gives for the same noisy images, which no training "
            "has seen.",
            [f"σ = {s:g}" for s in sigmas],
            len(sigmas) // 2,
            [Panel(label, texts[label], some) for label, some in drawn.items()],
            [],
            self.pixels,
        )


def gallery(members: Sequence[Group], look: Mapping[str, Look], trust_code: bool) -> list[Film]:
    """The films of the first seed of each model; none of data that cannot be seen."""
    runs = {g.label: run_of(g, trust_code) for g in members}
    run = next(iter(runs.values()))
    benchmark = Benchmark(run.source(), Protocol.read(members[0].first.protocol))
    models = {g.label: runs[g.label].field("ema", g.first.step) for g in members}
    domain = next(iter(models.values())).domain
    view: Plane | Sheets
    how = pixels_of(benchmark.source, run.config.centered)
    if len(domain.shape) == 3 and (domain.shape[0] in (1, 3) or how.autoencoder is not None):
        view = Sheets(benchmark.real, how)
    elif domain.dim > 1:
        view = Plane(domain, benchmark.source.std, benchmark.truth)
    else:
        return []
    levels = spread(benchmark.protocol.sigmas, frames(_LEVELS, models))
    fields = view.fields(models, levels)
    films = [_samples(models, benchmark, view, look), _paths(models, benchmark, view, look)]
    return films if fields is None else [films[0], fields, films[1]]


def _samples(
    models: Mapping[str, ScoreField],
    benchmark: Benchmark,
    view: Plane | Sheets,
    look: Mapping[str, Look],
) -> Film:
    """Samples at several numbers of network calls, beside real ones."""
    protocol = benchmark.protocol
    n = min(view.samples, protocol.samples)
    samplers = [protocol.method(b) for b in sorted(protocol.nfes)[-frames(_CALLS, models) :]]
    real = Panel("real", f"{n} real samples", [view.draw(benchmark.real[:n], EXACT.colour)])
    panels = [real]
    for label, field in models.items():
        found = (sampler.sample(field, n, protocol.seed).cpu() for sampler in samplers)
        drawn = [view.draw(x, look[label].colour) for x in found]
        panels.append(Panel(label, f"{n} samples of {label}", drawn))
    caption = "Samples of all models start from the same noise." if len(models) > 1 else ""
    calls = [f"{sampler.nfe} network calls" for sampler in samplers]
    caption = f"{caption} {view.note}".strip()
    return Film("samples", "Samples", caption, calls, len(calls) - 1, panels, [], view.pixels)


def _paths(
    models: Mapping[str, ScoreField],
    benchmark: Benchmark,
    view: Plane | Sheets,
    look: Mapping[str, Look],
) -> Film:
    """Samples on their way from noise to data."""
    protocol = benchmark.protocol
    sampler, panels, places = protocol.method(max(protocol.nfes)), [], []
    for label, field in models.items():
        states: list[SamplerState] = []
        sampler.sample(field, view.followed, protocol.seed, callback=states.append)
        chosen = spread([s for s in states if s.block == 0], frames(_STEPS, models))
        places = [f"step {s.step + 1} of {s.steps}, σ = {s.sigma_next:.2g}" for s in chosen]
        drawn = [view.draw(s.x.cpu(), look[label].colour, s.sigma_next) for s in chosen]
        panels.append(Panel(label, f"Samples of {label} on their way from noise to data", drawn))
    caption = (
        f"The states of the sampler at {sampler.nfe} network calls, divided by the mean "
        "coefficient of the process, which keeps the size of the data."
    )
    last = len(places) - 1
    return Film("paths", "Trajectories", caption, places, last, panels, [], view.pixels)


def frames(most: int, models: Mapping[str, ScoreField]) -> int:
    """The number of frames of a film: fewer of many models, so that the page stays small."""
    return max(2, min(most, _PICTURES // len(models)))


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of some items, evenly from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[k] for k in places]


def exact_group(group: Group, trust_code: bool) -> Group | None:
    """The exact field evaluated by the protocol of a group; ``None`` where it is not known."""
    one = group.first
    source = run_of(group, trust_code).source()
    truth = source.truth
    if truth is None:
        return None
    benchmark = Benchmark(source, Protocol.read(one.protocol))
    floors: Floors = {(d.metric, d.features): d.floor for d in one.distances if d.floor is not None}
    exact = replace(
        one,
        distances=measure_samples(truth, benchmark, floors),
        levels=measure_levels(truth, benchmark),
        validation=validate(truth, benchmark),
        about={"label": "exact field"},
        milestones=(),
    )
    return Group(group.dataset, "exact", (exact,))


def run_of(group: Group, trust_code: bool) -> Run:
    """The run of the first seed of a model."""
    assert group.first.folder is not None
    return Run.open(group.first.folder, trust_code)


def _uri(content: bytes) -> str:
    """A picture as an address that holds it."""
    return "data:image/webp;base64," + base64.b64encode(content).decode()

"""The exterior derivative as a study: models that fit each other, arrays, a summary and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from scorefield.diagnostics.trajectories import State, Walk
from scorefield.errors import ConfigError, RunError
from scorefield.estimate import Estimate
from scorefield.fields.base import ScoreField
from scorefield.networks.minimal import MinimalResNet, MinimalUNet
from scorefield.runs.cells import Marked
from scorefield.runs.subject import Subject
from scorefield.samplers.solvers import DDIM
from scorefield.studies.exterior.compute import (
    DDOF,
    LABELS,
    Analysis,
    analyse,
    npz,
    over_steps,
    summary,
    tensors,
)
from scorefield.studies.exterior.figure import figure, figures_of
from scorefield.studies.frame import Cell, Study, Table, Work, fingerprint, json_bytes
from scorefield.studies.networks import (
    class_of,
    closed_form,
    open_networks,
    padding_of,
    read_images,
    read_scales,
    reverse_process,
    with_process,
)
from scorefield.studies.settings import Exterior
from scorefield.targets.windows import PatchSizes

HEADINGS = ("model", "points", "|J - Jᵀ|, mean over steps", "|J - Jᵀ| / 2|J|", "Jacobians")
SINGLE, SEVERAL = "ed_analysis_single", "ed_analysis_aggregated"
"""The beginnings of the names of files, of one start and of several."""

_SIZE = 3


class ExteriorStudy(Study[Exterior, Analysis]):
    """The exterior derivatives of networks and closed forms of one data set."""

    kinds = (Walk, State)

    def __init__(
        self,
        settings: Exterior,
        fields: Mapping[str, ScoreField],
        sampler: DDIM,
        held_out: Tensor | None,
        about: dict[str, Any],
    ) -> None:
        self.settings = settings
        self.fields = {name: fields[name] for name in LABELS if name in fields}
        self.sampler = sampler
        self.held_out = held_out
        weights = {name: fingerprint(field) for name, field in self.fields.items()}
        self.recorded = {**about, "models": list(self.fields), "std_ddof": DDOF}
        self.about = {**self.recorded, "fingerprints": weights}

    @classmethod
    def open(cls, settings: Exterior) -> ExteriorStudy:
        scales = settings.scales
        sizes = read_scales(scales) if scales is not None else settings.size or _SIZE
        networks = open_networks(
            settings.dataset,
            {"--unet": settings.unet, "--resnet": settings.resnet},
            settings.label,
            settings.padding,
            settings.trust_code,
        )
        _check_kinds(networks)
        if not networks and not settings.machines:
            raise ConfigError("there is no model: give --unet, --resnet or --machines")
        process = next((subject.field.sde for subject in networks.values()), None)
        sde, sampler = reverse_process(process, settings.steps)
        fields: dict[str, ScoreField] = {
            option.removeprefix("--"): with_process(subject.field, sde)
            for option, subject in networks.items()
        }
        count, held_out, padding = 0, None, settings.padding
        if settings.machines or "data" in settings.points:
            images = read_images(settings.dataset, settings.data, settings.images, networks)
            if "data" in settings.points:
                held_out = images.held_out(settings.n, settings.seed)
        if settings.machines:
            padding = padding or padding_of(networks)
            train = class_of(images, settings.label)
            count = len(train)
            for kind in settings.machines:
                fields[kind] = closed_form(kind, train, sde, sizes, padding)
        table = None
        if isinstance(sizes, PatchSizes):
            table = dict(zip(map(str, sizes.sigmas), sizes.sizes, strict=True))
        about = {
            "dataset": settings.dataset,
            "unit": settings.units,
            "realizations": settings.n,
            "seed": settings.seed,
            "points": list(settings.points),
            "precision": settings.probe_precision,
            "dtype": settings.dtype,
            "steps": settings.steps,
            "label": settings.label,
            "sizes": list(sizes.sizes) if isinstance(sizes, PatchSizes) else [sizes],
            "sizes_by_noise_level": table,
            "networks": {option.removeprefix("--"): s.about for option, s in networks.items()},
            "images": count,
            "padding": padding,
            "process": str(sde),
            "spacing": sampler.spacing,
        }
        return cls(settings, fields, sampler, held_out, about)

    def evaluated(self) -> Iterable[ScoreField]:
        return self.fields.values()

    def compute(self, work: Work) -> Analysis:
        return analyse(self.fields, self.sampler, self.settings, self.held_out, work)

    def files(self, result: Analysis, work: Work) -> Mapping[str, Callable[[], bytes]]:
        several = self.settings.n > 1
        stem = SEVERAL if several else SINGLE
        makers: dict[str, Callable[[], bytes]] = {
            f"{stem}.npz": lambda: npz(result, self.recorded),
            f"{stem}.pt": lambda: tensors(result, self.recorded),
        }
        if several:
            record = {"settings": self.recorded, "models": summary(result)}
            makers["summary_stats.json"] = lambda: json_bytes(record)
        for suffix, points, measure in figures_of(self.settings.points):
            makers[f"{stem}{suffix}.png"] = partial(figure, result, points, measure, self.title)
        return makers

    def table(self, result: Analysis) -> Table:
        """Means over steps, under :data:`HEADINGS`."""
        rows: list[list[Cell]] = []
        for (name, points), profile in result.profiles.items():
            means = over_steps(profile), over_steps(profile, "relative")
            most = max(profile.probes)
            jacobians = f"up to {most} probes" if most else "exact"
            rows.append([LABELS[name], points, *map(_marked, means), jacobians])
        return Table(HEADINGS, rows)

    @property
    def title(self) -> str:
        """The title of the figures, but for what they show."""
        chosen = self.settings
        label = "" if chosen.label is None else f", class {chosen.label}"
        parts = [f"{chosen.dataset}{label}"]
        if chosen.machines:
            parts.append(f"closed forms of {self.recorded['images']} images")
        if {"els", "ls"} & set(chosen.machines):
            low, high = min(self.recorded["sizes"]), max(self.recorded["sizes"])
            several = f"patches of {low} to {high} pixels"
            parts.append(f"{low} × {low} pixels" if low == high else several)
        return "; ".join(parts)


STUDY = ExteriorStudy


def _marked(mean: Estimate) -> Marked:
    return Marked(mean, "within rounding" if mean.value <= mean.numerical_error else "")


def _check_kinds(networks: Mapping[str, Subject]) -> None:
    """Refuses networks that would be shown under the name of another kind."""
    for option, kind, right in (
        ("--unet", MinimalResNet, "--resnet"),
        ("--resnet", MinimalUNet, "--unet"),
    ):
        modules = networks[option].field.modules() if option in networks else ()
        if any(isinstance(module, kind) for module in modules):
            raise RunError(f"{option} was given a {kind.__name__}: give it as {right}")

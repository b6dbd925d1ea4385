"""The comparison of a network with patches as a study: tables, arrays and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scorefield.diagnostics import Agreement
from scorefield.studies.frame import Study, Table
from scorefield.studies.networks import (
    class_of,
    open_networks,
    padding_of,
    read_images,
    reverse_process,
    with_process,
)
from scorefield.studies.patch_sizes import scales_json
from scorefield.studies.patches import figures
from scorefield.studies.patches.compute import IDEAL, LOCAL, PARTS, Comparison, Subjects, compare
from scorefield.studies.results import csv_bytes, json_bytes, npz_bytes
from scorefield.studies.settings import Patches
from scorefield.studies.work import Work, fingerprint

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
            "sizes.png": lambda: figures.sizes(result),
            "agreement.png": lambda: figures.agreement(result),
            "scatter.png": lambda: figures.scatter(result),
            "images.png": lambda: figures.images(result),
            "patch_statistics.png": lambda: figures.statistics(result),
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

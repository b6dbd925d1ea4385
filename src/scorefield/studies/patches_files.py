"""A comparison of a network with patches as files: tables, arrays and pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.diagnostics import Agreement
from scorefield.files import write_file
from scorefield.runs.cells import csv_text
from scorefield.studies.patches import IDEAL, LOCAL, PatchStudy
from scorefield.studies.patches_figure import (
    agreement_picture,
    images_picture,
    scatter_picture,
    sizes_picture,
    statistics_picture,
)
from scorefield.studies.scale_file import write_scales

SCALES = "scales.json"
TABLE = ("model", "median r (interval)", "median r² (interval)", "better than the ideal score")


def write(found: PatchStudy, out: Path) -> list[Path]:
    """Writes all files of a study into a folder, in place of those that were there.

    Arguments:
        found: The study.
        out: The folder, which there is.

    Raises:
        OSError: If a file cannot be written.
    """
    plan = found.plan
    about = {
        **found.about,
        "machine": plan.machine,
        "padding": plan.padding,
        "samples": plan.samples,
        "seed": plan.seed,
    }
    texts = {
        "calibration.csv": csv_text(found.calibration.rows()),
        "agreement.csv": csv_text(found.rows()),
        "nearest_patches.csv": csv_text(_distance_rows(found)),
        "spectra.csv": csv_text(_spectrum_rows(found)),
        "summary.json": json.dumps({**found.summary(), "settings": about}, indent=2) + "\n",
    }
    figures = {
        "sizes.png": sizes_picture(found),
        "agreement.png": agreement_picture(found),
        "scatter.png": scatter_picture(found),
        "images.png": images_picture(found),
        "patch_statistics.png": statistics_picture(found),
    }
    others = {"agreement.npz": _arrays(found)}
    for name, figure in figures.items():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=130)
        others[name] = content.getvalue()
    # All is made before anything is replaced, so that a failure leaves what was there.
    write_scales(out / SCALES, found.calibration, plan.choice, about)
    for name, text in texts.items():
        write_file(out / name, text)
    for name, data in others.items():
        write_file(out / name, data)
    return [out / name for name in (SCALES, *texts, *others)]


def table(found: PatchStudy) -> list[list[str]]:
    """The agreement of final images, one line a model; the columns are :data:`TABLE`."""
    local, ideal = found.finals[LOCAL], found.finals[IDEAL]
    wins = f"{local.beats(ideal)} of {len(local)}"
    return [
        [name, str(a.median_correlation), str(a.median_determination), wins * (name == LOCAL)]
        for name, a in found.finals.items()
    ]


def _arrays(found: PatchStudy) -> bytes:
    """Everything behind the medians."""
    arrays: dict[str, Any] = {"sigmas": np.array(found.sigmas)}

    def add(name: str, agreements: tuple[Agreement, ...]) -> None:
        arrays[f"{name}/r"] = np.stack([a.correlation for a in agreements])
        arrays[f"{name}/r2"] = np.stack([a.determination for a in agreements])

    for (name, quantity), levels in found.levels.items():
        add(f"{name}/{quantity}", levels)
    for name, final in found.finals.items():
        add(f"{name}/final image", (final,))
    for name, images in found.images.items():
        arrays[f"{name}/images"] = images.cpu().numpy()
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _distance_rows(found: PatchStudy) -> list[dict[str, Any]]:
    return [
        {"images": name, "size": size, "distance": e.value, "distance_se": e.standard_error}
        for name, by_size in found.distances.items()
        for size, e in by_size.items()
    ]


def _spectrum_rows(found: PatchStudy) -> list[dict[str, Any]]:
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

"""The analysis of atoms as files: numbers in two formats, samples, pictures and films."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.comparison.groups import over_levels, over_seeds
from scorefield.estimate import Estimate, format_uncertain
from scorefield.evaluation.records import Level
from scorefield.progress import Stages
from scorefield.runs import results_folder
from scorefield.studies.atoms import AtomsAnalysis, Found, Model, by_metric
from scorefield.studies.atoms_curves import comparison
from scorefield.studies.atoms_figure import marginals, radial, scatter
from scorefield.studies.atoms_look import Look
from scorefield.studies.atoms_plane import Plane, drawable

NUMBERS, SUMMARY = "numbers.csv", "summary.json"
POOLED = "all"
"""What stands for the seed where a number is one over several seeds."""

_STAGE = "tables and pictures"
_COLUMNS = (
    "model",
    "seed",
    "metric",
    "sigma",
    "value",
    "standard_error",
    "numerical_error",
    "low",
    "high",
    "n",
    "unit",
)
_TABLE = {
    "total_variation": "TV",
    "marginal_ks": "KS, marginal",
    "radial_ks": "KS, radial",
    "score_error": "score error",
    "fokker_planck": "Fokker–Planck",
    "fokker_planck_gap": "gap of forms",
    "consistency": "consistency",
    "exterior_derivative": "curl",
    "winding": "winding",
}


def contents(
    analysis: AtomsAnalysis,
    look: Mapping[str, Look],
    settings: Mapping[str, Any],
    stages: Stages | None = None,
) -> dict[str, bytes]:
    """The files of an analysis but for its films: their names and what is in them.

    Arguments:
        analysis: The analysis.
        look: How models are drawn, by their names.
        settings: What is recorded besides.
        stages: Shows how far the work is.
    """
    makers = _makers(analysis, look)
    files = {}
    for done, (name, make) in enumerate(makers.items()):
        if stages is not None:
            stages.show(_STAGE, done, len(makers), name)
        files[name] = make()
    if stages is not None:
        stages.show(_STAGE, len(makers), len(makers))
        stages.say(_STAGE)
    return files | {SUMMARY: _summary(analysis, settings)}


def _makers(analysis: AtomsAnalysis, look: Mapping[str, Look]) -> dict[str, Callable[[], bytes]]:
    """What makes each file, of which pictures take a second or more."""
    plane = Plane(analysis.law) if drawable(analysis.law) else None
    groups = {name: analysis.members(name) for name in analysis.names}
    files: dict[str, Callable[[], bytes]] = {
        NUMBERS: partial(_table_of_numbers, analysis),
        "comparison.png": partial(comparison, analysis, look),
        "marginals.png": partial(marginals, analysis, groups, look),
    }
    if analysis.radial is not None:
        files["radial.png"] = partial(radial, analysis, groups, look)
    if plane is not None:
        files["scatter.png"] = partial(scatter, plane, analysis.found, look)
    for found in analysis.found:
        key, alone = found.model.key, {found.model.label: [found]}
        own = {found.model.label: look[found.model.name]}
        files[f"{key}/samples.npz"] = partial(_samples, found)
        files[f"{key}/marginals.png"] = partial(marginals, analysis, alone, own)
        if analysis.radial is not None:
            files[f"{key}/radial.png"] = partial(radial, analysis, alone, own)
        if plane is not None:
            files[f"{key}/scatter.png"] = partial(scatter, plane, [found], look)
    return files


def ours(folder: Path) -> set[str]:
    """The names of the results in a folder, as its summary has them."""
    try:
        record = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        names = record["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return set(map(str, names)) if isinstance(names, list) else set()


def check_free(folder: Path, overwrite: bool) -> None:
    """Checks that results may be written into a folder; see
    :func:`~scorefield.runs.results_folder.check_free`.
    """
    results_folder.check_free(folder, overwrite, ours(folder).__contains__)


def write(folder: Path, files: Mapping[str, bytes], overwrite: bool) -> list[Path]:
    """Writes all files of a folder or none; the summary tells their names.

    Arguments:
        folder: The folder, which is made.
        files: What is to be in it, by name.
        overwrite: Whether it may exist; what is in it is gone then.

    Raises:
        RunError: As of :func:`check_free`.
        OSError: If a file cannot be written; nothing is changed then.
    """
    record = {**json.loads(files[SUMMARY]), "files": sorted(files)}
    complete = {**files, SUMMARY: _json(record)}
    return results_folder.write(folder, complete, overwrite, ours(folder).__contains__)


def headings(analysis: AtomsAnalysis) -> list[str]:
    """The columns of :func:`table`."""
    return ["model", "seed", *(_TABLE[metric] for metric in _told(analysis))]


def table(analysis: AtomsAnalysis) -> list[list[str]]:
    """The numbers, a line a run and a line a model of several seeds; of diagnostics the root mean
    square over noise levels, of mean squares the mean.
    """
    return [
        [model, seed, *(_short(numbers.get(metric)) for metric in _told(analysis))]
        for model, seed, numbers in _lines(analysis)
    ]


def _told(analysis: AtomsAnalysis) -> list[str]:
    first = analysis.found[0]
    known = {*first.distances, *by_metric(first.levels)}
    return [metric for metric in _TABLE if metric in known]


def _lines(analysis: AtomsAnalysis) -> Iterator[tuple[str, str, dict[str, Estimate]]]:
    for name in analysis.names:
        members = analysis.members(name)
        single = [{**f.distances, **_over_levels(f.levels)} for f in members]
        for found, numbers in zip(members, single, strict=True):
            yield name, _seed(found.model), numbers
        if len(members) > 1:
            pooled = {k: over_seeds([numbers[k] for numbers in single]) for k in single[0]}
            yield name, POOLED, pooled


def _over_levels(levels: tuple[Level, ...]) -> dict[str, Estimate]:
    found = {metric: over_levels(some) for metric, some in by_metric(levels).items()}
    return {metric: e for metric, e in found.items() if e is not None}


def _seed(model: Model) -> str:
    return "" if model.seed is None else str(model.seed)


def _short(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if 0 < estimate.numerical_error >= abs(estimate.value):
        return f"within {estimate.numerical_error:.1g}"
    error = estimate.standard_error + estimate.numerical_error
    return format_uncertain(estimate.value, error) if error > 0 else f"{estimate.value:.4g}"


def _table_of_numbers(analysis: AtomsAnalysis) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(analysis))
    return text.getvalue().encode()


def _rows(analysis: AtomsAnalysis) -> Iterator[dict[str, Any]]:
    """Every number, of single runs and over seeds."""
    for name in analysis.names:
        members = analysis.members(name)
        for found in members:
            seed = _seed(found.model)
            yield from _rows_of(name, seed, found.distances, found.levels)
        if len(members) > 1:
            pooled = analysis.pooled_distances(name), analysis.pooled_levels(name)
            yield from _rows_of(name, POOLED, *pooled)


def _rows_of(
    name: str, seed: str, distances: Mapping[str, Estimate], levels: list[Level] | tuple[Level, ...]
) -> Iterator[dict[str, Any]]:
    some = [(metric, "", e) for metric, e in distances.items()]
    for metric, sigma, e in [*some, *((v.metric, repr(v.sigma), v.estimate) for v in levels)]:
        low, high = e.interval()
        yield {
            "model": name,
            "seed": seed,
            "metric": metric,
            "sigma": sigma,
            "value": e.value,
            "standard_error": e.standard_error,
            "numerical_error": e.numerical_error,
            "low": low,
            "high": high,
            "n": e.n,
            "unit": e.unit,
        }


def _summary(analysis: AtomsAnalysis, settings: Mapping[str, Any]) -> bytes:
    law, terms = analysis.law, analysis.terms
    record = {
        "law": {
            "positions": law.positions.tolist(),
            "std": law.width,
            "period": law.domain.period,
            "process": str(law.sde),
        },
        "terms": {**vars(terms)},
        **settings,
        "models": [
            {"model": f.model.name, "seed": f.model.seed, **f.model.about} for f in analysis.found
        ],
        "numbers": [
            {"model": model, "seed": seed, "metric": metric, **_plain(e)}
            for model, seed, numbers in _lines(analysis)
            for metric, e in numbers.items()
        ],
    }
    return _json(record)


def _plain(e: Estimate) -> dict[str, Any]:
    low, high = e.interval()
    plain = {"value": e.value, "standard_error": e.standard_error, "low": low, "high": high}
    null = e.settings.get("null")
    return plain if null is None else {**plain, "of_the_law_itself": null}


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


def _samples(found: Found) -> bytes:
    arrays = {"samples": found.samples.numpy()}
    for state in found.states:
        arrays[f"states_at_{state.sigma:.6g}"] = state.x.numpy()
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()

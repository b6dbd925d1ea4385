"""The numbers of the analysis of atoms: a table of all of them, a summary, and the samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from scorefield.comparison.groups import over_levels, over_seeds
from scorefield.comparison.marks import explained, of_number
from scorefield.estimate import Estimate, paired_difference
from scorefield.evaluation.catalogue import find
from scorefield.evaluation.records import Level
from scorefield.runs.cells import Marked
from scorefield.studies.atoms.compute import AtomsAnalysis, ModelResult, by_metric
from scorefield.studies.frame import Cell, Table

POOLED = "all"
"""What the seed is called where a number is one over several seeds."""

_RADIAL = "Kolmogorov–Smirnov, distance from the nearest configuration"


def title(name: str) -> str:
    """The title of a metric's figure, with its unit."""
    metric = find(name)
    if metric is None:  # of atoms alone
        return _RADIAL if name == "radial_ks" else name
    return f"{metric.title}  [{metric.unit}]" if metric.unit else metric.title


def table(analysis: AtomsAnalysis) -> Table:
    """The numbers, a line a run and a line a model of several seeds; of diagnostics the root mean
    square over noise levels, of mean squares the mean. Those over seeds are marked by their
    differences from the first model that has several.
    """
    lines = list(_lines(analysis))
    headings = {
        name: name.replace("_", " ") if metric is None else metric.label
        for name, metric in ((name, find(name)) for name in lines[0][2])
    }
    several = [model for model, seed, _ in lines if seed == POOLED]
    base = {seed: found for model, seed, found in lines if model in several[:1]}
    rows: list[list[Cell]] = []
    for model, seed, found in lines:
        cells: list[Cell] = [found.get(name) for name in headings]
        if seed == POOLED and model != several[0]:
            own = {seed: found for name, seed, found in lines if name == model}
            cells = [_marked(name, own, base) for name in headings]
        rows.append([model, seed, *cells])
    notes = [explained(several[0])] if len(several) > 1 else []
    return Table(["model", "seed", *headings.values()], rows, notes)


def _marked(
    name: str, own: Mapping[str, dict[str, Estimate]], base: Mapping[str, dict[str, Estimate]]
) -> Estimate | Marked | None:
    """A number over seeds, and how it compares with that of the first model over common seeds."""
    value = own[POOLED].get(name)
    seeds = [s for s in own if s != POOLED and name in own[s] and name in base.get(s, {})]
    if value is None or len(seeds) < 2:
        return value
    ours, theirs = ([found[s][name].value for s in seeds] for found in (own, base))
    difference = paired_difference(ours, theirs)
    return Marked(value, of_number(find(name), value, difference).words)


def rows(analysis: AtomsAnalysis) -> Iterator[dict[str, Any]]:
    """Every number, of single runs and over seeds, as records of a table."""
    for name in analysis.names:
        members = analysis.members(name)
        for found in members:
            yield from _rows_of(name, _seed(found), found.distances, found.levels)
        if len(members) > 1:
            pooled = analysis.pooled_distances(name), analysis.pooled_levels(name)
            yield from _rows_of(name, POOLED, *pooled)


def summary(analysis: AtomsAnalysis) -> dict[str, Any]:
    """Settings, models, and the numbers of :func:`table` as plain values with 95 % intervals."""
    truth, settings = analysis.truth, analysis.settings
    terms = ("levels", "points", "cells", "seed")
    return {
        "law": {
            "positions": truth.positions.tolist(),
            "std": truth.width,
            "period": truth.domain.period,
            "process": str(truth.sde),
        },
        "terms": {"samples": settings.n, **{name: getattr(settings, name) for name in terms}},
        "frames": settings.frames,
        "models": [
            {"model": r.model.name, "seed": r.model.seed, **r.model.about} for r in analysis.results
        ],
        "numbers": [
            {"model": model, "seed": seed, "metric": metric, **_plain(e)}
            for model, seed, numbers in _lines(analysis)
            for metric, e in numbers.items()
        ],
    }


def arrays(found: ModelResult) -> dict[str, Any]:
    """The samples of a model, and the points of their trajectories."""
    states = {f"states_at_{state.sigma:.6g}": state.x.numpy() for state in found.states}
    return {"samples": found.samples.numpy(), **states}


def _lines(analysis: AtomsAnalysis) -> Iterator[tuple[str, str, dict[str, Estimate]]]:
    for name in analysis.names:
        members = analysis.members(name)
        single = []
        for found in members:
            levels = {m: over_levels(some) for m, some in by_metric(found.levels).items()}
            known = {m: e for m, e in levels.items() if e is not None}
            single.append({**found.distances, **known})
            yield name, _seed(found), single[-1]
        if len(members) > 1:
            yield name, POOLED, {k: over_seeds([n[k] for n in single]) for k in single[0]}


def _seed(found: ModelResult) -> str:
    return "" if found.model.seed is None else str(found.model.seed)


def _rows_of(
    name: str, seed: str, distances: Mapping[str, Estimate], levels: Iterable[Level]
) -> Iterator[dict[str, Any]]:
    some = [(metric, "", e) for metric, e in distances.items()]
    some += [(v.metric, repr(v.sigma), v.estimate) for v in levels]
    for metric, sigma, e in some:
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


def _plain(e: Estimate) -> dict[str, Any]:
    low, high = e.interval()
    plain = {"value": e.value, "standard_error": e.standard_error, "low": low, "high": high}
    null = e.settings.get("null")
    return plain if null is None else {**plain, "of_exact_samples": null}

"""Where the numbers of a page come from: protocol, commands, versions."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from scorefield.comparison.groups import Group
from scorefield.data.source import DataSource
from scorefield.evaluation.catalogue import OF_LEVELS
from scorefield.evaluation.records import Evaluation
from scorefield.report.words import listed
from scorefield.runs.classes import class_name

_CLASSES = 20  # of which the names are listed


def facts(members: Sequence[Group], source: DataSource) -> list[tuple[str, str]]:
    """How the models of a data set were trained and measured."""
    one = members[0].first
    p, c = one.protocol, one.compute
    calls = ", ".join(
        f"{b} → {next(d.nfe for d in one.by() if d.budget == b)}" for b in one.budgets
    )
    levels = ", ".join(f"{s:g}" for s in p["sigmas"])
    alike = " for all models and" if len(members) > 1 else ""
    overrides = listed([f"{o}" for o in one.about.get("overrides", [])]) or "none"
    return [
        *classes(source),
        (
            "training",
            f"{c['steps']} steps of {c['batch_size']} items, {_seeds(members[0].seeds)}; averaged "
            "weights",
        ),
        ("changed from the presets", overrides),
        (
            "samples",
            f"{p['samples']} generated and {p['samples']} real ones, drawn by {p['sampler']}, the "
            "sampler of the protocol, whatever sampler a configuration names; budget of network "
            f"calls → calls taken: {calls}",
        ),
        ("noise floor", f"{p['pairs']} pairs of disjoint real sets of {p['samples']} items each"),
        ("noise levels", f"σ = {levels}, in units of the data"),
        ("noisy points", f"{p['points']} at each level, the same{alike} at all levels"),
        (
            "validation loss",
            f"{p['draws']} draws of noise for each of {p['samples']} held-out "
            f"items, {one.validation.settings.get('law', '')}",
        ),
        *_methods(one),
        ("seed of the evaluation", str(p["seed"])),
    ]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def classes(source: DataSource) -> Iterator[tuple[str, str]]:
    """The classes of the data, with the names that they have."""
    if source.classes is None:
        return
    shown = [class_name(k, source) for k in range(min(source.classes, _CLASSES))]
    more = f", and {source.classes - _CLASSES} more" if source.classes > _CLASSES else ""
    yield f"{source.classes} classes", ", ".join(shown) + more


def _methods(one: Evaluation) -> Iterator[tuple[str, str]]:
    """How each estimator measured, with the settings that were recorded, where it measured."""
    recorded = one.protocol.get("estimators") or {}
    for estimator, metrics in groupby(OF_LEVELS, lambda m: m.estimator):
        measured = {m.label: levels for m in metrics if (levels := one.profile(m.name))}
        if measured and estimator.method and estimator.key in recorded:
            method = estimator.describe(recorded[estimator.key])
            found = next(iter(measured.values()))
            yield listed(list(measured)), f"{method}; n = {found[0].estimate.n} at a level"


def commands(root: Path, g: Group) -> list[str]:
    """The command lines that make a model's numbers."""
    lines = []
    for e in g.members:
        about = e.about
        if about.get("preset"):
            changes = [*about.get("overrides", []), f"seed={e.seed}"]
            line = ["scorefield", "train", str(about["preset"]), *changes, "--root", str(root)]
            lines.append(shlex.join(line))
        nfes = ",".join(map(str, e.budgets))
        lines.append(shlex.join(["scorefield", "eval", str(e.folder), "--nfe", nfes]))
    n, seed, sampler = (g.first.protocol[key] for key in ("samples", "seed", "sampler"))
    options = ["--n", str(n), "--nfe", str(g.first.budgets[-1]), "--seed", str(seed)]
    line = ["scorefield", "sample", str(g.first.folder), "--sampler", sampler, *options]
    return [*lines, shlex.join(line)]


def of_numbers(root: Path, g: Group) -> str:
    """The provenance of a model's numbers, in lines that are copied with each of them."""
    p = g.first.protocol
    settings = ", ".join(f"{key} {p[key]}" for key in ("samples", "points", "pairs", "seed"))
    lines = [
        f"run: {g.dataset}/{g.model}, {_seeds(g.seeds)}, {g.first.step} steps",
        f"protocol: sampler {p['sampler']}, {settings}",
        "versions: " + ", ".join(f"{name} {text}" for name, text in versions(g.members)),
        *commands(root, g)[:-1],
    ]
    return "\n".join(lines)


def sweep(root: Path, members: Sequence[Group]) -> str:
    """The sweep that times the models' steps; empty where they are not presets changed alike."""
    changes = {tuple(g.first.about.get("overrides", ())) for g in members}
    presets = [g.first.about.get("preset") for g in members]
    if not all(presets) or len(changes) > 1 or len({g.seeds for g in members}) > 1:
        return ""
    seeds = ",".join(map(str, members[0].seeds))
    line = ["scorefield", "sweep", *map(str, presets), *changes.pop()]
    return shlex.join([*line, "--seeds", seeds, "--eval", "--root", str(root)])


def versions(evaluations: Iterable[Evaluation]) -> list[tuple[str, str]]:
    """The versions of the libraries by name, of which there may be several."""
    found: dict[str, set[str]] = {}
    for e in evaluations:
        for name, text in (e.about.get("versions") or {}).items():
            if text:
                found.setdefault(name, set()).add(str(text))
    return [(name, ", ".join(sorted(texts))) for name, texts in found.items()]

"""The page: one offline file with what was compared, and the results."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

from plotly.offline import get_plotlyjs

from scorefield.comparison.groups import Group, by_dataset, collect, groups
from scorefield.comparison.tables import Comparison, compare_models, refuse, table_files
from scorefield.comparison.to_target import TARGETS
from scorefield.data.source import DataSource
from scorefield.errors import ConfigError, RunError
from scorefield.evaluation.catalogue import OF_LEVELS
from scorefield.evaluation.records import Evaluation
from scorefield.files import write_files
from scorefield.plotting.palette import looks
from scorefield.progress import warn
from scorefield.report.curves import plots
from scorefield.report.findings import findings, headline
from scorefield.report.gallery import exact_group, gallery, run_of
from scorefield.report.tables import anchor, table, tables
from scorefield.report.templating import templates
from scorefield.report.words import listed, number
from scorefield.runs.classes import class_name
from scorefield.runs.run import Run

INDEX = "index.html"


def write_report(
    root: Path,
    out: Path,
    targets: Sequence[float] = TARGETS,
    strict: bool = False,
    trust_code: bool = False,
) -> Path:
    """Gathers the evaluated runs under a folder into tables and the page ``out/index.html``.

    Arguments:
        targets: The targets of the sample quality, in multiples of the noise floor.
        strict: Whether to refuse numbers without an interval over seeds.
        trust_code: Whether classes that a run names by import path may be imported.

    Raises:
        RunError: If there is no evaluated run, the models of a data set were evaluated by
            different protocols, or a number is refused.
    """
    evaluations = _labelled([e for e in collect(root) if _has_run(e, trust_code)])
    if not evaluations:
        raise RunError(f"{root} holds no evaluated run that can be opened")
    comparisons = compare_models(evaluations, root, targets)
    if strict:
        refuse(comparisons)
    written = table_files(comparisons)
    command = ["scorefield", "report", str(root), "--out", str(out)]
    if tuple(targets) != TARGETS:
        command += ["--targets", ",".join(f"{t:g}" for t in targets)]
    if strict:
        command.append("--strict")
    if trust_code:
        command.append("--trust-code")
    sections = [_section(root, c, trust_code) for c in comparisons]
    # Where the truth is known there is more to see.
    sections.sort(key=lambda s: s.exact is None)
    environment = templates("scorefield.report")
    environment.globals.update(number=number, anchor=anchor)
    page = environment.get_template("page.html.j2").render(
        sections=sections,
        single=all(len(g.seeds) == 1 for s in sections for g in s.members),
        exact=any(s.exact is not None for s in sections),
        title=f"Score fields on {listed([s.name for s in sections])}",
        lede=_lede(sections),
        models=_models(sections),
        plotly=get_plotlyjs(),
        sweep_commands=[_sweep(root, s.members) for s in sections if s.costs.apart],
        report_command=shlex.join(command),
        tables=list(written),
        versions=_versions(evaluations),
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )
    write_files(out, {**written, INDEX: page})
    return out / INDEX


def _section(root: Path, comparison: Comparison, trust_code: bool) -> SimpleNamespace:
    """All that the page says on one data set."""
    members = comparison.members
    look = looks([g.label for g in members])
    exact = exact_group(members[0], trust_code)
    return SimpleNamespace(
        name=members[0].dataset,
        title=_TITLES.get(str(members[0].first.about.get("data")), members[0].dataset),
        members=members,
        looks=look,
        exact=exact,
        headline=headline(members),
        findings=findings(comparison, exact),
        table=table(members, exact, look, comparison.costs),
        comparison=tables(comparison),
        plots=plots(members, exact, look, comparison.costs),
        gallery=gallery(members, look, trust_code),
        commands=[(g, _commands(root, g)) for g in members],
        facts=_facts(members, run_of(members[0], trust_code).source()),
        costs=comparison.costs,
    )


_CLASSES = 20  # of which the names are listed
_TITLES = {
    "ring": "eight Gaussian modes on a ring in the plane, whose score is known",
    "atoms": "pseudo-atoms in a periodic box, whose score is known",
    "digits": "1,797 handwritten digits of 8×8 pixels",
}


def _has_run(evaluation: Evaluation, trust_code: bool) -> bool:
    """Whether the run of an evaluation can be opened; one that cannot is named."""
    assert evaluation.folder is not None  # it was read from there
    try:
        Run.open(evaluation.folder, trust_code)
    except (RunError, ConfigError) as error:
        warn(f"{evaluation.folder} is left out: {error}")
        return False
    return True


def _labelled(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations with the models' short names where they are unique, their own where not."""
    label: dict[tuple[str, str], str] = {}
    for dataset, members in by_dataset(groups(evaluations)).items():
        short = [g.label for g in members]
        for g in members:
            label[dataset, g.model] = g.label if short.count(g.label) == 1 else g.model
    return [replace(e, about={**e.about, "label": label[e.dataset, e.model]}) for e in evaluations]


def _lede(sections: Sequence[SimpleNamespace]) -> str:
    labels = list(dict.fromkeys(g.label for s in sections for g in s.members))
    data = listed([s.name if s.title == s.name else f"{s.name} ({s.title})" for s in sections])
    seeds = {len(g.seeds) for s in sections for g in s.members}
    trained = "once" if seeds == {1} else f"with {min(seeds)} to {max(seeds)} seeds"
    if len(seeds) == 1 and seeds != {1}:
        trained = f"with {next(iter(seeds))} seeds each"
    lengths = [
        {(g.first.compute["steps"], g.first.compute["batch_size"]) for g in s.members}
        for s in sections
    ]
    many = ("models", "were") if len(labels) > 1 else ("model", "was")
    alike = ", for the same number of steps" if all(len(v) == 1 for v in lengths) else ""
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    count = words[len(labels)] if len(labels) < len(words) else len(labels)
    return (
        f"{count} score {many[0]}, {listed(labels)}, {many[1]} trained {trained} on "
        f"{data}{alike}, and evaluated on the same real samples, the same starting noise and "
        "the same noisy points."
    )


def _models(sections: Sequence[SimpleNamespace]) -> list[tuple[str, str, str]]:
    """Label, colour and description of every model, once."""
    found: dict[str, tuple[str, str, str]] = {}
    for section in sections:
        for g in section.members:
            text = str(g.first.about.get("description") or "")
            found.setdefault(g.label, (g.label, section.looks[g.label].colour, text))
    return list(found.values())


def _facts(members: Sequence[Group], source: DataSource) -> list[tuple[str, str]]:
    one = members[0].first
    p, c = one.protocol, one.compute
    calls = ", ".join(
        f"{b} → {next(d.nfe for d in one.by() if d.budget == b)}" for b in one.budgets
    )
    levels = ", ".join(f"{s:g}" for s in p["sigmas"])
    overrides = listed([f"{o}" for o in one.about.get("overrides", [])]) or "none"
    return [
        *_classes(source),
        (
            "training",
            f"{c['steps']} steps of {c['batch_size']} items, seeds "
            f"{', '.join(map(str, members[0].seeds))}; averaged weights",
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
        ("noisy points", f"{p['points']} at each level, the same for all models and levels"),
        (
            "validation loss",
            f"{p['draws']} draws of noise for each of {p['samples']} held-out "
            f"items, {one.validation.settings.get('law', '')}",
        ),
        *_methods(one),
        ("seed of the evaluation", str(p["seed"])),
    ]


def _classes(source: DataSource) -> Iterator[tuple[str, str]]:
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


def _commands(root: Path, g: Group) -> list[str]:
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


def _sweep(root: Path, members: Sequence[Group]) -> str:
    """The sweep that times the models' steps; empty where they are not presets changed alike."""
    changes = {tuple(g.first.about.get("overrides", ())) for g in members}
    presets = [g.first.about.get("preset") for g in members]
    if not all(presets) or len(changes) > 1 or len({g.seeds for g in members}) > 1:
        return ""
    seeds = ",".join(map(str, members[0].seeds))
    line = ["scorefield", "sweep", *map(str, presets), *changes.pop()]
    return shlex.join([*line, "--seeds", seeds, "--eval", "--root", str(root)])


def _versions(evaluations: Iterable[Evaluation]) -> list[tuple[str, str]]:
    found: dict[str, set[str]] = {}
    for e in evaluations:
        for name, text in (e.about.get("versions") or {}).items():
            if text:
                found.setdefault(name, set()).add(str(text))
    found["plotly"] = {version("plotly")}
    return [(name, ", ".join(sorted(texts))) for name, texts in found.items()]

"""The page: one offline file with what was compared, and the results."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from scorefield.comparison.groups import Group, by_dataset, collect, groups
from scorefield.comparison.tables import TABLES, Comparison, compare_models, refuse, table_files
from scorefield.comparison.to_target import TARGETS
from scorefield.config.build import base_loss
from scorefield.errors import ConfigError, RunError
from scorefield.evaluation.records import Evaluation
from scorefield.files import check_writable, write_files
from scorefield.plotting.palette import EXACT, Look, looks
from scorefield.progress import warn
from scorefield.report import provenance
from scorefield.report.costs import cost_table
from scorefield.report.curves import plots
from scorefield.report.findings import findings, headline
from scorefield.report.gallery import exact_group, gallery, run_of
from scorefield.report.likelihood import Likelihoods, likelihood_table
from scorefield.report.matched import matched_tables
from scorefield.report.overview import overview
from scorefield.report.tables import anchor, table, tables
from scorefield.report.templating import templates
from scorefield.report.words import MOST_NAMED, listed, number, slug
from scorefield.runs.run import Run

INDEX = "index.html"
_PLOTLY = Path(__file__).parent / "plotly"
"""plotly.js without maps and other kinds of figures that the page has none of, and its licence."""


def write_report(
    root: Path,
    out: Path,
    targets: Sequence[float] = TARGETS,
    strict: bool = False,
    trust_code: bool = False,
    overwrite: bool = False,
) -> Path:
    """Gathers the evaluated runs under a folder into tables and the page ``out/index.html``.

    Arguments:
        targets: The targets of the sample quality, in multiples of the noise floor.
        strict: Whether to refuse numbers without an interval over seeds.
        trust_code: Whether classes that a run names by import path may be imported.
        overwrite: Whether to replace a page and tables that are there.

    Raises:
        RunError: If there is no evaluated run, the models of a data set were evaluated by
            different protocols, a number is refused, or there is a page or a table that may not be
            replaced.
    """
    check_writable(out)
    for file in (out / INDEX, *(out / name for name in TABLES)):
        if file.exists() and not overwrite:
            raise RunError(f"{file} exists; overwrite it, or give another folder")
    evaluations = _labelled([e for e in collect(root) if _has_run(e, trust_code)])
    if not evaluations:
        raise RunError(f"{root} holds no evaluated run that can be opened")
    comparisons = compare_models(evaluations, root, targets)
    if strict:
        refuse(comparisons)
    written = table_files(comparisons)
    command = ["scorefield", "report", "--root", str(root), "--out", str(out)]
    if tuple(targets) != TARGETS:
        command += ["--targets", ",".join(f"{t:g}" for t in targets)]
    if strict:
        command.append("--strict")
    if trust_code:
        command.append("--trust-code")
    # A data set with few models must not set the order of all.
    largest = sorted(comparisons, key=lambda c: -len(c.members))
    look = looks(dict.fromkeys(g.label for c in largest for g in c.members))
    sections = [_section(root, c, look, trust_code) for c in comparisons]
    # Where the truth is known there is more to see.
    sections.sort(key=lambda s: s.exact is None)
    environment = templates("scorefield.report")
    environment.globals.update(number=number, anchor=anchor)
    page = environment.get_template("page.html.j2").render(
        sections=sections,
        exact=any(s.exact is not None for s in sections),
        title=f"Score fields on {listed([s.name for s in sections])}",
        lede=_lede(sections),
        legend=look | ({"exact field": EXACT} if any(s.exact for s in sections) else {}),
        report_command=shlex.join(command),
        tables=list(written),
        plotly=(_PLOTLY / "plotly-basic.min.js").read_text(encoding="utf-8"),
        licence=(_PLOTLY / "LICENSE").read_text(encoding="utf-8"),
        versions=provenance.versions(evaluations),
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )
    write_files(out, {**written, INDEX: page})
    return out / INDEX


def _section(
    root: Path, comparison: Comparison, look: dict[str, Look], trust_code: bool
) -> SimpleNamespace:
    """All that the page says on one data set."""
    members = comparison.members
    exact, costs = exact_group(members[0], trust_code), comparison.costs
    likelihoods = Likelihoods(members)
    films = gallery(members, look, trust_code)
    losses = {g.label: base_loss(run_of(g, trust_code).config.objective).name for g in members}
    section = SimpleNamespace(
        name=members[0].dataset,
        key=slug(members[0].dataset),
        title=_TITLES.get(str(members[0].first.about.get("data")), members[0].dataset),
        members=members,
        exact=exact,
        costs=costs,
        several=len(members) > 1,
        single=all(len(g.seeds) == 1 for g in members),
        headline=headline(members),
        overview=overview(comparison, likelihoods, look),
        findings=findings(comparison, exact),
        films=films,
        plots=plots(members, exact, look, costs, losses),
        likelihood=likelihood_table(members, likelihoods),
        cost=cost_table(members, costs),
        table=table(members, exact, costs),
        tables=[*tables(comparison), *matched_tables(comparison)],
        commands={g.label: provenance.commands(root, g) for g in members},
        provenance={g.label: provenance.of_numbers(root, g) for g in members},
        sweep=provenance.sweep(root, members) if costs.apart else "",
        facts=provenance.facts(members, run_of(members[0], trust_code).source()),
    )
    section.contents = [part for part, some in _contents(section) if some]
    return section


def _contents(s: SimpleNamespace) -> list[tuple[tuple[str, str], object]]:
    """The parts of a section with their headings, and whether there is anything in them."""
    return [
        (("results", "Results"), s.findings),
        (("quality", "Quality against calls"), s.plots.calls),
        (("levels", "By noise level"), s.plots.levels),
        (("likelihood", "Likelihood"), s.likelihood),
        (("cost", "Cost"), True),
        (("training", "Training"), s.plots.training),
        (("paths", "Trajectories"), any(f.key == "paths" for f in s.films)),
        (("compared", "Models compared" if s.several else "Calls to a target"), s.tables),
        (("numbers", "All numbers"), True),
        (("models", "Models and commands"), True),
        (("measured", "How it was measured"), True),
    ]


_TITLES = {
    "ring": "eight Gaussian modes on a ring in the plane, whose score is known",
    "atoms": "pseudo-atoms in a periodic box, whose score is known",
    "double_well": "particles whose pairs have two preferred distances, with a known energy",
    "lennard_jones": "Lennard-Jones particles in a trap, with a known energy",
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
    """The evaluations with the models' short names where they are unique; where not, with what was
    changed in each, or else the names of their folders.
    """
    label: dict[tuple[str, str], str] = {}
    for dataset, members in by_dataset(groups(evaluations)).items():
        shorts = [_short(g) for g in members]
        for short in dict.fromkeys(shorts):
            alike = [g for g, name in zip(members, shorts, strict=True) if name == short]
            changes = [[str(o) for o in g.first.about.get("overrides", ())] for g in alike]
            common = set.intersection(*map(set, changes))
            own = [[o.rpartition(".")[2] for o in some if o not in common] for some in changes]
            names = [f"{short} {', '.join(some)}".strip() for some in own]
            if len(set(names)) < len(alike):
                names = [g.model for g in alike]
            label |= {(dataset, g.model): name for g, name in zip(alike, names, strict=True)}
    return [replace(e, about={**e.about, "label": label[e.dataset, e.model]}) for e in evaluations]


def _short(g: Group) -> str:
    """The name of a model without what was changed: its own, or that of its preset."""
    preset = str(g.first.about.get("preset") or "").rpartition("/")[2]
    return preset if preset and g.label == g.model else g.label


def _lede(sections: Sequence[SimpleNamespace]) -> str:
    labels = list(dict.fromkeys(g.label for s in sections for g in s.members))
    data = listed([s.name if s.title == s.name else f"{s.name} ({s.title})" for s in sections])
    seeds = {len(g.seeds) for s in sections for g in s.members}
    if len(seeds) > 1:
        trained = f"with {min(seeds)} to {max(seeds)} seeds"
    else:
        (n,) = seeds
        trained = "once" if n == 1 else f"with {n} seeds" + (" each" if len(labels) > 1 else "")
    if len(labels) == 1:
        return f"One score model, {labels[0]}, was trained {trained} on {data}."
    lengths = [
        {(g.first.compute["steps"], g.first.compute["batch_size"]) for g in s.members}
        for s in sections
    ]
    alike = ", for the same number of steps" if all(len(v) == 1 for v in lengths) else ""
    words = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    count = words[len(labels) - 2] if len(labels) < len(words) + 2 else str(len(labels))
    names = f", {listed(labels)}," if len(labels) <= MOST_NAMED else ""
    return (
        f"{count} score models{names} were trained {trained} on {data}{alike}, and evaluated on "
        "the same real samples, the same starting noise and the same noisy points."
    )

"""The page: one offline file that says what was compared and what came out."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from plotly.offline import get_plotlyjs

from scorefield.estimate import Estimate
from scorefield.experiments.records import Evaluation
from scorefield.experiments.tables import Group, collect, groups, write_tables
from scorefield.report.costs import Costs, read_costs
from scorefield.report.curves import LEAST, Plot, against_calls, against_noise
from scorefield.report.gallery import Gallery, exact_group, gallery
from scorefield.report.style import EXACT, Look, looks
from scorefield.report.words import findings, listed, number, over_levels
from scorefield.training.files import replace_file

INDEX = "index.html"


class Cell(NamedTuple):
    """A cell of the table: a number with its error, and a note below it."""

    estimate: Estimate | None
    note: str = ""
    good: bool = False
    text: str = ""


class Column(NamedTuple):
    """A column: its group, its heading, and what it means."""

    group: str
    heading: str
    meaning: str


class Span(NamedTuple):
    """Neighbouring columns of one group."""

    name: str
    count: int


class Row(NamedTuple):
    """A row: a model and its cells, one a column."""

    label: str
    colour: str
    anchor: str
    cells: list[Cell]


class Commands(NamedTuple):
    """The command lines that make a model's numbers."""

    label: str
    anchor: str
    lines: list[str]


@dataclass(frozen=True)
class Section:
    """All that the page says on one data set."""

    name: str
    title: str
    members: list[Group]
    looks: dict[str, Look]
    exact: Group | None
    findings: list[tuple[str, str]]
    columns: list[Column]
    rows: list[Row]
    floor: list[Cell]
    plots: list[Plot]
    gallery: Gallery
    commands: list[Commands]
    facts: list[tuple[str, str]]
    costs: Costs


def write_report(root: Path, out: Path) -> Path:
    """Gathers the evaluated runs under a folder into tables and a page.

    Arguments:
        root: The folder of all runs.
        out: The folder of the report.

    Returns:
        The page, ``out/index.html``.

    Raises:
        RunError: If there is no evaluated run, one cannot be read, or the models of a data set
            were judged on different terms.
        CheckpointError: If the checkpoint of a run cannot be read.
        OSError: If the report cannot be written.
    """
    evaluations = collect(root)
    tables = write_tables(evaluations, out)
    page = render(root, out, evaluations, [table.name for table in tables])
    replace_file(out / INDEX, page.encode())
    return out / INDEX


def render(
    root: Path, out: Path, evaluations: Sequence[Evaluation], tables: Sequence[str] = ()
) -> str:
    """The page as text; arguments and errors are those of :func:`write_report`."""
    members = groups(evaluations)
    names = list(dict.fromkeys(g.dataset for g in members))
    sections = [_section(root, [g for g in members if g.dataset == name]) for name in names]
    environment = Environment(
        loader=PackageLoader("scorefield.report"),
        autoescape=select_autoescape(("html", "j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(number=number)
    environment.filters["groupby_runs"] = _runs
    return environment.get_template("page.html.j2").render(
        sections=sections,
        single=all(len(g.seeds) == 1 for g in members),
        exact=any(s.exact is not None for s in sections),
        title=f"Score fields on {listed(names)}",
        lede=_lede(sections),
        models=_models(sections),
        plotly=get_plotlyjs(),
        report_command=shlex.join(["scorefield", "report", str(root), "--out", str(out)]),
        tables=list(tables),
        versions=_versions(evaluations),
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )


def _section(root: Path, members: list[Group]) -> Section:
    name = members[0].dataset
    labels = _labels(members)
    members = [_relabelled(g, labels[g.model]) for g in members]
    look = looks([g.label for g in members])
    exact = exact_group(members[0])
    costs = read_costs(root / name, members)
    columns, rows, floor = _table(members, exact, look, costs)
    return Section(
        name=name,
        title=_TITLES.get(str(members[0].first.about.get("data")), name),
        members=members,
        looks=look,
        exact=exact,
        findings=findings(members, exact, costs.ratios),
        columns=columns,
        rows=rows,
        floor=floor,
        plots=_plots(members, exact, look),
        gallery=gallery(members, look),
        commands=[_commands(root, g) for g in members],
        facts=_facts(members),
        costs=costs,
    )


_TITLES = {
    "ring": "eight Gaussian modes on a ring in the plane, whose score is known",
    "digits": "1,797 handwritten digits of 8×8 pixels",
}


def _labels(members: Sequence[Group]) -> dict[str, str]:
    """Short names where they are unique, the models' own where not."""
    short = [g.label for g in members]
    return {g.model: g.label if short.count(g.label) == 1 else g.model for g in members}


def _relabelled(group: Group, label: str) -> Group:
    first = replace(group.first, about={**group.first.about, "label": label})
    return replace(group, members=(first, *group.members[1:]))


def _lede(sections: Sequence[Section]) -> str:
    labels = list(dict.fromkeys(g.label for s in sections for g in s.members))
    data = listed([f"{s.name} ({s.title})" for s in sections])
    seeds = {len(g.seeds) for s in sections for g in s.members}
    trained = "once" if seeds == {1} else f"with {min(seeds)} to {max(seeds)} seeds"
    if len(seeds) == 1 and seeds != {1}:
        trained = f"with {next(iter(seeds))} seeds each"
    return (
        f"{len(labels)} score models, {listed(labels)}, were trained {trained} on {data}, each "
        "with the same data, budget of steps and optimiser, and judged on the same real samples, "
        "the same starting noise and the same noisy points."
    )


def _models(sections: Sequence[Section]) -> list[tuple[str, str, str]]:
    """Label, colour and description of every model, once."""
    found: dict[str, tuple[str, str, str]] = {}
    for section in sections:
        for g in section.members:
            text = str(g.first.about.get("description") or "")
            found.setdefault(g.label, (g.label, section.looks[g.label].colour, text))
    return list(found.values())


# ---------------------------------------------------------------------------------------- table


def _runs(columns: Sequence[Column]) -> list[Span]:
    """The groups of columns, in order."""
    return [Span(name, len(list(members))) for name, members in groupby(columns, lambda c: c.group)]


def _table(
    members: Sequence[Group], exact: Group | None, look: dict[str, Look], costs: Costs
) -> tuple[list[Column], list[Row], list[Cell]]:
    budgets = members[0].first.budgets
    calls = {b: d.nfe for b in budgets for d in members[0].first.distances if d.budget == b}
    modes = members[0].distance("mode_coverage", budgets[-1])
    columns = [Column("field", "validation loss", "denoising loss on held-out data, EDM weighting")]
    if members[0].profile("score_error"):
        columns.append(
            Column("field", "score error", "rms error of the predicted noise, over noise levels")
        )
    columns += [
        Column("field", "relative asymmetry", "|J − Jᵀ| / 2|J|, rms over noise levels"),
        Column("field", "circulation", "curl of the denoiser that loops of radius σ/2 see, rms"),
    ]
    for name in ("sliced Wasserstein", "MMD²"):
        columns += [Column(name, f"{calls[b]} calls", f"budget {b}") for b in budgets]
    if modes is not None:
        columns.append(Column("modes", f"{calls[budgets[-1]]} calls", "covered, of all"))
    columns.append(Column("cost", "time per step", f"in multiples of {members[0].label}'s"))

    def cells(g: Group) -> list[Cell]:
        row = [Cell(g.validation)]
        if members[0].profile("score_error"):
            row.append(Cell(over_levels(g.profile("score_error"))))
        row.append(Cell(over_levels(g.profile("relative_asymmetry"))))
        row.append(Cell(over_levels(g.profile("loop_circulation"))))
        row += [_distance(g, "sliced_wasserstein", b) for b in budgets]
        row += [_distance(g, "mmd", b) for b in budgets]
        if modes is not None:
            row.append(_coverage(g, budgets[-1]))
        row.append(_cost(g, members[0], costs))
        return row

    rows = [Row(g.label, look[g.label].colour, _anchor(g), cells(g)) for g in members]
    if exact is not None:
        rows.append(Row("exact field", EXACT.colour, "", cells(exact)))
    return columns, rows, _floor_row(members[0], budgets, modes is not None)


def _distance(g: Group, metric: str, budget: int) -> Cell:
    found = g.distance(metric, budget)
    if found is None:
        return Cell(None)
    good = found.excess is not None and found.excess <= 2
    if found.ratio is not None:
        ratio = number(found.ratio)
        error = f" ± {ratio.error}" if ratio.exponent is None else ""
        value = ratio.value if ratio.exponent is None else f"{found.ratio.value:.2g}"
        return Cell(found.estimate, f"{value}{error} floors", good)
    note = "" if found.excess is None else f"{found.excess:+.1f} sd".replace("-", "−")
    return Cell(found.estimate, note, good)


def _coverage(g: Group, budget: int) -> Cell:
    covered, weights = g.distance("mode_coverage", budget), g.distance("mode_weight_tv", budget)
    if covered is None:
        return Cell(None)
    total = int(covered.estimate.settings.get("modes", 0))
    note = ""
    if weights is not None:
        tv = number(weights.estimate)
        note = f"weights off by {tv.value} ± {tv.error}"
    value = f"{covered.estimate.value:g} of {total}"
    return Cell(None, note, covered.estimate.value == total, value)


def _cost(g: Group, base: Group, costs: Costs) -> Cell:
    if g.model == base.model:
        return Cell(None, _milliseconds(costs.seconds.get(g.model)), text="1")
    ratio = costs.ratios.get(g.model)
    return Cell(ratio, _milliseconds(costs.seconds.get(g.model)))


def _milliseconds(seconds: Estimate | None) -> str:
    if seconds is None:
        return ""
    ms = number(seconds.scaled(1e3))
    return f"{ms.value} ± {ms.error} ms" if ms.exponent is None else ""


def _floor_row(g: Group, budgets: Sequence[int], has_modes: bool) -> list[Cell]:
    """The row of the noise floor: a cell a column, empty where there is none."""
    lead = [Cell(None)] * (4 if g.profile("score_error") else 3)
    row = list(lead)
    for metric in ("sliced_wasserstein", "mmd"):
        for budget in budgets:
            found = g.distance(metric, budget)
            if found is None or found.floor is None:
                row.append(Cell(None))
                continue
            floor = found.floor
            mean = Estimate(floor.mean, floor.mean_error, floor.pairs)
            row.append(Cell(mean, f"sd {floor.sd:.2g}"))
    return [*row, *([Cell(None)] * (1 + has_modes))]


# --------------------------------------------------------------------------------------- curves


def _plots(members: Sequence[Group], exact: Group | None, look: dict[str, Look]) -> list[Plot]:
    name = members[0].dataset
    rounding = f"Below {LEAST:g} it is rounding: such points stand at the foot, as triangles."
    plots = [
        against_noise(
            f"{name}-asymmetry",
            "Relative asymmetry",
            f"Of the score's Jacobian: 0 for a gradient, 1 for a rotation. {rounding}",
            "relative_asymmetry",
            members,
            look,
            least=LEAST,
        ),
        against_noise(
            f"{name}-circulation",
            "Circulation around loops",
            "The curl of the denoiser seen by octagons of radius σ/2. What the exact field shows "
            f"is the error of the quadrature. {rounding}",
            "loop_circulation",
            members,
            look,
            exact,
            least=LEAST,
        ),
        against_noise(
            f"{name}-score",
            "Error of the score",
            "Root mean square error of the predicted noise against the exact field's.",
            "score_error",
            members,
            look,
        ),
        against_noise(
            f"{name}-loss",
            "Denoising loss",
            "Mean square error of the predicted noise on held-out data."
            + (" No field is below the exact one, beyond the errors." if exact else ""),
            "denoising_loss",
            members,
            look,
            exact,
        ),
        against_calls(
            f"{name}-sw",
            "Sliced Wasserstein distance to real samples",
            "Against the true number of network calls; the band is what two real sets of the same "
            "size have between them.",
            "sliced_wasserstein",
            members,
            look,
            exact,
        ),
        against_calls(
            f"{name}-mmd",
            "Squared maximum mean discrepancy",
            "Unbiased, and zero for equal laws: what is far below the floor's noise, or negative, "
            "stands at the foot, as a triangle.",
            "mmd",
            members,
            look,
            exact,
        ),
    ]
    return [plot for plot in plots if plot is not None]


# ----------------------------------------------------------------------------- protocol, commands


def _facts(members: Sequence[Group]) -> list[tuple[str, str]]:
    one = members[0].first
    p, c = one.protocol, one.compute
    calls = ", ".join(
        f"{b} → {next(d.nfe for d in one.distances if d.budget == b)}" for b in one.budgets
    )
    levels = ", ".join(f"{s:g}" for s in p["sigmas"])
    overrides = listed([f"{o}" for o in one.about.get("overrides", [])]) or "none"
    facts = [
        (
            "training",
            f"{c['steps']} steps of {c['batch_size']} items, seeds "
            f"{', '.join(map(str, members[0].seeds))}; averaged weights",
        ),
        ("changed from the presets", overrides),
        (
            "samples",
            f"{p['samples']} generated and {p['samples']} real ones, Heun's method; budget "
            f"of network calls → calls taken: {calls}",
        ),
        ("noise floor", f"{p['pairs']} pairs of disjoint real sets of {p['samples']} items each"),
        ("noise levels", f"σ = {levels}, in units of the data"),
        (
            "noisy points",
            f"{p['points']} at each level, the same for all models and levels; the "
            f"Jacobians of the first {_derivatives(one)}, all columns computed",
        ),
        (
            "validation loss",
            f"{p['draws']} draws of noise for each of {p['samples']} held-out "
            f"items, {one.validation.settings.get('law', '')}",
        ),
        ("seed of the evaluation", str(p["seed"])),
    ]
    return facts


def _derivatives(one: Evaluation) -> str:
    found = one.profile("relative_asymmetry")
    return str(found[0].estimate.n) if found else "none"


def _commands(root: Path, g: Group) -> Commands:
    lines = []
    for e in g.members:
        about = e.about
        if about.get("preset"):
            changes = [*about.get("overrides", []), f"seed={e.seed}"]
            line = ["scorefield", "train", str(about["preset"]), *changes, "--root", str(root)]
            lines.append(shlex.join(line))
        nfes = ",".join(map(str, e.budgets))
        lines.append(shlex.join(["scorefield", "eval", str(e.folder), "--nfe", nfes]))
    n, seed = g.first.protocol["samples"], g.first.protocol["seed"]
    options = ["--n", str(n), "--nfe", str(g.first.budgets[-1]), "--seed", str(seed)]
    lines.append(
        shlex.join(["scorefield", "sample", str(g.first.folder), "--sampler", "heun", *options])
    )
    return Commands(g.label, _anchor(g), lines)


def _anchor(g: Group) -> str:
    return "".join(c if c.isalnum() else "-" for c in f"how-{g.dataset}-{g.label}".lower())


def _versions(evaluations: Iterable[Evaluation]) -> list[tuple[str, str]]:
    found: dict[str, set[str]] = {}
    for e in evaluations:
        for name, text in (e.about.get("versions") or {}).items():
            if text:
                found.setdefault(name, set()).add(str(text))
    here = {"plotly": version("plotly"), "python of the report": platform.python_version()}
    listed_versions = [(name, ", ".join(sorted(texts))) for name, texts in found.items()]
    return [*listed_versions, *here.items()]

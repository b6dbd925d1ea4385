"""The page: whole, offline, and with an error on every number."""

import csv
import hashlib
import json
import re
import shutil
from dataclasses import asdict, replace
from html.parser import HTMLParser
from itertools import product

import pytest
import torch

from scorefield.comparison.groups import collect
from scorefield.comparison.resources import RESOURCES
from scorefield.comparison.tables import compare_models
from scorefield.config.resolve import load_config
from scorefield.data.arrays import ArraySource
from scorefield.errors import RunError
from scorefield.estimate import Estimate
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.likelihood import LikelihoodSettings
from scorefield.evaluation.protocol import Protocol
from scorefield.plotting.palette import looks
from scorefield.report.likelihood import Likelihoods, likelihood_table
from scorefield.report.overview import overview
from scorefield.report.page import write_report
from scorefield.report.provenance import classes
from scorefield.runs.cells import numbers
from scorefield.runs.run import Run

PROTOCOL = Protocol(nfes=(4, 8), samples=48, pairs=3, sigmas=(0.5, 2.0), points=8, draws=2)
TOY = (
    "train.steps=6",
    "train.log_every=1",
    "train.batch_size=32",
    "optim.warmup=1",
    "field.network.hidden=8",
    "field.network.depth=1",
)
DIGITS = (
    "train.steps=2",
    "train.log_every=1",
    "train.batch_size=8",
    "optim.warmup=1",
    "field.network.channels=8",
)


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures take seconds, and are looked at elsewhere."""
    monkeypatch.setattr("scorefield.report.page.gallery", lambda *about: [])


COUNTED = r"[\d,]+(beyond doubt)?|\d of 8|.* of \d+ seeds.*|not reached"
"""Numbers that have no error."""


class Page(HTMLParser):
    """What a browser would load, the ids and links, and the cells of the tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.cells: list[str] = []
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.open = tag if tag in ("script", "style") else self.open
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        elif tag == "img":
            self.images.append(values)
        for name in ("src", "srcset", "href", "data", "poster", "action"):
            if name in values and tag != "a":
                self.loads.append(values[name])
        if tag == "td":
            self.cells.append("")
            self.open = "td"

    def handle_endtag(self, tag):
        if tag in ("td", "script", "style"):
            self.open = ""

    def handle_data(self, data):
        if self.open == "td":
            self.cells[-1] += data


def make(root, name, overrides, protocol):
    """Trains and evaluates a run."""
    run = Run.create(load_config(name, overrides), root)
    run.train(quiet=True)
    evaluate(run, protocol=protocol)


@pytest.fixture(scope="module")
def report(shared):
    """The folders of three runs and of their report, and its page."""

    def fill(folder):
        for name in ("toy/m0", "toy/m2"):
            make(folder / "runs", name, TOY, PROTOCOL)
        make(folder / "runs", "digits/m0", DIGITS, replace(PROTOCOL, points=2))
        write_report(folder / "runs", folder / "out")

    folder = shared("report", fill)
    page = folder / "out" / "index.html"
    return folder / "runs", page.parent, page.read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_outside(report):
    _, _, text = report
    page = Page(text)
    assert page.images
    assert all(load.startswith("data:image/webp;base64,") for load in page.loads)
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    assert len(text) < 3e6


def test_the_classes_of_the_data_are_named(report):
    assert "<dt>10 classes</dt><dd>0, 1, 2, 3, 4, 5, 6, 7, 8, 9</dd>" in report[2]
    many = ArraySource(torch.zeros(2, 2), torch.zeros(1, 2), "many")
    many.classes, many.class_names = 22, ("cat", "dog")
    ((heading, names),) = classes(many)
    assert heading == "22 classes"
    assert names.startswith("0 (cat), 1 (dog), 2, 3, ")
    assert names.endswith("19, and 2 more")
    many.classes = None
    assert not list(classes(many))


def test_every_picture_is_described(report):
    assert all(image["alt"] for image in Page(report[2]).images)


def test_every_link_leads_to_a_place_on_the_page(report):
    page = Page(report[2])
    assert page.links
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


def test_every_number_of_the_tables_has_an_error_or_is_exact(report):
    cells = [cell for cell in Page(report[2]).cells if cell.strip("–")]
    assert len(cells) > 40
    for cell in cells:
        counted = re.fullmatch(COUNTED, cell.strip())
        counted = counted or cell.startswith("1")
        assert "±" in cell or "exact" in cell or counted, cell
    assert "nan" not in " ".join(cells).lower()


def test_every_curve_has_bars_and_all_models(report):
    text = report[2]
    figures = re.findall(
        r'<script type="application/json" data-plot="([^"]+)">(.*?)</script>', text
    )
    names = {name for name, _ in figures}
    curl = {"toy-relative_asymmetry", "toy-loop_circulation"}
    assert curl | {"toy-score_error", "toy-denoising_loss", "toy-sliced_wasserstein"} <= names
    assert {"toy-fokker_planck", "toy-consistency", "digits-fokker_planck"} <= names
    assert not [name for name in names if "winding" in name]  # there is no torus
    assert "digits-relative_asymmetry" in names
    assert "digits-score_error" not in names  # there is no truth to compare with
    for name, specification in figures:
        figure = json.loads(specification)
        for axis in (figure["layout"]["xaxis"], figure["layout"]["yaxis"]):
            assert axis["title"]["text"]
        if name.endswith("-loss"):
            assert {t["name"] for t in figure["data"]} <= {"M0", "M2"}
            continue
        lines = [t for t in figure["data"] if t["mode"] == "lines+markers"]
        labels = {t["name"] for t in lines} - {"exact field"}
        assert labels == ({"M0", "M2"} if name.startswith("toy") else {"M0"})
        for line in lines:
            assert len(line["error_y"]["array"]) == len(line["x"])
            assert all(bar >= 0 for bar in line["error_y"]["array"])
            assert all(bar >= 0 for bar in line["error_y"]["arrayminus"])
        assert figure["layout"]["xaxis"]["type"] == "log"


@pytest.mark.slow
def test_a_distillation_has_a_curve_of_its_own_loss(report, tmp_path, no_pictures):
    (run,) = report[0].glob("toy/m0_*/seed0")
    shutil.copytree(run, tmp_path / "toy" / "m0" / "seed0")
    teacher = f"objective.teacher.run={run}"
    make(tmp_path, "toy/m2_distilled", (*TOY, teacher, "name=toy/distilled"), PROTOCOL)
    page = write_report(tmp_path, tmp_path / "out").read_text(encoding="utf-8")
    for loss, model in (("denoising", "M0"), ("distillation", "distilled")):
        (found,) = re.findall(rf'data-plot="toy-{loss}-loss">(.*?)</script>', page)
        ((name, steps),) = {(t["name"], tuple(t["x"])) for t in json.loads(found)["data"]}
        assert name == model
        assert steps == tuple(range(1, 7))


def test_a_potential_is_called_a_gradient_and_a_network_is_not(report):
    text = report[2]
    assert "only M2 is a gradient" in text
    assert "M2 is a gradient up to rounding" in text


def test_distances_stand_against_true_calls(report):
    heads = re.findall(
        r'title="budget (\d+)"><button type="button" class="sort">(\d+) calls<', report[2]
    )
    assert set(heads) == {("4", "3"), ("8", "7")}


def test_the_command_of_every_number_is_there(report):
    root, out, text = report
    assert f"scorefield report --root {root} --out {out}" in text
    for name in ("toy/m0", "toy/m2", "digits/m0"):
        assert f"scorefield train {name} " in text
    for verb in ("eval", "sample"):
        assert text.count(f"<code>scorefield {verb} ") == 3


def test_the_command_makes_the_run_it_stands_for(report):
    root, _, text = report
    for line in re.findall(r"<code>scorefield train (.*?)</code>", text):
        words = line.replace("&#39;", "").split()
        config = load_config(words[0], words[1 : words.index("--root")])
        assert (root / config.folder / "config_resolved.yaml").is_file()


@pytest.mark.slow
def test_step_times_come_from_the_sweep_of_these_very_runs(seeds, tmp_path, no_pictures):
    root = tmp_path / "runs"
    shutil.copytree(seeds.parent / "runs", root)
    models = sorted(path.name for path in (root / "toy").iterdir())
    record = {"rounds": {model: [0.1, 0.2] for model in models}, "told": "side by side"}
    (root / "toy" / "step_times.json").write_text(json.dumps(record))
    text = write_report(root, tmp_path / "out").read_text()
    (line,) = re.findall(r"<code>scorefield sweep (.*?)</code>", text)
    words = line.replace("&#39;", "").split()
    assert words[words.index("--seeds") + 1] == "0,1"
    assert words[:2] == ["toy/m0", "toy/m2"]
    changes = words[2 : words.index("--seeds")]
    assert [load_config(name, changes).folder.parts[-2] for name in words[:2]] == models
    assert "scorefield demo" not in text


def test_tables_lie_beside_the_page(report):
    assert {path.name for path in report[1].iterdir()} == {
        "index.html",
        "fid_summary.csv",
        "integrability_summary.csv",
        "steps_to_target_fid.csv",
        "steps_to_target_fid_summary.csv",
        "compute_budget_by_dataset.csv",
        "compute_matched_fid.csv",
        "paired_differences.csv",
    }


def test_a_distance_on_learned_features_is_named_by_them(report):
    """``digits`` has classes: the Fréchet distance is taken on pixels and on a classifier, whose
    name holds the first digits of the SHA-256 of its file.
    """
    root, out, _ = report
    found = [r for r in rows_of(out / "fid_summary.csv") if r["metric_name"] == "frechet_distance"]
    kinds = {(r["dataset"], r["features"].partition(":")[0]) for r in found}
    assert kinds == {("toy", "coordinates"), ("digits", "pixels"), ("digits", "classifier")}
    (name,) = {r["features"] for r in found if r["features"].startswith("classifier")}
    digest = hashlib.sha256((root / "digits" / "classifier.safetensors").read_bytes()).hexdigest()
    assert digest.startswith(name.removeprefix("classifier:"))


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no evaluated run"):
        write_report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def seeds(shared):
    """The folder of a strict report of two models with two seeds each, and checkpoints along their
    trainings.
    """

    def fill(folder):
        for name, seed in product(("toy/m0", "toy/m2"), (0, 1)):
            overrides = (*TOY, "train.checkpoint_every=2", "train.keep=null", f"seed={seed}")
            make(folder / "runs", name, overrides, replace(PROTOCOL, nfes=(8, 9), along=5))
        write_report(folder / "runs", folder / "out", targets=(2.0, 7.5), strict=True)

    return shared("report-seeds", fill) / "out"


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_several_seeds_become_one_row_with_the_error_of_their_scatter(seeds):
    page = (seeds / "index.html").read_text()
    assert re.search("the number of modes covered, of 8: .* for M0 and .* for M2", page)
    assert {row["num_seeds"] for row in rows_of(seeds / "fid_summary.csv")} == {"2"}


def test_the_page_compares_models_seed_by_seed_and_at_equal_cost(seeds):
    text = (seeds / "index.html").read_text()
    for heading in (
        "Differences from M0, seed by seed",
        "Network calls to a target",
        *(f"At equal {resource.heading}" for resource in RESOURCES),
        "Sliced Wasserstein distance to real samples during training",
    ):
        assert heading in text
    assert "7.5 × floor" in text
    assert "--targets 2,7.5" in text
    assert "What one training shows" not in text
    differences = rows_of(seeds / "paired_differences.csv")
    assert {row["num_seeds"] for row in differences} == {"2"}
    assert {row["model_id"].partition("_")[0] for row in differences} == {"m2"}


@pytest.mark.parametrize(
    ("values", "rtol", "kind"),
    [((2.0, 2.1), 1e-5, "better"), ((0.0, 0.1), 1e-5, "worse"), ((1.5, 0.5), 1e-5, "same"),
     ((2.0, 2.1), 1e-3, "")],
)  # fmt: skip
def test_log_likelihoods_are_marked_by_their_difference(seeds, tmp_path, values, rtol, kind):
    """M0 has 1 and 1.1 nats; densities of other tolerances are not compared with them."""
    root = tmp_path / "runs"
    shutil.copytree(seeds.parent / "runs", root)
    (comparison,) = compare_models(collect(root), root)
    settings = asdict(LikelihoodSettings())
    for g, nats in zip(comparison.members, ((1.0, 1.1), values), strict=True):
        tolerance = 1e-5 if g is comparison.members[0] else rtol
        about = {**settings, "rtol": tolerance, "data": "test", "n": 9, "calls_mean": 50.0}
        for e, value in zip(g.members, nats, strict=True):
            record = {"nats": numbers(Estimate(value, 0.01, 9, "nats")), "bits_per_dim": None}
            (e.folder / "eval" / "likelihood.json").write_text(json.dumps({**about, **record}))
    found = Likelihoods(comparison.members)
    table = overview(comparison, found, looks([g.label for g in comparison.members]))
    place = [h.name for h in table.headings].index("− log-likelihood")
    marks = [line.readings[place].mark.kind for line in table.lines]
    assert marks == ["base" if kind else "", kind]
    shown = likelihood_table(comparison.members, found).rows[1].cells[-1]
    assert shown.strong == (kind in ("better", "worse"))


def test_single_trainings_are_not_compared(report):
    text = report[2]
    assert "What one training shows" in text
    assert "Differences from M0, seed by seed" not in text


def test_a_strict_report_has_an_interval_for_every_number(seeds):
    checked: dict[str, int] = {}
    for path in seeds.glob("*.csv"):
        for row in rows_of(path):
            for name, value in row.items():
                stem = name.removesuffix("_mean")
                if value and name.endswith("_mean") and f"{stem}_low" in row:
                    low, high = float(row[f"{stem}_low"]), float(row[f"{stem}_high"])
                    assert low <= float(value) <= high, (path.name, name)
                    checked[path.name] = checked.get(path.name, 0) + 1
    assert {"fid_summary.csv", "integrability_summary.csv", "compute_matched_fid.csv"} < set(
        checked
    )
    assert checked["paired_differences.csv"] > 20


def test_a_strict_report_of_single_trainings_is_refused_and_writes_nothing(report, tmp_path):
    root, _, _ = report
    with pytest.raises(RunError, match="has the single seed 0"):
        write_report(root, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["index.html", "fid_summary.csv"])
def test_a_report_is_replaced_only_where_that_is_wanted(report, tmp_path, no_pictures, name):
    root, _, _ = report
    (tmp_path / name).write_text("older")
    with pytest.raises(RunError, match=f"{name} exists; overwrite it"):
        write_report(root, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    write_report(root, tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() != "older"


def test_an_evaluation_without_records_is_refused(tmp_path):
    run = Run.create(load_config("toy/m0", TOY), tmp_path / "runs")
    run.train(quiet=True)
    evaluate(run, protocol=PROTOCOL)
    (run.folder / "eval" / "fid_vs_nfe.csv").write_text("x\n")
    with pytest.raises(RunError, match=r"fid_vs_nfe\.csv holds no record"):
        write_report(tmp_path / "runs", tmp_path / "out")


BOX = (
    *TOY[:3],
    "train.checkpoint_every=6",
    "field.network.hidden=8",
    "field.network.depth=1",
)


@pytest.fixture(scope="module")
def atoms(shared):
    """Two models of atoms in a periodic box, with two seeds each."""
    protocol = replace(PROTOCOL, nfes=(8,), samples=128, pairs=2, sigmas=(0.05, 0.2), points=8)

    def fill(root):
        for name, seed in product(("analytical_regression", "no_regularizer"), (0, 1)):
            make(root, f"atoms/{name}", (*BOX, f"seed={seed}"), protocol)

    return shared("report-atoms", fill)


def test_on_a_torus_the_page_tells_the_winding_and_the_distance_from_the_law(
    atoms, tmp_path, no_pictures
):
    text = write_report(atoms, tmp_path).read_text()
    of_levels = ("winding", "harmonic_part", "fokker_planck", "consistency")
    for name in (*of_levels, "total_variation", "marginal_ks"):
        assert f'data-plot="atoms-{name}"' in text
    for heading in ("Around the torus", "Across noise levels"):
        assert f"<dt>{heading}</dt>" in text
    assert "the total variation from the exact distribution over a grid is" in text
    # Plain denoising is what the others are compared with, whatever its name.
    assert re.search(r"Differences from no_regularizer\S*, seed by seed", text)
    page = Page(text)
    headings = set(re.findall(r'class="sort">(?:<span[^>]*></span>)?([^<]*)<', text))
    assert {"Fokker–Planck residual", "consistency error"} < headings
    assert len(set(page.ids)) == len(page.ids)
    rows = rows_of(tmp_path / "integrability_summary.csv")
    metrics = {row["metric_name"] for row in rows}
    assert {"winding", "harmonic_part", "fokker_planck", "consistency"} < metrics
    assert {row["unit"] for row in rows if row["metric_name"] == "winding"} == {"nats"}
    paired = {row["metric_name"] for row in rows_of(tmp_path / "paired_differences.csv")}
    assert {"winding", "fokker_planck", "total_variation", "marginal_ks"} < paired


def test_an_evaluation_without_the_newer_diagnostics_is_reported_as_it_is(
    report, tmp_path, no_pictures
):
    root = tmp_path / "runs"
    shutil.copytree(report[0] / "toy", root / "toy")
    newer = ("fokker_planck", "fokker_planck_component", "fokker_planck_gap", "consistency")
    for path in root.glob("toy/*/seed0/eval/integrability_vs_sigma.csv"):
        lines = path.read_text().splitlines(keepends=True)
        assert any(f",{metric}," in line for metric in newer for line in lines)
        path.write_text("".join(x for x in lines if not any(f",{m}," in x for m in newer)))
        summary = path.with_name("compute_summary.json")
        record = json.loads(summary.read_text())
        for name in ("turns", "fokker_planck", "consistency"):
            del record["protocol"]["estimators"][name]
        summary.write_text(json.dumps(record))
    text = write_report(root, tmp_path / "out").read_text()
    assert 'data-plot="toy-relative_asymmetry"' in text
    # What the exact field has now is no curve of the models.
    assert 'data-plot="toy-fokker_planck"' not in text
    assert "Across noise levels" not in text


def test_bad_runs_are_named_and_the_good_one_is_reported(report, tmp_path, no_pictures, capsys):
    root = tmp_path / "runs"
    shutil.copytree(report[0], root)
    bad = [next(root.glob("toy/m2*/seed0")), next(root.glob("digits/m0*/seed0"))]
    (bad[0] / "config_resolved.yaml").write_text("name: [toy")
    (bad[1] / "eval" / "fid_vs_nfe.csv").write_text("nfe,value\n8,")
    write_report(root, tmp_path / "out")
    said = capsys.readouterr().err.splitlines()
    assert sorted(folder for line in said for folder in bad if str(folder) in line) == sorted(bad)
    assert len(said) == 2
    rows = rows_of(tmp_path / "out" / "fid_summary.csv")
    assert {row["dataset"] for row in rows} == {"toy"}
    assert {row["model_id"].partition("_")[0] for row in rows} == {"m0"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("compute_summary.json", "{"),
        ("compute_summary.json", '{"about": {}}'),
        ("fid_vs_nfe.csv", "nfe,value\n8,"),
        ("integrability_vs_sigma.csv", "\x00"),
        ("quality_vs_step.csv", "step\nlast\n"),
    ],
)
def test_an_evaluation_that_cannot_be_read_is_named(report, tmp_path, capsys, name, content):
    root = tmp_path / "runs"
    shutil.copytree(report[0] / "toy", root / "toy")
    bad = next(root.glob("toy/m2*/seed0"))
    (bad / "eval" / name).write_text(content)
    (found,) = collect(root)
    assert found.model.startswith("m0")
    (said,) = capsys.readouterr().err.splitlines()
    assert str(bad) in said

"""Pseudo-atoms against their exact law: numbers, pictures, films, and what becomes of failures."""

import csv
import json
import math
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from scorefield import VE, Heun, PseudoAtoms, ScoreField
from scorefield.cli.program import main
from scorefield.errors import RunError
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Level
from scorefield.plotting import png
from scorefield.plotting.palette import EXACT as EXACT_LOOK
from scorefield.plotting.palette import looks
from scorefield.runs.cells import Marked
from scorefield.studies.atoms import figures, numbers
from scorefield.studies.atoms import film as films
from scorefield.studies.atoms import study as atoms_study
from scorefield.studies.atoms.compute import EXACT, Model, analyse, noise_levels
from scorefield.studies.atoms.figures import against_noise, comparison
from scorefield.studies.atoms.film import encode, mp4, page, view
from scorefield.studies.atoms.plane import MASSES, Plane, draw_regions, make_film, panels
from scorefield.studies.atoms.study import AtomsStudy, makers_of
from scorefield.studies.frame import NotMade, Work
from scorefield.studies.settings import Atoms

SDE = VE(0.001, 0.5)
LAW = PseudoAtoms([[0.25], [0.75]], 0.01, sde=SDE)
FEW = Atoms(n=64, levels=3, points=8, cells=8)
PNG = b"\x89PNG"


class Shifted(ScoreField):
    """The exact score and a constant vector, in units of the noise."""

    def __init__(self, law=LAW, by=0.5):
        super().__init__(law.sde, law.domain)
        self.law, self.by = law, by

    def score(self, x, t, classes=None):
        sigma = self.sde.sigma(torch.as_tensor(t, dtype=x.dtype)).reshape(-1, *(1,) * (x.dim() - 1))
        return self.law.score(x, t) + self.by / sigma


def models(law=LAW):
    return [
        Model(EXACT, None, law, {}),
        Model("shifted", 0, Shifted(law), {}),
        Model("shifted", 1, Shifted(law, 0.7), {}),
    ]


@pytest.fixture(scope="module")
def analysis():
    return analyse(LAW, models(), Heun(5), FEW)


@pytest.fixture(scope="module")
def film():
    return make_film(Plane(LAW), {"one": Shifted(), "two": Shifted(by=-0.5)}, frames=3, side=5)


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures take seconds, and are looked at elsewhere."""
    for name in ("comparison", "marginals", "radial", "scatter"):
        monkeypatch.setattr(atoms_study, name, lambda *about: b"")
    monkeypatch.setattr(films, "_DPI", 30)


def frames_of(content, folder):
    file = folder / "film.mp4"
    file.write_bytes(content)
    return imageio_ffmpeg.count_frames_and_secs(str(file))[0]


# ----------------------------------------------------------------------------------------- plane


@pytest.mark.parametrize("sigma", [0.0, 0.03, 0.1])
def test_regions_hold_their_masses(sigma):
    """In 20 000 draws, each share is within 5 standard deviations and 1 %."""
    relief = Plane(LAW).relief(sigma)
    wide = PseudoAtoms([[0.25], [0.75]], math.hypot(0.01, sigma), sde=SDE)
    draws = wide.log_density(wide.sample(20_000, 0, torch.float64), 0.0)
    # The law of the draws has the least noise of the process on top, which is little.
    for mass, level in zip(MASSES, relief.thresholds, strict=True):
        share = float((draws > level).double().mean())
        assert share == pytest.approx(mass, abs=0.01 + 5 * math.sqrt(mass * (1 - mass) / 20_000))
    assert list(relief.thresholds) == sorted(relief.thresholds)
    assert all(lines for lines in relief.outlines())


def test_a_region_of_a_well_is_a_disc():
    """The 99 % region of a normal law in the plane has the radius √(2 ln 100) σ."""
    outline = Plane(LAW).relief(0.0).outlines()[0]
    assert len(outline) == 2
    radius = 0.01 * math.sqrt(2 * math.log(100))
    for line in outline:
        centre = [[0.25, 0.75], [0.75, 0.25]][int(line[0, 0] > 0.5)]
        assert np.linalg.norm(line - centre, axis=1) == pytest.approx(radius, rel=0.1)


@pytest.mark.parametrize("sigma", [1.0, 10.0])
def test_a_uniform_law_has_no_regions(sigma):
    """At such noise levels the density differs by less than its rounding."""
    plane = Plane(PseudoAtoms([[0.25], [0.75]], 0.01, sde=VE(0.001, 20.0)))
    relief = plane.relief(sigma)
    assert relief.outlines() == [[]] * len(MASSES)
    assert draw_regions(Figure().subplots(), relief) == []


def test_the_plane_of_one_atom_has_two_periods():
    plane = Plane(PseudoAtoms([[0.5, 1.5]], 0.05, (1.0, 3.0), SDE))
    assert plane.periods == (1.0, 3.0)
    assert plane.wells == [(0.5, 1.5)]
    relief = plane.relief(0.01)
    assert (relief.x[-1], relief.y[-1]) == (1.0, 3.0)
    column, row = np.abs(relief.x - 0.5).argmin(), np.abs(relief.y - 1.5).argmin()
    assert relief.log_density[row, column] == pytest.approx(relief.log_density.max(), abs=0.1)


def test_more_coordinates_have_no_plane():
    with pytest.raises(ValueError, match="the atoms 6"):
        Plane(PseudoAtoms([[0.1, 0.2], [0.5, 0.5], [0.8, 0.1]], 0.01, sde=SDE))


# ---------------------------------------------------------------------------------------- scenes


def test_scenes_go_from_the_largest_level_to_the_smallest(film):
    sigmas = [scene.sigma for scene in film.scenes]
    assert (sigmas[0], sigmas[-1]) == (SDE.sigma_max, SDE.sigma_min)
    assert [scene.t for scene in film.scenes] == pytest.approx([1.0, 0.5, 0.0])
    assert noise_levels(0.1, 10.0, 3) == pytest.approx((10.0, 1.0, 0.1))


def test_arrows_are_the_score_in_units_of_the_noise(film):
    """At the places that they stand at: the first coordinate goes along a row."""
    scene = film.scenes[1]
    point = torch.tensor([[film.x[3], film.y[1]]]).reshape(1, 2, 1)
    score = LAW.score(point, scene.t).flatten().numpy()
    assert scene.exact[1, 3] == pytest.approx(scene.sigma * score)
    assert scene.models["one"] == pytest.approx(scene.exact + 0.5)


def test_a_model_is_seen_beside_the_exact_field_and_its_error(film):
    shown = panels(film.scenes[1], looks(["one"]))
    assert [p.heading[0] for p in shown] == ["exact field", "one", "one − exact"]
    assert shown[2].vectors == pytest.approx(np.full((5, 5, 2), 0.5))
    assert shown[2].longest == pytest.approx(math.sqrt(0.5))
    assert shown[0].longest == shown[1].longest
    assert len(panels(film.scenes[1], looks(["one", "two"]))) == 3
    assert len(panels(film.scenes[1], {})) == 1


def test_a_field_that_is_not_finite_is_named():
    with pytest.raises(FloatingPointError, match="bad: the score is not finite at"):
        make_film(Plane(LAW), {"bad": Shifted(by=math.nan)}, frames=2, side=3)


# ----------------------------------------------------------------------------------------- films


@pytest.mark.parametrize("names", [[], ["one"], ["one", "two"]])
def test_the_film_has_a_frame_a_scene(film, names, tmp_path):
    assert frames_of(mp4(film, looks(names), "a title"), tmp_path) == 3


def test_the_page_holds_every_view_and_needs_no_connection(film):
    both, one = looks(["one", "two"]), looks(["one"])
    text = page(film, {"all <of> them": both, "one": one, "alone": {}})
    start = text.index('id="figures">') + len('id="figures">')
    found = json.loads(text[start : text.index("</script>", start)])
    assert len(found) == 3
    assert all(len(figure["frames"]) == 3 for figure in found)
    assert "all &lt;of&gt; them" in text
    assert "plotly.js v" in text
    assert "<script src" not in text


@pytest.mark.parametrize(("names", "count"), [([], 1), (["one"], 3), (["one", "two"], 3)])
def test_a_frame_has_the_arrows_of_its_scene(film, names, count):
    """Every second arrow of every panel; lengths are in proportion, angles from the vertical."""
    figure = view(film, looks(names))
    assert [frame.name for frame in figure.frames] == ["0", "1", "2"]
    (slider,) = figure.layout.sliders
    assert [step.args[0][0] for step in slider.steps] == ["0", "1", "2"]
    for frame, scene in zip(figure.frames, film.scenes, strict=True):
        assert f"σ = {scene.sigma:.4g}" in frame.layout.title.text
        assert len(frame.data) == 2 * count
        for panel, arrows in zip(panels(scene, looks(names)), frame.data[1::2], strict=True):
            vectors = panel.vectors[::2, ::2].reshape(-1, 2)
            scale = panel.longest / 15.0
            angle = np.radians(np.asarray(arrows.marker.angle, dtype=float))
            drawn = (
                scale * np.asarray(arrows.marker.size) * np.stack((np.sin(angle), np.cos(angle)))
            )
            assert pytest.approx(vectors, abs=0.01 * panel.longest) == drawn.T


def executable(folder, text):
    file = folder / "encoder"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (
            "cat > /dev/null; echo first >&2; echo no such codec >&2; exit 3",
            "failed: no such codec",
        ),
        ("cat > /dev/null; exit 3", "no output, status 3"),
        ("echo out of luck >&2; exit 1", "failed: out of luck"),
        ("cat > /dev/null", "failed: No such file"),
        ('cat > /dev/null; for last; do :; done; : > "$last"', "it wrote nothing"),
    ],
)
def test_an_encoder_that_fails_is_an_error(script, what, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", executable(tmp_path, script))
    with pytest.raises(NotMade, match=what):
        encode(Figure((2, 2)), lambda frame: None, 2)
    assert not caplog.records


def test_no_encoder_is_an_error(monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/no/such/encoder")
    with pytest.raises(NotMade, match="the encoder failed: /no/such/encoder: No such file"):
        encode(Figure((2, 2)), lambda frame: None, 1)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(NotMade, match="there is no encoder: install the extra 'film'"):
        encode(Figure((2, 2)), lambda frame: None, 1)


# --------------------------------------------------------------------------------------- numbers


def test_the_exact_field_has_no_error_and_a_shift_is_found(analysis):
    exact, shifted, _ = analysis.results
    value = {v.metric: v.estimate.value for v in exact.levels if v.sigma == SDE.sigma_max}
    assert value["score_error"] == 0
    assert value["fokker_planck"] < 1e-8
    errors = [v.estimate.value for v in shifted.levels if v.metric == "score_error"]
    assert errors == pytest.approx([0.5] * 3)
    wound = [v.estimate for v in shifted.levels if v.metric == "harmonic_part"]
    # The circulation of a constant vector once around the box.
    assert wound[0].value == pytest.approx(0.5 / SDE.sigma_max, rel=1e-6)
    for metric in ("consistency", "relative_asymmetry", "winding", "fokker_planck_gap"):
        assert metric in value or metric == "consistency"


def test_all_models_start_from_one_noise_and_pass_by_common_levels(analysis):
    states = [f.states for f in analysis.results]
    assert torch.equal(states[0][0].x, states[1][0].x)
    assert [s.sigma for s in states[0]] == [s.sigma for s in states[2]]
    for found in analysis.results:
        assert found.samples.shape == (64, 2, 1)
        assert bool(((found.samples >= 0) & (found.samples < 1)).all())


def test_seeds_are_pooled(analysis):
    levels = analysis.pooled_levels("shifted")
    (value,) = {round(v.estimate.value, 6) for v in levels if v.metric == "score_error"}
    assert value == pytest.approx(0.6)
    first = next(v.estimate for v in levels if v.metric == "score_error")
    assert first.standard_error == pytest.approx(0.1, rel=1e-6)
    assert analysis.pooled_levels(EXACT)[0].estimate == analysis.results[0].levels[0].estimate
    printed = numbers.table(analysis)
    assert [row[:2] for row in printed.rows] == [
        [EXACT, ""],
        ["shifted", "0"],
        ["shifted", "1"],
        ["shifted", "all"],
    ]
    assert printed.headings[:3] == ["model", "seed", "total variation"]


def test_models_with_several_seeds_are_marked_by_their_differences(analysis):
    """A score error that is larger by the same for each seed is worse; what is the same is not."""
    far = [
        replace(
            found,
            model=replace(found.model, name="far"),
            levels=tuple(
                replace(v, estimate=replace(v.estimate, value=v.estimate.value + 5.0))
                if v.metric == "score_error"
                else v
                for v in found.levels
            ),
        )
        for found in analysis.results[1:]
    ]
    table = numbers.table(replace(analysis, results=(*analysis.results, *far)))
    last = dict(zip(table.headings, table.rows[-1], strict=True))
    assert (last["model"], last["seed"]) == ("far", "all")
    assert last["score error"].mark == "worse"
    assert last["total variation"].mark == "not distinguishable"
    assert not [c for row in table.rows[:-1] for c in row if isinstance(c, Marked)]
    assert "worse than shifted" in table.notes[0]


def made(analysis):
    """The files but for the films."""
    return {
        name: make()
        for name, make in AtomsStudy(analysis.settings, LAW, models(), Heun(5))
        .files(analysis, Work())
        .items()
        if "film" not in name
    }


def test_files_hold_every_number(analysis, no_pictures):
    files = made(analysis)
    rows = list(csv.DictReader(files["numbers.csv"].decode().splitlines()))
    assert {(r["model"], r["seed"]) for r in rows} == {
        (EXACT, ""),
        ("shifted", "0"),
        ("shifted", "1"),
        ("shifted", "all"),
    }
    metrics = {r["metric"] for r in rows if r["model"] == EXACT}
    assert metrics >= {"total_variation", "marginal_ks", "radial_ks", "score_error", "winding"}
    assert metrics >= {"fokker_planck", "fokker_planck_component", "fokker_planck_gap"}
    assert metrics >= {"consistency", "relative_asymmetry", "exterior_derivative"}
    for row in rows:
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
        assert (row["sigma"] == "") == (row["metric"] in analysis.results[0].distances)
    record = json.loads(files["summary.json"])
    assert record["law"]["positions"] == [[0.25], [0.75]]
    assert record["terms"]["samples"] == 64
    with np.load(BytesIO(files["shifted_seed1/samples.npz"])) as saved:
        assert np.array_equal(saved["samples"], analysis.results[2].samples.numpy())
        assert len(saved.files) == 1 + len(analysis.results[2].states)


def test_pictures_of_one_model(analysis, monkeypatch):
    monkeypatch.setattr(figures.plotting, "png", lambda sheet: png(sheet, 30))
    alone, look = analysis.members(EXACT), {EXACT: EXACT_LOOK}
    one = replace(analysis, results=tuple(alone))
    assert figures.scatter(Plane(LAW), alone, look).startswith(PNG)
    assert figures.radial(one, {EXACT: alone}, look).startswith(PNG)
    assert figures.marginals(one, {EXACT: alone}, look).startswith(PNG)
    assert comparison(one, look).startswith(PNG)


@pytest.mark.slow
def test_pictures_of_several_models(analysis):
    files = made(analysis)
    pictures = [name for name in files if name.endswith(".png")]
    assert len(pictures) == 4 + 3 * 3
    assert all(files[name].startswith(PNG) for name in pictures)


@pytest.fixture
def sheets(monkeypatch):
    """The figures of samples, laid out in place of being saved."""
    seen = []

    def lay_out(sheet):
        sheet.draw_without_rendering()
        seen.append(sheet)
        return b""

    monkeypatch.setattr(figures.plotting, "png", lay_out)
    return seen


def test_the_small_print_is_within_a_narrow_sheet(analysis, sheets):
    figures.scatter(Plane(LAW), analysis.members(EXACT), {EXACT: EXACT_LOOK})
    (sheet,) = sheets
    (print_,) = [text for text in sheet.texts if "shaded" in text.get_text()]
    extent = print_.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= sheet.bbox.width


@pytest.mark.parametrize(("std", "rows"), [(0.01, 3), (0.2, 1)])
def test_a_well_is_looked_at_where_it_is_narrower_than_the_box(std, rows, sheets):
    """A window longer than the box would show the same points several times."""
    law = PseudoAtoms([[0.25], [0.75]], std, sde=SDE)
    found = analyse(law, [Model(EXACT, None, law, {})], Heun(2), replace(FEW, levels=1))
    figures.scatter(Plane(law), found.results, {EXACT: EXACT_LOOK})
    assert len(sheets[0].axes) == rows
    limits = sheets[0].axes[0].get_xlim()
    assert limits == (0.0, 1.0)


def test_atoms_in_space_have_numbers_and_no_plane(no_pictures, monkeypatch):
    """Two atoms in two dimensions, so wide that their radial law is not known."""
    law = PseudoAtoms([[0.2, 0.3], [0.6, 0.8]], 0.2, (1.0, 1.5), VE(0.01, 1.0))
    found = analyse(law, [Model(EXACT, None, law, {})], Heun(3), FEW)
    assert found.radial is None
    assert set(found.results[0].distances) == {"total_variation", "marginal_ks", "marginal_ks_1"}
    files = makers_of(found, {EXACT: EXACT_LOOK})
    monkeypatch.setattr(figures.plotting, "png", lambda sheet: png(sheet, 30))
    picture = figures.marginals(found, {EXACT: found.results}, {EXACT: EXACT_LOOK})
    assert picture.startswith(PNG)
    assert {"comparison.png", "marginals.png", "exact_field/marginals.png"} <= set(files)
    assert not [name for name in files if "scatter" in name or "radial" in name]


def test_a_single_noise_level_is_within_its_axes():
    axes = Figure().subplots()
    level = Level("winding", 0.1, Estimate(2.0, 0.1, 9))
    against_noise(axes, "winding", {"a": [level]}, [], looks(["a"]))
    low, high = axes.get_xlim()
    assert 0.05 < low < 0.1 < high < 0.2


def test_what_is_no_more_than_its_errors_stands_at_the_foot():
    axes = Figure().subplots()
    levels = [
        Level("winding", 0.1, Estimate(2.0, 0.1, 9)),
        Level("winding", 0.2, Estimate(1.0, 0.1, 9, numerical_error=1.5)),
        Level("winding", 0.3, Estimate(-0.1, 0.2, 9)),
    ]
    against_noise(axes, "winding", {"a": levels}, [], looks(["a"]))
    low = axes.get_ylim()[0]
    (feet,) = [line for line in axes.lines if line.get_marker() == "v"]
    assert feet.get_xdata().tolist() == [0.2, 0.3]
    assert all(low < y < 1.2 * low for y in feet.get_ydata())


def test_a_failure_names_the_model():
    class Failing(Shifted):
        def score(self, x, t, classes=None):
            return super().score(x, t) * math.nan

    with pytest.raises(RunError, match=r"^bad, seed 3: .*stopped being finite in step 1"):
        analyse(LAW, [Model("bad", 3, Failing(), {})], Heun(3), FEW)


@pytest.mark.parametrize("number", ["n", "levels", "points", "cells"])
def test_settings_have_least_numbers(number):
    with pytest.raises(ValueError, match=f"{number} is 0, it must be at least"):
        Atoms(**{number: 0})


def test_models_have_names_of_their_own():
    with pytest.raises(ValueError, match="different names or seeds"):
        analyse(LAW, models()[:1] * 2, Heun(3), FEW)


# ---------------------------------------------------------------------------------- command line

SMALL = ["--n", 32, "--levels", 2, "--points", 8, "--frames", 2, "--steps", 2]


def command(*arguments):
    return main(["analyze", "atoms", *map(str, arguments)])


@pytest.mark.slow
def test_the_command_writes_everything(atom_runs, no_pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(*atom_runs, "--exact", *SMALL, "--out", out) == 0
    told = capsys.readouterr().out
    keys = ["exact_field", "no_regularizer_seed0", "no_regularizer_seed1"]
    keys.append("analytical_regression_seed0")
    names = ["samples.npz", "scatter.png", "radial.png", "marginals.png", "film.mp4"]
    expected = {f"{key}/{name}" for key in keys for name in names}
    expected |= {"numbers.csv", "summary.json", "comparison.png", "film.html", "study.json"}
    expected |= set(names[1:])
    found = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    assert found == expected
    assert {str(out / name) for name in expected} <= set(told.split("\n"))
    record = json.loads((out / "summary.json").read_text())
    assert set(record["files"]) == expected
    assert [m["seed"] for m in record["models"]] == [None, 0, 1, 0]
    assert record["models"][1]["step"] == 4
    for name in ("film.mp4", "analytical_regression_seed0/film.mp4"):
        assert imageio_ffmpeg.count_frames_and_secs(str(out / name))[0] == 2
    # Once there, it is overwritten only if asked, and nothing else is.
    assert command("--exact", *SMALL, "--out", out) == 2
    assert "out exists; overwrite it" in capsys.readouterr().err
    (out / "thesis.tex").write_text("years of work")
    assert command("--exact", *SMALL, "--out", out, "--overwrite") == 2
    assert "holds thesis.tex, which is no result" in capsys.readouterr().err
    (out / "thesis.tex").unlink()
    assert command("--exact", *SMALL, "--out", out, "--overwrite") == 0
    assert {f.name for f in out.iterdir() if f.is_dir()} == {"exact_field"}


def test_a_failed_encoder_loses_nothing_else(no_pictures, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    script = 'for last; do :; done; echo half > "$last"; echo disk on fire >&2; exit 1'
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", executable(tmp_path, script))
    assert command("--exact", *SMALL, "--out", out) == 2
    told = capsys.readouterr()
    (line,) = told.err.strip().split("\n")
    assert "film.mp4 could not be made: the encoder failed: disk on fire; all else is there" in line
    assert "exact field" in told.out
    found = {f.name for f in out.rglob("*") if f.is_file()}
    assert found >= {"film.html", "numbers.csv", "scatter.png", "samples.npz"}
    assert not list(tmp_path.rglob("*.mp4"))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "there is nothing to analyse: give runs, or --exact"),
        (["{trained}"], "is a run on data of kind 'ring'"),
        (["no/such/run"], "there is no run 'no/such/run'"),
        (["{run}", "{run}"], "no_regularizer, seed 0, of which there is another run"),
        (["--exact", "--frames", 1], "--frames is 1, it must be an integer from 2"),
        (["--exact", "--steps", 0], "steps is 0"),
    ],
)
def test_mistakes_are_one_sentence(arguments, what, atom_runs, trained, tmp_path, capsys):
    places = {"trained": trained, "run": atom_runs[0]}
    asked = [str(a).format(**places) for a in arguments]
    assert command(*asked, "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert what in line
    assert not (tmp_path / "out").exists()


def test_a_whole_disk_is_not_overwritten(capsys):
    assert command("--exact", "--out", "/", "--overwrite") == 2
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert "which is no result: it is not overwritten" in line


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("data.std=0.02", "cannot be compared: data.std is 0.01 and 0.02"),
        ("sampler.steps=7", "different samplers: give one to all"),
    ],
)
def test_runs_must_be_comparable(change, what, atom_runs, monkeypatch):
    from scorefield.config.resolve import load_config
    from scorefield.runs.run import Run

    other = Run(Path("other"), load_config("atoms/no_regularizer", [change]))
    opened = atoms_study.Run.open
    monkeypatch.setattr(
        atoms_study.Run,
        "open",
        lambda path, *trust: other if path == Path("other") else opened(path, *trust),
    )
    with pytest.raises(RunError, match=what):
        AtomsStudy.open(Atoms(runs=(atom_runs[0], Path("other"))))


def test_an_interrupt_leaves_no_half_film(tmp_path, monkeypatch):
    monkeypatch.setattr(films.tempfile, "tempdir", str(tmp_path))

    def draw(frame):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(Figure((2, 2)), draw, 2)
    assert not list(tmp_path.iterdir())

"""The exterior derivative from noise to images: truths, and what becomes of failures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from scorefield.calculus import jacobian
from scorefield.cli import main
from scorefield.diagnostics.protocol import form
from scorefield.diagnostics.trajectories import walk
from scorefield.errors import RunError
from scorefield.fields import PreconditionedField
from scorefield.fields.base import affine
from scorefield.networks import MinimalUNet
from scorefield.noise import Noise
from scorefield.runs import results_folder
from scorefield.studies import exterior, exterior_figure, exterior_study
from scorefield.studies.exterior import Terms, analyse
from scorefield.studies.exterior_files import (
    MULTIPLE,
    SINGLE,
    arrays,
    contents,
    over_steps,
    summary,
    write,
)
from scorefield.studies.material import gather, reverse
from scorefield.targets import EquivariantLocalScore, IdealScore, LocalScore
from tests.planted import Function, Plus, Watched

SDE, DDIM = reverse(None, 5)
MATERIAL = gather("digits", n=40)
MACHINES = {
    "els": EquivariantLocalScore(MATERIAL.images, SDE, size=3),
    "ls": LocalScore(MATERIAL.images, SDE, size=3),
    "is": IdealScore(MATERIAL.images, SDE),
}
WHERE = ("trajectory", "noise", "data")


def turning(matrix):
    """The score M x of images of 2 x 2 pixels, which keeps where it was evaluated."""
    matrix = torch.as_tensor(matrix)

    def score(x, t):
        return (x.flatten(1) @ matrix.T.to(x.dtype)).reshape(x.shape)

    return Watched(Function(score, (1, 2, 2), SDE))


@pytest.fixture(scope="module")
def several():
    """All machines, from three starts."""
    terms = Terms(3, seed=1, points=WHERE)
    return analyse(MACHINES, DDIM, terms, MATERIAL.held_out(3))


@pytest.fixture(scope="module")
def single():
    return analyse(MACHINES, DDIM, Terms(1))


def network():
    net = MinimalUNet((1, 8, 8), (4, 8), embedding=8)
    return PreconditionedField(net, SDE, sigma_data=1.0)


@pytest.fixture
def probed_too(monkeypatch):
    """Networks on 64 coordinates are probed, as larger ones are."""
    monkeypatch.setattr(exterior, "SMALL", 32)


# ---------------------------------------------------------------------------------------- truths


def test_locality_alone_makes_curl(several):
    """The ideal score has none anywhere; the local ones have some everywhere."""
    for where in WHERE:
        ideal = several.courses["is", where]
        assert (ideal.exterior <= ideal.rounding).all()
        for name in ("els", "ls"):
            local = several.courses[name, where]
            assert (local.exterior > 10 * local.rounding).all()


def test_values_are_those_of_jacobians_on_the_way():
    """Along the trajectory by derivatives of the field, at the points that a walk gives."""
    field, terms = MACHINES["els"], Terms(2, 1, points=("trajectory",), dtype=torch.float64)
    result = analyse({"els": field}, DDIM, terms)
    states = walk(field, DDIM, 2, seed=1, dtype=torch.float64).states
    course = result.courses["els", "trajectory"]
    assert result.sigmas.tolist() == [state.sigma for state in states]
    assert np.allclose(result.times, [1, 0.8, 0.6, 0.4, 0.2])
    for step, (_, t, x) in enumerate(states):
        truth = jacobian(form(field, "score"), x, torch.full((2,), t, dtype=torch.float64))
        curl = (truth - truth.mT).flatten(1).norm(dim=1)
        assert torch.allclose(torch.tensor(course.exterior[:, step]), curl, rtol=1e-8)
        relative = curl / (2 * truth.flatten(1).norm(dim=1))
        assert torch.allclose(torch.tensor(course.relative[:, step]), relative, rtol=1e-8)


@pytest.mark.parametrize("unit", ["noise", "denoiser"])
def test_units_differ_by_a_known_factor(unit):
    """σ for the predicted noise and σ²/α for the denoiser, at the very same points."""
    asked = {name: MACHINES[name] for name in ("els", "ls")}
    score = analyse(asked, DDIM, Terms(2))
    other = analyse(asked, DDIM, Terms(2, unit=unit))
    t = torch.tensor(score.times)
    factor = affine(t[:, None], t, SDE, unit)[1].abs().flatten().numpy()
    for key, course in score.courses.items():
        assert np.allclose(other.courses[key].exterior, factor * course.exterior, rtol=1e-10)
        if unit == "noise":
            assert np.allclose(other.courses[key].relative, course.relative, rtol=1e-10)


@pytest.mark.parametrize("precision", [None, 0.01])
def test_a_planted_matrix_is_found_in_every_unit(precision):
    matrix = torch.tensor(np.random.default_rng(0).normal(size=(4, 4)))
    terms = Terms(2, points=("noise",), precision=precision, dtype=torch.float64)
    found = analyse({"unet": turning(matrix)}, DDIM, terms).courses["unet", "noise"]
    skew = float((matrix - matrix.T).norm())
    assert found.exterior == pytest.approx(np.full((2, 5), skew), rel=1e-12)
    assert found.relative == pytest.approx(
        np.full((2, 5), skew / (2 * float(matrix.norm()))), rel=1e-12
    )


def test_all_models_start_from_one_noise():
    """At the start, and at all times where the points are the noise itself."""
    first, second = turning(-np.eye(4)), turning(-2 * np.eye(4))
    terms = Terms(3, seed=7, points=("noise", "trajectory", "data"), dtype=torch.float64)
    data = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    result = analyse({"unet": first, "resnet": second}, DDIM, terms, data)
    noise = Noise(7).normal("prior", (1, 2, 2), torch.arange(3), dtype=torch.float64)
    walked = DDIM.steps
    for field in (first, second):
        times = [t.reshape(-1)[:1].double() for t in field.times]
        assert torch.allclose(field.points[0], noise, rtol=1e-14)
        assert [float(t) for t in times[walked : 2 * walked]] == pytest.approx(
            result.times.tolist()
        )
        for x in field.points[walked : 2 * walked]:
            # The points of exact Jacobians are repeated, a row each.
            assert torch.allclose(x, noise.repeat(len(x) // 3, 1, 1, 1), rtol=1e-14)
        for x, t in zip(field.points[3 * walked :], times[3 * walked :], strict=True):
            mixed = SDE.alpha(t) * data + SDE.sigma(t) * noise
            assert torch.allclose(x[:3], mixed, rtol=1e-12)
    ways = [field.points[walked - 1] for field in (first, second)]
    assert not torch.allclose(*ways)


def test_probes_lie_within_their_error_of_exact_jacobians(probed_too):
    """Of 10 values, the mean square of (probed - exact) / error is below 16 but for 1e-6."""
    fields = {"unet": network()}
    probed = analyse(fields, DDIM, Terms(2, points=("trajectory",), precision=0.05))
    exact = analyse(fields, DDIM, Terms(2, points=("trajectory",), precision=None))
    course, truth = (a.courses["unet", "trajectory"] for a in (probed, exact))
    assert (min(course.probes), max(truth.probes)) == (16, 0)
    assert (truth.exterior_error == 0).all()
    assert (course.exterior_error <= 0.05 * course.exterior).all()
    assert (course.relative_error <= 0.05 * course.relative).all()
    z = (course.exterior - truth.exterior) / course.exterior_error
    assert (z**2).mean() < 16


def test_few_coordinates_are_never_probed():
    course = analyse({"unet": network()}, DDIM, Terms(2)).courses["unet", "trajectory"]
    assert course.probes == (0,) * 5


def test_a_start_does_not_depend_on_the_others():
    terms = {"points": ("trajectory",), "dtype": torch.float64}
    three = analyse({"els": MACHINES["els"]}, DDIM, Terms(3, **terms))
    one = analyse({"els": MACHINES["els"]}, DDIM, Terms(1, **terms))
    for values in ("exterior", "relative"):
        many, alone = (getattr(a.courses["els", "trajectory"], values) for a in (three, one))
        assert many[:1] == pytest.approx(alone, rel=1e-9)


# -------------------------------------------------------------------------------------- failures


def failing(matrix):
    """Not a number below a time."""

    def error(x, t):
        return torch.nan if torch.as_tensor(t).reshape(-1)[0] < 0.5 else 0.0

    return Plus(turning(matrix), error)


@pytest.mark.parametrize(
    ("points", "what"),
    [
        (("noise",), "unet: .* in step 4 of 5, from noise level 0.71"),
        (("data",), "unet: .* in step 4 of 5, from noise level 0.71"),
    ],
)
def test_a_failure_on_the_way_is_told(points, what):
    with pytest.raises(RunError, match=what):
        analyse(
            {"unet": failing(-np.eye(4))}, DDIM, Terms(2, points=points), torch.zeros(2, 1, 2, 2)
        )


def test_a_failed_jacobian_names_model_step_and_level(monkeypatch):
    whole = exterior.asymmetry_at

    def broken(field, x, t, *rest):
        return whole(failing(np.eye(4)), x, t, *rest)

    monkeypatch.setattr(exterior, "asymmetry_at", broken)
    with pytest.raises(RunError, match=r"resnet, noise: step 4 of 5, at noise level 0\.71.*finite"):
        analyse({"resnet": turning(-np.eye(4))}, DDIM, Terms(2, points=("noise",)))


def test_a_constant_field_has_no_relative_asymmetry():
    with pytest.raises(RunError, match=r"unet, noise: step 1 of 5.*the Jacobian is zero"):
        analyse({"unet": turning(np.zeros((4, 4)))}, DDIM, Terms(2, points=("noise",)))


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda: analyse({}, DDIM, Terms()), "at least one model"),
        (lambda: analyse(MACHINES, DDIM, Terms(2, points=("data",))), "2 held-out images"),
        (
            lambda: analyse({**MACHINES, "unet": turning(np.eye(4))}, DDIM, Terms()),
            "unet and els differ",
        ),
        (lambda: Terms(0), "at least one start"),
        (lambda: Terms(points=()), "named once each"),
        (lambda: Terms(points=("noise", "noise")), "named once each"),
        (lambda: Terms(precision=0.0), r"\(0, 1\)"),
    ],
)
def test_an_analysis_names_the_setting_that_it_refuses(ask, what):
    with pytest.raises(ValueError, match=what):
        ask()


# ----------------------------------------------------------------------------------------- files


def test_files_hold_everything_and_load_as_plain_data(several, tmp_path):
    files = contents(several, MULTIPLE, {"dataset": "digits"})
    assert set(files) == {
        "ed_analysis_aggregated.npz",
        "ed_analysis_aggregated.pt",
        "summary_stats.json",
    }
    write(tmp_path / "out", files)
    saved = torch.load(tmp_path / "out" / "ed_analysis_aggregated.pt", weights_only=True)
    with np.load(tmp_path / "out" / "ed_analysis_aggregated.npz") as packed:
        flat = dict(packed)
    assert json.loads(str(flat["settings"])) == saved["settings"]
    assert saved["settings"]["std_ddof"] == 1
    course = several.courses["ls", "noise"]
    tensors = saved["ls"]["noise"]
    for name, value in tensors.items():
        assert np.array_equal(value.numpy(), flat[f"ls/noise/{name}"])
    assert np.array_equal(tensors["exterior"].numpy(), course.exterior)
    assert np.array_equal(tensors["exterior_mean"].numpy(), course.exterior.mean(axis=0))
    assert np.allclose(tensors["exterior_std"].numpy(), course.exterior.std(axis=0, ddof=1))
    assert np.allclose(3**0.5 * tensors["exterior_standard_error"], tensors["exterior_std"])
    assert saved["is"]["final_images"].shape == (3, 1, 8, 8)
    assert saved["noise_levels"].tolist() == several.sigmas.tolist()


def test_one_start_has_values_and_no_deviations(single):
    assert "els/trajectory/exterior" in arrays(single)
    assert not [name for name in arrays(single) if name.endswith(("_std", "_mean"))]
    files = contents(single, SINGLE, {})
    assert set(files) == {"ed_analysis_single.npz", "ed_analysis_single.pt"}


def test_the_summary_agrees_with_the_values(several):
    found = summary(several)
    assert list(found) == ["els", "ls", "is"]
    record, course = found["els"]["trajectory"], several.courses["els", "trajectory"]
    by_start = course.exterior.mean(axis=1)
    assert record["num_realizations"] == 3
    assert record["mean_ed_magnitude"] == pytest.approx(by_start.mean())
    error = by_start.std(ddof=1) / 3**0.5
    assert record["mean_ed_magnitude_standard_error"] == pytest.approx(error)
    low, high = record["mean_ed_magnitude_interval_95"]
    # Student's law with two degrees of freedom.
    assert high - low == pytest.approx(2 * 4.3027 * error, rel=1e-4)
    assert record["std_ed_magnitude"] == pytest.approx(course.exterior.std(axis=0, ddof=1).mean())
    top = course.exterior.mean(axis=0).argmax()
    assert record["max_ed_magnitude"] == pytest.approx(course.exterior.mean(axis=0)[top])
    assert record["max_ed_magnitude_noise_level"] == several.sigmas[top]
    assert not record["ed_magnitude_is_rounding"]
    assert found["is"]["noise"]["ed_magnitude_is_rounding"]
    assert json.loads(json.dumps(found)) == found


def test_one_start_has_the_error_of_its_probes(probed_too):
    terms = Terms(1, points=("noise",), precision=0.3)
    course = analyse({"unet": network()}, DDIM, terms).courses["unet", "noise"]
    average = over_steps(course)
    assert average.value == pytest.approx(course.exterior.mean())
    expected = np.sqrt((course.exterior_error**2).sum()) / 5
    assert average.standard_error == pytest.approx(expected)


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "digits" / "single_realization"
    old, new = {"ed_analysis_single.pt": b"old"}, {"ed_analysis_single.pt": b"new", "b": b""}
    write(folder, old)
    with pytest.raises(RunError, match="exists; overwrite it"):
        write(folder, new)

    def full(path, content):
        if path.name == "b":
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(content)

    monkeypatch.setattr("scorefield.files._write", full)
    with pytest.raises(OSError, match="No space left"):
        write(folder, new, overwrite=True)
    assert [(f.name, f.read_bytes()) for f in folder.iterdir()] == [
        ("ed_analysis_single.pt", b"old")
    ]
    monkeypatch.undo()
    write(folder, {"ed_analysis_single.npz": b"new"}, overwrite=True)
    assert [f.name for f in folder.iterdir()] == ["ed_analysis_single.npz"]
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]


def test_what_is_no_result_is_not_overwritten(tmp_path):
    folder = tmp_path / "single_realization"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"holds thesis\.tex"):
        write(folder, {}, overwrite=True)
    assert (folder / "thesis.tex").exists()


@pytest.mark.parametrize("kind", ["single", "several"])
def test_pictures_have_the_names_of_what_they_show(kind, request, monkeypatch):
    analysis = request.getfixturevalue(kind)
    seen = []
    monkeypatch.setattr(exterior_figure, "picture", lambda *about: seen.append(about) or b"")
    names = set(exterior_figure.pictures(analysis, "ed", "digits"))
    expected = {"ed.png", "ed_relative.png", "ed_noise.png", "ed_noise_relative.png"}
    if kind == "several":
        expected |= {"ed_data.png", "ed_data_relative.png"}
    assert names == expected
    assert seen[0][1:3] == ("trajectory", "exterior")


@pytest.mark.parametrize("kind", ["single", "several"])
def test_pictures(kind, request):
    analysis = request.getfixturevalue(kind)
    content = exterior_figure.picture(analysis, "noise", "exterior", "a title")
    assert content.startswith(b"\x89PNG")


def test_a_picture_of_nothing_but_rounding(several):
    """No number is left to be drawn on a logarithmic axis."""
    courses = {key: course for key, course in several.courses.items() if key[0] == "is"}
    ideal = replace(several, images={"is": several.images["is"]}, courses=courses)
    content = exterior_figure.picture(ideal, "noise", "exterior", "a title")
    assert content.startswith(b"\x89PNG")


# ---------------------------------------------------------------------------------- command line


def command(*arguments):
    return main(["analyze", "exterior", *map(str, arguments)])


def test_the_command_compares_networks_and_machines(digit_runs, tmp_path, capsys):
    scales = tmp_path / "scales.json"
    scales.write_text(json.dumps({"sigmas": [0.5, 2.0], "median": [3, 5], "chosen": "median"}))
    runs = ["--unet", digit_runs["unet"], "--resnet", digit_runs["resnet"]]
    settings = ["--multiple", 2, "--nsteps", 3, "--images", 30, "--units", "noise"]
    settings += ["--points", "data", "--scales", scales, "--output-dir", tmp_path]
    assert command("--dataset", "digits", *runs, *settings) == 0
    told = capsys.readouterr().out
    folder = tmp_path / "digits" / "multiple_realizations"
    assert {str(file) for file in folder.iterdir()} <= set(told.split("\n"))
    record = json.loads((folder / "summary_stats.json").read_text())
    assert list(record["models"]) == ["unet", "resnet", "els", "ls", "is"]
    assert record["settings"]["unit"] == "noise"
    assert record["settings"]["sizes_by_noise_level"] == {"0.5": 3, "2.0": 5}
    assert record["settings"]["networks"]["unet"]["step"] == 20
    for name in ("unet", "resnet", "els", "ls"):
        assert record["models"][name]["data"]["mean_ed_magnitude"] > 0
    assert command("--dataset", "digits", *runs, *settings) == 2
    assert "multiple_realizations exists; overwrite it" in capsys.readouterr().err


def test_the_command_needs_no_network(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exterior_figure, "picture", lambda *about: b"")
    settings = ["--nsteps", 2, "--images", 10, "--machines", "is,els", "--size", 5]
    settings += ["--points", "noise", "--label", 4, "--padding", "circular"]
    assert command("--dataset", "digits", "--single", *settings, "--output-dir", tmp_path) == 0
    folder = tmp_path / "digits" / "single_realization"
    saved = torch.load(folder / "ed_analysis_single.pt", weights_only=True)
    assert saved["settings"]["models"] == ["els", "is"]
    assert saved["settings"]["images"] == int((gather("digits", n=10).labels == 4).sum())
    assert saved["settings"]["label"] == 4
    assert "0 within rounding" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "give either --single or --multiple"),
        (["--single", "--multiple", 3], "give either --single or --multiple"),
        (["--multiple", 1], "--multiple"),
        (["--single", "--machines", "els,elss"], "'elss'; the nearest is 'els'"),
        (["--single", "--machines", "els,xyz"], "'xyz'; all are els, ls, is"),
        (["--single", "--machines", "els,els"], "els twice"),
        (["--single", "--machines", "none"], "there is no model"),
        (["--single", "--points", "none"], "there must be points"),
        (["--single", "--points", "trajectories"], "the nearest is 'trajectory'"),
        (["--single", "--exact", "--precision", 0.1], "either --exact or --precision"),
        (["--single", "--precision", 2], "between 0 and 1"),
        (["--single", "--size", 4], "odd number of pixels, got 4"),
        (["--single", "--machines", "is", "--size", 4], "odd number of pixels, got 4"),
        (["--single", "--size", 9, "--padding", "circular"], "9"),
        (["--single", "--size", 3, "--scales", "x.json"], "either --size or --scales"),
        (["--single", "--scales", "x.json"], "x.json"),
        (["--single", "--units", "velocity"], "velocity"),
        (["--single", "--images", 2000], "1 to 1437 training images, 2000"),
        (["--single", "--images", 3, "--label", 11], "of the class 11"),
        (["--single", "--unet", "nowhere"], "--unet: nowhere is neither"),
        (["--single", "--data-path", "here"], "not read from a path"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(arguments, what, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("--dataset", "digits", *arguments, "--output-dir", out) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert what in lines[0]
    assert not out.exists()


def test_a_network_of_the_other_kind_is_not_told_under_its_name(digit_runs, tmp_path, capsys):
    arguments = ["--dataset", "digits", "--single", "--output-dir", tmp_path / "out"]
    for given, right, kind in (("unet", "resnet", "ResNet"), ("resnet", "unet", "UNet")):
        assert command(*arguments, f"--{given}", digit_runs[right]) == 2
        sentence = f"--{given} was given a Minimal{kind}: give it as --{right}"
        assert sentence in capsys.readouterr().err


def test_results_that_could_not_be_written_are_not_computed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exterior_study, "run", None)
    arguments = ["--dataset", "digits", "--single", "--output-dir"]
    (tmp_path / "file").write_text("a file")
    assert command(*arguments, tmp_path / "file") == 2
    assert "file is no folder" in capsys.readouterr().err
    monkeypatch.setattr(results_folder.os, "access", lambda *asked: False)
    assert command(*arguments, tmp_path / "out") == 2
    assert f"{tmp_path} cannot be written into" in capsys.readouterr().err


def test_an_interrupt_while_writing_leaves_what_was_there(tmp_path, monkeypatch):
    folder = tmp_path / "single_realization"
    write(folder, {"ed_analysis_single.pt": b"old"})
    rename = results_folder.os.rename

    def interrupted(old, new):
        if new == folder and old.name.startswith(".writing"):
            raise KeyboardInterrupt
        rename(old, new)

    monkeypatch.setattr(results_folder.os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(folder, {"ed_analysis_single.pt": b"new"}, overwrite=True)
    assert (folder / "ed_analysis_single.pt").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [folder]


def test_images_that_are_nowhere_are_a_mistake(tmp_path, capsys):
    arguments = ["--dataset", "celeba", "--single", "--data-path", tmp_path / "no"]
    assert command(*arguments, "--output-dir", tmp_path / "out") == 2
    assert str(tmp_path / "no") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing(tmp_path, capsys, monkeypatch):
    def failing(*arguments):
        raise ValueError("the Jacobian is not finite at 1 of 1 points")

    monkeypatch.setattr(exterior, "asymmetry_at", failing)
    arguments = ["--dataset", "digits", "--single", "--nsteps", 2, "--images", 5]
    assert command(*arguments, "--output-dir", tmp_path / "out") == 2
    sentence = capsys.readouterr().err
    assert "els, trajectory: step 1 of 2, at noise level 80" in sentence
    assert not (tmp_path / "out").exists()

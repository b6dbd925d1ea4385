"""The exterior derivative from noise to images: truths, and what becomes of failures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from scorefield import (
    EquivariantLocalScore,
    IdealScore,
    LocalScore,
    MinimalUNet,
    PreconditionedField,
    ScoreField,
    jacobian,
)
from scorefield.cli.program import main
from scorefield.diagnostics.protocol import form
from scorefield.diagnostics.trajectories import walk
from scorefield.domain import Euclidean
from scorefield.errors import RunError
from scorefield.fields.forms import affine
from scorefield.noise import Noise
from scorefield.studies.exterior import compute as exterior
from scorefield.studies.exterior import figure as exterior_figure
from scorefield.studies.exterior import study as exterior_study
from scorefield.studies.exterior.compute import analyse, arrays, npz, over_steps, summary, tensors
from scorefield.studies.exterior.study import ExteriorStudy
from scorefield.studies.frame import Work
from scorefield.studies.networks import read_images, reverse_process
from scorefield.studies.settings import Exterior

SDE, DDIM = reverse_process(None, 5)
IMAGES = read_images("digits", n=40)
MACHINES = {
    "els": EquivariantLocalScore(IMAGES.images, SDE, size=3),
    "ls": LocalScore(IMAGES.images, SDE, size=3),
    "is": IdealScore(IMAGES.images, SDE),
}
WHERE = ("trajectory", "noise", "data")


def chosen(starts=1, seed=0, **others):
    """Settings of so many starts."""
    return Exterior(dataset="digits", n=starts, seed=seed, **others)


class Turning(ScoreField):
    """The score M x of images of 2 x 2 pixels, which remembers what it is asked."""

    def __init__(self, matrix):
        super().__init__(SDE, Euclidean((1, 2, 2)))
        self.matrix = torch.as_tensor(matrix)
        self.asked = []

    def score(self, x, t, classes=None):
        self.asked.append((x.detach().clone(), torch.as_tensor(t).reshape(-1)[0].item()))
        return (x.flatten(1) @ self.matrix.T.to(x.dtype)).reshape(x.shape)


@pytest.fixture(scope="module")
def several():
    """All machines, from three starts."""
    settings = chosen(3, seed=1, points=WHERE)
    return analyse(MACHINES, DDIM, settings, IMAGES.held_out(3))


@pytest.fixture(scope="module")
def single():
    return analyse(MACHINES, DDIM, chosen(1))


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
        ideal = several.profiles["is", where]
        assert (ideal.exterior <= ideal.rounding).all()
        for name in ("els", "ls"):
            local = several.profiles[name, where]
            assert (local.exterior > 10 * local.rounding).all()


def test_values_are_those_of_jacobians_on_the_way():
    """Along the trajectory by derivatives of the field, at the points that a walk gives."""
    field, settings = MACHINES["els"], chosen(2, 1, points=("trajectory",), dtype="float64")
    result = analyse({"els": field}, DDIM, settings)
    states = walk(field, DDIM, 2, seed=1, dtype=torch.float64).states
    profile = result.profiles["els", "trajectory"]
    assert result.sigmas.tolist() == [state.sigma for state in states]
    assert np.allclose(result.times, [1, 0.8, 0.6, 0.4, 0.2])
    for step, (_, t, x, _) in enumerate(states):
        truth = jacobian(form(field, "score"), x, torch.full((2,), t, dtype=torch.float64))
        curl = (truth - truth.mT).flatten(1).norm(dim=1)
        assert torch.allclose(torch.tensor(profile.exterior[:, step]), curl, rtol=1e-8)
        relative = curl / (2 * truth.flatten(1).norm(dim=1))
        assert torch.allclose(torch.tensor(profile.relative[:, step]), relative, rtol=1e-8)


@pytest.mark.parametrize("unit", ["noise", "denoiser"])
def test_units_differ_by_a_known_factor(unit):
    """σ for the predicted noise and σ²/α for the denoiser, at the very same points."""
    asked = {name: MACHINES[name] for name in ("els", "ls")}
    score = analyse(asked, DDIM, chosen(2))
    other = analyse(asked, DDIM, chosen(2, units=unit))
    t = torch.tensor(score.times)
    factor = affine(t[:, None], t, SDE, unit)[1].abs().flatten().numpy()
    for key, profile in score.profiles.items():
        assert np.allclose(other.profiles[key].exterior, factor * profile.exterior, rtol=1e-10)
        if unit == "noise":
            assert np.allclose(other.profiles[key].relative, profile.relative, rtol=1e-10)


@pytest.mark.parametrize("how", [{"exact": True}, {"relative_error": 0.01}])
def test_a_planted_matrix_is_found_in_every_unit(how):
    matrix = torch.tensor(np.random.default_rng(0).normal(size=(4, 4)))
    settings = chosen(2, points=("noise",), **how, dtype="float64")
    found = analyse({"unet": Turning(matrix)}, DDIM, settings).profiles["unet", "noise"]
    skew = float((matrix - matrix.T).norm())
    assert found.exterior == pytest.approx(np.full((2, 5), skew), rel=1e-12)
    assert found.relative == pytest.approx(
        np.full((2, 5), skew / (2 * float(matrix.norm()))), rel=1e-12
    )


def test_all_models_start_from_one_noise():
    """At the start, and at all times where the points are the noise itself."""
    first, second = Turning(-np.eye(4)), Turning(-2 * np.eye(4))
    settings = chosen(3, seed=7, points=("noise", "trajectory", "data"), dtype="float64")
    data = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    result = analyse({"unet": first, "resnet": second}, DDIM, settings, data)
    noise = Noise(7).normal("prior", (1, 2, 2), torch.arange(3), dtype=torch.float64)
    walked = DDIM.steps
    for field in (first, second):
        start, *_ = field.asked
        assert torch.allclose(start[0], noise, rtol=1e-14)
        at_noise = field.asked[walked : 2 * walked]
        assert [t for _, t in at_noise] == pytest.approx(result.times.tolist())
        for x, _ in at_noise:
            # The points of exact Jacobians are repeated, a row each.
            assert torch.allclose(x, noise.repeat(len(x) // 3, 1, 1, 1), rtol=1e-14)
        for x, t in field.asked[3 * walked :]:
            t = torch.tensor([t], dtype=torch.float64)
            mixed = SDE.alpha(t) * data + SDE.sigma(t) * noise
            assert torch.allclose(x[:3], mixed, rtol=1e-12)
    ways = [field.asked[walked - 1][0] for field in (first, second)]
    assert not torch.allclose(*ways)


def test_probes_lie_within_their_error_of_exact_jacobians(probed_too):
    """Of 10 values, the mean square of (probed - exact) / error is below 16 but for 1e-6."""
    fields = {"unet": network()}
    probed = analyse(fields, DDIM, chosen(2, points=("trajectory",), relative_error=0.05))
    exact = analyse(fields, DDIM, chosen(2, points=("trajectory",), exact=True))
    profile, truth = (a.profiles["unet", "trajectory"] for a in (probed, exact))
    assert (min(profile.probes), max(truth.probes)) == (16, 0)
    assert (truth.exterior_error == 0).all()
    assert (profile.exterior_error <= 0.05 * profile.exterior).all()
    assert (profile.relative_error <= 0.05 * profile.relative).all()
    z = (profile.exterior - truth.exterior) / profile.exterior_error
    assert (z**2).mean() < 16


def test_few_coordinates_are_never_probed():
    profile = analyse({"unet": network()}, DDIM, chosen(2)).profiles["unet", "trajectory"]
    assert profile.probes == (0,) * 5


def test_a_start_does_not_depend_on_the_others():
    terms = {"points": ("trajectory",), "dtype": "float64"}
    three = analyse({"els": MACHINES["els"]}, DDIM, chosen(3, **terms))
    one = analyse({"els": MACHINES["els"]}, DDIM, chosen(1, **terms))
    for values in ("exterior", "relative"):
        many, alone = (getattr(a.profiles["els", "trajectory"], values) for a in (three, one))
        assert many[:1] == pytest.approx(alone, rel=1e-9)


# -------------------------------------------------------------------------------------- failures


class Failing(Turning):
    """Not a number below a time."""

    def score(self, x, t, classes=None):
        bad = torch.as_tensor(t).reshape(-1)[0] < 0.5
        return super().score(x, t) * (torch.nan if bad else 1)


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
            {"unet": Failing(-np.eye(4))}, DDIM, chosen(2, points=points), torch.zeros(2, 1, 2, 2)
        )


def test_a_failed_jacobian_names_model_step_and_level(monkeypatch):
    whole = exterior.asymmetry_at

    def failing(field, x, t, *rest):
        return whole(Failing(np.eye(4)), x, t, *rest)

    monkeypatch.setattr(exterior, "asymmetry_at", failing)
    with pytest.raises(RunError, match=r"resnet, noise: step 4 of 5, at noise level 0\.71.*finite"):
        analyse({"resnet": Turning(-np.eye(4))}, DDIM, chosen(2, points=("noise",)))


def test_a_constant_field_has_no_relative_asymmetry():
    with pytest.raises(RunError, match=r"unet, noise: step 1 of 5.*the Jacobian is zero"):
        analyse({"unet": Turning(np.zeros((4, 4)))}, DDIM, chosen(2, points=("noise",)))


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda: analyse({}, DDIM, chosen()), "at least one model"),
        (lambda: analyse(MACHINES, DDIM, chosen(2, points=("data",))), "2 held-out images"),
        (
            lambda: analyse({**MACHINES, "unet": Turning(np.eye(4))}, DDIM, chosen()),
            "unet and els differ",
        ),
        (lambda: chosen(0), "must be at least 1"),
        (lambda: chosen(points=()), "named once each"),
        (lambda: chosen(points=("noise", "noise")), "named once each"),
        (lambda: chosen(relative_error=0.0), "between 0 and 1"),
    ],
)
def test_mistakes(ask, what):
    with pytest.raises(ValueError, match=what):
        ask()


# ----------------------------------------------------------------------------------------- files


def files(analysis, held_out=None):
    study = ExteriorStudy(analysis.settings, MACHINES, DDIM, held_out, {"images": 40, "sizes": [3]})
    return study.files(analysis, Work())


def test_files_hold_everything_and_load_as_plain_data(several, tmp_path):
    (tmp_path / "packed").write_bytes(npz(several, {"std_ddof": 1}))
    (tmp_path / "saved").write_bytes(tensors(several, {"std_ddof": 1}))
    saved = torch.load(tmp_path / "saved", weights_only=True)
    with np.load(tmp_path / "packed") as packed:
        flat = dict(packed)
    assert json.loads(str(flat["settings"])) == saved["settings"]
    assert saved["settings"]["std_ddof"] == 1
    profile = several.profiles["ls", "noise"]
    found = saved["ls"]["noise"]
    for name, value in found.items():
        assert np.array_equal(value.numpy(), flat[f"ls/noise/{name}"])
    assert np.array_equal(found["exterior"].numpy(), profile.exterior)
    assert np.array_equal(found["exterior_mean"].numpy(), profile.exterior.mean(axis=0))
    assert np.allclose(found["exterior_std"].numpy(), profile.exterior.std(axis=0, ddof=1))
    assert np.allclose(3**0.5 * found["exterior_standard_error"], found["exterior_std"])
    assert saved["is"]["final_images"].shape == (3, 1, 8, 8)
    assert saved["noise_levels"].tolist() == several.sigmas.tolist()


def test_one_start_has_values_and_no_deviations(single):
    assert "els/trajectory/exterior" in arrays(single)
    assert not [name for name in arrays(single) if name.endswith(("_std", "_mean"))]
    plain = {name for name in files(single) if not name.endswith(".png")}
    assert plain == {"ed_analysis_single.npz", "ed_analysis_single.pt"}


def test_the_summary_agrees_with_the_values(several):
    found = summary(several)
    assert list(found) == ["els", "ls", "is"]
    record, profile = found["els"]["trajectory"], several.profiles["els", "trajectory"]
    by_start = profile.exterior.mean(axis=1)
    assert record["num_realizations"] == 3
    assert record["mean_ed_magnitude"] == pytest.approx(by_start.mean())
    error = by_start.std(ddof=1) / 3**0.5
    assert record["mean_ed_magnitude_standard_error"] == pytest.approx(error)
    low, high = record["mean_ed_magnitude_interval_95"]
    # Student's law with two degrees of freedom.
    assert high - low == pytest.approx(2 * 4.3027 * error, rel=1e-4)
    assert record["std_ed_magnitude"] == pytest.approx(profile.exterior.std(axis=0, ddof=1).mean())
    top = profile.exterior.mean(axis=0).argmax()
    assert record["max_ed_magnitude"] == pytest.approx(profile.exterior.mean(axis=0)[top])
    assert record["max_ed_magnitude_noise_level"] == several.sigmas[top]
    assert not record["ed_magnitude_is_rounding"]
    assert found["is"]["noise"]["ed_magnitude_is_rounding"]
    assert json.loads(json.dumps(found)) == found


def test_one_start_has_the_error_of_its_probes(probed_too):
    settings = chosen(1, points=("noise",), relative_error=0.3)
    profile = analyse({"unet": network()}, DDIM, settings).profiles["unet", "noise"]
    average = over_steps(profile)
    assert average.value == pytest.approx(profile.exterior.mean())
    expected = np.sqrt((profile.exterior_error**2).sum()) / 5
    assert average.standard_error == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["single", "several"])
def test_figures_have_the_names_of_what_they_show(kind, request):
    analysis = request.getfixturevalue(kind)
    stem = "ed_analysis_single" if kind == "single" else "ed_analysis_aggregated"
    names = {name for name in files(analysis) if name.endswith(".png")}
    ends = {"", "_relative", "_noise", "_noise_relative"}
    if kind == "several":
        ends |= {"_data", "_data_relative"}
    assert names == {f"{stem}{end}.png" for end in ends}
    assert next(iter(exterior_figure.figures_of(analysis.settings.points)))[1:] == (
        "trajectory",
        "exterior",
    )


@pytest.mark.parametrize("kind", ["single", "several"])
def test_pictures(kind, request):
    analysis = request.getfixturevalue(kind)
    content = exterior_figure.figure(analysis, "noise", "exterior", "a title")
    assert content.startswith(b"\x89PNG")


def test_a_picture_of_nothing_but_rounding(several):
    """No number is left to be drawn on a logarithmic axis."""
    profiles = {key: profile for key, profile in several.profiles.items() if key[0] == "is"}
    ideal = replace(several, images={"is": several.images["is"]}, profiles=profiles)
    content = exterior_figure.figure(ideal, "noise", "exterior", "a title")
    assert content.startswith(b"\x89PNG")


# ---------------------------------------------------------------------------------- command line


def command(*arguments):
    return main(["analyze", "exterior", *map(str, arguments)])


@pytest.mark.slow
def test_the_command_compares_networks_and_machines(digit_runs, tmp_path, capsys):
    scales = tmp_path / "scales.json"
    scales.write_text(json.dumps({"sigmas": [0.5, 2.0], "median": [3, 5], "chosen": "median"}))
    runs = ["--unet", digit_runs["unet"], "--resnet", digit_runs["resnet"]]
    settings = ["--n", 2, "--steps", 3, "--images", 30, "--units", "noise"]
    settings += ["--points", "data", "--scales", scales, "--out", tmp_path]
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
    monkeypatch.setattr(exterior_study, "figure", lambda *about: b"")
    settings = ["--steps", 2, "--images", 10, "--machines", "is,els", "--size", 5]
    settings += ["--points", "noise", "--label", 4, "--padding", "circular"]
    assert command("--dataset", "digits", *settings, "--out", tmp_path) == 0
    folder = tmp_path / "digits" / "single_realization"
    saved = torch.load(folder / "ed_analysis_single.pt", weights_only=True)
    assert saved["settings"]["models"] == ["els", "is"]
    assert saved["settings"]["images"] == int((read_images("digits", n=10).labels == 4).sum())
    assert saved["settings"]["label"] == 4
    assert ") within rounding" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--n", 0], "--n"),
        (["--machines", "els,elss"], "'elss'; the nearest is 'els'"),
        (["--machines", "els,xyz"], "'xyz'; all are els, ls, is"),
        (["--machines", "els,els"], "els twice"),
        (["--machines", "none"], "there is no model"),
        (["--points", "none"], "there must be points"),
        (["--points", "trajectories"], "the nearest is 'trajectory'"),
        (["--exact", "--relative-error", 0.1], "either --exact or --relative-error"),
        (["--relative-error", 2], "between 0 and 1"),
        (["--size", 4], "odd number of pixels, got 4"),
        (["--machines", "is", "--size", 4], "odd number of pixels, got 4"),
        (["--size", 9, "--padding", "circular"], "9"),
        (["--size", 3, "--scales", "x.json"], "either --size or --scales"),
        (["--scales", "x.json"], "x.json"),
        (["--units", "velocity"], "velocity"),
        (["--images", 2000], "1 to 1437 training images, 2000"),
        (["--images", 3, "--label", 11], "of the class 11"),
        (["--unet", "nowhere"], "--unet: there is no model 'nowhere'"),
        (["--data", "here"], "not read from a path"),
    ],
)
def test_mistakes_are_one_sentence(arguments, what, tmp_path, capsys):
    out = tmp_path / "out"
    assert command("--dataset", "digits", *arguments, "--out", out) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert what in lines[0]
    assert not out.exists()


def test_a_network_of_the_other_kind_is_not_told_under_its_name(digit_runs, tmp_path, capsys):
    arguments = ["--dataset", "digits", "--out", tmp_path / "out"]
    for given, right, kind in (("unet", "resnet", "ResNet"), ("resnet", "unet", "UNet")):
        assert command(*arguments, f"--{given}", digit_runs[right]) == 2
        sentence = f"--{given} was given a Minimal{kind}: give it as --{right}"
        assert sentence in capsys.readouterr().err


def test_results_that_could_not_be_written_are_not_computed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ExteriorStudy, "open", None)
    arguments = ["--dataset", "digits", "--out"]
    (tmp_path / "file").write_text("a file")
    assert command(*arguments, tmp_path / "file") == 2
    assert "file is no folder" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda *asked: False)
    assert command(*arguments, tmp_path / "out") == 2
    assert f"{tmp_path} is no folder that can be written to" in capsys.readouterr().err


def test_images_that_are_nowhere_are_a_mistake(tmp_path, capsys):
    arguments = ["--dataset", "celeba", "--data", tmp_path / "no"]
    assert command(*arguments, "--out", tmp_path / "out") == 2
    assert str(tmp_path / "no") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_no_results(tmp_path, capsys, monkeypatch):
    def failing(*arguments):
        raise ValueError("the Jacobian is not finite at 1 of 1 points")

    monkeypatch.setattr(exterior, "asymmetry_at", failing)
    arguments = ["--dataset", "digits", "--steps", 2, "--images", 5]
    assert command(*arguments, "--out", tmp_path / "out") == 2
    sentence = capsys.readouterr().err
    assert "els, trajectory: step 1 of 2, at noise level 80" in sentence
    # Finished parts are kept in a hidden folder; there are no results.
    assert not (tmp_path / "out" / "digits" / "single_realization").exists()

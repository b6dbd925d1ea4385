"""Calibrated patch sizes in files, a network against patches, and what can go wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield import DDIM, Cosine, EquivariantLocalScore, PatchSizes
from scorefield.cli.program import main
from scorefield.config.resolve import load_config
from scorefield.diagnostics.scales import ScaleCalibration
from scorefield.errors import ConfigError
from scorefield.runs.run import Run
from scorefield.studies.networks import read_scales, scales_json
from scorefield.studies.patches import compute as work
from scorefield.studies.patches import study as patches_study
from scorefield.studies.patches.study import PatchesStudy
from scorefield.studies.settings import Patches

SMALL = """\
extends: digits/minimal_resnet
field: {network: {channels: 16, layers: 1}}
train: {steps: 4, batch_size: 8, checkpoint_every: 4, log_every: 4}
"""

BEST = np.array([[3, 5, 7], [3, 7, 5], [5, 5, 5]])
CHOICES = ("median", "mode", "monotone")


@pytest.fixture
def calibration():
    gap = np.abs(BEST[:, :, None] - np.array([3, 5, 7])) / 10
    return ScaleCalibration((0.1, 0.5, 20.0), (3, 5, 7), "cosine", gap, gap)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_file_of_sizes_reads_back(calibration, choice, tmp_path):
    file = tmp_path / "scales.json"
    file.write_bytes(scales_json(calibration, choice, {"dataset": "digits"}))
    assert read_scales(file) == getattr(calibration, choice)
    content = json.loads(file.read_text())
    assert content["best"] == BEST.tolist()
    assert content["sigmas"] == [0.1, 0.5, 20.0]
    for name in CHOICES:
        assert tuple(content[name]) == getattr(calibration, name).sizes
    assert content["settings"] == {"by": "cosine", "sizes": [3, 5, 7], "dataset": "digits"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": "best"}, "chosen must be one of median, mode and monotone, not 'best'"),
        ({"chosen": None}, "not None"),
        ({"sigmas": None}, "sigmas must be a list of numbers"),
        ({"sigmas": ["a", "b", "c"]}, "sigmas must be a list of numbers"),
        ({"median": [3, 5.0, 7]}, "median must be a list of whole numbers"),
        ({"median": [3, True, 7]}, "median must be a list of whole numbers"),
        ({"median": [3, 5]}, "one for each noise level"),
        ({"median": [3, 4, 5]}, "odd"),
        ({"sigmas": [0.5, 0.1, 20.0]}, "ascending"),
        ({"sigmas": [0, 0.1, 20.0]}, "positive"),
        ({"sigmas": [0.1, 0.5, 10**400]}, "too large"),
    ],
)
def test_a_file_of_sizes_that_is_none_is_told_in_a_sentence(calibration, change, message, tmp_path):
    file = tmp_path / "scales.json"
    file.write_bytes(scales_json(calibration, "median", {}))
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match=message) as caught:
        read_scales(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "", "\x00", "[" * 100_000])
def test_a_file_that_is_no_json_of_names(text, tmp_path):
    file = tmp_path / "scales.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match="is not a file of patch sizes"):
        read_scales(file)


def test_a_machine_is_found_out_by_its_own_patches():
    """Where the network is itself a local machine, its sizes are found, and both end in the same
    images, which the ideal score does not."""
    torch.manual_seed(0)
    images = 2 * torch.rand(20, 1, 8, 8, dtype=torch.float64) - 1
    sde, sampler = Cosine(t_min=0.2, t_max=0.99), DDIM(5, spacing="time")
    sigmas = sde.noise_level(torch.linspace(0.2, 0.99, 5, dtype=torch.float64)).tolist()
    truth = PatchSizes(sigmas, (3, 3, 5, 5, 7))
    network = EquivariantLocalScore(images, sde, size=truth)
    subjects = work.Subjects(network, images, images[:4], sampler, "zeros", {"dataset": "noise"})
    assert subjects.sizes == (3, 5, 7)
    found = work.compare(subjects, Patches(dataset="digits", network=Path("no"), n=3))
    assert found.sizes.sizes == truth.sizes
    assert found.finals[work.LOCAL].correlation == pytest.approx(np.ones(3), abs=1e-6)
    assert (found.finals[work.IDEAL].correlation < 0.99).all()
    for quantity in work.QUANTITIES:
        for level in found.levels[work.LOCAL, quantity]:
            assert level.determination == pytest.approx(np.ones(3), abs=1e-6)
    assert found.summary()["local_beats_ideal"]["share"] == 1
    # The ideal score ends in training images, of which all patches are copies.
    for estimate in found.distances[work.IDEAL].values():
        assert estimate.value < 0.02
    for estimate in found.distances[work.REAL].values():
        assert estimate.value == 0


@pytest.fixture(scope="module")
def run(shared):
    def fill(folder):
        (folder / "tiny.yaml").write_text(SMALL)
        Run.create(load_config(folder / "tiny.yaml"), folder).train(quiet=True)

    return shared("patches", fill) / "digits" / "tiny" / "seed0"


def arguments(run, out, *others):
    told = ["--dataset", "digits", "--network", str(run), "--out", str(out)]
    few = ["--images", "30", "--n", "2", "--steps", "3", "--sizes", "3,5"]
    return ["analyze", "patches", *told, *few, *others]


@pytest.mark.parametrize(
    "others",
    [(), pytest.param(("--machine", "ls", "--monotone", "--by", "l2"), marks=pytest.mark.slow)],
)
def test_the_command_writes_what_it_promises(run, tmp_path, capsys, others):
    out = tmp_path / "out"
    assert main(arguments(run, out, *others)) == 0
    told = capsys.readouterr().out
    assert "local machine" in told
    names = {
        "scales.json",
        "calibration.csv",
        "agreement.csv",
        "agreement.npz",
        "nearest_patches.csv",
        "spectra.csv",
        "summary.json",
        "sizes.png",
        "agreement.png",
        "scatter.png",
        "images.png",
        "patch_statistics.png",
        "study.json",
    }
    assert {file.name for file in out.iterdir()} == names
    for name in names:
        assert name in told
        assert (out / name).stat().st_size > 50
    sizes = read_scales(out / "scales.json")
    assert len(sizes.sizes) == 3
    assert set(sizes.sizes) <= {3, 5}
    settings = json.loads((out / "scales.json").read_text())["settings"]
    assert settings["machine"] == ("ls" if others else "els")
    assert settings["by"] == ("l2" if others else "cosine")
    with np.load(out / "agreement.npz") as arrays:
        assert arrays["sigmas"].shape == (3,)
        assert arrays["local machine/score/r"].shape == (3, 2)
        assert arrays["ideal score/final image/r2"].shape == (1, 2)
        assert arrays["network/images"].shape == (2, 1, 8, 8)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["chosen"] == ("monotone" if others else "median")
    assert summary["settings"]["images"] == 30
    assert summary["local_beats_ideal"]["n"] == 2
    r = summary["final_images"]["local machine"]["median_r"]
    assert r["low"] <= r["value"] <= r["high"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (("--sizes", "3,4"), "its side is odd, not 4"),
        (("--sizes", "3,x"), "'--sizes': it must be integers with commas in between, not '3,x'"),
        (("--sizes", "3,3"), "'--sizes': it has 3 twice"),
        (("--padding", "circular", "--sizes", "9"), "9"),
        (("--dataset", "mnist"), "was trained on digits, not on mnist"),
        (("--images", "100000"), "100000 were requested"),
        (("--images", "10", "--calibrate-on", "20"), "with 20 training images, there are 10"),
        (("--label", "3"), "class"),
        (("--by", "angle"), "angle"),
        (("--n", "1"), "--n"),
    ],
)
def test_mistakes_are_told_in_a_sentence(run, tmp_path, capsys, others, message):
    assert main(arguments(run, tmp_path / "out", *others)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("out/*"))


def test_a_folder_that_cannot_be_is_told_before_the_work(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(PatchesStudy, "compute", None)
    (tmp_path / "out").write_text("a file")
    assert main(arguments(run, tmp_path / "out")) == 2
    assert "out exists; overwrite it" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_figure_loses_nothing(run, tmp_path, capsys, monkeypatch):
    """What was done before is not done again, and the results are those of an uninterrupted run."""

    def interrupted(found):
        raise KeyboardInterrupt

    monkeypatch.setattr(patches_study, "statistics", interrupted)
    assert main(arguments(run, tmp_path / "out")) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    # Neither the calibration nor the samples of closed forms are computed again.
    again = lambda *_, **__: pytest.fail("computed again")  # noqa: E731
    monkeypatch.setattr(work, "calibrate_sizes", again)
    monkeypatch.setattr(work, "field_agreement", again)
    assert main(arguments(run, tmp_path / "out")) == 0
    monkeypatch.undo()
    assert main(arguments(run, tmp_path / "other")) == 0
    for name in ("agreement.csv", "calibration.csv", "spectra.csv", "scales.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"out", "other"}


def test_a_network_that_is_not_there(tmp_path, capsys):
    assert main(arguments(tmp_path / "nothing", tmp_path / "out")) == 2
    assert "there is no model" in capsys.readouterr().err


def test_one_class_alone(tmp_path):
    """The network is asked for points of the class, and the machine made of its images."""
    file = tmp_path / "told.yaml"
    file.write_text(SMALL.replace("layers: 1", "layers: 1, classes: true"))
    made = Run.create(load_config(file), tmp_path / "runs")
    made.train(quiet=True)
    few = {"dataset": "digits", "network": made.folder, "images": 200, "n": 2, "steps": 2}
    chosen = Patches(**few, label=3, sizes=(3,))
    subjects = PatchesStudy.open(chosen).subjects
    every = PatchesStudy.open(Patches(**few)).subjects
    assert 0 < len(subjects.images) < len(every.images) == 200
    assert subjects.about["images"] == len(subjects.images)
    assert subjects.about["label"] == 3
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(subjects.network.score(x, 0.5), every.network.score(x, 0.5))
    found = work.compare(subjects, chosen)
    assert len(found.finals[work.LOCAL]) == 2

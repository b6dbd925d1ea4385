import json
import math

import numpy as np
import pytest
import torch

from scorefield import EDM, Gaussian
from scorefield.config.resolve import load_config
from scorefield.errors import RunError
from scorefield.evaluation.levels import DIGIT_LEVELS, Levels, levels_of, within_cells
from scorefield.evaluation.likelihood import LikelihoodSettings, data_likelihood
from scorefield.interop.score_sde.refinenet_names import build_refinenet
from scorefield.likelihood.density import UNIT_BYTES
from scorefield.runs.cells import read_csv
from scorefield.runs.subject import Subject, open_subject
from tests.elsewhere import ELSEWHERE, elsewhere

ROUGH = LikelihoodSettings(rtol=1e-2, atol=1e-2)


@pytest.fixture(scope="module")
def subject(trained):
    return open_subject(trained)


@pytest.fixture(scope="module")
def digits():
    """The digits, and a field that knows their mean and deviation alone."""
    from scorefield.config.build import build_source

    config = load_config("digits/m0")
    source = build_source(config)
    field = Gaussian(source.mean, source.std, sde=EDM())
    return Subject(field, config, source, {"run": "digits/normal"}, None)


def test_a_run_has_log_densities_that_are_written(subject, tmp_path, capsys):
    found = data_likelihood(subject, "test", 6, ROUGH)
    files = found.write(tmp_path / "eval")
    rows = read_csv(files[0])
    assert [float(row["log_prob"]) for row in rows] == found.points.value.tolist()
    assert all(int(row["calls"]) > 0 for row in rows)
    summary = json.loads(files[1].read_text())
    assert summary["nats"]["value"] == pytest.approx(float(found.points.value.mean()))
    assert summary["nats"]["n"] == summary["n"] == 6
    assert (summary["data"], summary["weights"], summary["rtol"]) == ("test", "ema", 1e-2)
    assert summary["bits_per_dim"] is None
    assert found.bits is None
    (row,) = found.rows()
    assert row["value"].unit == "nats"


def test_a_file_of_weights_has_the_likelihood_of_its_run(subject, trained):
    (file,) = sorted(trained.glob("checkpoints/*/ema.safetensors"))[-1:]
    alone = open_subject(file)
    assert alone.folder is None
    found = data_likelihood(alone, "train", 3, ROUGH)
    assert torch.equal(found.points.value, data_likelihood(subject, "train", 3, ROUGH).points.value)


def test_points_of_a_file_are_taken_as_they_are(subject, tmp_path):
    x = subject.source.reference(5, 0, "test", torch.float64)
    np.savez(tmp_path / "points.npz", samples=x.numpy(), record=np.array("{}"))
    found = data_likelihood(subject, str(tmp_path / "points.npz"), None, ROUGH)
    same = data_likelihood(subject, "test", 5, ROUGH)
    assert torch.equal(found.points.value, same.points.value)
    assert len(data_likelihood(subject, str(tmp_path / "points.npz"), 2, ROUGH).points.value) == 2


def test_points_move_within_their_cells_on_their_own_device():
    lattice = torch.arange(16.0).reshape(4, 1, 2, 2) / 8 - 1
    here = within_cells(lattice, Levels(DIGIT_LEVELS), 0)
    with elsewhere():
        there = within_cells(lattice.to(ELSEWHERE), Levels(DIGIT_LEVELS), 0)
        assert there.device == torch.device(ELSEWHERE)
        assert torch.equal(there.cpu(), here)


def test_digits_are_dequantized_and_told_in_bits(digits):
    found = data_likelihood(digits, "test", 8, LikelihoodSettings(rtol=1e-3, atol=1e-3))
    lattice = digits.source.reference(8, 0, "test", torch.float64)
    points = within_cells(lattice, Levels(DIGIT_LEVELS), 0)
    std = math.hypot(digits.source.std, 0.002)
    law = torch.distributions.Normal(digits.source.mean, std)
    exact = law.log_prob(points).flatten(1).sum(dim=1)
    # The prior neglects the spread of the data.
    torch.testing.assert_close(found.points.value, exact, rtol=0, atol=0.1)
    bits = math.log2(17 / 2) - exact / (64 * math.log(2))
    torch.testing.assert_close(found.bits.value, bits, rtol=0, atol=0.01)
    assert any("17 levels in [-1, 1], dequantization uniform" in line for line in found.notes())
    seeded = data_likelihood(digits, "test", 8, LikelihoodSettings(rtol=1e-3, atol=1e-3, seed=1))
    assert not torch.equal(seeded.points.value, found.points.value)


def test_a_standard_error_that_is_not_reached_is_told(digits):
    settings = LikelihoodSettings(rtol=1e-2, atol=1e-2, probes="gaussian")
    found = data_likelihood(digits, "test", 2, settings)
    # 64 dimensions are exact.
    assert not any("did not reach" in line for line in found.notes())
    short = type(found)(
        found.points.__class__(**{**vars(found.points), "reached": torch.tensor([True, False])}),
        None,
        found.about,
        0.0,
    )
    assert any("1 points did not reach" in line for line in short.notes())


def test_every_level_has_a_cell_of_its_own():
    level = torch.arange(256, dtype=torch.float64).reshape(-1, 1)
    x = within_cells(level / 255, Levels(UNIT_BYTES), 3)
    assert torch.equal((256 * x).floor(), level)
    sixteenths = torch.arange(17, dtype=torch.float64).reshape(-1, 1)
    x = within_cells(sixteenths / 8 - 1, Levels(DIGIT_LEVELS), 3)
    assert torch.equal(((x + 1) / DIGIT_LEVELS.cell).floor(), sixteenths)


def test_points_that_have_noise_get_no_more():
    x = torch.rand(8, 3, dtype=torch.float64)
    assert within_cells(x, Levels(UNIT_BYTES, noisy=True), 3) is x
    section = load_config(
        "images/m0", ["data.dataset=own", "data.size=8", "data.dequantize=true"]
    ).data
    assert levels_of(section).noisy


@pytest.mark.parametrize(
    ("data", "n", "words"),
    [
        ("valid", 4, "there are no data called 'valid'"),
        ("test", 1, "at least 2 points"),
        ("two.npz", None, "must hold one array of points, it holds 2"),
        ("wide.npz", None, r"shape \(n, 2\)"),
        ("few.npz", 9, "has 4 points, 9 were requested"),
    ],
)
def test_points_that_have_no_likelihood_are_refused_by_name(
    subject, tmp_path, monkeypatch, data, n, words
):
    monkeypatch.chdir(tmp_path)
    np.savez("two.npz", a=np.zeros((4, 2)), b=np.zeros((4, 2)))
    np.savez("wide.npz", a=np.zeros((4, 3)))
    np.savez("few.npz", a=np.zeros((4, 2)))
    with pytest.raises(RunError, match=words):
        data_likelihood(subject, data, n, ROUGH)


def test_more_points_than_there_are_is_an_error(digits):
    with pytest.raises(RunError, match="360 test points, 400 were requested"):
        data_likelihood(digits, "test", 400, ROUGH)


def test_what_is_neither_run_nor_weights_is_named(tmp_path):
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(RunError, match="is no model; a model is a run"):
        open_subject(tmp_path / "x.txt")


def test_the_command_prints_and_writes(trained, tmp_path, capsys):
    from scorefield.cli.program import main

    settings = ["--n", "4", "--rtol", "1e-2", "--atol", "1e-2", "--out", str(tmp_path / "out")]
    assert main(["likelihood", str(trained), *settings]) == 0
    told = capsys.readouterr().out
    assert "log-density" in told
    assert " nats " in told
    assert str(tmp_path / "out" / "likelihood.csv") in told
    assert json.loads((tmp_path / "out" / "likelihood.json").read_text())["n"] == 4
    assert main(["likelihood", str(trained), *settings]) == 2
    assert "likelihood.csv exists; overwrite it" in capsys.readouterr().err
    settings[1] = "5"
    assert main(["likelihood", str(trained), *settings, "--overwrite"]) == 0
    assert json.loads((tmp_path / "out" / "likelihood.json").read_text())["n"] == 5
    assert main(["likelihood", str(trained), "--data", "valid"]) == 2
    assert "there are no data called 'valid'" in capsys.readouterr().err
    assert main(["likelihood", str(trained), "--rtol", "0"]) == 2
    assert "rtol must be at least" in capsys.readouterr().err


@pytest.fixture
def published(tmp_path):
    """A small checkpoint in the layout of score_sde, and its configuration."""
    config = {
        "training": {"sde": "vesde", "continuous": False},
        "data": {"image_size": 8, "num_channels": 1, "centered": False},
        "model": {
            "name": "ncsnv2_64", "nf": 4, "num_scales": 5, "sigma_min": 0.1, "sigma_max": 1.0,
            "nonlinearity": "elu", "normalization": "InstanceNorm++",
        },
    }  # fmt: skip
    network, pairs = build_refinenet(config)
    model = {f"module.{theirs}": network.state_dict()[ours] for theirs, ours in pairs}
    ema = {"decay": 0.9, "num_updates": 1, "shadow_params": list(model.values())}
    sigmas = {"module.sigmas": torch.linspace(0, -math.log(10), 5, dtype=torch.float64).exp()}
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": {**sigmas, **model}, "ema": ema, "step": 1}, path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return path, tmp_path / "config.json"


def test_bytes_have_a_likelihood_under_a_published_checkpoint(published, tmp_path, capsys):
    from scorefield.cli.program import main

    path, config = published
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "bytes.npz", images=pixels)
    data, rough = str(tmp_path / "bytes.npz"), ["--rtol", "0.1", "--atol", "0.1"]
    command = ["likelihood", str(path), "--data", data, *rough, "--out", str(tmp_path / "out")]
    assert main([*command, "--config", str(config)]) == 0
    assert "256 levels in [0, 1]" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "likelihood.json").read_text())
    assert summary["checkpoint"] == str(path)
    assert summary["bits_per_dim"]["value"] == pytest.approx(
        8 - summary["nats"]["value"] / (64 * math.log(2))
    )
    assert main(command) == 2
    told = capsys.readouterr().err
    assert f"{path}: the weights do not show" in told
    assert "training.sde" in told


def test_a_published_checkpoint_comes_without_data(published):
    path, config = published
    with pytest.raises(RunError, match="comes without data: give --data"):
        data_likelihood(open_subject(path, config=str(config)), "test", 2, ROUGH)


def test_a_configuration_is_for_published_checkpoints_only(trained):
    with pytest.raises(RunError, match="a configuration of its own"):
        open_subject(trained, config="ve/cifar10_ncsnpp_continuous")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_archive_is_told(subject, tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    match = r"x.npz: it is no whole file of NumPy arrays"
    with pytest.raises(RunError, match=match) as caught:
        data_likelihood(subject, str(tmp_path / "x.npz"), None, ROUGH)
    assert "pickle" not in str(caught.value)


def test_points_that_are_not_finite_are_told_with_their_file(subject, tmp_path):
    np.savez(tmp_path / "x.npz", a=np.full((3, 2), np.nan))
    with pytest.raises(RunError, match=r"x.npz: the points 'a' are not all finite"):
        data_likelihood(subject, str(tmp_path / "x.npz"), None, ROUGH)

"""Rectangles, any number of channels, signals and vectors: trained, sampled and evaluated."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml

import scorefield as sf
from scorefield.cli import main
from scorefield.evaluation import sampling
from tests.data.test_layouts import by_class, write

RNG = np.random.default_rng(0)
SDE = sf.EDM(sigma_min=0.01, sigma_max=10.0)
SMALL = [
    "field.network.channels=8", "field.network.blocks=1", "train.steps=4", "train.batch_size=4",
    "train.checkpoint_every=4", "train.log_every=4", "optim.warmup=1", "eval.samples=4",
    "eval.nfes=[3]", "eval.pairs=2", "eval.sigmas=[0.5]", "eval.points=2", "sampler.steps=2",
]  # fmt: skip


@pytest.mark.parametrize(
    "shape", [(1, 28, 20), (3, 64, 96), (2, 8, 8), (4, 8, 12), (12, 8, 8), (2, 1, 32), (1, 16, 1)]
)
@pytest.mark.parametrize("kind", ["network", "potential"])
def test_images_and_signals_with_a_unet(shape, kind):
    make = sf.PreconditionedField if kind == "network" else sf.PotentialField
    field = make(sf.UNet(shape, channels=8), SDE, sigma_data=0.5)
    pixels = RNG.integers(0, 256, (8, *shape), dtype=np.uint8)
    sf.fit(field, pixels, steps=2, batch_size=4, quiet=True)
    drawn = sf.Heun(steps=2).sample(field, n=4, seed=0)
    assert drawn.shape == (4, *shape)
    real = torch.from_numpy(pixels).float() / 255
    protocol = sf.Protocol(sigmas=[0.5], n=4)
    for found in (
        sf.sliced_wasserstein(drawn, real),
        next(iter(sf.denoising_loss(field, real, protocol)))[1],
    ):
        assert np.isfinite(found.value)


@pytest.mark.parametrize("dim", [1, 5, 64])
def test_vectors_with_an_mlp(dim):
    field = sf.PreconditionedField(sf.MLP(dim, hidden=16), SDE, sigma_data=0.5)
    points = RNG.normal(size=(16, dim)).astype(np.float32)
    sf.fit(field, points, steps=2, batch_size=4, quiet=True)
    drawn = sf.Heun(steps=2).sample(field, n=4, seed=0)
    assert drawn.shape == (4, dim)
    x = torch.from_numpy(points)
    _, found = next(iter(sf.relative_asymmetry(field, x, sf.Protocol(sigmas=[0.5], n=4))))
    assert np.isfinite(found.value)
    assert np.isfinite(sf.sliced_wasserstein(drawn, x).value)


def train(arguments, root):
    assert main(["train", *arguments, *SMALL, "--root", str(root)]) == 0
    (file,) = root.glob("*/*/seed0/config_resolved.yaml")
    return file.parent


@pytest.mark.slow
def test_a_folder_of_ones_own_is_one_command(tmp_path, capsys, monkeypatch):
    """The run is named after the folder, has all that was found, and is sampled without the images,
    each class by its number."""
    pictures = write(tmp_path / "my cats", by_class(colours(240)))
    arguments = ["images/m0", f"data.path={pictures}", "data.size=8", "field.network.classes=true"]
    run = train(arguments, tmp_path / "runs")
    assert run.relative_to(tmp_path / "runs").parts[0] == "my_cats"
    data = yaml.safe_load((run / "config_resolved.yaml").read_text())["data"]
    assert (data["dataset"], data["size"], data["channels"]) == ("my_cats", 8, 3)
    assert (data["classes"], data["class_names"]) == (3, ["a", "b", "c"])
    assert data["held_out_seed"] == 0
    capsys.readouterr()
    assert main(["eval", str(run)]) == 0
    with open(run / "eval" / "fid_vs_nfe.csv") as table:
        assert len(list(csv.DictReader(table))) >= 1
    pictures.rename(tmp_path / "elsewhere")
    titles = []
    monkeypatch.setattr(sampling, "samples_figure", lambda *a: titles.append(a[2]))
    capsys.readouterr()
    for label in ("2", "c"):
        assert main(["sample", str(run), "--n", "2", "--label", label, "--json"]) == 0
        (drawn,) = json.loads(capsys.readouterr().out)["results"]
        assert (drawn["samples"], drawn["class"]) == (2, "2 (c)")
    assert titles[0] == titles[1]
    assert titles[0].endswith("class 2 (c)")
    assert main(["sample", str(run), "--n", "2", "--label", "dog"]) == 2
    assert "no class of my_cats is called 'dog': they are a, b, c" in capsys.readouterr().err


def colours(n):
    return RNG.integers(0, 256, (n, 3, 20, 14), dtype=np.uint8)


@pytest.mark.parametrize(
    "channels",
    [4, pytest.param(2, marks=pytest.mark.slow), pytest.param(12, marks=pytest.mark.slow)],
)
def test_packed_images_of_any_channels_and_sides_are_trained_on_and_drawn(tmp_path, channels):
    np.save(tmp_path / "set.npy", RNG.integers(0, 256, (240, channels, 28, 20), dtype=np.uint8))
    pack = str(tmp_path / "pack")
    assert main(["data", "pack", str(tmp_path / "set.npy"), "--out", pack]) == 0
    run = train(["images/m0", f"data.path={pack}"], tmp_path / "runs")
    data = yaml.safe_load((run / "config_resolved.yaml").read_text())["data"]
    assert (data["size"], data["channels"], len(data["sha256"])) == ([28, 20], channels, 64)
    assert main(["eval", str(run)]) == 0
    assert main(["sample", str(run), "--n", "2", "--out", str(tmp_path / "x.npz")]) == 0
    assert np.load(tmp_path / "x.npz")["samples"].shape == (2, channels, 28, 20)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    # Other images at the same place are another run's.
    np.save(tmp_path / "set.npy", RNG.integers(0, 256, (240, channels, 28, 20), dtype=np.uint8))
    again = ["data", "pack", str(tmp_path / "set.npy"), "--out", pack, "--overwrite"]
    assert main(again) == 0
    assert main(["sample", str(run), "--n", "1"]) == 0
    assert main(["eval", str(run), "--overwrite"]) == 2

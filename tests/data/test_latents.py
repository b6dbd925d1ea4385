"""Latents without an autoencoder: what describes them, resumption, moments, addresses of noise."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.config.resolve import load_config
from scorefield.data import encode as encoding
from scorefield.data.describe import sheet_of_latents
from scorefield.data.encode import encode
from scorefield.data.form import Form
from scorefield.data.held_out import held_out
from scorefield.data.latent_packs import Codec, LatentPack
from scorefield.data.latents import LatentSource
from scorefield.data.layouts import contents_of
from scorefield.data.pack import pack
from scorefield.data.packed import Pack
from scorefield.errors import ConfigError, UserError
from scorefield.noise import Noise


class Halves:
    """Latents are one pixel of four; it stops once it has encoded a number of blocks."""

    codec = Codec("vae", "ab" * 32, 0.5, 0.25)

    def __init__(self, device="cpu", stop=None):
        self.device, self.stop, self.blocks = torch.device(device), stop, 0

    def latent_shape(self, channels, height, width):
        return channels, height // 2, width // 2

    def encode(self, images):
        if self.blocks == self.stop:
            raise KeyboardInterrupt
        self.blocks += 1
        mean = images[..., ::2, ::2] / 64
        return mean, 1 + mean


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with 80 packed images and their latents; of the images, those that will be held out
    are bright.
    """
    folder = tmp_path_factory.mktemp("latents")
    index = torch.arange(80)
    pixels, labels = Noise(0).integers("pixels", 64, (1, 8, 8), index).byte(), index % 2
    pixels[held_out(80, labels, 0)] += 192
    np.savez(folder / "set.npz", images=pixels.numpy(), labels=labels.numpy())
    path = folder / "set.npz"
    pack(path, contents_of(path, 1), Form(1, 8), folder / "pack")
    encode(Pack.read(folder / "pack"), Halves(), folder / "latents")
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"class_count": "7"},
        {"class_count": True},
        {"classes": [1, 2]},
        {"counts": {}},
        {"counts": {"test": 80}},
        {"counts": {"train": 80, "more": 3}},
        {"counts": {"train": 80.5}},
        {"shape": [1, 4, 0]},
        {"sha256": None},
        {"scaling_factor": "0.18"},
        {"scaling_factor": None},
        {"scaling_factor": 0},
        {"scaling_factor": float("inf")},
        {"shift_factor": float("nan")},
        {"path": 3},
    ],
    ids=str,
)
def test_wrong_descriptions_are_one_sentence(made, tmp_path, change):
    about = json.loads((made / "latents" / "latents.json").read_text())
    part = about if change.keys() <= about.keys() else about["autoencoder"]
    assert change.keys() <= part.keys()
    part.update(change)
    (tmp_path / "latents.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"latents.json.*(not describe latents|the scale not 0)"):
        LatentPack.read(tmp_path)


def test_what_images_only_have_is_refused_for_latents(made, capsys):
    options = ["--size", "8", "--channels", "1", "--dataset", "mnist", "--crop", "adm"]
    options += ["--filter", "box", "--background", "0", "--n", "9", "--out", "sheet.png"]
    assert main(["data", "show", str(made / "latents"), *options]) == 2
    told = capsys.readouterr().err
    assert ", ".join(options[::2]) in told
    assert main(["data", "show", str(made / "latents")]) == 0


@pytest.mark.parametrize("key", ["data.flip", "objective.augmentation"])
def test_symmetries_of_images_are_none_of_latents(key):
    value = "true" if key == "data.flip" else "{}"
    with pytest.raises(ConfigError, match=rf"{key} is for images, and latents are not"):
        load_config("imagenet256_latent/m0", [f"{key}={value}"])


def test_an_encoding_resumes_on_the_same_kind_of_device_only(made, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_SETTLED_EVERY", 0.0)
    images = Pack.read(made / "pack")
    for device, blocks in (("cpu", 1), ("cuda", 3)):
        out = tmp_path / device
        with pytest.raises(KeyboardInterrupt):
            encode(images, Halves(stop=2), out)
        again = Halves(device)
        encode(images, again, out)
        assert again.blocks == blocks


def test_no_two_points_share_their_noise(made):
    """At the same place of the stream and of both splits; that of a point of a split is its own."""
    source, index = LatentSource(made / "latents"), torch.arange(4)
    stored = {split: source.at(split, index) for split in ("train", "test")}
    labelled = {split: source.labelled(split)[0][:4] for split in stored}
    stream = source.values(stored["train"], Noise(0), index, torch.float32)
    normal = []
    for split, z in (*labelled.items(), ("train", stream)):
        mean, std = stored[split].chunk(2, dim=1)
        normal.append((z / 0.5 + 0.25 - mean) / std)
    for one, other in combinations(normal, 2):
        # Of 64 pairs of independent numbers the mean is 1.13 ± 0.11.
        assert float((one - other).abs().mean()) > 0.5
    rows = source.reference(4, 0).flatten(1)
    same = (rows[:, None] == labelled["test"].flatten(1)).all(dim=2)
    assert torch.equal(same.sum(dim=0), torch.ones(4, dtype=torch.int64))


def test_labels_are_checked_once(made):
    source = LatentSource(made / "latents")
    assert source.classes == 2
    assert source.labels("train") is source.labels("train")
    source = LatentSource(made / "latents", classes=1)
    for _ in range(2):
        with pytest.raises(UserError, match=r"the labels of the test points of .* are 0 to 1"):
            source.labels("test")


def test_the_description_has_the_moments_of_the_training_points(made):
    shown = dict(
        sheet_of_latents(LatentPack.read(made / "latents")).sections["what a network sees"]
    )
    stored = LatentSource(made / "latents").stored("train").double()
    assert len(stored) == 76
    mean, std = stored.chunk(2, dim=1)
    second = (mean.square() + std.square()).mean()
    spread = (second - mean.mean(dim=0).square().mean()).sqrt()
    assert shown["mean"] == f"{0.5 * (float(mean.mean()) - 0.25):.3g}"
    assert shown["spread"] == f"{0.5 * float(spread):.3g}"

"""What is wrong with statistics, extractors and labels, at the command line: one sentence each, and
nothing is trained or measured before it.
"""

import hashlib

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.config.resolve import load_config
from scorefield.networks.dinov2 import DinoV2
from scorefield.networks.inception import Inception
from scorefield.runs.run import Run

SIZE = 64


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run that was never trained, and the weights of a small extractor."""
    folder = tmp_path_factory.mktemp("wrong")
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * 0.2
        for name, tensor in DinoV2(SIZE, 1, 16, 16).state_dict().items()
    }
    torch.save(state, folder / "small.pth")
    run = Run.create(load_config("digits/m0", ["name=digits/untrained"]), folder / "runs")
    assert run.folder == folder / "runs/digits/untrained/seed0"
    return folder


@pytest.fixture
def told(place, capsys, monkeypatch):
    """The one line that a command with a mistake prints."""
    monkeypatch.chdir(place)

    def told(*arguments):
        assert main(list(arguments)) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line.removeprefix("error: ")

    return told


MU, SIGMA = np.arange(float(SIZE)), np.eye(SIZE)
NEGATIVE, LARGE = np.diag(np.where(MU < 1, -1.0, 1.0)), SIGMA + 3 * np.fliplr(SIGMA)

STATISTICS = {
    "missing": (None, "cannot be read: no such file"),
    "empty": (b"", "are damaged: it is no whole file of NumPy arrays"),
    "text": (b"mu, sigma", "are damaged: it is no whole file of NumPy arrays"),
    "cut": (0.5, "are damaged: it is no whole file of NumPy arrays"),
    "changed": (1.0, "are damaged: it is no whole file of NumPy arrays"),
    "objects": (
        {"mu": np.array([{}], dtype=object)},
        "are damaged: it is no NumPy array",
    ),
    "no sigma": (
        {"sigma": None},
        "have no array sigma: those of EDM, ADM and TTUR have",
    ),
    "short": ({"mu": MU[:32]}, "of another size: mu has the shape (32,), and dinov2:"),
    "narrow": (
        {"sigma": SIGMA[:, :32]},
        "of another size: sigma has the shape (64, 32)",
    ),
    "integers": ({"mu": MU.astype(int)}, "mu has int64, and moments are floating-point numbers"),
    "nan": ({"mu": MU * np.nan}, "damaged: mu is not a finite moment"),
    "infinite": ({"sigma": SIGMA * 1e200}, "damaged: sigma is not a finite moment"),
    "skew": ({"sigma": SIGMA + np.triu(np.full((SIZE, SIZE), 0.1))}, "sigma is no covariance"),
    "negative": ({"sigma": NEGATIVE}, "damaged: sigma is no covariance"),
    "large": ({"sigma": LARGE}, "damaged: sigma is no covariance"),
    "published": (
        {"extractor_sha256": None},
        "name none, so it is that of FID, with",
    ),
    "other": ({"extractor_sha256": np.array("ab" * 32)}, "by one with the SHA-256 abababababab…"),
    "number": ({"extractor_sha256": np.array(3)}, "extractor_sha256 is not the hash of a file"),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_wrong_statistics(place, told, name):
    change, words = STATISTICS[name]
    file, weights = place / f"{name}.npz", place / "small.pth"
    digest = np.array(hashlib.sha256(weights.read_bytes()).hexdigest())
    arrays = {"mu": MU, "sigma": SIGMA, "extractor_sha256": digest}
    if isinstance(change, bytes):
        file.write_bytes(change)
    elif change is not None:
        arrays |= change if isinstance(change, dict) else {}
        np.savez(file, **{key: array for key, array in arrays.items() if array is not None})
        content = bytearray(file.read_bytes())
        if change == 0.5:
            file.write_bytes(content[: len(content) // 2])
        if change == 1.0:
            content[3000] ^= 255
            file.write_bytes(content)
    line = told(
        "eval", "runs/digits/untrained/seed0", "--extractor", "small.pth", "--statistics", file.name
    )
    assert words in line
    assert f"the statistics {file.name} " in line


EXTRACTORS = {
    "missing": (None, "is published at https://"),
    "empty": (b"", "is empty"),
    "text": (b"weights", "is not a checkpoint"),
    "cut": (lambda state: state, "is damaged"),
    "list": (lambda state: [1], "holds a list, not a state dict"),
    "int": (lambda state: 3, "holds an int, not a state dict"),
    "other": (
        lambda state: {"a": torch.zeros(3)},
        "is neither the Inception network of FID",
    ),
    "more": (
        lambda state: {**state, "extra": torch.zeros(1)},
        "network: it has extra",
    ),
    "shape": (
        lambda state: {**state, "norm.weight": torch.zeros(3)},
        "is no dinov2 network: norm.weight has the shape (3,) in place of (64,)",
    ),
    "nan": (lambda state: {**state, "norm.weight": torch.full((64,), torch.nan)}, "not finite"),
    "part": (
        lambda state: {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)},
        "is no whole inception network: it lacks Conv2d_1a_3x3.bn.weight",
    ),
    "code": (lambda state: {"a": Inception}, "which is neither a tensor nor a plain number"),
}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_wrong_extractor(place, told, name):
    change, words = EXTRACTORS[name]
    file = place / f"{name}.pth"
    if isinstance(change, bytes):
        file.write_bytes(change)
    elif change is not None:
        torch.save(change(torch.load(place / "small.pth")), file)
    if name == "cut":
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    line = told("eval", "runs/digits/untrained/seed0", "--extractor", file.name)
    assert words in line
    assert file.name in line


X, Y = np.random.default_rng(0).integers(0, 256, (80, 8, 8), np.uint8), np.arange(40) % 2
CONFIG = """\
extends: images/m0
data: {path: labels.npz}
field: {network: {kind: unet, channels: 8, multipliers: [1], classes: true}}
"""


@pytest.mark.parametrize(
    ("labels", "overrides", "words"),
    [
        ({}, (), "field.network.classes needs data with classes, labels has none"),
        ({}, ("data.classes=2",), "data.classes is 2, and the train points of labels have none"),
        (
            {"train_labels": Y},
            ("data.classes=1",),
            "data.classes is 1, and the labels of",
        ),
        ({"train_labels": Y[1:]}, (), "labels.npz"),
        ({"train_labels": Y - 1}, (), "a label is a class from 0"),
        ({"train_labels": Y + 0.5}, (), "labels.npz"),
    ],
)
def test_sets_without_labels_or_with_wrong_ones(place, told, labels, overrides, words):
    if labels:
        labels = {**labels, "test_labels": Y}
    np.savez(place / "labels.npz", train=X[:40], test=X[40:], **labels)
    (place / "classes.yaml").write_text(CONFIG)
    assert words in told("train", "classes.yaml", *overrides)
    assert not (place / "runs/labels").exists()


def test_a_model_without_classes_takes_no_label(told, place):
    assert "no checkpoint yet" in told("sample", "runs/digits/untrained/seed0", "--label", "1")

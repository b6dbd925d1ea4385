"""State dicts of the minimal networks, where the command line takes a model."""

import pytest
import torch

from scorefield import MinimalResNet, MinimalUNet
from scorefield.cli.program import main
from scorefield.errors import ConfigError, RunError
from scorefield.interop.convolutional import state_of
from scorefield.interop.errors import InteropError
from scorefield.likelihood.density import CENTERED_BYTES
from scorefield.runs.inspection import inspect
from scorefield.runs.subject import open_subject


def save(path, network):
    torch.save({f"backbone.{k}": v for k, v in state_of(network).items()}, path)
    return path


@pytest.fixture
def file(tmp_path):
    return save(tmp_path / "backbone_MNIST_ResNet_zeros.pt", MinimalResNet((1, 32, 32), 16, 1))


def test_a_subject_knows_what_it_is(file):
    subject = open_subject(file)
    assert subject.field.domain.shape == (1, 32, 32)
    assert subject.about == {"checkpoint": str(file), "padding": "zeros"}
    assert (subject.config, subject.source, subject.folder) == (None, None, None)
    assert subject.transform is CENTERED_BYTES
    assert open_subject(file, config="circular").about["padding"] == "circular"


def test_a_file_says_the_padding_and_the_size(file, tmp_path):
    config = tmp_path / "around.yaml"
    config.write_text("padding: circular\nsize: 8\n")
    subject = open_subject(file, config=str(config))
    assert subject.field.backbone.padding == "circular"
    assert subject.field.domain.shape == (1, 8, 8)
    for wrong in ("mode: zeros", "size: many"):
        config.write_text(wrong)
        with pytest.raises(ConfigError, match="must say the padding, zeros or circular, and"):
            open_subject(file, config=str(config))


def test_one_of_known_classes_is_asked_for_one(tmp_path):
    network = MinimalResNet((1, 32, 32), 16, 1, classes=3, unlabelled=False)
    path = save(tmp_path / "zeros.pt", network)
    with pytest.raises(RunError, match="knows points of one class only"):
        open_subject(path)
    x, t = torch.randn(2, 1, 32, 32), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        noise = open_subject(path, label=2).field.predict_noise(x, t)
        torch.testing.assert_close(noise, network(x, t, torch.tensor([2, 2])))


def test_inspection_says_what_the_weights_show(tmp_path):
    network = MinimalUNet((1, 8, 8), (8, 32), "circular", "group", 8, 3, 1, True, 5, False)
    sheet = inspect(save(tmp_path / "backbone_circular.pt", network))
    assert dict(sheet["network"]) == {
        "family": "MinimalUNet",
        "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
        "images": "1",
        "fsizes": "8, 32",
        "normalization": "group",
        "embedding": "8",
        "kernel size": "3",
        "last kernel size": "1",
        "last norm": "yes",
        "classes": "5",
        "padding": "circular",
        "evaluated at": "points of a class",
    }
    state = state_of(network)
    del state["output_conv.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(InteropError, match=r"less.pt: the state dict lacks output_conv.bias"):
        inspect(tmp_path / "less.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(InteropError, match=r"other.pt: the weights do not fit a minimal"):
        inspect(tmp_path / "other.pt")


def test_the_command_line_refuses_in_a_sentence(file, tmp_path, capsys):
    silent = file.rename(tmp_path / "weights.pt")
    assert main(["likelihood", str(silent), "--data", "x.npz"]) == 2
    error = capsys.readouterr().err
    assert "say whether the padding is zeros or circular" in error
    assert error.count("\n") == 1
    assert main(["inspect", str(silent)]) == 0
    assert "not shown: zeros or circular" in capsys.readouterr().out

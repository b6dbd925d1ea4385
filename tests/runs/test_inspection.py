import json
import shutil

import numpy as np
import pytest
import torch

from scorefield.config.resolve import load_config
from scorefield.errors import CheckpointError, sentence
from scorefield.interop.errors import InteropError
from scorefield.interop.score_sde.build import build, state_of
from scorefield.interop.score_sde.checkpoints import FREQUENCIES
from scorefield.interop.score_sde.configurations import configuration
from scorefield.interop.score_sde.refinenet_names import build_refinenet
from scorefield.runs.inspection import inspect
from scorefield.runs.run import Run


@pytest.fixture
def copied(trained, tmp_path):
    """A trained run that may be changed."""
    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


def test_a_file_of_weights_is_verified_where_its_checksum_lies_next_to_it(copied):
    file = copied.checkpoints / "step_00000006" / "model.safetensors"
    assert dict(inspect(file)["checkpoint"])["verified"] == "ok"
    alone = copied.folder / "model.safetensors"
    shutil.copy(file, alone)
    assert dict(inspect(alone)["checkpoint"])["verified"].startswith("not verified")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum is wrong"):
        inspect(file)


@pytest.mark.parametrize(
    "content",
    [b"\x00\xff\r\n,,\"\n\r\r", b"step,loss\nnan,1\n1.5,2\n2,3\n\"" + b"x" * 200_000 + b"\n3,"],
)  # fmt: skip
def test_torn_metrics_are_passed_over(copied, content):
    (copied.folder / "metrics.csv").write_bytes(content)
    training = [what for what, _ in inspect(copied.folder)["training"]]
    assert training == (["steps", "step 2"] if b"step" in content else ["steps"])


@pytest.mark.parametrize("content", ['{"packages": 3, "devices": 1}', "[" * 100_000, "3", "{"])
def test_an_environment_of_garbage_is_not_known(copied, content):
    (copied.folder / "environment.json").write_text(content)
    assert copied.environment() == {}
    assert dict(inspect(copied.folder)["provenance"]).keys() == {"unknown"}


def test_what_is_known_of_an_environment_is_kept(copied):
    (copied.folder / "environment.json").write_text(json.dumps({"python": "3", "cores": "many"}))
    assert copied.environment() == {"python": "3"}


def test_a_foreign_checkpoint_is_told(copied, small, tmp_path):
    other = Run.create(load_config(small, ["seed=1"]), tmp_path / "other")
    shutil.copytree(copied.checkpoints, other.checkpoints)
    sheet = inspect(other.folder)
    assert "complete" not in dict(sheet["training"])["steps"]
    assert "seed is 0 there and 1" in dict(sheet["checkpoints"])["step_00000006"]


@pytest.fixture
def published(tmp_path):
    """A small checkpoint as the score_sde code writes it."""
    config = {
        "training": {"sde": "vesde", "continuous": True},
        "data": {"image_size": 16, "num_channels": 3, "centered": False},
        "model": {
            **configuration("ve/cifar10_ncsnpp_continuous")["model"],
            **{"nf": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [8]},
        },
    }
    state = state_of(build(config), config)
    names = ["sigmas", *(name for name in state if name != "sigmas")]
    trained = [state[name] for name in names if name not in ("sigmas", FREQUENCIES)]
    content = {
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(2e-4), "params": [0]}]},
        "model": {f"module.{name}": state[name] for name in names},
        "ema": {"decay": 0.999, "num_updates": 1200, "shadow_params": trained},
        "step": 1201,
    }
    torch.save(content, tmp_path / "checkpoint_1.pth")
    return tmp_path / "checkpoint_1.pth"


def test_a_published_checkpoint_says_what_it_is(published):
    sheet = {heading: dict(pairs) for heading, pairs in inspect(published).items()}
    checkpoint, network = sheet["checkpoint"], sheet["network"]
    assert checkpoint["layout"] == "score_sde_pytorch"
    assert checkpoint["step"] == "1,201"
    assert checkpoint["average"] == "decay 0.999, 1,200 updates"
    assert checkpoint["optimiser"] == "learning rate 0.0002, no state"
    assert network["family"] == "ncsnpp"
    assert network["nf"] == "8"
    assert network["ch mult"] == "1, 2"
    assert network["embedding type"] == "fourier"
    assert network["attention"] == "at 1/2 of the image, and in the middle"
    assert sheet["noise levels"] == {"number": "1,000", "range": "0.01 to 50"}
    assert sheet["configurations"] == {"published ones that fit": "none"}


def test_published_configurations_that_fit_are_named(tmp_path):
    config = configuration("ve/ncsnv2/cifar10")
    network, pairs = build_refinenet(config)
    ours = network.state_dict()
    model = {theirs: ours[name] for theirs, name in pairs}
    sigmas = np.exp(np.linspace(np.log(50), np.log(0.01), 232))
    content = {
        "model": {"module.sigmas": torch.tensor(sigmas), **model},
        "ema": {"decay": 0.999, "num_updates": 1, "shadow_params": list(model.values())},
    }
    torch.save(content, tmp_path / "epoch_3.pth")
    sheet = {heading: dict(pairs) for heading, pairs in inspect(tmp_path / "epoch_3.pth").items()}
    assert sheet["checkpoint"]["layout"] == "rewrite"
    assert sheet["checkpoint"]["step"] == "not kept in this layout"
    assert sheet["checkpoint"]["optimiser"] == "none"
    assert sheet["network"]["parameters"] == "29,694,083"
    assert sheet["configurations"] == {"published ones that fit": "ve/ncsnv2/cifar10"}


def test_other_files_are_refused_in_a_sentence(tmp_path):
    file = tmp_path / "checkpoint_2.pth"
    file.write_bytes(b"")
    with pytest.raises(InteropError, match="is empty") as caught:
        inspect(file)
    assert sentence(caught.value) == f"{file} is empty"
    other = {"w": torch.zeros(2)}
    ema = {"decay": 0.9, "num_updates": 0, "shadow_params": [torch.zeros(2)]}
    torch.save({"model": other, "ema": ema, "step": 0}, file)
    with pytest.raises(InteropError, match="do not fit a network of score_sde"):
        inspect(file)

import json
import shutil

import pytest

from scorefield.experiments import Run, load
from scorefield.experiments.inspection import inspect
from scorefield.training import CheckpointError


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
    other = Run.create(load(small, ["seed=1"]), tmp_path / "other")
    shutil.copytree(copied.checkpoints, other.checkpoints)
    sheet = inspect(other.folder)
    assert "complete" not in dict(sheet["training"])["steps"]
    assert "seed is 0 there and 1" in dict(sheet["checkpoints"])["step_00000006"]

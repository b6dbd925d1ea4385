"""Runs on images that are older than the keys of today: read, and resumed, as they began."""

import numpy as np
import pytest
import yaml

from scorefield.cli import main
from scorefield.config.resolve import load_config
from scorefield.runs.run import CONFIG, Run
from tests.worlds import together

OLD = [
    "kind",
    "dataset",
    "size",
    "channels",
    "classes",
    "centered",
    "flip",
    "dequantize",
    "path",
    "hub",
]
SETTINGS = [
    "name=mine/m0", "data.kind=images", "data.dataset=mine", "data.size=8", "data.channels=1",
    "field.network.channels=8", "train.steps=2", "train.batch_size=4", "train.checkpoint_every=2",
    "train.log_every=2", "optim.warmup=1",
]  # fmt: skip


def older(folder):
    """Takes the keys of today out of the configuration of a run."""
    document = yaml.safe_load((folder / CONFIG).read_text())
    document["data"] = {key: document["data"][key] for key in OLD}
    (folder / CONFIG).write_text(yaml.safe_dump(document))


@pytest.fixture
def config(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", images)
    return load_config("digits/m0", [*SETTINGS, f"data.path={tmp_path / 'mine.npy'}"])


def test_an_older_run_holds_the_last_images_out_and_goes_on_so(tmp_path, config):
    folder = Run.create(config, tmp_path / "runs").folder
    older(folder)
    images = np.load(tmp_path / "mine.npy")
    for run in (Run.open(folder), Run.create(config, tmp_path / "runs")):
        assert run.config.data.held_out_seed is None
        held = (run.source().reference(2, 0) * 255).round().byte().numpy()[:, 0]
        assert sorted(map(bytes, held)) == sorted(map(bytes, images[-2:]))
    # A run of today draws them.
    assert config.data.held_out_seed == 0
    assert main(["inspect", str(folder)]) == 0


def test_all_processes_go_on_with_an_older_run_as_it_began(tmp_path, config):
    older(Run.create(config, tmp_path / "runs").folder)
    made = together(2, lambda world: Run.create(config, tmp_path / "runs", world=world))
    assert [run.config.data.held_out_seed for run in made] == [None, None]
    assert made[0].folder == made[1].folder


def test_another_seed_is_another_run(tmp_path, config, capsys):
    folder = Run.create(config, tmp_path / "runs").folder
    command = ["train", "digits/m0", *SETTINGS, f"data.path={tmp_path / 'mine.npy'}"]
    assert main([*command, "data.held_out_seed=1", "--root", str(tmp_path / "runs")]) == 2
    told = "belongs to another configuration: data.held_out_seed is 0 there and 1 here"
    assert told in capsys.readouterr().err
    assert Run.open(folder).config.data.held_out_seed == 0

"""Small networks on digits, as good as untrained."""

import pytest

from scorefield.config.resolve import load
from scorefield.runs.run import Run


@pytest.fixture(scope="session")
def digit_runs(tmp_path_factory):
    """The folders of a ResNet and a U-Net of the cosine process; not to be changed."""
    root = tmp_path_factory.mktemp("networks")
    shapes = {
        "resnet": ["field.network.channels=16", "field.network.layers=1"],
        "unet": ["field.network.fsizes=[4, 8]", "field.network.embedding=8"],
    }
    folders = {}
    for name, changes in shapes.items():
        short = ["train.steps=20", "train.checkpoint_every=20", "optim.warmup=5"]
        run = Run.create(load(f"digits/minimal_{name}", [*changes, *short]), root)
        run.train(quiet=True)
        folders[name] = run.folder
    return folders


@pytest.fixture(scope="session")
def atom_runs(tmp_path_factory):
    """The folders of two seeds of one model of pseudo-atoms and of another model; not to be
    changed.
    """
    root = tmp_path_factory.mktemp("atoms")
    tiny = ["field.network.hidden=8", "field.network.depth=1", "field.network.embedding=4"]
    tiny += ["train.steps=4", "train.checkpoint_every=4", "train.batch_size=16", "optim.warmup=1"]
    folders = []
    for name, seed in (("no_regularizer", 0), ("no_regularizer", 1), ("analytical_regression", 0)):
        run = Run.create(load(f"atoms/{name}", [*tiny, f"seed={seed}"]), root)
        run.train(quiet=True)
        folders.append(run.folder)
    return folders

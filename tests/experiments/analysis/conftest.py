"""Small networks on digits, as good as untrained."""

import pytest

from scorefield.experiments import Run, load


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

"""Small networks on digits, as good as untrained."""

import pytest

from scorefield.config.resolve import load_config
from scorefield.runs.run import Run


@pytest.fixture(scope="session")
def digit_runs(shared):
    """The folders of a ResNet and a U-Net of the cosine process; not to be changed."""
    short = ["train.steps=20", "train.checkpoint_every=20", "optim.warmup=5"]
    configs = {
        "resnet": ["field.network.channels=16", "field.network.layers=1"],
        "unet": ["field.network.fsizes=[4, 8]", "field.network.embedding=8"],
    }
    configs = {k: load_config(f"digits/minimal_{k}", [*v, *short]) for k, v in configs.items()}

    def train(root):
        for config in configs.values():
            Run.create(config, root).train(quiet=True)

    root = shared("digit-networks", train)
    return {name: root / config.folder for name, config in configs.items()}


@pytest.fixture(scope="session")
def atom_runs(shared):
    """The folders of two seeds of one model of pseudo-atoms and of another model; not to be
    changed.
    """
    tiny = ["field.network.hidden=8", "field.network.depth=1", "field.network.embedding=4"]
    tiny += ["train.steps=4", "train.checkpoint_every=4", "train.batch_size=16", "optim.warmup=1"]
    models = (("no_regularizer", 0), ("no_regularizer", 1), ("analytical_regression", 0))
    configs = [load_config(f"atoms/{name}", [*tiny, f"seed={seed}"]) for name, seed in models]

    def train(root):
        for config in configs:
            Run.create(config, root).train(quiet=True)

    root = shared("atom-networks", train)
    return [root / config.folder for config in configs]

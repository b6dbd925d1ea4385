"""A run that trains in a moment."""

from pathlib import Path

import pytest

SMALL = """\
extends: toy/m0
description: a small run
field: {network: {hidden: 8, depth: 1, embedding: 4}}
train: {steps: 6, batch_size: 16, checkpoint_every: 2, log_every: 2, keep: 3}
"""


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """The file of a small configuration, called ``toy/small``."""
    file = tmp_path_factory.mktemp("configurations") / "small.yaml"
    file.write_text(SMALL)
    return file


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory) -> Path:
    """The folder of a trained run; not to be changed."""
    from scorefield.experiments import Run, load

    run = Run.create(load(small), tmp_path_factory.mktemp("runs"))
    run.train(quiet=True)
    return run.folder

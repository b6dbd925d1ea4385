"""Settings of the test session.

Shape annotations are checked at run time by jaxtyping's import hook, which pytest installs after
this file is read (see ``addopts`` in pyproject.toml): import nothing of the package here.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores already

settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=40, database=None
)
settings.load_profile("repeatable")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Lifts the check of annotations, for tests of what a user sees who has no such check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
    from scorefield.config.resolve import load
    from scorefield.runs.run import Run

    run = Run.create(load(small), tmp_path_factory.mktemp("runs"))
    run.train(quiet=True)
    return run.folder

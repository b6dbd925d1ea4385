"""Settings of the test session.

``make test-shapes`` checks shape annotations at run time by jaxtyping's import hook, which pytest
installs after this file is read: import nothing of the package here.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import jaxtyping
import pytest
from filelock import FileLock
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # The process that hands out the tests needs no torch: 150 MB less.
    import torch

    torch.set_num_threads(1)  # the workers share the cores already

settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=40, database=None
)
settings.load_profile("repeatable")


def pytest_addoption(parser) -> None:
    words = "the device of the tensors that tests make: cpu, cuda, cuda:N, or stand-in"
    parser.addoption("--device", default="cpu", help=words)
    words = "the dtype of the tensors and networks that tests make without a word about it"
    parser.addoption("--dtype", default="float32", choices=("float32", "float64"), help=words)


def pytest_configure(config) -> None:
    device, dtype = config.getoption("device"), config.getoption("dtype")
    if (device, dtype) == ("cpu", "float32"):
        return
    import torch

    stack = ExitStack()
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(getattr(torch, dtype))
    if device != "cpu":
        from tests.placed import placed

        stack.enter_context(placed(device))
    config.add_cleanup(stack.close)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Lifts the check of annotations, for tests of what a user sees who has no such check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Gives the folder of a name, filled by the first of the workers that needs it, for all of
    them; not to be changed.
    """
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        path, filled = root / name, root / f"{name}.filled"
        with FileLock(root / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                fill(path)
                filled.touch()
        return path

    return folder


SMALL = """\
extends: toy/m0
description: a small run
field: {network: {hidden: 8, depth: 1, embedding: 4}}
train: {steps: 6, batch_size: 16, checkpoint_every: 2, log_every: 2, keep: 3}
eval: {nfes: [3], samples: 32, pairs: 2, points: 4, sigmas: [0.5]}
"""


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """The file of a small configuration, called ``toy/small``."""
    file = tmp_path_factory.mktemp("configurations") / "small.yaml"
    file.write_text(SMALL)
    return file


@pytest.fixture(scope="session")
def trained(small, shared) -> Path:
    """The folder of a trained run; not to be changed."""
    from scorefield.config.resolve import load_config
    from scorefield.runs.run import Run

    root = shared("small", lambda root: Run.create(load_config(small), root).train(quiet=True))
    return root / "toy" / "small" / "seed0"

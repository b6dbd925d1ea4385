"""Settings of the test session.

Shape annotations are checked at run time by jaxtyping's import hook, which pytest installs after
this file is read (see ``addopts`` in pyproject.toml): import nothing of the package here.
"""

import os
from collections.abc import Iterator

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

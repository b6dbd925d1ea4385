"""Reference values that lie beside the checkout, in the folder named by SCOREFIELD_FIXTURES."""

import json
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch


def folder(family="score_sde"):
    """The folder of a family of fixtures; the test is skipped where there is none."""
    root = os.environ.get("SCOREFIELD_FIXTURES")
    if root is None:
        pytest.skip("SCOREFIELD_FIXTURES does not name the folder of reference values")
    path = Path(root) / family
    assert path.is_dir(), f"SCOREFIELD_FIXTURES names {root}, which has no {family}"
    return path


@lru_cache(maxsize=4)
def _arrays(path):
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def load(name, family="score_sde"):
    """The arrays of a file, by name."""
    return _arrays(folder(family) / f"{name}.npz")


def index(family="score_sde"):
    """The index of all files: their metadata and the shapes of their arrays."""
    return json.loads((folder(family) / "index.json").read_text())


def meta(name, family="score_sde"):
    """The metadata of a file."""
    return index(family)[name]["meta"]


def tensor(array, dtype=None):
    """An array as a tensor; integers keep their type."""
    value = torch.as_tensor(np.array(array))
    return value if dtype is None or not value.is_floating_point() else value.to(dtype)

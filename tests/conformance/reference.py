"""The recorded numbers of ``tests/reference``, which says where they are from."""

import json
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1] / "reference"


@lru_cache(maxsize=4)
def load(name, family="score_sde"):
    """The arrays of a file, by name; half precision stands for float32 that it holds exactly."""
    with np.load(ROOT / family / f"{name}.npz") as arrays:
        found = {key: arrays[key] for key in arrays.files}
    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in found.items()}


@cache
def _index():
    return json.loads((ROOT / "score_sde" / "index.json").read_text())


def meta(name):
    """The metadata of a file of score_sde: the configuration, the order of its parameters."""
    return _index()[name]


def tensor(array, dtype=None):
    """An array as a tensor; integers keep their type."""
    value = torch.as_tensor(np.array(array))
    return value if dtype is None or not value.is_floating_point() else value.to(dtype)

import pickle
from pathlib import Path

import pytest
import torch

from scorefield.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    RunError,
    TrainingError,
    out_of_memory,
)


@pytest.mark.parametrize(
    "error",
    [
        TrainingError("a sentence"),
        CheckpointError("a sentence"),
        ConfigError("a sentence"),
        RunError("a sentence"),
        Interrupted(3, None),
        Interrupted(3, Path("runs/x")),
    ],
)
def test_an_error_survives_the_way_between_processes(error):
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**50), lambda: bytearray(2**60)])
def test_too_little_memory_is_recognised(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as error:
        allocate()
    assert out_of_memory(error.value)


def test_other_errors_are_not_about_memory():
    assert not out_of_memory(RuntimeError("shapes do not match"))
    assert not out_of_memory(ValueError("not enough memory"))

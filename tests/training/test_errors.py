import pickle
from pathlib import Path

import pytest
import torch

from scorefield import EDM, MLP, Objective, PreconditionedField, fit
from scorefield.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    RunError,
    TrainingError,
    UnsupportedError,
    out_of_memory,
)
from scorefield.objectives.denoising import DenoisingScoreMatching


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


@pytest.mark.usefixtures("unchecked")
def test_objects_of_another_class_are_named_by_a_training():
    x = torch.randn(8, 2)
    field = PreconditionedField(MLP(2, hidden=8, depth=1), EDM(), sigma_data=1.0)
    for given, said in (
        ({"field": MLP(2)}, "MLP is no score field: make one of a network with"),
        ({"objective": 3}, "objective must be of class Objective, got an int"),
        ({"optim": torch.optim.Adam}, "optim must be of class Optim, got a type"),
        ({"regularizers": [3]}, "each of the regularizers must be of class Regularizer, got an"),
    ):
        with pytest.raises(UnsupportedError, match=said):
            fit(**({"field": field} | given), data=x, steps=2, quiet=True)
    with pytest.raises(UnsupportedError, match="must be of class DenoisingScoreMatching"):
        Objective(DenoisingScoreMatching)

"""What is the user's and gets one sentence, and what is a fault of the program."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield import EDM, fit, mmd
from scorefield.errors import DivergedError, TrainingError, UnsupportedError, UserError, sentence
from scorefield.samplers.flow import StalledError
from scorefield.training.checkpoint import step_of


def caught(call):
    with pytest.raises(Exception) as error:  # noqa: PT011
        call()
    return error.value


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: EDM(sigma_min=-1.0), "sigma_min"),
        (lambda: mmd(torch.zeros(2, 2), torch.zeros(2, 2)), "samples"),
        (lambda: fit(None, None, objective=1, regularizers=[1]), "either an objective or"),
    ],
)
def test_what_the_package_refuses_is_the_users(unchecked, call, words):
    error = caught(call)
    assert isinstance(error, UserError)
    assert sentence(error) == str(error)
    assert words in str(error)


@pytest.mark.parametrize(
    ("error", "promised"),
    [
        (UserError, ValueError),
        (UnsupportedError, TypeError),
        (DivergedError, FloatingPointError),
        (StalledError, FloatingPointError),
        (TrainingError, UserError),
    ],
)
def test_the_kinds_of_the_standard_library_catch_them_too(error, promised):
    assert issubclass(error, (promised,))
    assert issubclass(error, UserError)


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.ones(2).reshape(3),
        lambda: np.ones(2).reshape(3),
        # In the package, but by an operation, not by a statement on what was given.
        lambda: step_of(Path("step_x")),
        lambda: step_of(3),
        # Which file is meant, nobody can tell.
        lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    ],
)
def test_what_goes_wrong_by_itself_is_a_fault(unchecked, call):
    assert sentence(caught(call)) is None


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**50), lambda: bytearray(2**60)])
def test_too_little_memory_is_told(allocate):
    assert sentence(caught(allocate)).startswith("memory does not suffice")


@pytest.mark.parametrize("sign", ["\x1b[31m", "\b", "\u202e", "\x9b", "\u200b", "\udcff"])
def test_a_sentence_moves_no_cursor(sign):
    """The name of a file may be anything: a terminal would obey it."""
    told = sentence(UserError(f"a{sign}\nbé☃.png is no image"))
    assert told.isprintable()
    assert told.endswith("bé☃.png is no image")
    assert sentence(FileNotFoundError(2, "No such file", sign)).isprintable()


def test_files_are_named():
    assert sentence(caught(Path("nowhere").read_text)) == "nowhere: No such file or directory"

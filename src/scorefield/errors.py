"""The mistakes that a person can make, each told in one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from opcode import opmap

PREFIX = "error: "
"""How the command line begins the sentence about a mistake."""


class UserError(ValueError):
    """A value that is refused, or a request that cannot be met: one sentence for the user."""


class ConfigError(UserError):
    """A configuration that cannot be used: an unknown key, a wrong value, an unreadable file."""


class RunError(UserError):
    """A run directory that is missing, incomplete or taken, or a request that it cannot meet."""


def closest(word: object, words: Iterable[str]) -> str | None:
    """The known word that a misspelt one most resembles; ``None`` if none does."""
    found = get_close_matches(str(word), list(words), n=1, cutoff=0.5)
    return found[0] if found else None


def hint(word: object, words: Iterable[str], what: str) -> str:
    """A clause that helps with a misspelt word: the nearest known one, or all of them.

    Arguments:
        word: What was given.
        words: What is known.
        what: What the list of all known words is called.
    """
    words = list(words)
    near = closest(word, words)
    return f"the nearest is {near!r}" if near else f"{what} are {', '.join(words)}"


@contextmanager
def section_of(where: str) -> Iterator[None]:
    """Says of an argument that a class refuses where the configuration has it.

    Raises:
        ConfigError: In place of the class's own error.
    """
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(f"{where}: {error}") from error


def sentence(error: BaseException) -> str | None:
    """What to tell a person about an error; ``None`` if it is a fault of the program."""
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else str(error)
        text = f"{error.filename}: {reason}" if error.filename else reason
    elif isinstance(error, (ConfigError, RunError)) or _of_training(error) or _refused(error):
        text = str(error)
    elif _out_of_memory(error):
        text = (
            "memory does not suffice for what was asked: make the network, the batch or the "
            "number of samples smaller"
        )
    else:
        return None
    return " ".join(text.split())


def _refused(error: BaseException) -> bool:
    """Whether a statement ``raise`` of this package refused a value.

    The same kinds of error, raised by a library or by an operation gone wrong, are faults.
    """
    trace = error.__traceback__
    if not isinstance(error, (ValueError, TypeError, FloatingPointError)) or trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    inside = str(trace.tb_frame.f_globals.get("__name__")).startswith("scorefield.")
    return inside and trace.tb_frame.f_code.co_code[trace.tb_lasti] == opmap["RAISE_VARARGS"]


def _of_training(error: BaseException) -> bool:
    # If training has not been imported, it cannot have raised anything.
    module = sys.modules.get("scorefield.training.errors")
    return module is not None and isinstance(error, module.TrainingError)


def _out_of_memory(error: BaseException) -> bool:
    module = sys.modules.get("scorefield.training.errors")
    return isinstance(error, MemoryError) or (module is not None and module.out_of_memory(error))

"""What a user can cause to fail, each failure explained in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path

PREFIX = "error: "
"""How the command line begins the sentence about a mistake."""


class UserError(ValueError):
    """A value that is refused, or a request that cannot be met: one sentence for the user.

    All that a user can cause derives from it; any other error is a bug.
    """


class UnsupportedError(UserError, TypeError):
    """A value of the wrong kind, or an operation that an object does not offer."""


class DivergedError(UserError, FloatingPointError):
    """Samples or scores that are not finite, or a solver that cannot reach its tolerance."""


class ConfigError(UserError):
    """A configuration that cannot be used: an unknown key, a wrong value, an unreadable file."""


class RunError(UserError):
    """A run directory that is missing, incomplete or taken, or a request that it cannot meet."""


class TrainingError(UserError):
    """Training cannot go on: a loss that is not finite, a full disk, too little memory."""


class LostProcessError(UserError):
    """Another process of the same run has ended, or does not answer.

    Arguments:
        words: What is known of it.
        speaks: Whether it is left to this process to say so.
    """

    def __init__(self, words: str, speaks: bool) -> None:
        super().__init__(words)
        self.speaks = speaks


class CheckpointError(TrainingError):
    """A checkpoint that cannot be written, or is not what it should be."""


class Interrupted(RuntimeError):
    """Training received SIGINT or SIGTERM, and stopped after a whole step.

    Arguments:
        step: The number of steps done.
        checkpoint: The checkpoint of that step, if there is a folder to write to.
    """

    def __init__(self, step: int, checkpoint: Path | None) -> None:
        where = "nothing was saved" if checkpoint is None else f"resume from {checkpoint}"
        super().__init__(f"training was interrupted after step {step}; {where}")
        self.step = step
        self.checkpoint = checkpoint

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int, Path | None]]:
        # An exception is otherwise rebuilt from its message, on the way between processes too.
        return type(self), (self.step, self.checkpoint)


_ALIKE = 0.05
"""How much less than the nearest word another one may resemble, to be listed beside it."""


def closest(word: object, words: Iterable[str]) -> list[str]:
    """The known words that a misspelt one most resembles, three at most; none if none does."""
    text = str(word)
    found = get_close_matches(text, list(words), n=3, cutoff=0.5)
    alike = [SequenceMatcher(None, near, text).ratio() for near in found]
    return [near for near, ratio in zip(found, alike, strict=True) if ratio >= alike[0] - _ALIKE]


def nearest(word: object, words: Iterable[str], folder: Path = Path()) -> str:
    """A clause with the known words that a misspelt one most resembles, of names with the folder
    that they are in; empty if none does.
    """
    found = [repr(str(folder / near) if folder.parts else near) for near in closest(word, words)]
    if len(found) < 2:
        return f"the nearest is {found[0]}" if found else ""
    return f"the nearest are {', '.join(found[:-1])} and {found[-1]}"


def hint(word: object, words: Iterable[str], what: str) -> str:
    """A clause that helps with a misspelt word: the nearest known ones, or all of them.

    Arguments:
        word: What was given.
        words: What is known.
        what: What the list of all known words is called.
    """
    words = list(words)
    return nearest(word, words) or f"{what} are {', '.join(words)}"


@contextmanager
def section_of(
    where: str, *faults: type[Exception], keys: Iterable[tuple[str, object]] = ()
) -> Iterator[None]:
    """Names the key of the configuration of an argument that a class refuses.

    Arguments:
        where: The key.
        faults: What is to be explained besides; of code that is not part of the package, all.
        keys: The keys in it and their values. A sentence on one of them begins with the key, or
            with the value of a path.

    Raises:
        ConfigError: In place of the class's own error.
    """
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(_keyed(where, str(error), keys)) from error
    except faults as error:
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error


def _keyed(where: str, text: str, keys: Iterable[tuple[str, object]]) -> str:
    for key, value in keys:
        if re.match(rf"{re.escape(key)} (is|has|have|must|needs) ", text):
            return f"{where}.{text}"
        if isinstance(value, str) and text.startswith(f"{value}: "):
            return f"{where}.{key}: {text}"
    return f"{where}: {text}"


def sentence(error: BaseException) -> str | None:
    """What to print of an error; ``None`` if it is a fault of the program.

    It is the user's if it is a :class:`UserError`, the system's if it names a file or says that
    there is too little memory.
    """
    if isinstance(error, OSError) and error.filename:
        reason = error.strerror or str(error)
        text = f"{error.filename}: {reason}"
    elif isinstance(error, UserError):
        text = str(error)
    elif out_of_memory(error):
        text = (
            "memory does not suffice for what was asked: make the network, the batch or the "
            "number of samples smaller"
        )
    else:
        return None
    return plain(" ".join(text.split()))


def plain(text: str) -> str:
    """Text for a terminal: signs that are none of writing, which the name of a file may have, and
    which move the cursor or turn the direction of writing, as Python's escapes.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Says in a sentence for what memory does not suffice.

    Raises:
        UserError: In place of the error of an allocation.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(f"memory does not suffice for {what}") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice."""
    # On the CPU, torch says it in words only.
    words = ("can't allocate memory", "not enough memory", "out of memory", "size calculation over")
    said = isinstance(error, RuntimeError) and any(w in str(error) for w in words)
    return said or isinstance(error, MemoryError)

"""The process of the command line: its streams, its signals and its exit status.

A user's mistake is one sentence on the standard error and exit status 2; an interrupt is exit
status 130; anything else is a fault of the program, and shows its traceback. With ``--json`` the
sentence is on the standard output too, as the ``error`` of one JSON object.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import Any

import typer

from scorefield.cli.app import app
from scorefield.cli.printing import prepare
from scorefield.cli.results import IncompleteError, print_document
from scorefield.memory import keep_freed

_COMPLETION = "_SCOREFIELD_COMPLETE"
"""The variable in which a shell asks what a word may become."""
_INTERRUPTED = 130
_ONE_INTERRUPT, _TO_SPEAK = 1.0, 3.0  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    from scorefield.errors import PREFIX, Interrupted, LostProcessError, sentence

    prepare()
    if arguments is None:
        # The process is this command's alone.
        keep_freed()
        arguments = sys.argv[1:]
    arguments = list(arguments)
    # Typer takes them out of the list.
    json = "--json" in arguments
    command = typer.main.get_command(app)
    if _COMPLETION in os.environ:
        command.main(arguments, prog_name="scorefield")  # a question of the shell
    try:
        # Not the command's own main: it would leave a broken pipe and an interrupt to no one.
        with (
            _one_voice(),
            _interruptible(),
            command.make_context("scorefield", arguments or ["--help"]) as made,
        ):
            status = command.invoke(made)
            sys.stdout.flush()
            return int(status or 0)
    except typer.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        with _one_voice():
            _report("interrupted; what was written before is kept", json)
        return _INTERRUPTED
    except Interrupted as interrupted:
        with _one_voice():
            _report(str(interrupted), json)
        return _INTERRUPTED
    except LostProcessError as lost:
        if lost.speaks:
            _report(str(lost), json, PREFIX)
        else:
            time.sleep(_TO_SPEAK)
        return 2
    except typer.TyperException as error:
        words = " ".join(error.format_message().split()).replace("Value error, ", "")
        told, known = words.rstrip(".").replace(". ", "; "), None
    except Exception as error:
        found = sentence(error)
        if found is None:
            raise
        told, known = found, error.document if isinstance(error, IncompleteError) else None
    if _is_first():
        _report(told, json, PREFIX, known)
        return 2
    from scorefield import world

    # torchrun ends all processes with the first that has ended.
    time.sleep(_TO_SPEAK)
    if not world.met:
        print(f"{PREFIX}process {os.environ['RANK']}: {told}", file=sys.stderr)
    return 2


def _report(
    words: str,
    json: bool,
    prefix: str = "",
    document: Mapping[str, Any] | None = None,
) -> None:
    """Prints why a command ended: a sentence, and for machines one JSON object, with the results
    that there are.
    """
    print(f"{prefix}{words}", file=sys.stderr)
    if json and _is_first():
        print_document({**(document or {}), "error": words})
        sys.stdout.flush()


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _one_voice() -> Iterator[None]:
    """Leaves it to the first of several processes to speak."""
    if _is_first():
        yield
        return
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets SIGTERM interrupt as Ctrl-C does, and takes signals in quick succession for one."""
    received = -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal received
        earlier, received = received, time.monotonic()
        if received - earlier > _ONE_INTERRUPT:
            raise KeyboardInterrupt

    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    here = threading.current_thread() is threading.main_thread()
    # What whoever started this process ignores stays ignored.
    changed = [n for n, handler in usual.items() if here and signal.getsignal(n) == handler]
    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, usual[number])

"""Code of the user's own, by its import path ``module:name``.

A file that names code is not trusted: nothing is imported without the user's word, and what has
changed since the file was written is refused.
"""

from __future__ import annotations

import hashlib
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from inspect import isroutine
from operator import attrgetter
from pathlib import Path
from typing import Any

from scorefield.errors import ConfigError
from scorefield.files import read_file

FAULTS = (Exception, SystemExit)
"""What code of the user's own may raise; a script that is imported may leave Python."""


def imported(target: str, where: str) -> Any:
    """What ``module:name`` names; its module is looked for where Python looks, and in the working
    directory.

    Raises:
        ConfigError: If there is no such module or name, or its code fails.
    """
    source_of(target, where)
    module, _, name = target.partition(":")
    try:
        return attrgetter(name)(import_module(module))
    except FAULTS as error:  # of the user's own code
        raise ConfigError(
            f"{where} is {target!r}, which cannot be imported: {fault(error)}"
        ) from error


def trusted(target: str, sha256: str | None, where: str, trust: bool) -> Any:
    """The class or function that a file names, if its code is trusted and the hash is its file's.

    Raises:
        ConfigError: If not, or it cannot be imported.
    """
    if not trust:
        raise ConfigError(
            f"{where} is {target!r}, code that is not part of scorefield: give "
            f"--trust-code to import it (trust_code=True in Python)"
        )
    file = source_of(target, where)
    if sha256 not in (None, hash_of(file)):
        raise ConfigError(
            f"{where} is {target!r}, whose file {file} is not the one of the "
            f"configuration: its sha256 is {hash_of(file)[:12]}…, not {sha256[:12]}…"
        )
    found = imported(target, where)
    if not isinstance(found, type) and not isroutine(found):
        raise ConfigError(f"{where} is {target!r}, neither a class nor a function")
    return found


def fault(error: BaseException) -> str:
    """What code of the user's own raised, in words."""
    return f"it ends Python by sys.exit({error})" if isinstance(error, SystemExit) else str(error)


def source_of(target: str, where: str) -> Path:
    """The source file of the module of a target."""
    if os.getcwd() not in sys.path:
        # Last, so that nothing in it takes the place of an installed module. It stays: a module may
        # import its neighbours when it is called.
        sys.path.append(os.getcwd())
    module = target.partition(":")[0]
    try:
        # Imports the packages that the module is in.
        spec = find_spec(module)
    except FAULTS as error:  # of the user's own code
        raise ConfigError(f"{where} is {target!r}: {fault(error)}") from error
    if spec is None:
        raise ConfigError(f"{where} is {target!r}: there is no module {module!r}")
    if spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"{where} is {target!r}: the module {module!r} has no source file")
    return Path(spec.origin)


def hash_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(read_file(file)).hexdigest()

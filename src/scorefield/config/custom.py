"""Classes of the user's own, named in a configuration by import path.

They are imported only where a configuration comes from the user: from a file or the command line,
or from a run with the user's word that its code is to be trusted.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from inspect import isroutine
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from scorefield.config.base import Section
from scorefield.errors import ConfigError
from scorefield.files import read_file

TRUST = "trust_code"
"""The key of the validation context that says whether code may be imported."""


class Custom(Section):
    """Data, a network or a regulariser of the user's own.

    ``target`` is ``module:name`` of a class or function; the module is looked for where Python
    looks, and in the working directory. ``arguments`` are those of the call, which also gets what
    it has a parameter for: a :class:`~.DataSource` or
    :class:`~.Target` the process ``sde``; a module that is called as
    ``network(x, level)`` of ``shape`` and ``dim`` of the data, ``period``, ``centered``,
    ``outputs`` and ``seed``. ``sha256`` is the hash of the module's file, filled in when the user's
    configuration is read: code that has changed since is refused.
    """

    points: ClassVar[None] = None
    takes: ClassVar[None] = None
    faults = (Exception,)
    kind: Literal["custom"] = "custom"
    target: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    arguments: dict[str, Any] = Field(default={})
    sha256: str | None = None
    _trusted: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _from(self, info: Any) -> Custom:
        self._trusted = bool((info.context or {}).get(TRUST))
        return self

    @property
    def every(self) -> Any:
        """The number of steps from one evaluation of a regulariser to the next."""
        return self.arguments.get("every", 1)

    def settings(self) -> dict[str, Any]:
        return dict(self.arguments)

    def constructor(self, where: str) -> Callable[..., Any]:
        where = f"{where}.target"
        if not self._trusted:
            raise ConfigError(
                f"{where} is {self.target!r}, code that is not part of scorefield: give "
                f"--trust-code to import it (trust_code=True in Python)"
            )
        file = _source(self.target, where)
        if self.sha256 not in (None, _hash(file)):
            raise ConfigError(
                f"{where} is {self.target!r}, whose file {file} is not the one of the "
                f"configuration: its sha256 is {_hash(file)[:12]}…, not {self.sha256[:12]}…"
            )
        found = imported(self.target, where)
        if not isinstance(found, type) and not isroutine(found):
            raise ConfigError(f"{where} is {self.target!r}, neither a class nor a function")
        constructor: Callable[..., Any] = found
        return constructor


def imported(target: str, where: str) -> Any:
    """What ``module:name`` names; its module is looked for as those of custom classes are.

    Raises:
        ConfigError: If there is no such module or name, or its code fails.
    """
    _source(target, where)
    module, _, name = target.partition(":")
    try:
        return attrgetter(name)(import_module(module))
    except Exception as error:  # of the user's own code
        raise ConfigError(f"{where} is {target!r}, which cannot be imported: {error}") from error


def with_hashes(document: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The document of a configuration, in which every custom class has the hash of its file.

    Raises:
        ConfigError: If there is no module of that name.
    """
    if document.get("kind") == "custom":
        given = document["sha256"] or _hash(_source(document["target"], f"{path}target"))
        return {**document, "sha256": given}
    return {
        key: with_hashes(value, f"{path}{key}.") if isinstance(value, Mapping) else value
        for key, value in document.items()
    }


def _source(target: str, where: str) -> Path:
    """The source file of the module of a target."""
    if os.getcwd() not in sys.path:
        # Last, so that nothing in it takes the place of an installed module. It stays: a module may
        # import its neighbours when it is called.
        sys.path.append(os.getcwd())
    module = target.partition(":")[0]
    try:
        # Imports the packages that the module is in.
        spec = find_spec(module)
    except Exception as error:  # of the user's own code
        raise ConfigError(f"{where} is {target!r}: {error}") from error
    if spec is None:
        raise ConfigError(f"{where} is {target!r}: there is no module {module!r}")
    if spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"{where} is {target!r}: the module {module!r} has no source file")
    return Path(spec.origin)


def _hash(file: Path) -> str:
    return hashlib.sha256(read_file(file)).hexdigest()

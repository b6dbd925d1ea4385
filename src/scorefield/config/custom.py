"""Classes of the user's own, named in a configuration by import path.

They are imported only where a configuration comes from the user: from a file or the command line,
or from a run with the user's word that its code is to be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from scorefield.code import hash_of, source_of, trusted
from scorefield.config.base import Section

TRUST = "trust_code"
"""The key of the validation context that says whether code may be imported."""


class Coded(Section):
    """A section that names code of the user's own, or a run that may."""

    _trusted: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _from(self, info: Any) -> Self:
        self._trusted = bool((info.context or {}).get(TRUST))
        return self

    @property
    def trusted(self) -> bool:
        """Whether it may be imported."""
        return self._trusted


class Custom(Coded):
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

    @property
    def every(self) -> Any:
        """The number of steps from one evaluation of a regulariser to the next."""
        return self.arguments.get("every", 1)

    def settings(self) -> dict[str, Any]:
        return dict(self.arguments)

    def constructor(self, where: str) -> Callable[..., Any]:
        found: Callable[..., Any] = trusted(
            self.target, self.sha256, f"{where}.target", self.trusted
        )
        return found


def with_hashes(document: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The document of a configuration, in which every custom class has the hash of its file.

    Raises:
        ConfigError: If there is no module of that name.
    """
    if document.get("kind") == "custom":
        given = document["sha256"] or hash_of(source_of(document["target"], f"{path}target"))
        return {**document, "sha256": given}
    return {
        key: with_hashes(value, f"{path}{key}.") if isinstance(value, Mapping) else value
        for key, value in document.items()
    }

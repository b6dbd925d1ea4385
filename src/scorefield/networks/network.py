"""A network that can be made again."""

from __future__ import annotations

from inspect import signature
from typing import Any

from torch import nn

from scorefield.errors import enough_memory


class Network(nn.Module):
    """A network that keeps the arguments of its constructor, so that a file can name them."""

    _made_of: tuple[tuple[Any, ...], dict[str, Any]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            sized = enough_memory(f"a {cls.__name__} of these sizes: make them smaller")
            cls.__init__ = sized(cls.__init__)  # type: ignore[method-assign]

    # Not Self: the check of annotations is of single functions.
    def __new__(cls, *given: Any, **named: Any) -> Any:
        made = super().__new__(cls)
        # Not by setattr, which a module allows only once it is initialised.
        vars(made)["_made_of"] = given, named
        return made

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that were given, by their names."""
        given, named = self._made_of
        return dict(signature(type(self)).bind(*given, **named).arguments)

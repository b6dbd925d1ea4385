"""Defaults of constructors, read from their source: nothing is imported, so torch is not needed.

A section of a configuration takes its defaults from the class that it describes. Importing that
class takes seconds, since it needs torch; parsing its file takes a millisecond.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent.parent


@cache
def defaults(target: str) -> dict[str, Any]:
    """The plain defaults (numbers, text, lists, null) of the arguments of a class or function.

    Arguments:
        target: ``module:name`` in this package; ``module:Class.method`` for a method.
    """
    module, _, name = target.partition(":")
    tree: Any = _tree(module)
    for part in name.split("."):
        # Functions and classes.
        tree = next(node for node in tree.body if getattr(node, "name", None) == part)
    if isinstance(tree, ast.FunctionDef):
        return _of_function(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _of_function(node)
    # A dataclass.
    homes = _homes(module)
    found: dict[str, Any] = {}
    for base in tree.bases:
        if isinstance(base, ast.Name) and base.id in homes:
            found |= defaults(f"{homes[base.id]}:{base.id}")
    fields = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
    return found | _plain((ast.unparse(node.target), node.value) for node in fields)


@cache
def _tree(module: str) -> ast.Module:
    file = _PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _homes(module: str) -> dict[str, str]:
    """The modules of this package that the names in a module come from."""
    found: dict[str, str] = {}
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = module
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scorefield."):
            found |= {alias.name: str(node.module) for alias in node.names}
    return found


def _of_function(function: ast.FunctionDef) -> dict[str, Any]:
    arguments = function.args
    last = (arguments.posonlyargs + arguments.args)[::-1]
    pairs = [
        *zip(last, arguments.defaults[::-1], strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return _plain((argument.arg, value) for argument, value in pairs)


def _plain(pairs: Iterable[tuple[str, ast.expr | None]]) -> dict[str, Any]:
    """The values that are literals, by their names."""
    found: dict[str, Any] = {}
    for name, expression in pairs:
        if expression is not None:
            with suppress(ValueError):
                found[name] = ast.literal_eval(expression)
    return found

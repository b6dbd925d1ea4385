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
    tree: ast.AST = _tree(module)
    for part in name.split("."):
        tree = _defined(tree, part)
    return _of_function(tree) if isinstance(tree, ast.FunctionDef) else _of_class(module, name)


@cache
def _tree(module: str) -> ast.Module:
    file = _PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _defined(tree: ast.AST, name: str) -> ast.ClassDef | ast.FunctionDef:
    """The class or function of a name in the body of another or of a module."""
    return next(
        node
        for node in ast.iter_child_nodes(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
    )


def _of_function(function: ast.FunctionDef) -> dict[str, Any]:
    arguments = function.args
    positional = (arguments.posonlyargs + arguments.args)[::-1]
    pairs = [
        *zip(positional, arguments.defaults[::-1], strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return _plain((argument.arg, value) for argument, value in pairs)


def _of_class(module: str, name: str) -> dict[str, Any]:
    """The defaults of ``__init__``, or of the fields of a dataclass and its bases."""
    tree = _tree(module)
    homes = {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    found: dict[str, Any] = {}
    definition = _defined(tree, name)
    assert isinstance(definition, ast.ClassDef)
    for base in definition.bases:
        if isinstance(base, ast.Name) and base.id in names:
            found |= defaults(f"{module}:{base.id}")
        elif isinstance(base, ast.Name) and homes.get(base.id, "").startswith("scorefield."):
            found |= defaults(f"{homes[base.id]}:{base.id}")
    fields = [
        (node.target.id, node.value)
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _of_function(node)
    return found | _plain(fields)


def _plain(pairs: Iterable[tuple[str, ast.expr | None]]) -> dict[str, Any]:
    """The values that are literals, by their names."""
    found: dict[str, Any] = {}
    for name, expression in pairs:
        if expression is not None:
            with suppress(ValueError):
                found[name] = ast.literal_eval(expression)
    return found

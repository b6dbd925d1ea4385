"""Small faults that can be planted in a module, found by reading its syntax.

A fault replaces one expression by another: a sign, a factor, a power, a count off by one, two
arguments exchanged, a term dropped, another reduction, a lower precision, the address of a random
number, a boundary.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div}
_ORDERS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_REDUCTIONS = {
    "mean": "sum",
    "sum": "mean",
    "amax": "amin",
    "amin": "amax",
    "max": "min",
    "min": "max",
    "maximum": "minimum",
    "minimum": "maximum",
    "var": "std",
    "std": "var",
    "logsumexp": "amax",
}
_EITHER_ORDER = {"max", "min", "maximum", "minimum", "hypot"}
_LIMITS = {"clamp", "clamp_min", "clamp_max", "abs"}
_POWERS = {"square": "abs", "sqrt": "abs", "exp": "exp2", "log": "log2"}
_ADDRESSES = {"index", "step", "steps"}


@dataclass(frozen=True)
class Fault:
    """A fault: the kind, its place in the file, what stands there and what is put there instead."""

    path: str
    kind: str
    line: int
    start: int
    end: int
    old: str
    new: str

    @property
    def name(self) -> str:
        """Where it is and what it does, in one line."""
        return f"{self.path}:{self.line} {self.kind}: {self.old} -> {self.new}"

    def planted(self, source: str) -> str:
        """The text of the module with the fault."""
        data = source.encode()
        return (data[: self.start] + self.new.encode() + data[self.end :]).decode()


def _call(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    either = ast.unparse(node.func).rpartition(".")[2] in _EITHER_ORDER
    simple = all(isinstance(a, ast.Name | ast.Attribute) for a in node.args[:2])
    differ = len({ast.unparse(a) for a in node.args[:2]}) == 2
    if differ and simple and not either:
        first, second, *rest = node.args
        yield "swapped arguments", ast.Call(node.func, [second, first, *rest], node.keywords)
    if isinstance(node.func, ast.Attribute):
        value, name = node.func.value, node.func.attr
        for kind, names in (("reduction", _REDUCTIONS), ("power", _POWERS)):
            if name in names:
                func = ast.Attribute(value, names[name], ast.Load())
                yield kind, ast.Call(func, node.args, node.keywords)
        if name in _LIMITS and not (isinstance(value, ast.Name) and value.id == "torch"):
            yield "boundary", value
    for k, argument in enumerate(node.args[1:], start=1):
        # The purpose of a random number is text and comes first.
        purpose = isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
        if purpose and isinstance(argument, ast.Name) and argument.id in _ADDRESSES:
            same = ast.BinOp(argument, ast.Mult(), ast.Constant(0))
            args = [*node.args[:k], same, *node.args[k + 1 :]]
            yield "address", ast.Call(node.func, args, node.keywords)


def _replacements(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """The faults of one expression, each with its kind."""
    match node:
        case ast.BinOp(left, operator, right):
            if type(operator) in _OPERATORS:
                kind = "factor" if isinstance(operator, ast.Mult) else "sign"
                yield kind, ast.BinOp(left, _OPERATORS[type(operator)](), right)
            if isinstance(operator, ast.Add | ast.Sub):
                yield "dropped term", left
            if isinstance(operator, ast.Div):
                yield "factor", ast.BinOp(right, operator, left)
            if isinstance(operator, ast.Pow):
                one_more = ast.BinOp(right, ast.Add(), ast.Constant(1))
                yield "power", ast.BinOp(left, operator, one_more)
        case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
            yield "sign", operand
        case ast.Constant(value) if type(value) is int and value > 0:
            yield "off by one", ast.Constant(value + 1)
        case ast.Constant(value) if type(value) is float and value:
            yield "factor", ast.Constant(2 * value)
        case ast.Compare(left, [order], [right]) if type(order) in _ORDERS:
            yield "boundary", ast.Compare(left, [_ORDERS[type(order)]()], [right])
        case ast.Attribute(ast.Name("torch"), "float64"):
            yield "dtype", ast.Attribute(ast.Name("torch", ast.Load()), "float32", ast.Load())
        case ast.Call():
            yield from _call(node)


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that compute something: no annotations, messages, defaults or bases."""
    if isinstance(node, ast.expr):
        yield node
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "bases", "args"} and not isinstance(
            node, ast.Call
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            # Another dimension than the one that is there is an error and no fault.
            along = isinstance(child, ast.keyword) and child.arg in {"dim", "dims"}
            silent = isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import)
            # The fields of a class have defaults as arguments have.
            silent |= isinstance(node, ast.ClassDef) and isinstance(child, ast.AnnAssign)
            if isinstance(child, ast.AST) and not silent and not along:
                yield from _expressions(child)


def faults(root: Path, path: Path) -> list[Fault]:
    """All faults of a module, in the order of their places."""
    source = path.read_text(encoding="utf-8")
    begins = [0]
    for line in source.encode().splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    found = []
    for node in _expressions(ast.parse(source)):
        start = begins[node.lineno - 1] + node.col_offset
        end = begins[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        old = source.encode()[start:end].decode()
        for kind, new in _replacements(node):
            text = f"({ast.unparse(ast.fix_missing_locations(new))})"
            place = str(path.relative_to(root))
            found.append(Fault(place, kind, node.lineno, start, end, " ".join(old.split()), text))
    return sorted(found, key=lambda fault: (fault.start, fault.end, fault.kind, fault.new))

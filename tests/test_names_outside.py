"""What notebooks, pages and benchmarks take from the library is there."""

import ast
import importlib
import re
from functools import reduce
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^(`{3,})\{?(?:python|code-cell.*)\}?\n(.*?)^\1", re.MULTILINE | re.DOTALL)
PLACES = sorted(
    path
    for pattern in ("examples/*.ipynb", "benchmarks/*.py", "README.md", "docs/**/*.md")
    for path in ROOT.glob(pattern)
)


def code(path):
    match path.suffix:
        case ".ipynb":
            cells = nbformat.read(path, 4).cells
            return [cell.source for cell in cells if cell.cell_type == "code"]
        case ".md":
            return [block for _, block in FENCE.findall(path.read_text())]
    return [path.read_text()]


def dotted(node):
    """``a.b.c`` as its names, from the left; nothing for what begins otherwise."""
    if isinstance(node, ast.Attribute):
        return [*inner, node.attr] if (inner := dotted(node.value)) else []
    return [node.id] if isinstance(node, ast.Name) else []


def taken(source):
    """Modules of the library and the names that the source takes from them."""
    modules = {}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.partition(".")[0] == "scorefield":
                        yield alias.name, []
                        if alias.asname:
                            modules[alias.asname] = alias.name
            case ast.ImportFrom(module=str(module), names=names, level=0):
                if module.partition(".")[0] == "scorefield":
                    yield from ((module, [alias.name]) for alias in names)
            case ast.Attribute():
                first, *names = dotted(node) or [""]
                if first in modules:
                    yield modules[first], names


def there(module, names):
    owner = importlib.import_module(module)
    try:
        reduce(getattr, names, owner)
    except AttributeError:
        # A module that nothing has imported yet is no attribute of its package.
        importlib.import_module(".".join([module, *names]))


@pytest.mark.parametrize("path", PLACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_is_there(path):
    blocks = code(path)
    # An alias that one cell or block makes is used by those behind it.
    for module, names in taken("\n\n".join(blocks)):
        there(module, names)


def test_a_name_that_is_gone_is_found():
    source = "import scorefield as sf\nfrom scorefield.noise import Noise, Gone\nsf.Gone(1).run()"
    lost = []
    for module, names in taken(source):
        try:
            there(module, names)
        except ImportError:
            lost.append((module, names))
    assert {(module, names[0]) for module, names in lost} == {
        ("scorefield.noise", "Gone"),
        ("scorefield", "Gone"),
    }

import ast
import subprocess
import sys
from pathlib import Path

import scorefield


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys, scorefield; assert 'torch' not in sys.modules; assert scorefield.__version__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_importable_and_declared_for_type_checkers():
    tree = ast.parse(Path(scorefield.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        (statement.module.removeprefix("scorefield."), alias.name)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    lazy = {(home, name) for home, names in scorefield._HOMES.items() for name in names}
    assert declared == lazy
    assert all(hasattr(scorefield, name) for _, name in lazy)
    assert not hasattr(scorefield, "no_such_name")


def test_every_public_name_is_documented():
    for name in scorefield.__all__:
        if not name.startswith("__"):
            assert getattr(scorefield, name).__doc__, name

import importlib
import pkgutil
import runpy
from inspect import ismodule
from pathlib import Path

import scorefield
from tests import processes

ROOT = Path(__file__).parents[1]


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys, scorefield; assert 'torch' not in sys.modules; assert scorefield.__version__"
    )
    processes.python(code)


def test_every_public_name_is_importable():
    names = set(scorefield.__all__)
    assert {"ScoreField", "fit", "hodge_split", "__version__"} <= names
    assert all(hasattr(scorefield, name) for name in names)
    assert not hasattr(scorefield, "no_such_name")


def test_no_public_name_is_the_name_of_a_module():
    # Importing the module would put it in the place of the public name.
    modules = {module.name for module in pkgutil.iter_modules(scorefield.__path__)}
    names = {name for name in scorefield.__all__ if not ismodule(getattr(scorefield, name))}
    assert not modules & names


def test_every_public_name_is_documented():
    for name in scorefield.__all__:
        if not name.startswith("__"):
            assert getattr(scorefield, name).__doc__, name


def test_packages_export_no_names_of_their_own():
    packages = {m.name for m in pkgutil.iter_modules(scorefield.__path__) if m.ispkg}
    # The last is where the command line starts.
    for package in packages - {"plot", "plotting", "interop", "cli"}:
        found = vars(importlib.import_module(f"scorefield.{package}"))
        names = {name for name, value in found.items() if not ismodule(value)}
        assert not {name for name in names if not name.startswith("__")}, package


def test_the_public_interface_is_the_announced_one():
    tool = runpy.run_path(str(ROOT / "tools" / "public_api.py"))
    announced, found = set(tool["LIST"].read_text().splitlines()), set(tool["interface"]())
    assert found == announced, (
        "The public interface differs from tests/public_api.txt. If that is meant: write it into "
        "CHANGELOG.md, run `python tools/public_api.py`, and commit both. "
        f"Gone: {sorted(announced - found)}. New: {sorted(found - announced)}."
    )


def test_the_list_of_the_interface_shows_names_kinds_and_defaults_only():
    tool = runpy.run_path(str(ROOT / "tools" / "public_api.py"))

    def called(
        x: "int | None", /, y: float = 1e-3, *rest: int, z: object = object(), **kw: str
    ): ...

    assert tool["parameters"](called) == "(x, /, y=, *rest, z=, **kw)"

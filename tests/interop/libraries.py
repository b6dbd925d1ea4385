"""Other libraries, imported without what only their trainers need."""

import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from unittest.mock import MagicMock

import pytest


class _Absent:
    """Finds empty modules of some names."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return MagicMock(__path__=[])

    def exec_module(self, module):
        pass


def library(name, *needs):
    """A module of a library. What the library needs besides, and is not installed, is empty; where
    the library itself is not, the test is skipped.
    """
    if find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name.partition('.')[0]} is not installed")
    finder = _Absent({need for need in needs if find_spec(need) is None})
    sys.meta_path.append(finder)
    try:
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)
        for known in [n for n in sys.modules if n.partition(".")[0] in finder.names]:
            del sys.modules[known]

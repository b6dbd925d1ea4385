"""A metric is known in one place: its entry in the catalogue."""

import ast
import runpy
from pathlib import Path

import pytest

import scorefield
from scorefield.evaluation.catalogue import CATALOGUE, OF_LEVELS

ROOT = Path(scorefield.__file__).parent
NAMES = {name for m in CATALOGUE for name in (m.name, *m.formerly)}
ROOMS = ("evaluation", "comparison", "studies", "report", "runs", "cli")


def strings(path):
    """The string literals of a module that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str}


@pytest.mark.parametrize("room", ROOMS)
def test_no_other_module_names_a_metric(room):
    for path in sorted((ROOT / room).rglob("*.py")):
        if path.parent.name != "catalogue":
            assert not strings(path) & NAMES, path


def test_names_are_unique_and_every_estimator_has_a_record_of_its_own():
    names = [name for m in CATALOGUE for name in (m.name, *m.formerly)]
    assert len(set(names)) == len(names)
    keys = [e.key for e in dict.fromkeys(m.estimator for m in OF_LEVELS) if e.key]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda m: m.name)
def test_an_entry_says_all_that_is_shown(metric):
    assert all((metric.title, metric.label, metric.applies))
    assert metric.caption.endswith(".")
    if metric in OF_LEVELS:
        assert "{" not in metric.estimator.describe(metric.estimator.settings)


def test_the_page_of_the_documentation_is_that_of_the_catalogue():
    folder = ROOT.parents[1] / "docs"
    page = runpy.run_path(str(folder / "metrics_page.py"))
    assert page["PAGE"].read_text(encoding="utf-8") == page["text"]()

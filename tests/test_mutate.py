"""Faults of each kind are planted where something is computed, and each module has its tests."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import mutate  # noqa: E402
from faults import faults  # noqa: E402
from mutate import draw, mirror, modules  # noqa: E402

SOURCE = '''\
"""A module."""
import torch

class C:
    size: int = 7

def f(x: "Float[Tensor, 'batch 2']", n: int = 3) -> "Tensor":
    """Not 2 * this."""
    if n < 1:
        raise ValueError(f"{n + 1} is too few")
    z = noise.normal("start", x.shape[1:], index, dtype=torch.float64)
    y = (x - z).square().sum(dim=1) / 2.5
    y = torch.maximum(y, n)
    y = torch.cdist(y, y)
    return torch.where(y, x)
'''
PLANTED = {
    ("boundary", "n <= 1"),
    ("off by one", "2"),
    ("address", "noise.normal('start', x.shape[1:], index * 0, dtype=torch.float64)"),
    ("dtype", "torch.float32"),
    ("sign", "x + z"),
    ("dropped term", "x"),
    ("power", "(x - z).abs()"),
    ("reduction", "(x - z).square().mean(dim=1)"),
    ("reduction", "torch.minimum(y, n)"),
    ("factor", "2.5 / (x - z).square().sum(dim=1)"),
    ("factor", "5.0"),
    ("swapped arguments", "torch.where(x, y)"),
}


def test_each_kind_is_found_where_something_is_computed_and_nowhere_else(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    found = faults(tmp_path, path)
    assert {(fault.kind, fault.new[1:-1]) for fault in found} == PLANTED
    for fault in found:
        ast.parse(fault.planted(SOURCE))
        assert fault.planted(SOURCE).count("\n") == SOURCE.count("\n")


@pytest.mark.slow
def test_a_fault_is_killed_by_the_tests_that_notice_it(tmp_path, monkeypatch):
    mutate._copy(tmp_path)
    path = ROOT / "src" / "scorefield" / "wrapped.py"
    fault = next(f for f in faults(ROOT, path) if f.kind == "sign" and f.old == "-_IMAGES")
    for file, outcome in (("test_wrapped.py", "killed"), ("test_errors.py", "survived")):
        monkeypatch.setattr(mutate, "mirror", lambda path, file=file: [f"tests/{file}"])
        assert mutate.verdict(fault, tmp_path)["verdict"] == outcome
    planted = (tmp_path / fault.path).read_text(encoding="utf-8")
    assert planted == path.read_text(encoding="utf-8")


def test_a_sample_is_drawn_by_its_seed_alone():
    assert draw(20, "a") == draw(20, "a") != draw(20, "b")
    assert len(set(draw(200, "a"))) == 200


@pytest.mark.parametrize("path", modules(ROOT / "src" / "scorefield"), ids=lambda p: p.stem)
def test_every_module_has_tests_of_its_own(path):
    assert mirror(path)

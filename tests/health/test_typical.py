"""What good models show on data of the same kind, beside the numbers of a check."""

import math

import pytest

from scorefield.estimate import Estimate
from scorefield.health.plan import Number
from scorefield.health.typical import Like, _record, like

FIGURES = [
    {"name": "curl", "level": 0.5, "n": 4, "value": 0.1},
    {"name": "curl", "level": 2.0, "n": 4, "value": 0.2},
    {"name": "distance_10", "level": None, "n": 64, "value": 0.3},
    {"name": "floor_10", "level": None, "n": 8, "value": 0.4},
    {"name": "bits", "level": None, "n": 8, "value": 2.5},
]
FOUND = Like("digits", 2.0, {"M0": FIGURES}, "")


@pytest.mark.parametrize(
    ("name", "sigma", "n", "beside"),
    [
        ("curl", 1.0, 4, {"M0": 0.1}),
        ("curl", 4.4, 16, {"M0": 0.2}),
        ("curl", 2.0, 4, {}),
        ("curl", None, 4, {}),
        ("distance_10", None, 64, {"M0": 0.3}),
        ("distance_10", None, 128, {}),
        ("floor_10", None, 8, {}),
        ("bits", None, 128, {"M0": 2.5}),
        ("gap", 1.0, 4, {}),
    ],
)
def test_a_figure_of_the_same_number_level_and_size_is_beside(name, sigma, n, beside):
    assert FOUND.beside(Number(name, name, Estimate(1.0, 0.1, n), sigma)) == beside


@pytest.mark.parametrize("name", list(_record()["data"]))
def test_figures_are_those_of_data_of_one_shape_and_scale(name):
    one = _record()["data"][name]
    shape, std = tuple(one["shape"]), one["std"]
    found = like(shape, 1.05 * std)
    assert found.data == name
    assert {"M0", "M2"} <= found.models.keys()
    assert all(math.isfinite(f["value"]) for figures in found.models.values() for f in figures)
    assert like(shape, 2 * std) is None
    assert like((*shape, 1), std) is None


def test_the_figures_say_how_and_when_they_were_measured():
    assert "benchmarks/check.py with seed 0, 20" in _record()["origin"]

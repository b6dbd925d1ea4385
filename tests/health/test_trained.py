"""Checks of trained networks; ``benchmarks/claims.py`` and ``check.py`` make the whole tables."""

import importlib
from pathlib import Path

import pytest

import scorefield as sf
from scorefield.progress import Stages

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUIET = Stages(quiet=True)


@pytest.fixture
def script(monkeypatch):
    """The module of a benchmark, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.slow
def test_wrong_claims_of_trained_networks_are_found_and_right_ones_are_not_doubted(script):
    claims, networks = script("claims"), script("networks")
    found = {}
    for name in ("EDM", "velocity"):
        one = networks.trained(name, steps=300)
        for claim in claims.WRONG[name](one):
            found[claim.words] = claims.checked(claim).doubts(claim)
        for claim in claims.right(name, one):
            assert not claims.checked(claim).faults, claim.words
    assert len(found) == 11
    assert sum(found.values()) >= 10, found


@pytest.mark.slow
def test_planted_faults_of_images_are_found_and_a_potential_has_none(script):
    networks, check = script("networks"), script("check")
    m2 = networks.trained("potential", steps=150).field
    cases = [check.Case("M2", m2, sf.digits()), *check.faulty(m2, sf.digits(), memorised=200)]
    for case in cases:
        found = sf.check(case.field, case.source, 5.0, stages=QUIET)
        bad = {verdict.about for verdict in found.verdicts if verdict.grade != "good"}
        assert case.fault in bad or not (case.fault or bad & {"gradient", "levels", "memory"})

"""Claims of a trained network; ``benchmarks/claims.py`` makes the whole table."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_wrong_claims_of_a_trained_network_are_found_and_the_right_one_is_not_doubted(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    claims, networks = (importlib.import_module(name) for name in ("claims", "networks"))
    one = networks.trained("EDM", steps=300)
    wrong = list(claims.WRONG["EDM"](one))
    found = {claim.words: claims.checked(claim).doubts(claim) for claim in wrong}
    assert len(found) == 7
    assert sum(found.values()) >= 6, found
    assert not claims.checked(next(claims.right("EDM", one))).faults

"""Trajectories of several real processes; the whole of it is ``python -m tests.hostile.ranks``."""

import pytest

from tests.hostile.ranks import compare


@pytest.mark.slow
def test_steps_of_two_processes_are_those_of_one():
    said = []
    wrong = compare(["toy/m3", "digits/ncsnpp_ve"], steps=6, sizes=(2,), report=said.append)
    assert not wrong
    assert len(said) == 4
    assert all("draws equal" in words for words in said)

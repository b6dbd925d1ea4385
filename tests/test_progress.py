"""How far long work is, and the time that is left."""

import pytest

from scorefield import progress
from scorefield.progress import Stages


@pytest.fixture
def passing(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_say_the_time_that_is_left_at_the_rate_of_their_stage(passing, capsys):
    with Stages() as stages:
        for done in range(1, 5):
            passing[0] += 2.0
            stages.advance("one", done, 40, "points")
        passing[0] += 90.0
        stages.advance("two", 3, 4)
    assert capsys.readouterr().out.splitlines() == [
        "one: 3 of 40  points  1:14 left",
        "two: 3 of 4  0:30 left",
    ]


def test_a_short_stage_and_a_quiet_one_print_nothing(passing, capsys):
    for quiet in (False, True):
        with Stages(quiet) as stages:
            stages.advance("none", 0, 3)
            passing[0] += 20.0 if quiet else 1.0
            stages.advance("none", 3, 3)
    assert capsys.readouterr().out == ""

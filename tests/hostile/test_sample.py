"""A sample of the hostile tests; all of them are run by ``make hostile``."""

import pytest

from tests.hostile.crash import crash
from tests.hostile.fuzz import KINDS, fuzz

# The processes are forked while nothing else runs in this one.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
FEW = {"configurations": 40, "images": 40, "runs": 2, "archives": 10}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_in_one_sentence(kind):
    assert fuzz(kind, range(100_000, 100_000 + FEW[kind])) == []


@pytest.mark.parametrize("verb", [pytest.param("likelihood", marks=pytest.mark.slow), "classifier"])
def test_a_killed_or_starved_command_loses_nothing(verb):
    done, wrong = crash([verb], 2, 2, report=lambda line: None)
    assert wrong == []
    assert done == {"kill": 2, "full": 2}

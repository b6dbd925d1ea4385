"""Where no run is, it is said what is there instead."""

import pytest

from scorefield.comparison.groups import collect
from scorefield.comparison.status import progress
from scorefield.errors import RunError
from scorefield.runs.inspection import inspect
from scorefield.runs.run import Run
from scorefield.runs.subject import open_subject

PLACES = {
    "missing": "nothing is there",
    "missing/below": "nothing is there",
    "file": "it is a file, not a folder",
    "file/below": "nothing is there",
    "link_to_file": "it is a file, not a folder",
    "link": "it is a link to elsewhere, where nothing is",
    "loop": "it is a link to loop, where nothing is",
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "file").touch()
    for name, target in (("link_to_file", "file"), ("link", "elsewhere"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
    return tmp_path


@pytest.mark.parametrize("look", [progress, collect, Run.open])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_folder_is_said_to_be_none(root, look, place):
    with pytest.raises(RunError, match=f"no .*run.*: {PLACES[place]}$"):
        look(root / place)


@pytest.mark.parametrize("look", [inspect, open_subject])
@pytest.mark.parametrize("place", ["missing", "file/below", "link", "loop"])
def test_what_is_not_there_is_no_checkpoint(root, look, place):
    with pytest.raises(RunError, match=f"there is no model .*{PLACES[place]}"):
        look(root / place)


def test_a_folder_without_runs_is_one(tmp_path):
    with pytest.raises(RunError, match=f"{tmp_path} holds no run$"):
        progress(tmp_path)
    with pytest.raises(RunError, match=f"{tmp_path} holds no evaluated run: run `scorefield eval"):
        collect(tmp_path)

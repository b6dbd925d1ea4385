"""A table of all runs says no more than what is on the disk, and one damaged file hides no run."""

import json
import shutil

import pytest

from scorefield.comparison.cluster import queue
from scorefield.comparison.status import progress
from scorefield.comparison.sweep import task_name
from scorefield.runs.run import Run


@pytest.fixture
def root(trained, tmp_path, monkeypatch):
    """A folder with two finished runs, of which one is called broken."""
    monkeypatch.setattr("scorefield.comparison.status.queue", dict)
    for name in ("good", "broken"):
        shutil.copytree(trained, tmp_path / f"runs/{name}/small/seed0")
    return tmp_path / "runs"


def rows(root):
    """The rows of the two runs, the broken one first."""
    broken, good = progress(root)
    assert good["state"] == "finished"
    return broken, good


def test_a_run_without_its_last_checkpoint_is_not_finished(root):
    folder = root / "broken/small/seed0"
    shutil.rmtree(folder / f"checkpoints/step_{Run.open(folder).steps()[-1]:08d}")
    broken, good = rows(root)
    assert (broken["steps"], broken["state"]) == (good["steps"], "unfinished")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"job": 5}', '{"job": null}', "\0"])
def test_a_damaged_record_of_a_job_hides_no_run(root, content):
    folder = root / "broken/small/seed0"
    settings = (folder / "config_resolved.yaml").read_text()
    (folder / "config_resolved.yaml").write_text(settings.replace("toy/small", "toy/broken"))
    run = Run.open(folder)
    (root / ".jobs").mkdir()
    file = root / ".jobs" / f"{task_name(run.config).replace('/', '_').replace(' ', '_')}.job.json"
    file.write_text(content)
    broken, _ = rows(root)
    assert file.name in broken["job"]


@pytest.mark.parametrize("content", ["", "step\nx\n", "\0\n", "step\n\xff\n", "a,b\n1,2\n"])
def test_a_damaged_table_of_metrics_hides_no_run(root, content):
    (root / "broken/small/seed0/metrics.csv").write_text(content, encoding="latin-1")
    rows(root)


def test_what_jobs_wait_for_is_part_of_their_state(root, monkeypatch):
    said = "7 RUNNING None\n8_0 PENDING PartitionNodeLimit\n8_1 PENDING None\n"
    said += "9 PENDING ReqNodeNotAvail, UnavailableNodes:n1\n"
    monkeypatch.setattr("scorefield.comparison.cluster._command", lambda *words: said)
    waiting = queue()
    assert waiting == {
        "7": "running",
        "8_0": "pending (PartitionNodeLimit)",
        "8_1": "pending",
        "9": "pending (ReqNodeNotAvail, UnavailableNodes:n1)",
    }
    monkeypatch.setattr("scorefield.comparison.status.queue", queue)
    (root / ".jobs").mkdir()
    names = {"8_0": "toy/late seed4", "9": "toy/later seed5", "10": "toy/gone seed6", "7": "toy"}
    for number, task in names.items():
        record = {"job": number, "task": task}
        (root / f".jobs/{task.replace('/', '_').replace(' ', '_')}.job.json").write_text(
            json.dumps(record)
        )
    shown = ("run", "seed", "state", "evaluated", "job")
    assert [tuple(row[name] for name in shown) for row in progress(root)[2:]] == [
        ("toy/gone", 6, "unfinished", "no", "10"),
        ("toy/late", 4, waiting["8_0"], "no", "8_0"),
        ("toy/later", 5, waiting["9"], "no", "9"),
    ]
    for path in list(root.glob("*/small")):
        shutil.rmtree(path)
    assert len(progress(root)) == 3

"""A sweep as jobs of a real SLURM, on this machine."""

import json
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from scorefield.comparison.cluster import SlurmJobs, in_job, job_of
from scorefield.comparison.processes import Task, TaskResult
from scorefield.runs.run import Run
from tests import cluster, processes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LONG = ["train.steps=100000000", "train.checkpoint_every=10000000", "name=toy/long"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with cluster.started(tmp_path_factory.mktemp("slurm") / "s") as environment:
        yield environment


def scorefield(*arguments):
    return [sys.executable, "-m", "scorefield", *map(str, arguments)]


def weights(folder):
    """The averaged weights of a finished run."""
    return Run.open(folder).field().state_dict()


def queued(slurm):
    """The jobs in the queue, with their states."""
    lines = cluster.command_of(slurm, "squeue", "--array", "--noheader", "--format=%i %T")
    return dict(line.split() for line in lines.splitlines())


def until(condition):
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_of_ten_runs_one_fails(slurm, small, trained, tmp_path):
    other = tmp_path / "runs/toy/small/seed3"
    other.mkdir(parents=True)
    (other / "something").touch()
    command = ["sweep", small, "--seeds", "0,1,2,3,4,5,6,7,8,9", "--cluster", "slurm"]
    done = processes.run(*scorefield(*command), env=slurm, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("seed3 is not empty, and no run") == 2  # at once, and in the table
    assert re.search(r"[2-9] of 10 runs ended, about .* left", done.stdout)
    status = processes.run(*scorefield("runs"), env=slurm, cwd=tmp_path)
    rows = [line.split() for line in status.stdout.splitlines() if "toy/" in line]
    seeds = [n for n in range(10) if n != 3]
    expected = [["toy/small", str(n), "6", "6", "finished", "no"] for n in seeds]
    assert [row[:6] for row in rows if row[1] != "3"] == expected
    assert [row[:4] for row in rows if row[1] == "3"] == [["toy/small", "3", "0", "failed:"]]
    found = weights(tmp_path / "runs/toy/small/seed0")
    for name, tensor in weights(trained).items():
        assert torch.equal(found[name], tensor)


def test_the_tasks_of_a_job_train_one_run(slurm, small, trained, tmp_path):
    command = ["sweep", small, "--cluster", "slurm", "--slurm", "ntasks_per_node=2"]
    done = processes.run(*scorefield(*command), env=slurm, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = weights(tmp_path / "runs/toy/small/seed0")
    for name, tensor in weights(trained).items():
        assert torch.allclose(found[name], tensor, atol=1e-5)


def test_a_job_whose_time_is_over_goes_on_where_it_was(slurm, small, tmp_path):
    folder = tmp_path / "runs/toy/long/seed0"
    command = scorefield("sweep", small, *LONG, "--cluster", "slurm")
    with processes.started(*command, env=slurm, cwd=tmp_path) as process:
        processes.wait_for((folder / "metrics.csv").exists)
        (job,) = queued(slurm)
        cluster.command_of(slurm, "scancel", "--signal=USR1", job)
        processes.wait_for(lambda: Run.open(folder).steps())
        first = Run.open(folder).steps()[-1]
        until(lambda: "PENDING" in queued(slurm).values())
        # Without this it waits for two minutes.
        cluster.command_of(slurm, "scontrol", "update", f"jobid={job}", "StartTime=now")
        rows = len((folder / "metrics.csv").read_bytes().splitlines())
        until(lambda: len((folder / "metrics.csv").read_bytes().splitlines()) > rows)
        # An interrupt of the command ends its jobs.
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, ""), output
    assert not queued(slurm)
    assert Run.open(folder).steps()[-1] > first


def test_jobs_outlive_the_command_and_are_not_submitted_twice(slurm, small, trained, tmp_path):
    command = scorefield("sweep", small, "--cluster", "slurm")
    cluster.command_of(slurm, "scontrol", "update", "PartitionName=all", "State=DOWN")
    try:
        with processes.started(*command, env=slurm, cwd=tmp_path) as process:
            until(lambda: queued(slurm))
            until(lambda: list((tmp_path / "runs/.jobs").glob("*.job.json")))
            process.kill()
        first = queued(slurm)
        with processes.started(*command, env=slurm, cwd=tmp_path) as process:
            assert "1 pending" in process.stdout.readline()
            assert queued(slurm) == first
            cluster.command_of(slurm, "scontrol", "update", "PartitionName=all", "State=UP")
            output, errors = process.communicate(timeout=200)
    finally:
        cluster.command_of(slurm, "scontrol", "update", "PartitionName=all", "State=UP")
    assert (process.returncode, errors) == (0, ""), output
    (record,) = (tmp_path / "runs" / ".jobs").glob("*.result.json")
    assert json.loads(record.read_text())["job"] in first
    assert weights(tmp_path / "runs/toy/small/seed0").keys() == weights(trained).keys()


def test_a_job_that_is_cancelled_before_it_begins_is_interrupted(slurm, tmp_path, monkeypatch):
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm[name])
    monkeypatch.setattr("scorefield.comparison.cluster._LATE", 1.0)
    jobs = SlurmJobs(tmp_path / ".jobs", {"array_parallelism": 1}, poll=0.5)
    tasks = [Task(name, time.sleep, (600,)) for name in ("first", "second", "third")]
    for task in tasks:
        jobs.start(task, task.arguments)
    jobs.wait(0.5)
    until(lambda: "RUNNING" in queued(slurm).values())
    assert jobs.wait(0.5) == []
    cluster.command_of(slurm, "scancel", job_of(jobs.folder, "third"))
    ended = dict[str, str]()

    def wait(n):
        ended.update({task.name: outcome.status for task, outcome in jobs.wait(0.5)})
        return len(ended) == n

    until(lambda: wait(1))
    assert ended == {"third": "interrupted"}
    jobs.stop()
    until(lambda: wait(3))
    assert set(ended.values()) == {"interrupted"}


def test_a_queue_that_is_not_known_for_a_while_ends_no_sweep(slurm, small, tmp_path):
    silent = tmp_path / "silent"
    command = tmp_path / "bin/squeue"
    command.parent.mkdir()
    command.write_text(
        f"#!/bin/sh\nif test -e {silent}; then echo 'Socket timed out' >&2; exit 1; fi\n"
        f'exec {shutil.which("squeue", path=slurm["PATH"])} "$@"\n'
    )
    command.chmod(0o755)
    environment = slurm | {"PATH": f"{command.parent}:{slurm['PATH']}"}
    sweep = scorefield("sweep", small, "--cluster", "slurm")
    with processes.started(*sweep, env=environment, cwd=tmp_path) as process:
        until(lambda: list((tmp_path / "runs/.jobs").glob("*.job.json")))
        silent.touch()
        until(lambda: list((tmp_path / "runs/.jobs").glob("*.result.json")))
        time.sleep(6)
        silent.unlink()
        output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert errors.count("it is not known which jobs are in the queue: ") == 1
    assert "Socket timed out" in errors
    assert Run.open(tmp_path / "runs/toy/small/seed0").finished


def test_a_node_that_goes_down_takes_no_run_with_it(slurm, small, tmp_path):
    folder = tmp_path / "runs/toy/long/seed0"
    node = cluster.command_of(slurm, "sinfo", "--noheader", "--format=%n")
    often = [LONG[0], "train.checkpoint_every=1000", LONG[2]]
    command = scorefield("sweep", small, *often, "--cluster", "slurm")
    with processes.started(*command, env=slurm, cwd=tmp_path) as process:
        processes.wait_for(lambda: folder.exists() and Run.open(folder).steps())
        down = [f"NodeName={node}", "State=DOWN", "Reason=test"]
        cluster.command_of(slurm, "scontrol", "update", *down)
        until(lambda: "RUNNING" not in queued(slurm).values())
        first = Run.open(folder).steps()[-1]
        cluster.command_of(slurm, "scontrol", "update", f"NodeName={node}", "State=RESUME")
        (job,) = queued(slurm)
        cluster.command_of(slurm, "scontrol", "update", f"jobid={job}", "StartTime=now")
        until(lambda: Run.open(folder).steps()[-1] > first)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, ""), output
    assert not queued(slurm)


def test_what_a_job_returned_is_in_its_result(tmp_path, monkeypatch):
    """Those of earlier versions have none."""
    pytest.importorskip("submitit")
    job = SimpleNamespace(num_tasks=1, global_rank=0, job_id="7")
    monkeypatch.setattr("submitit.JobEnvironment", lambda: job)
    ended = TaskResult("done", True, seconds=2.0)
    monkeypatch.setattr(
        "scorefield.comparison.cluster.run", lambda tasks, *_, **__: {tasks[0]: ended}
    )
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    task, file = Task("toy/m0 seed0", time.sleep), tmp_path / "toy_m0_seed0.result.json"
    try:
        in_job(task, (1,), file)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    jobs = SimpleNamespace(folder=tmp_path)
    assert SlurmJobs._outcome(jobs, SimpleNamespace(task=task, number="7")) == ended
    older = json.loads(file.read_text())
    del older["result"]
    file.write_text(json.dumps(older))
    found = SlurmJobs._outcome(jobs, SimpleNamespace(task=task, number="7"))
    assert found == replace(ended, result=None)


def test_a_task_beside_the_first_prints_why_it_failed(tmp_path, monkeypatch, capsys):
    pytest.importorskip("submitit")
    job = SimpleNamespace(num_tasks=1, global_rank=1, job_id="7")
    monkeypatch.setattr("submitit.JobEnvironment", lambda: job)
    failed = TaskResult("failed", reason="torch finds no CUDA device")
    monkeypatch.setattr(
        "scorefield.comparison.cluster.run", lambda tasks, *_, **__: {tasks[0]: failed}
    )
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        in_job(Task("toy/m0 seed0", time.sleep), (1,), tmp_path / "result.json")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().out == "toy/m0 seed0: process 1: torch finds no CUDA device\n"
    assert not (tmp_path / "result.json").exists()


def test_why_a_job_waits_is_said(slurm, small, tmp_path):
    sweep = scorefield("sweep", small, "--cluster", "slurm", "--slurm", "nodes=2")
    with processes.started(*sweep, env=slurm, cwd=tmp_path) as process:
        lines = iter(process.stdout.readline, "")
        assert any("1 pending (PartitionNodeLimit)" in line for line in lines)
        status = processes.run(*scorefield("runs"), env=slurm, cwd=tmp_path)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "")
    (row,) = [line.split() for line in status.stdout.splitlines() if "toy/" in line]
    assert row[:5] == ["toy/small", "0", "0", "pending", "(PartitionNodeLimit)"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--slurm", "time=5"], "give --cluster slurm too"),
        (["--cluster", "slurm", "--slurm", "time"], "a setting is written as in time=600"),
        (["--cluster", "slurm", "--slurm", "tine=5"], "the nearest is 'time'"),
        (
            ["--cluster", "slurm", "--slurm", "time=-5"],
            "time of a job must be a positive integer, got -5",
        ),
        (["--cluster", "slurm", "--slurm", "time=5", "--slurm", "time=6"], "time is set twice"),
        (["--cluster", "slurm", "--slurm", "partition=none"], "partition"),
    ],
)
def test_what_a_job_cannot_ask_for_is_named(slurm, small, tmp_path, options, told):
    done = processes.run(*scorefield("sweep", small, *options), env=slurm, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1

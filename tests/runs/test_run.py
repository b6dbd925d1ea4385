import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield import Euler, Heun
from scorefield.cli import main
from scorefield.config.document import read
from scorefield.config.resolve import load_config
from scorefield.errors import CheckpointError, ConfigError, RunError, TrainingError
from scorefield.evaluation.sampling import choose_sampler, draw
from scorefield.runs.inspection import inspect
from scorefield.runs.run import Run
from scorefield.runs.subject import open_model
from scorefield.training.guard import locked
from tests import processes


@pytest.fixture
def copied(trained, tmp_path):
    """A trained run that may be changed."""
    shutil.copytree(trained, tmp_path / "run")
    return Run.open(tmp_path / "run")


def test_a_run_is_where_its_name_says_and_holds_its_configuration(small, tmp_path):
    config = load_config(small, ["seed=4"])
    run = Run.create(config, tmp_path)
    assert run.folder == tmp_path / "toy" / "small" / "seed4"
    assert (run.dataset, run.model_id) == ("toy", "small")
    assert Run.open(run.folder).config == config
    assert load_config(run.folder / "config_resolved.yaml") == config
    assert json.loads((run.folder / "environment.json").read_text())["packages"]["torch"]
    assert run.steps() == []
    assert not run.finished


def test_creating_again_finds_the_run(small, tmp_path):
    run = Run.create(load_config(small), tmp_path)
    before = (run.folder / "environment.json").read_bytes()
    assert Run.create(load_config(small), tmp_path).config == run.config
    assert (run.folder / "environment.json").read_bytes() == before


def test_the_folder_of_another_configuration_is_refused_and_left_alone(small, tmp_path):
    run = Run.create(load_config(small), tmp_path)
    before = read(run.folder / "config_resolved.yaml")
    other = load_config(small, ["optim.lr=0.5", "name=toy/small"])
    with pytest.raises(RunError, match=r"optim.lr is 0.002 there and 0.5 here"):
        Run.create(other, tmp_path)
    assert read(run.folder / "config_resolved.yaml") == before
    (run.folder / "old").write_text("")
    assert Run.create(other, tmp_path, overwrite=True).config == other
    assert not (run.folder / "old").exists()


@pytest.mark.slow
def test_killed_while_it_is_made_or_replaced_a_run_can_be_made_again(small, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(small.read_text() + "name: toy/small\noptim: {lr: 0.5}\n")
    done = processes.run(
        *[sys.executable, "-m", "tests.runs.killed", tmp_path / "runs", small, other],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_run_that_is_being_trained_is_not_deleted(copied, small, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(copied.folder, root / "toy" / "small" / "seed0")
    with (
        locked(root / "toy" / "small" / "seed0"),
        pytest.raises(TrainingError, match="is being trained by another process"),
    ):
        Run.create(load_config(small), root, overwrite=True)
    assert Run.create(load_config(small), root).finished


def test_a_folder_that_is_no_run_is_never_deleted(small, tmp_path):
    folder = tmp_path / "toy" / "small" / "seed0"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="is not empty, and no run"):
        Run.create(load_config(small), tmp_path, overwrite=True)
    assert (folder / "thesis.tex").exists()


def test_a_description_is_no_part_of_the_configuration(small, tmp_path):
    Run.create(load_config(small), tmp_path)
    Run.create(load_config(small, ["description=other", "name=toy/small"]), tmp_path)


@pytest.mark.parametrize("content", [None, "a: [", "data: 3\n"])
def test_what_is_no_run_cannot_be_opened(tmp_path, content):
    if content is not None:
        (tmp_path / "config_resolved.yaml").write_text(content)
    with pytest.raises((RunError, ConfigError)) as error:
        Run.open(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_weights_are_those_of_the_checkpoint(trained):
    run = Run.open(trained)
    assert run.steps() == [2, 4, 6]
    assert run.finished
    raw, ema = run.field("raw"), run.field("ema")
    assert not raw.training
    found = run.checkpoint()
    for name, tensor in raw.state_dict().items():
        assert torch.equal(tensor, found.model.tensors[name])
    for name, tensor in ema.state_dict().items():
        assert torch.equal(tensor, found.ema.tensors[name])
    earlier = run.field("raw", step=2).state_dict()
    assert any(not torch.equal(earlier[k], v) for k, v in raw.state_dict().items())


@pytest.mark.parametrize(
    "wrong",
    [
        ["train.accumulate=1000"],
        ["train.ema_halflife=1000"],
        ["train.ema_decay=null"],
        ["optim.warmup=2", "optim.warmup_images=100"],
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_settings_that_contradict_each_other_leave_no_run(small, tmp_path, capsys, wrong, dry):
    assert main(["train", str(small), "--root", str(tmp_path / "runs"), *dry, *wrong]) == 2
    section = wrong[0].partition(".")[0]
    assert capsys.readouterr().err.startswith(f"error: {section}: ")
    assert not (tmp_path / "runs").exists()


def test_training_again_changes_nothing(copied):
    before = {p: p.read_bytes() for p in copied.checkpoints.rglob("*") if p.is_file()}
    copied.train(quiet=True)
    assert {p: p.read_bytes() for p in copied.checkpoints.rglob("*") if p.is_file()} == before


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(copied):
    newest = copied.checkpoints / "step_00000006" / "ema.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    told = []
    assert copied.checkpoint(report=told.append).step == 4
    assert len(told) == 1
    assert str(newest) in told[0]
    assert not copied.finished
    with pytest.raises(CheckpointError):
        copied.field(step=6)
    copied.train(quiet=True)
    assert copied.finished


def test_without_a_readable_checkpoint_there_is_no_field(copied, small, tmp_path):
    for state in copied.checkpoints.rglob("state.pt"):
        state.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read"):
        copied.field(report=lambda sentence: None)
    with pytest.raises(RunError, match="has no checkpoint yet"):
        Run.create(load_config(small), tmp_path / "new").field()


def test_a_missing_step_is_told(trained):
    with pytest.raises(RunError, match=r"no checkpoint of step 3, it has 2, 4, 6"):
        Run.open(trained).field(step=3)


def test_a_sampler_is_that_of_the_run_with_changes(trained):
    run = Run.open(trained)
    assert choose_sampler(run.config) == Heun(18) == run.sampler()
    assert choose_sampler(run.config, nfe=36) == Heun(18)
    assert choose_sampler(run.config, "euler", nfe=7, churn=2.0) == Euler(7, churn=2.0)
    with pytest.raises(RunError, match="either steps or nfe"):
        choose_sampler(run.config, steps=3, nfe=3)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_samples_are_written_with_what_they_depend_on(copied, tmp_path, ending):
    out = tmp_path / f"x{ending}"
    drawn = draw(open_model(copied.folder, "raw"), 5, Heun(3), seed=2, out=out)
    expected = Heun(3).sample(copied.field("raw"), 5, 2)
    assert torch.equal(drawn.samples, expected)
    assert (drawn.file, drawn.calls) == (out, (5, 5.0, 5))
    assert drawn.picture is not None
    assert drawn.picture.read_bytes().startswith(b"\x89PNG")
    if ending == ".npz":
        with np.load(out) as content:
            written, record = content["samples"], json.loads(str(content["record"]))
    else:
        from safetensors import safe_open

        with safe_open(out, "np") as content:
            written = content.get_tensor("samples")
            record = json.loads(content.metadata()["scorefield"])
    assert np.array_equal(written, expected.numpy())
    assert (record["sampler"], record["steps"], record["nfe"], record["seed"]) == ("heun", 3, 5, 2)
    assert (record["weights"], record["step"], record["run"]) == ("raw", 6, "toy/small")
    with pytest.raises(RunError, match="exists"):
        draw(open_model(copied.folder), 5, Heun(3), out=out)


def test_samples_have_a_name_of_their_own_by_default(copied):
    files = {
        draw(open_model(copied.folder, weights, step=step), 2, sampler, seed).file
        for sampler, seed, weights, step in [
            (Heun(2), 0, "ema", 6),
            (Euler(3), 0, "ema", 6),
            (Euler(3, churn=1.0), 0, "ema", 6),
            (Heun(2), 1, "ema", 6),
            (Heun(2), 0, "raw", 6),
            (Heun(2), 0, "ema", 2),
        ]
    }
    assert len(files) == 6
    assert {file.parent for file in files} == {copied.folder / "samples"}


def test_a_run_says_what_it_is(copied):
    damaged = copied.checkpoints / "step_00000002" / "state.pt"
    damaged.write_bytes(b"")
    sheet = {heading: dict(pairs) for heading, pairs in inspect(copied.folder).items()}
    assert sheet["run"]["name"] == "toy/small"
    assert sheet["process"] == {"kind": "EDM", "noise levels": "0.01 to 40"}
    counted = sum(p.numel() for p in copied.field().parameters())
    assert sheet["field"]["parameters"] == f"{counted:,}"
    assert sheet["training"]["steps"] == "6 of 6, complete"
    assert "loss" in sheet["training"]["step 6"]
    assert sheet["checkpoints"]["step_00000002"].startswith("unusable: ")
    assert sheet["checkpoints"]["step_00000006"] == "ok"
    assert "torch" in sheet["provenance"]["packages"]


def test_a_torn_line_of_the_metrics_is_passed_over(copied):
    with (copied.folder / "metrics.csv").open("a") as file:
        file.write("8,12\n7")
    training = dict(inspect(copied.folder)["training"])
    assert "step 6" in training
    assert "step 8" not in training


def test_a_checkpoint_says_what_it_is(trained):
    folder = trained / "checkpoints" / "step_00000004"
    for path in (folder, folder / "model.safetensors"):
        sheet = {heading: dict(pairs) for heading, pairs in inspect(path).items()}
        assert sheet["checkpoint"]["step"] == "4"
        assert sheet["checkpoint"]["of the run"] == "toy/small"


def test_a_link_to_a_run_is_not_overwritten(copied, small, tmp_path):
    link = tmp_path / "runs" / "toy" / "small" / "seed0"
    link.parent.mkdir(parents=True)
    link.symlink_to(copied.folder)
    before = sorted(copied.folder.rglob("*"))
    with pytest.raises(RunError, match="is a symbolic link"):
        Run.create(load_config(small), tmp_path / "runs", overwrite=True)
    assert link.is_symlink()
    assert sorted(copied.folder.rglob("*")) == before


@pytest.mark.parametrize("override", ["seed=1", "optim.lr=0.5", "field.network.hidden=16"])
def test_the_checkpoint_of_another_run_is_refused(copied, small, tmp_path, override):
    other = Run.create(load_config(small, [override, "name=toy/small"]), tmp_path / "other")
    shutil.copytree(copied.checkpoints, other.checkpoints)
    assert not other.finished
    for use in (other.field, other.checkpoint, lambda: other.train(quiet=True)):
        with pytest.raises(CheckpointError, match=override.partition("=")[0]) as error:
            use()
        assert str(other.checkpoints / "step_00000006") in str(error.value)


def test_a_renamed_checkpoint_is_not_that_of_its_name(copied):
    (copied.checkpoints / "step_00000006").rename(copied.checkpoints / "step_00000007")
    with pytest.raises(CheckpointError, match="holds step 6"):
        copied.checkpoint(7)
    assert copied.checkpoint(report=lambda _: None).step == 4


def test_what_cannot_be_built_leaves_no_folder(small, tmp_path):
    wrong = load_config("toy/m4", ["field.sigma_c=50.0"])
    with pytest.raises(ConfigError, match=r"field\.sigma_c is 50"):
        Run.create(wrong, tmp_path)
    assert not list(tmp_path.iterdir())
    run = Run.create(load_config(small), tmp_path)
    with pytest.raises(ConfigError, match=r"field\.sigma_c is 50"):
        Run.create(wrong.model_copy(update={"name": run.config.name}), tmp_path, overwrite=True)
    assert Run.open(run.folder).config == run.config


@pytest.mark.parametrize("change", [{"identity": 3}, {"window": 3}, {"optimizer": [1]}])
def test_a_state_of_garbage_is_not_taken_up(copied, change):
    file = copied.checkpoints / "step_00000006" / "state.pt"
    torch.save({**torch.load(file, weights_only=True), **change}, file)
    with pytest.raises(CheckpointError):
        copied.train(quiet=True)

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from scorefield import files
from scorefield.errors import CheckpointError
from scorefield.training import checkpoint
from tests import processes


def write(folder, step, keep=None, scale=1.0):
    model = {"a": torch.full((3, 2), scale), "b": torch.arange(4)}
    ema = {"a": torch.full((3, 2), 2 * scale), "b": torch.arange(4)}
    state = {"moments": [torch.ones(2), {"n": 1}], "name": "adam"}
    return checkpoint.save(folder, step, model, ema, state, {"data": "toy"}, keep)


def test_reads_what_was_written(tmp_path):
    path = write(tmp_path, 7)
    assert path.name == "step_00000007"
    assert sorted(p.name for p in path.iterdir()) == [
        "ema.safetensors",
        "model.safetensors",
        "state.pt",
    ]
    found = checkpoint.read(path)
    assert found.step == 7
    assert torch.equal(found.model.tensors["a"], torch.full((3, 2), 1.0))
    assert torch.equal(found.ema.tensors["a"], torch.full((3, 2), 2.0))
    assert torch.equal(found.model.tensors["b"], torch.arange(4))
    assert torch.equal(found.state["moments"][0], torch.ones(2))
    assert found.state["name"] == "adam"


def test_a_file_of_weights_says_what_it_is(tmp_path):
    path = write(tmp_path, 7)
    for weights in (
        checkpoint.read_weights(path / "ema.safetensors"),
        checkpoint.read_weights(path),
    ):
        assert (weights.step, weights.config) == (7, {"data": "toy"})
        assert float(weights.tensors["a"][0, 0]) == 2


def test_the_same_state_gives_the_same_bytes(tmp_path):
    one, two = write(tmp_path / "one", 3), write(tmp_path / "two", 3)
    for name in ("model.safetensors", "ema.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "state.pt"])
@pytest.mark.parametrize("damage", ["truncated", "half", "empty", "missing", "foreign"])
def test_damage_is_told_and_the_previous_one_used(tmp_path, file, damage):
    write(tmp_path, 1)
    victim = write(tmp_path, 2) / file
    content = victim.read_bytes()
    victim.unlink()
    match damage:
        case "truncated":
            victim.write_bytes(content[:-1])
        case "half":
            victim.write_bytes(content[: len(content) // 2])
        case "empty":
            victim.write_bytes(b"")
        case "foreign":
            victim.write_bytes(b"something else entirely" * 100)
    said = []
    found = checkpoint.latest(tmp_path, said.append)
    assert found is not None
    assert found.step == 1
    assert len(said) == 1
    assert str(victim) in said[0]
    assert "\n" not in said[0]


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "state.pt"])
def test_no_flipped_bit_changes_what_is_read(tmp_path, file):
    path = write(tmp_path, 1)
    reference = checkpoint.read(path)
    victim = path / file
    content = victim.read_bytes()
    for position in range(0, len(content), max(1, len(content) // 97)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        victim.write_bytes(flipped)
        try:
            found = checkpoint.read(path)
        except CheckpointError:
            continue
        # A flip in a time stamp of the archive, say, does no harm.
        assert file == "state.pt"
        assert found.step == reference.step
        assert found.state["name"] == "adam"
        assert torch.equal(found.state["moments"][0], torch.ones(2))
        assert found.state["sha256"] == reference.state["sha256"]


def test_files_of_two_checkpoints_do_not_mix(tmp_path):
    one, two = write(tmp_path, 1), write(tmp_path, 2, scale=3.0)
    (two / "ema.safetensors").write_bytes((one / "ema.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"ema\.safetensors is damaged"):
        checkpoint.read(two)


def test_foreign_files_are_not_ours(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not written by scorefield"):
        checkpoint.read_weights(tmp_path / "other.safetensors")
    path = write(tmp_path, 1)
    torch.save({"model": {}, "step": 3}, path / "state.pt")
    with pytest.raises(CheckpointError, match="not written by scorefield"):
        checkpoint.read(path)


def test_code_in_a_state_is_not_run(tmp_path):
    path = write(tmp_path, 1)
    torch.save({"format": "scorefield checkpoint 1", "x": nn.Linear(1, 1)}, path / "state.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.read(path)


def test_keeps_the_newest(tmp_path):
    for step in (5, 10, 15, 200000000):
        write(tmp_path, step, keep=2)
    assert [p.name for p in checkpoint.paths(tmp_path)] == ["step_00000015", "step_200000000"]


def test_a_checkpoint_that_makes_way_is_never_half_deleted(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def killed(folder, **options):
        if folder.exists():
            next(folder.iterdir()).unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(files.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 2, keep=1)
    assert [checkpoint.read(path).step for path in checkpoint.paths(tmp_path)] == [2]


def test_what_was_written_last_is_never_the_one_to_go(tmp_path):
    for step in (5, 20, 10):
        write(tmp_path, step, keep=1)
    assert [checkpoint.step_of(p) for p in checkpoint.paths(tmp_path)] == [10, 20]


def test_what_is_set_aside_is_kept_and_no_checkpoint_any_more(tmp_path):
    for scale in (1.0, 2.0):
        for step in (5, 10, 15):
            write(tmp_path, step, scale=scale)
        aside = checkpoint.set_aside(tmp_path, 5)
        assert [p.name for p in aside] == ["unreadable-step_00000010", "unreadable-step_00000015"]
        assert [checkpoint.step_of(p) for p in checkpoint.paths(tmp_path)] == [5]
        # A second time, they take the place of those before.
        assert float(checkpoint.read(aside[0]).model.tensors["a"][0, 0]) == scale


def test_no_folder_has_no_checkpoint(tmp_path):
    assert checkpoint.latest(tmp_path / "none", print) is None


def test_writing_over_a_damaged_one(tmp_path):
    path = write(tmp_path, 1)
    (path / "state.pt").write_bytes(b"")
    write(tmp_path, 1)
    assert checkpoint.read(path).step == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_leftovers_are_removed(tmp_path):
    """Of a writer that was killed; that it is dead is known by the number of its process."""
    with processes.started("true") as dead:
        dead.wait()
    name = files._beside(tmp_path / "step_00000003", "writing").name
    leftover = tmp_path / name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    write(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000001"]


def test_tensors_must_fit_the_field(tmp_path):
    weights = checkpoint.Weights({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, 1, None)
    layer = nn.Linear(3, 2)
    checkpoint.load_weights(layer, weights, tmp_path)
    assert torch.equal(layer.weight, torch.ones(2, 3))
    for other, message in (
        (nn.Linear(4, 2), r"tensor weight in the shape \(2, 3\), the field in the shape \(2, 4\)"),
        (nn.Linear(3, 2, bias=False), "has a tensor bias that the field has not"),
        (nn.LayerNorm((2, 3)), r"tensor bias in the shape"),
    ):
        before = other.weight.detach().clone()
        with pytest.raises(CheckpointError, match=message):
            checkpoint.load_weights(other, weights, tmp_path)
        assert torch.equal(other.weight, before)
    with pytest.raises(CheckpointError, match="lacks the field's tensor bias"):
        checkpoint.load_weights(
            layer, checkpoint.Weights({"weight": torch.ones(2, 3)}, 1, None), tmp_path
        )


@pytest.mark.parametrize(
    "about",
    [
        "x",
        "[" * 100_000,
        "3",
        "null",
        "[1]",
        '{"format": "scorefield checkpoint 1"}',
        '{"format": "scorefield checkpoint 1", "step": "x", "config": null}',
        '{"format": "scorefield checkpoint 1", "step": 1, "config": [1]}',
        '{"format": "scorefield checkpoint 1", "step": ' + "9" * 5000 + "}",
    ],
)
def test_what_hostile_weights_say_of_themselves_is_told(tmp_path, about):
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, file, {"scorefield": about})
    with pytest.raises(CheckpointError) as error:
        checkpoint.read_weights(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("header", [b'{"__metadata__": %s}' % v for v in (b"[]", b"3", b"null")])
def test_a_hostile_header_is_told(tmp_path, header):
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError):
        checkpoint.read_weights(file)


@pytest.mark.parametrize(
    "change",
    [{"step": "x"}, {"step": None}, {"step": True}, {"sha256": [1]}, {"sha256": {}}, {"step": 2}],
)
def test_a_hostile_state_is_told(tmp_path, change):
    path = write(tmp_path, 1)
    state = torch.load(path / "state.pt", weights_only=True)
    torch.save({**state, **change}, path / "state.pt")
    with pytest.raises(CheckpointError):
        checkpoint.read(path)

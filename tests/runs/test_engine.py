"""A run does not depend on what it is computed on, and keeps a record of it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from scorefield import Engine
from scorefield.cli import main
from scorefield.config.resolve import load_config
from scorefield.errors import RunError
from scorefield.evaluation.evaluate import benchmark_of, evaluate
from scorefield.evaluation.measure import measure_levels
from scorefield.evaluation.protocol import protocol_of
from scorefield.runs.environment import environment, read_environment, record_engine
from scorefield.runs.inspection import inspect
from scorefield.runs.run import Run

PLAIN, HALF = Engine("cpu"), Engine("cpu", "bfloat16")


@pytest.fixture
def copied(trained, tmp_path) -> Run:
    """A copy of a trained run, which a test may change."""
    return Run.open(shutil.copytree(trained, tmp_path / "toy/small/seed0"))


def forget_last(run: Run) -> None:
    shutil.rmtree(run.checkpoints / f"step_{run.steps()[-1]:08d}")


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoints / f"step_{run.steps()[-1]:08d}" / "model.safetensors")


def test_the_engine_is_no_part_of_what_a_run_is(small, tmp_path):
    plain = load_config(small)
    other = load_config(
        small, ["engine.device=cpu", "engine.precision=bfloat16", "engine.compile=true"]
    )
    assert (other.name, other.folder) == (plain.name, plain.folder)
    assert other.engine.precision == "bfloat16"
    first = Run.create(plain, tmp_path)
    assert Run.create(other, tmp_path).folder == first.folder
    assert Run.open(first.folder).config.engine == plain.engine
    with_more = load_config(small, ["engine.precision=bfloat16", "optim.lr=0.5"])
    assert with_more.name == load_config(small, ["optim.lr=0.5"]).name


def test_a_run_goes_on_under_another_engine_and_back(copied):
    expected = weights(copied)
    for engine in (HALF, PLAIN):
        forget_last(copied)
        copied.train(quiet=True, engine=engine)
        assert copied.finished
        found = weights(copied)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert value.dtype == expected[name].dtype
            torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-2)
    # In the same precision, two steps are those that were there before.
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_engines_are_read_back_with_all_their_values(tmp_path):
    file = tmp_path / "environment.json"
    file.write_text(json.dumps(environment()))
    for engine in (PLAIN, HALF, HALF):
        record_engine(file, engine)
    assert read_environment(file) == environment() | {
        "created": read_environment(file)["created"],
        "engines": [PLAIN.record(), HALF.record()],
    }


def test_the_engines_of_a_training_are_recorded_in_order(copied):
    for engine in (PLAIN, HALF, HALF, PLAIN):
        forget_last(copied)
        copied.train(quiet=True, engine=engine)
    record = json.loads((copied.folder / "environment.json").read_text())
    precisions = [engine["precision"] for engine in record["engines"]]
    assert precisions[-3:] == ["float32", "bfloat16", "float32"]
    assert {engine["device"] for engine in record["engines"][-3:]} == {"cpu"}
    assert record["packages"]["torch"]
    described = dict(inspect(copied.folder)["provenance"])["engines"]
    assert described.endswith("cpu, float32; cpu, bfloat16; cpu, float32")


@pytest.mark.parametrize(
    "wrong", [["--device", "cuda:99"], ["--device", "gpu"], ["engine.device=cuda:99"]]
)
def test_a_device_that_is_not_there_leaves_no_run(small, tmp_path, capsys, wrong):
    assert main(["train", str(small), "--root", str(tmp_path / "runs"), *wrong]) == 2
    assert "device" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", [["sample"], ["eval"], ["likelihood"]])
def test_a_device_that_is_not_there_is_one_sentence_of_every_verb(trained, capsys, verb):
    before = sorted(trained.rglob("*"))
    assert main([*verb, str(trained), "--device", "cuda:99"]) == 2
    assert capsys.readouterr().err.startswith("error: device is cuda:99, but ")
    assert sorted(trained.rglob("*")) == before


def test_samples_in_another_precision_are_another_file(copied, capsys):
    for options in ([], ["--precision", "bfloat16"]):
        assert main(["sample", str(copied.folder), "--n", "4", "--device", "cpu", *options]) == 0
    names = sorted(file.name for file in (copied.folder / "samples").glob("*.npz"))
    assert len(names) == 2
    assert sum("bfloat16" in name for name in names) == 1


def test_what_is_measured_does_not_depend_on_the_precision_of_sampling(copied):
    plain = evaluate(copied, engine=PLAIN)
    half = evaluate(copied, overwrite=True, engine=HALF)
    assert [(v.metric, v.estimate) for v in half.levels] == [
        (v.metric, v.estimate) for v in plain.levels
    ]
    assert half.validation == plain.validation
    assert [d.estimate for d in half.distances] != [d.estimate for d in plain.distances]
    assert half.about["engine"]["precision"] == "bfloat16"
    # Samples of two precisions are not one evaluation.
    with pytest.raises(RunError, match="precision is 'bfloat16' there and null here; --overwrite"):
        evaluate(copied, [3], engine=PLAIN)


def test_diagnostics_inside_of_a_running_engine_are_exact(copied):
    benchmark, field = benchmark_of(copied, protocol_of(copied.config)), copied.field()
    plain = measure_levels(field, benchmark)
    with HALF.running():
        assert measure_levels(field, benchmark) == plain

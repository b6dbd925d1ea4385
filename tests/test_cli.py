"""The command line: what it does, and what it says when it cannot."""

import errno
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from scorefield import GaussianMixture, TargetSource
from scorefield.cli.app import app
from scorefield.cli.printing import print_table
from scorefield.cli.program import main
from scorefield.cli.results import Results, ending_in_results
from scorefield.config import presets
from scorefield.errors import UserError
from scorefield.estimate import Estimate
from scorefield.runs.cells import read_csv
from scorefield.runs.find import find_run
from scorefield.runs.run import Run
from scorefield.training import checkpoint
from tests import processes

TINY = [
    "field.network.channels=16",
    "field.network.multipliers=[1, 1]",
    "field.network.attention=[]",
]


@pytest.fixture(scope="session")
def small(small):
    return str(small)


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def told(capsys):
    """Runs a command that must fail as a mistake does, and returns its one sentence."""

    def run(*arguments, warnings=0):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 + warnings
        assert all(line.startswith("warning: ") for line in lines[:-1])
        sentence = lines[-1]
        assert sentence.startswith("error: ")
        assert "Traceback" not in sentence
        assert ". " not in sentence
        return sentence.removeprefix("error: ")

    return run


# ------------------------------------------------------------------------------------ what works


def test_presets_have_a_line_each(capsys):
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    members = [line for line in lines if line.startswith(" ")]
    assert [line.split(maxsplit=1)[0] for line in members] == presets.names()
    assert all(len(line.split(maxsplit=1)) == 2 for line in members)
    # Each family has its heading before its members, once.
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings == sorted({name.partition("/")[0] for name in presets.names()})
    assert all(lines[lines.index(heading) + 1].startswith(f"  {heading}/") for heading in headings)


@pytest.mark.parametrize("arguments", [["--help"], ["presets"], ["train", "--help"]])
def test_what_must_answer_at_once_imports_nothing_heavy(arguments):
    code = (
        "import sys; from scorefield.cli import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'numpy', 'scipy', 'pydantic', 'rich', 'matplotlib'} "
        "& set(sys.modules)))"
    )
    assert processes.python(code, *arguments).splitlines()[-1] == "[]"


@pytest.mark.parametrize("argument", ["--help", "presets"])
def test_what_must_answer_at_once_does(argument):
    """In seconds of the processor, of which others on the machine take none away."""
    seconds = []
    for _ in range(5):
        before = os.times()
        assert processes.run(sys.executable, "-m", "scorefield", argument).returncode == 0
        after = os.times()
        children = (after.children_user, after.children_system)
        seconds.append(sum(children) - before.children_user - before.children_system)
    assert statistics.median(seconds) < 0.6


def test_no_arguments_are_a_question_for_help(capsys):
    assert main([]) == 0
    assert "presets" in capsys.readouterr().out


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("scorefield 0.")


def test_a_dry_run_shows_the_configuration_and_writes_nothing(small, tmp_path, capsys):
    root = tmp_path / "runs"
    assert main(["train", small, "optim.lr=0.5", "--root", str(root), "--dry-run"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"# {root}/toy/small_lr=0.5/seed0"
    assert any("lr: 0.5" in line for line in rest)
    assert main(["train", small, "--root", str(root), "--dry-run", "--device", "gpu"]) == 2
    assert "device must be auto, cpu, cuda or cuda:N" in capsys.readouterr().err
    assert not root.exists()


def test_a_complete_run_says_so(trained, small, capsys):
    root = trained.parents[2]
    assert main(["train", small, "--root", str(root)]) == 0
    assert capsys.readouterr().out == f"{trained} is complete: 6 steps\n"


@pytest.fixture
def document(capsys):
    """Runs a command with ``--json``, and returns its document, the whole standard output."""

    def run(*arguments):
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (["--nfe", "8"], 7),
        (["--sampler", "predictor_corrector", "--steps", "5"], 5),
        (["--sampler", "ddim", "--nfe", "6"], 6),
        (["--sampler", "dpm_solver", "--steps", "4"], 4),
        (["--sampler", "ode"], None),
    ],
)
def test_every_sampler_says_what_it_took(copied, document, options, calls):
    """An adaptive one has as many calls as each sample needed: a mean and a range."""
    found = document("sample", copied, "--n", "4", *options)
    (row,) = found["results"]
    if calls is not None:
        assert row["fewest"] == row["most"] == calls
    assert 0 < row["fewest"] <= row["network calls each"] <= row["most"]
    file, picture = found["files"]
    assert np.load(file)["samples"].shape == (4, 2)
    assert os.path.exists(picture)


def test_the_likelihood_is_that_of_its_files(copied, document):
    found = document("likelihood", copied, "--n", "8", "--rtol", "1e-3", "--atol", "1e-3")
    (row,) = found["results"]
    points, summary = map(Path, found["files"])
    nats = json.loads(summary.read_text())["nats"]
    assert {key: row["value"][key] for key in nats} == nats
    assert row["value"]["low"] < nats["value"] < row["value"]["high"]
    values = [float(line["log_prob"]) for line in read_csv(points)]
    assert nats["value"] == pytest.approx(statistics.fmean(values), rel=1e-12)


def test_an_evaluation_ends_in_the_numbers_of_its_files(copied, document, capsys):
    """The document has them as they are, the table rounded to their intervals, in any width."""
    found = document("eval", copied, "--nfe", "2,3", "--sampler", "ddim")
    files = list(map(Path, found["files"]))
    assert files == sorted((copied / "eval").iterdir())
    there = {float(row["value"]) for row in read_csv(copied / "eval" / "fid_vs_nfe.csv")}
    shown = [row for row in found["results"] if "calls" in row["at"]]
    assert {row["at"] for row in shown} == {
        "2 calls, ddim",
        "3 calls, ddim",
        "1 calls, heun",
        "3 calls, heun",
    }
    assert {row["value"]["value"] for row in shown} <= there
    levels = read_csv(copied / "eval" / "integrability_vs_sigma.csv")
    one = {row["metric"]: float(row["value"]) for row in levels}
    for label, name in (("score error", "score_error"), ("curl", "exterior_derivative")):
        (row,) = (row for row in found["results"] if row["quantity"] == label)
        assert row["value"]["value"] == pytest.approx(one[name], rel=1e-12)
    assert main(["eval", str(copied), "--nfe", "2,3", "--quiet"]) == 0
    out = capsys.readouterr().out
    for row in found["results"]:
        assert row["quantity"] in out
    assert out.splitlines()[-len(files) :] == found["files"]


@pytest.fixture(scope="module")
def classes(shared):
    """A run whose network knows the classes of the digits, barely trained."""
    small = ["field.network.multipliers=[1]", "field.network.attention=[]"]
    changes = ["train.steps=2", *small, "sampler.steps=4", "name=d/c"]

    def fill(root):
        assert main(["train", "digits/ncsnpp_classes", *changes, "--root", str(root)]) == 0

    return shared("classes", fill) / "d" / "c" / "seed0"


def test_samples_of_a_class(classes, document, told):
    files = []
    for options, calls in (([], 8), (["--label", "3"], 8), (["--label=3", "--guidance=2"], 16)):
        found = document("sample", classes, "--n", "2", *options)
        assert found["results"][0]["most"] == calls
        files.append(found["files"][0])
    assert len(set(files)) == 3
    assert "label is 10, it must be a class from 0 to 9" in told("sample", classes, "--label", 10)


def test_a_field_that_was_always_told_the_class_is_not_asked_without(tmp_path, told):
    small = ["field.network.multipliers=[1]", "field.network.attention=[]"]
    changes = ["train.steps=1", *small, "sampler.steps=2", "name=d/c", "objective.label_dropout=0"]
    assert main(["train", "digits/ncsnpp_classes", *changes, "--root", str(tmp_path)]) == 0
    run = tmp_path / "d" / "c" / "seed0"
    assert main(["sample", str(run), "--n", "2", "--label", "3"]) == 0
    commands = (["sample"], ["sample", "--label=3", "--guidance=2"], ["likelihood"])
    for verb, *options in commands:
        assert "points of one class only" in told(verb, run, *options)


def test_what_cannot_be_written_is_told_before_the_work(told, copied, tmp_path, monkeypatch):
    monkeypatch.setattr("scorefield.evaluation.likelihood.log_prob", None)
    monkeypatch.setattr("scorefield.samplers.base.Sampler.sample", None)
    monkeypatch.setattr("scorefield.comparison.demo.demo", None)
    monkeypatch.setattr("scorefield.report.page.collect", None)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "folder"):
        for command in (["likelihood", copied], ["check", copied], ["report"], ["demo"]):
            assert "no folder that can" in told(*command, "--out", out)
        assert "no folder that can" in told("sample", copied, "--out", out / "x.npz")
    assert "no folder that can" in told("analyze", "atoms", "--exact", "--out", out)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device without space here")
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_full_disk_behind_the_standard_output_is_one_sentence(option):
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "scorefield", "presets", *option]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: standard output: No space left on device\n"


def test_inspecting(trained, capsys):
    for path in (trained, trained / "checkpoints" / "step_00000006"):
        assert main(["inspect", str(path)]) == 0
        assert "toy/small" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_trains_evaluates_and_is_reported(small, tmp_path, capsys):
    root, out = tmp_path / "runs", tmp_path / "reports"
    assert main(["sweep", small, "--seeds", "1", "--eval", "--root", str(root)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["toy/small", "1", "done"] in [row[:3] for row in rows]
    assert main(["report", "--root", str(root), "--out", str(out)]) == 0
    page = capsys.readouterr().out.strip()
    assert os.path.dirname(page) == str(out)
    assert os.path.getsize(page)


# --------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "toy/m9"], "there is no preset 'toy/m9'; the nearest are"),
        (["train", "toy/m0", "optim.lrr=1"], "the nearest is 'lr'"),
        (["train", "toy/m0", "optim.lr=abc"], "it must be a number"),
        (["train", "toy/m0", "sde.sigma_min=-1"], "it must be at least 1e-12"),
        (["train", "toy/m0", "train.steps"], "has no '='"),
        (["train", "toy/m4", "field.sigma_c=99.0"], "field.sigma_c is 99"),
        (["train", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["sample", "nowhere"], "there is no model 'nowhere'"),
        (["eval", "nowhere"], "there is no run 'nowhere'"),
        (["eval", "nowhere", "--nfe", "8,0"], "'--nfe': it has 0, each must be at least 1"),
        (["eval", "nowhere", "--nfe", "8;9"], "it must be integers"),
        (["report", "--root", "nowhere", "--targets", "2,-1"], "it must be positive numbers"),
        (["report", "--root", "nowhere", "--targets", "2,2.0"], "'--targets': it has 2 twice"),
        (["inspect", "nowhere"], "there is no model 'nowhere'"),
        (["analyze", "calibrate", "--dims", "3"], "not 3"),
        (["analyze", "calibrate", "--only", "loop"], "'loop'; the nearest is 'loops'"),
        (["analyze", "atoms"], "nothing to analyse: give runs, or --exact"),
        (["sweep", "toy/m0", "toy/mm"], "there is no preset 'toy/mm'"),
        (
            ["sweep", "toy/m0", "--seeds", "0,x"],
            "'--seeds': it must be integers with commas in between, not '0,x'",
        ),
        (["sweep", "toy/m0", "--seeds", "-1"], "seed is -1, it must be at least 0"),
        (["sample", "nowhere", "--seed", "-1"], "'--seed': "),
        (["sample", "nowhere", "--seed", 23 * "9"], "'--seed': "),
        (["likelihood", "nowhere", "--seed", "-1"], "'--seed': "),
        (["likelihood", "nowhere", "--seed", str(2**63)], "'--seed': "),
        (["analyze", "atoms", "--exact", "--seed", "-1"], "'--seed': "),
        (["analyze", "dose", "--seed", str(2**63)], "'--seed': "),
        (["sweep", "toy/m0", "--jobs", "0"], "'--jobs': Input should be greater than"),
        (["demo", "--jobs", "0"], "'--jobs': Input should be greater than"),
        (["train", "toy/m3", "train.batch_size=4"], "must be below train.batch_size"),
        (["train", "toy/m0", "field.network.hidden=2000000"], "memory does not suffice"),
        (["sweep", "toy/m0", "toy/m0"], "twice"),
        (["sweep", "seed=0"], "at least one preset"),
        (["sweep", "atom/*"], "no preset matches 'atom/*'; the nearest is 'atoms/*'"),
        (["train", "atoms"], "'atoms' is a family of presets: name one, as in 'atoms/"),
        (["train", "toy/*"], "or sweep 'toy/*'"),
        (["train", "atom"], "there is no preset 'atom'; the nearest is 'atoms'"),
        (["train", "zzz"], "there is no preset 'zzz'; the families are atoms, "),
        (["trian"], "Did you mean 'train'"),
        (["train"], "Missing argument"),
        (["sweep"], "Missing argument 'PRESETS [A.B=C]...'"),
        (["sample", "nowhere", "--weights", "best"], "'--weights': 'best' is not one of"),
        (["train", "cifar10/ddpm"], "there is no preset 'cifar10/ddpm'; the nearest are"),
        (
            ["train", "cifar10/ncsnpp_ve", "data.path=nowhere", *TINY],
            "nowhere: there is no such file or folder",
        ),
        (["train", "ffhq_256/ncsnpp_continuous_ve", *TINY], "give a file or folder with data.path"),
        (["train", "digits/ncsnpp_ve", "field.label=time"], "scale_by_sigma needs field.label"),
        (["train", "digits/ddpm_discrete_vp", "sde.levels=20"], "it must be above sde.beta_max"),
        (["train", "digits/ddpm_discrete_vp", "sde.levels=2000000000"], "at most 1000000"),
        (
            ["train", "digits/ncsnpp_ve", "field.levels=9"],
            "field.label 'index', which",
        ),
        (["train", "digits/ncsnpp_ve", "sde.sigma_max=1e300"], "it must be at most 1e+12"),
        (["train", "digits/ncsnpp_ve", "sde.prior_mean=[0.1, 0.2]"], "prior_mean has 2 values"),
        (["train", "digits/ncsnpp_ve", "field.network.attention=[3]"], "are 8, 4 pixels wide"),
        (["train", "digits/ncsnpp_ve", "sampler.t_end=2.0"], "it must lie in [1e-05, 1)"),
        (
            ["train", "digits/ncsnpp_ve", "sampler.discretization=ddpm"],
            "DDPM discretises VP",
        ),
        (
            ["train", "digits/ddpmpp_vp", "sampler.discretization=smld"],
            "SMLD discretises VE",
        ),
        (["train", "cifar10/ncsnpp_ve", "data.path=''"], "must be text that is not empty"),
        (["train", "toy/m0", "sampler.kind=ddim", "sampler.churn=1.0"], "'sampler.churn'"),
        (["likelihood", "nowhere"], "there is no model 'nowhere'"),
        (["train", "toy/m0", "--rot", "x"], "No such option"),
    ],
)
def test_a_mistake_is_one_sentence(told, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in told(*arguments)
    # Neither a run nor a part of one is left behind.
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["inspect", "nowhere"], ["inspect"], ["runs", "--rot", "x"], ["trian"]]
)
def test_a_mistake_is_a_document_for_machines_too(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    (sentence,) = json.loads(printed.out).values()
    assert printed.err == f"error: {sentence}\n"
    assert json.loads(printed.out).keys() == {"error"}


def test_an_incomplete_result_is_one_document_with_its_error(capsys, monkeypatch):
    command = typer.Typer()
    found = Results(rows=[{"quantity": "a", "value": 1}], failure=UserError("no film"))
    command.command()(ending_in_results(lambda: found))
    monkeypatch.setattr("scorefield.cli.program.app", command)
    assert main(["--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {**found.document(), "error": "no film"}


def test_data_that_cannot_be_read_cost_no_run(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
    np.save("images.npy", pixels)
    data = ["data.kind=images", "data.dataset=mine", "data.size=8", "data.channels=1"]
    small = ["train.steps=1", "train.batch_size=4", "field.network.multipliers=[1]", "name=i/i"]
    command = ["train", "digits/ncsnpp_ve", *data, *small, "field.network.attention=[]"]
    assert main([*command, "data.path=images.npy"]) == 0
    file = Path("runs/i/i/seed0/checkpoints/step_00000001/ema.safetensors")
    weights = file.read_bytes()
    Path("images.npy").write_bytes(b"nothing")
    assert "images.npy: it is no NumPy array" in told(
        *command, "data.path=images.npy", "--overwrite"
    )
    assert file.read_bytes() == weights


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nfe", "0"], "nfe is 0, it must be at least 1"),
        (["--n", "0"], "n is 0, it must be at least 1"),
        (["--steps", "0"], "steps is 0, it must be at least 1"),
        (["--n", "99999999999999999999999"], "it must be at most 10000000"),
        (["--steps", "100000000000"], "it must be at most 1000000"),
        (["--nfe", "1000000000000"], "it must be at most 1000000"),
        (["--steps", "3", "--nfe", "3"], "either steps or nfe"),
        (["--churn", "-1"], "sampler.churn is -1.0, it must be at least 0"),
        (["--sampler", "hoin"], "--sampler"),
        (["--sampler", "ode", "--nfe", "9"], "determine its number of network calls, not a budget"),
        (["--sampler", "ode", "--steps", "9"], "there is no key 'sampler.steps'"),
        (["--sampler", "predictor_corrector", "--churn", "1"], "there is no key 'sampler.churn'"),
        (["--label", "3"], "the field of this run knows no classes"),
        (["--guidance", "2"], "give a label too"),
        (["--weights", "best"], "--weights"),
        (["--step", "5"], "no checkpoint of step 5, it has 2, 4, 6"),
        (["--n", "many"], "--n"),
        (["--out", "samples.txt"], "must end in .npz or .safetensors"),
    ],
)
def test_a_mistake_in_sampling_is_one_sentence(told, trained, options, words):
    assert words in told("sample", trained, *options)


@pytest.mark.parametrize("content", [b"a: [1\n", b"\xff\xfe\x00", b"- 1\n", b""])
def test_an_unreadable_file_is_one_sentence(told, tmp_path, content):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    assert str(file) in told("train", file)


def test_a_folder_of_another_configuration_is_refused(told, copied, small, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text(Path(small).read_text() + "name: toy/small\noptim: {lr: 0.5}\n")
    root = tmp_path / "runs"
    shutil.copytree(copied, root / "toy" / "small" / "seed0")
    sentence = told("train", file, "--root", root)
    assert "belongs to another configuration: optim.lr is 0.002 there and 0.5 here" in sentence


def test_a_foreign_checkpoint_is_refused(told, copied, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not a checkpoint at all")
    assert str(foreign) in told("inspect", foreign)
    weights = copied / "checkpoints" / "step_00000006" / "ema.safetensors"
    weights.write_bytes(foreign.read_bytes())
    assert str(weights) in told("sample", copied, "--step", "6")
    assert f"{tmp_path} is no model" in told("inspect", tmp_path)


def test_checkpoints_of_another_network_are_refused(told, copied, small, tmp_path):
    wider = ["field.network.hidden=9", "name=toy/wider"]
    assert main(["train", small, *wider, "--root", str(tmp_path)]) == 0
    shutil.rmtree(copied / "checkpoints")
    shutil.copytree(tmp_path / "toy" / "wider" / "seed0" / "checkpoints", copied / "checkpoints")
    assert "field.network.hidden is 9 there and 8" in told("sample", copied)


def test_truncated_checkpoints_are_told(told, copied):
    for file in copied.rglob("state.pt"):
        file.write_bytes(file.read_bytes()[:-20])
    sentence = told("sample", copied, warnings=3)
    assert "no checkpoint in" in sentence


def test_a_truncated_checkpoint_is_passed_over(copied, capsys):
    newest = copied / "checkpoints" / "step_00000006" / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-20])
    assert main(["sample", str(copied), "--n", "2", "--steps", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: ")
    assert len(captured.err.splitlines()) == 1
    assert "step00000004" in captured.out


class Spoilt(TargetSource):
    """Data of which the points of step 5 are no numbers."""

    def batch(self, noise, step, batch_size, dtype=torch.float32):
        points = super().batch(noise, step, batch_size, dtype)
        points[torch.as_tensor(step) == 4] = math.nan
        return points


def test_a_loss_that_is_not_finite_is_told_and_the_last_checkpoint_kept(
    told, small, tmp_path, monkeypatch
):
    name = "scorefield.runs.run.build_source"
    monkeypatch.setattr(name, lambda config: Spoilt(GaussianMixture.ring(), "ring"))
    sentence = told("train", small, "train.max_skipped=1", "--root", tmp_path)
    (kept,) = tmp_path.glob("toy/*/seed0/checkpoints/step_00000004")
    where = r"in the output of backbone\.layers\.0 at noise level [\d.e-]+"
    assert re.fullmatch(
        f"the loss 'denoising' is nan at step 5 {where}; the last good checkpoint is "
        f"{re.escape(str(kept))}",
        sentence,
    )
    assert [p.name for p in sorted(kept.parent.iterdir())] == ["step_00000002", kept.name]
    found = checkpoint.read(kept)
    for weights in (found.model, found.ema):
        assert all(bool(tensor.isfinite().all()) for tensor in weights.tensors.values())


def test_a_full_disk_is_told_and_the_last_checkpoint_kept(told, small, tmp_path, monkeypatch):
    write, written = os.write, []

    def full(descriptor, content):
        written.append(len(content))
        if sum(written) > 40_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    sentence = told("train", small, "--root", tmp_path)
    assert "no space left on device" in sentence.lower()
    assert str(tmp_path) in sentence
    monkeypatch.undo()
    assert main(["train", small, "--root", str(tmp_path)]) == 0


def test_a_disk_that_is_full_from_the_start_is_told(told, small, tmp_path, monkeypatch):
    def full(descriptor, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    sentence = told("train", small, "--root", tmp_path)
    assert "no space left on device" in sentence.lower()
    assert str(tmp_path) in sentence


def test_a_folder_that_cannot_be_made_is_told(told, small, tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in told("train", small, "--root", tmp_path / "file")


def test_a_fault_of_the_program_shows_its_traceback(monkeypatch, trained):
    def broken(path, *trust):
        raise ValueError("a bug")

    monkeypatch.setattr("scorefield.runs.inspection.inspect", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["inspect", str(trained)])


def test_samples_that_diverge_are_told(told, copied, monkeypatch):
    def broken(run, *choice):
        field = run.untrained().requires_grad_(False)
        for parameter in field.parameters():
            parameter.fill_(math.nan)
        return field

    monkeypatch.setattr(Run, "field", broken)
    for command in (["sample", copied, "--n", "4"], ["eval", copied]):
        assert "samples stopped being finite in step 1" in told(*command)


# -------------------------------------------------------------------------------------- processes


LONG = ["train.steps=100000000", "train.checkpoint_every=10000000", "name=toy/long"]


def start(*arguments, cwd):
    """The command in a process of its own, which ends with the block."""
    return processes.started(
        *[sys.executable, "-m", "scorefield", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def end(process):
    """The exit status, and what was written to the two streams."""
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


@pytest.mark.slow
def test_an_interrupt_keeps_a_checkpoint_and_the_run_can_go_on(told, small, tmp_path):
    root = tmp_path / "runs"
    folder = root / "toy" / "long" / "seed0"
    with start("train", small, *LONG, cwd=tmp_path) as process:
        processes.wait_for((folder / "metrics.csv").exists)
        assert "is being trained by another process" in told("train", small, *LONG, "--root", root)
        process.send_signal(signal.SIGINT)
        status, _, errors = end(process)
    assert status == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert len(errors.splitlines()) == 1
    assert len(list((folder / "checkpoints").glob("step_*"))) == 1


@pytest.mark.slow
def test_two_signals_in_quick_succession_are_one_interrupt(small, tmp_path):
    """As from a terminal and from a parent process; both wait while the process is stopped."""
    folder = tmp_path / "runs" / "toy" / "long" / "seed0"
    with start("train", small, *LONG, cwd=tmp_path) as process:
        processes.wait_for((folder / "metrics.csv").exists)
        for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            process.send_signal(number)
        status, _, errors = end(process)
    assert status == 130
    assert "resume from" in errors
    assert len(list((folder / "checkpoints").glob("step_*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_sweep_alone_reaches_its_runs(small, tmp_path, number):
    folders = [tmp_path / "runs" / "toy" / "long" / f"seed{seed}" for seed in range(3)]
    options = ["--seeds", "0,1,2", "--jobs", "2"]
    with start("sweep", small, *LONG, *options, cwd=tmp_path) as process:
        for folder in folders[:2]:
            processes.wait_for((folder / "metrics.csv").exists)
        process.send_signal(number)
        status, output, errors = end(process)
    assert (status, errors) == (130, "")
    rows = [line.split() for line in output.splitlines()]
    told = [row[2] for row in rows if row[:1] == ["toy/long"] and row[1] in "012"]
    assert told == ["interrupted", "interrupted", "not"], output
    for folder in folders[:2]:
        assert len(list((folder / "checkpoints").glob("step_*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_of_sampling_is_one_sentence(trained, tmp_path, number):
    options = ["--n", "10000000", "--steps", "1000", "--out", "samples.npz"]
    with start("sample", trained, *options, cwd=tmp_path) as process:
        # The first line of progress.
        assert "sampling: " in process.stdout.readline()
        process.send_signal(number)
        status, _, errors = end(process)
    assert status == 130
    assert errors.startswith("interrupted; ")
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_training_goes_on_when_no_one_reads(small, tmp_path):
    with start("train", small, cwd=tmp_path) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 0
    assert (tmp_path / "runs/toy/small/seed0/checkpoints/step_00000006").is_dir()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("inspect {run} | head -1", 0),
        ("presets | true", 0),
        ("presets >&-", 0),
        ("inspect {run} >&- 2>&-", 0),
        ("presets >&- 2>&-", 0),
        ("inspect h\u00e9", 2),
    ],
)
def test_any_streams_will_do(trained, command, status):
    line = f"set -o pipefail; {sys.executable} -m scorefield {command.format(run=trained)}"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = processes.run("bash", "-c", line, env={**os.environ, **plain})
    assert done.returncode == status
    assert done.stderr.count("\n") == (1 if status else 0)


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failure_and_reports_it(small, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    shutil.copy(small, good)
    optim = "optim: {lr: 1e+30, clip: null, warmup: 0}\n"
    bad.write_text(good.read_text().replace("train: {", "train: {max_skipped: 1, ") + optim)
    assert "max_skipped" in bad.read_text()
    with start("sweep", bad, good, "--seeds", "3", "--jobs", "2", cwd=tmp_path) as process:
        status, output, errors = end(process)
    assert (status, errors) == (1, "")
    rows = [line.split() for line in output.splitlines() if "toy/" in line]
    table = {words[0]: words[2] for words in rows if words[1] == "3"}
    assert table["toy/good"] == "done"
    assert table["toy/bad"] == "failed"
    assert (tmp_path / "runs/toy/good/seed3/checkpoints/step_00000006").is_dir()


def test_what_keeps_a_process_from_meeting_the_others_it_says_itself(monkeypatch, capsys):
    monkeypatch.setattr("scorefield.cli.program._TO_SPEAK", 0)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    for met, said in ((False, "error: process 1: "), (True, "")):
        monkeypatch.setattr("scorefield.world.met", met)
        assert main(["sample", "nowhere"]) == 2
        assert capsys.readouterr().err[: len("error: process 1: ")] == said


def test_one_of_several_processes_says_that_they_were_interrupted(monkeypatch, capsys):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("scorefield.runs.subject.open_model", interrupted)
    for rank, lines in (("1", 0), ("0", 1)):
        monkeypatch.setenv("RANK", rank)
        assert main(["sample", "nowhere"]) == 130
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_what_torchrun_starts_again_is_not_overwritten(
    small, trained, tmp_path, monkeypatch, capsys
):
    shutil.copytree(trained, tmp_path / "toy/small/seed0")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main(["train", small, "--root", str(tmp_path), "--overwrite"]) == 0
    assert "training" not in capsys.readouterr().out


# ----------------------------------------------------------------------------------- the vocabulary

WORDS = """
    atol background budget by calibrate-on channels check churn cluster compile config crop data
    dataset device dims dry-run eval exact extractor filter frames guidance images jobs json label
    length levels machine machines monotone n n-probes network nfe only out overwrite padding png
    points precision probes quiet relative-error repeats resnet root rtol sampler scales seed seeds
    size sizes slurm smoke standard-error statistics step steps strict targets to trust-code unet
    units vae weights
"""
"""The names of all options, each for one thing; a new one is added here on purpose."""


def verbs():
    """All verbs, by their names."""
    whole = typer.main.get_command(app)
    inner = {n: c for n, c in whole.commands.items() if not hasattr(c, "commands")}
    groups = {n: c for n, c in whole.commands.items() if hasattr(c, "commands")}
    more = {f"{n} {k}": c for n, group in groups.items() for k, c in group.commands.items()}
    return inner | more


def test_every_option_is_a_word_of_the_vocabulary_and_every_verb_has_those_of_all():
    used = set()
    for name, verb in verbs().items():
        flags = {flag for option in verb.params for flag in option.opts if flag.startswith("--")}
        assert flags >= {"--quiet", "--json"}, name
        assert verb.help.split()[0] not in ("A", "An", "The", "This"), name
        used |= flags
    assert used == {f"--{word}" for word in WORDS.split()}


def test_a_run_is_found_by_its_preset_or_a_part_of_its_path(
    trained, tmp_path, monkeypatch, told, document
):
    monkeypatch.chdir(tmp_path)
    for number, place in enumerate(("toy/small/seed0", "toy/small/seed1", "toy/small_lr=1/seed0")):
        shutil.copytree(trained, Path("runs", place))
        for file in Path("runs", place).rglob("*"):
            os.utime(file, (number, number))

    def found(*arguments):
        return document("sample", *arguments, "--n", "1", "--steps", "1")["model"]

    assert found("toy/small") == found("small") == "runs/toy/small/seed1"
    assert found("small/seed0") == "runs/toy/small/seed0"
    assert found("lr=1") == "runs/toy/small_lr=1/seed0"
    assert found("lr=1/seed0", "--root", "../" + tmp_path.name + "/runs").endswith("lr=1/seed0")
    assert "several runs: toy/small, toy/small_lr=1; give more" in told("sample", "smal")
    assert "the nearest is 'toy/small'" in told("eval", "toy/smell")
    listed = document("runs")["results"]
    assert [row["folder"] for row in listed] == [
        *("runs/toy/small/seed0", "runs/toy/small/seed1", "runs/toy/small_lr=1/seed0")
    ]
    assert {(row["steps"], row["of"], row["state"]) for row in listed} == {(6, 6, "finished")}


def test_a_table_that_is_wider_than_the_terminal_has_a_paragraph_a_row(capsys, monkeypatch):
    rows = [{"quantity": "curl", "value": Estimate(0.12345, 0.01, 100, "nats")}]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for columns, expected in (
        (80, " curl       0.123 (0.104 to 0.143) nats"),
        (20, "value: 0.123 ("),
    ):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(rows)
        assert expected in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def test_a_folder_of_data_is_no_model_where_a_run_is_named_after_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/cats/m0/seed0").mkdir(parents=True)
    Path("runs/cats/m0/seed0/config_resolved.yaml").touch()
    Path("cats/tabby").mkdir(parents=True)
    assert find_run("cats", Path("runs")) == Path("runs/cats/m0/seed0")
    Path("cats/model.json").touch()
    assert find_run("cats", Path("runs")) == Path("cats")

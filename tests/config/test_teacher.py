"""A distillation in a configuration: the teacher that it records, and what is refused."""

import hashlib

import pytest
import yaml

from scorefield.cli.program import main
from scorefield.config.resolve import load_config
from scorefield.evaluation.description import about, compute
from scorefield.runs.cost import step_of
from scorefield.runs.inspection import inspect
from scorefield.runs.run import Run

SMALL = ["train.batch_size=16", "train.log_every=1", "train.steps=2"]
TEACHER = "objective.teacher.run=runs/toy/teacher/seed0"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(preset, name, *overrides):
    net = [] if preset.startswith("digits") else ["field.network.hidden=8"]
    return main(["train", preset, *SMALL, *net, f"name=toy/{name}", *overrides])


def refusal(capsys, *given):
    """The sentence with which a training is refused."""
    capsys.readouterr()
    assert trained(*given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_run_records_its_teacher_and_resumes_with_no_other(here, capsys):
    assert trained("toy/m0", "teacher") == trained("toy/m2_distilled", "run", TEACHER) == 0
    run = Run.open("runs/toy/run/seed0")
    ema = here / "runs/toy/teacher/seed0/checkpoints/step_00000002/ema.safetensors"
    stored = yaml.safe_load((run.folder / "config_resolved.yaml").read_text())
    assert stored["objective"]["teacher"] == {
        "run": "runs/toy/teacher/seed0",
        "step": 2,
        "sha256": hashlib.sha256(ema.read_bytes()).hexdigest(),
    }
    header = (run.folder / "metrics.csv").read_text().partition("\n")[0].split(",")
    assert "distillation" in header
    assert "denoising" not in header
    assert "step 2" in dict(inspect(run.folder)["objective"])["distillation"]
    # One evaluation of each field a point.
    assert step_of(run.config, run.source()).calls == 32
    assert step_of(load_config("toy/m2", SMALL), run.source()).calls == 16
    # It is complete, and that of no other teacher.
    assert trained("toy/m2_distilled", "run", TEACHER) == 0
    assert trained("toy/m0", "other", "seed=1") == 0
    other = "objective.teacher.run=runs/toy/other/seed1"
    assert "objective.teacher.run is" in refusal(capsys, "toy/m2_distilled", "run", other)
    # The weights have changed since.
    for file in (here / "runs/toy/other/seed1/checkpoints/step_00000002").iterdir():
        (ema.parent / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"objective\.teacher\.sha256 is .* not those of the conf"):
        run.objective()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ([], "objective.teacher.run is not given"),
        (["objective.teacher.run=nowhere"], "objective.teacher.run is 'nowhere': nothing is there"),
        (["objective.teacher.run=."], "objective.teacher.run is '.', which has no checkpoint"),
        (["objective.teacher.run=[1]"], "objective.teacher.run is [1], it must be text"),
        (["objective.pairing=transport"], "objective.pairing is 'transport', it must be"),
        (["objective.augmentation.probability=0.1"], "objective.augmentation is not for a distill"),
    ],
)
def test_a_teacher_that_is_not_there_is_one_sentence(here, capsys, overrides, sentence):
    assert sentence in refusal(capsys, "toy/m2_distilled", "run", *overrides)


def test_a_teacher_of_something_else_is_one_sentence(here, capsys):
    assert trained("toy/m0", "teacher") == 0
    for preset, overrides, sentence in (
        ("toy/m2_distilled", ["sde.sigma_max=30.0"], "whose field has the process EDM("),
        ("digits/m2", ["sde.sigma_min=0.01"], "whose field has the domain Euclidean("),
    ):
        assert sentence in refusal(capsys, preset, "run", TEACHER, *overrides)


def test_a_run_whose_teacher_is_gone_is_described_without_the_cost_of_a_step(here, capsys):
    assert trained("toy/m0", "teacher") == 0
    assert trained("toy/m2_distilled", "m2_distilled_of_m0", TEACHER) == 0
    run = Run.open("runs/toy/m2_distilled_of_m0/seed0")
    whole, told = compute(run, run.untrained(), 2), about(run)
    assert whole["calls_per_step"] == 32
    (here / "runs/toy/teacher").rename(here / "gone")
    capsys.readouterr()
    rest = compute(run, run.untrained(), 2)
    unknown = {"multiply_adds_per_step": None, "calls_per_step": None}
    assert rest == {**whole, **unknown}
    assert "calls of a training step are not known: objective.teacher" in capsys.readouterr().err
    assert about(run) == told
    assert "objective.teacher.step=2" in told["overrides"]

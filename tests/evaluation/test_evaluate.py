"""An evaluated run: what is written, what is read back, and what cannot be evaluated."""

import csv
import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

from scorefield.config.resolve import load_config
from scorefield.config.schema import validate
from scorefield.errors import RunError
from scorefield.estimate import Estimate
from scorefield.evaluation import evaluate as evaluate_module
from scorefield.evaluation.catalogue import OF_LEVELS
from scorefield.evaluation.description import about, training_time
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.protocol import Protocol
from scorefield.evaluation.records import DISTANCES, Distance, Evaluation, Floor
from scorefield.networks.unet import UNet
from scorefield.progress import Stages
from scorefield.runs.classes import classes_by_index
from scorefield.runs.run import Run
from scorefield.samplers.solvers import Heun

PROTOCOL = Protocol(
    nfes=(2, 8), along=5, samples=64, pairs=3, sigmas=(0.5, 5.0), points=16, draws=2
)


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "toy" / "small" / "seed0"
    shutil.copytree(trained, folder)
    return Run.open(folder)


@pytest.fixture(scope="module")
def evaluation(run):
    return evaluate(run, protocol=PROTOCOL, overwrite=True)


def test_distances_are_written_in_long_form_with_true_calls(run, evaluation):
    with (run.folder / "eval" / "fid_vs_nfe.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = "sampler nfe_budget nfe metric features value standard_error numerical_error n unit"
    assert set(wanted.split()) < set(rows[0])
    assert {"floor_mean", "floor_sd", "floor_pairs", "ratio_to_floor"} < set(rows[0])
    assert {(row["nfe_budget"], row["nfe"]) for row in rows} == {("2", "1"), ("8", "7")}
    walks = ("trajectory_length", "curvature")
    assert {row["features"] for row in rows if row["metric"] not in walks} == {"coordinates"}
    # One step has no interior, and so no curvature; its time has no scatter.
    assert [r["nfe"] for r in rows if r["metric"] == "trajectory_length"] == ["1", "7"]
    assert [r["nfe"] for r in rows if r["metric"] == "curvature"] == ["7"]
    assert {r["latency_sec"] for r in rows if r["nfe"] == "1"} == {""}
    assert all(float(r["latency_sec"]) > 0 for r in rows if r["nfe"] == "7")
    assert all(math.isfinite(float(row["value"])) for row in rows)
    assert all(float(row["standard_error"]) > 0 or row["n"] == "0" for row in rows)
    assert "nan" not in (run.folder / "eval" / "fid_vs_nfe.csv").read_text().lower()


def test_diagnostics_are_written_by_noise_level(run, evaluation):
    with (run.folder / "eval" / "integrability_vs_sigma.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {float(row["sigma"]) for row in rows} == {0.5, 5.0}
    assert {"dataset", "model", "seed", "step", "metric", "settings"} < set(rows[0])
    assert {"scale_delta", "cycle_len", "numerical_error"} < set(rows[0])
    loops = [row for row in rows if row["metric"] == "loop_circulation"]
    assert {float(row["scale_delta"]) for row in loops} == {0.25, 0.5, 1.0}
    assert all(float(row["numerical_error"]) > 0 for row in loops)
    asymmetry = [row for row in rows if row["metric"] == "relative_asymmetry"]
    assert all(0 <= float(row["value"]) <= 1 and "exact" in row["settings"] for row in asymmetry)


def test_every_checkpoint_is_measured_at_one_budget(run, evaluation):
    with (run.folder / "eval" / "quality_vs_step.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert run.steps() == [2, 4, 6]
    assert [int(row["step"]) for row in rows if row["metric"] == "validation_loss"] == run.steps()
    assert {row["nfe"] for row in rows if row["metric"] == "sliced_wasserstein"} == {"5"}
    times = {int(row["step"]): float(row["train_seconds"]) for row in rows}
    assert times[2] < times[4] < times[6]
    assert times[6] == pytest.approx(evaluation.compute["wall_seconds"])
    assert all(float(row["train_seconds_standard_error"]) > 0 for row in rows)
    last = evaluation.milestones[-1].distances[-1]
    assert last.estimate == evaluation.validation


def test_the_time_up_to_a_step_within_a_row_is_its_share(run):
    (run.folder / "metrics.csv").rename(run.folder / "kept.csv")
    (run.folder / "metrics.csv").write_text("step,seconds_per_step\n4,1.0\n8,3.0\n")
    try:
        assert training_time(run, 4).value == 4
        assert training_time(run, 6).value == 4 + 2 * 3
        # The two rows are 2 apart: a standard deviation of the square root of 2.
        assert training_time(run, 6).standard_error == pytest.approx(math.sqrt(2 * (16 + 4)))
        assert training_time(run, 9) is None
    finally:
        (run.folder / "kept.csv").rename(run.folder / "metrics.csv")


def test_checkpoints_can_be_left_out(run):
    found = evaluate(run, protocol=replace(PROTOCOL, along=None), overwrite=True)
    assert found.milestones == ()
    assert Evaluation.read(run.folder).milestones == ()


def test_the_summary_has_cost_and_protocol(run, evaluation):
    summary = json.loads((run.folder / "eval" / "compute_summary.json").read_text())
    compute = summary["compute"]
    assert compute["steps"] == 6
    assert compute["images"] == 6 * 16
    assert compute["parameters"] == sum(p.numel() for p in run.field().parameters())
    assert compute["images_per_second"] == pytest.approx(16 / compute["seconds_per_step"])
    assert compute["wall_seconds"] > 0
    assert summary["protocol"]["samples"] == 64
    assert summary["protocol"]["weights"] == "ema"
    assert summary["protocol"]["sampler"] == "heun"
    assert summary["protocol"]["data"] == run.config.data.model_dump()
    assert summary["protocol"]["features"] == ["coordinates"]
    assert summary["protocol"]["estimators"]["loops"]["radii"] == [0.25, 0.5, 1.0]


def test_an_evaluation_is_read_back_as_it_was(run, evaluation):
    evaluation.write(run.folder)
    found = Evaluation.read(run.folder)
    assert [DISTANCES.row(d) | {"settings": ""} for d in found.distances] == [
        DISTANCES.row(d) | {"settings": ""} for d in evaluation.distances
    ]
    assert [(v.metric, v.sigma, v.estimate.value) for v in found.levels] == [
        (v.metric, v.sigma, v.estimate.value) for v in evaluation.levels
    ]
    assert found.validation.value == evaluation.validation.value
    assert found.protocol == evaluation.protocol
    assert [plain(m) for m in found.milestones] == [plain(m) for m in evaluation.milestones]


def plain(milestone):
    """A checkpoint without the settings, which are read back as text."""
    rows = [{**DISTANCES.row(d), "settings": ""} for d in milestone.distances]
    return milestone.step, milestone.seconds, rows


def test_evaluating_twice_gives_the_same_numbers(run, evaluation):
    again = evaluate(run, protocol=PROTOCOL, overwrite=True)
    assert [d.estimate.value for d in again.distances] == [
        d.estimate.value for d in evaluation.distances
    ]
    assert str(again) == str(evaluation)


def test_the_protocol_is_not_that_of_the_training(run, monkeypatch):
    """Whatever a run was trained with, the same evaluation is asked of it."""
    # The same weights under another configuration, which is refused otherwise.
    monkeypatch.setattr(Run, "_check_own", lambda self, found: found)
    run = Run(run.folder, run.config)
    other = run.config.model_copy(
        update={"objective": run.config.objective.model_copy(update={"weighting": "score"})}
    )
    changed = evaluate(Run(run.folder, other), protocol=PROTOCOL, overwrite=True)
    again = evaluate(run, protocol=PROTOCOL, overwrite=True)
    assert changed.validation == again.validation


def test_budgets_can_be_given(run):
    found = evaluate(run, [5], protocol=PROTOCOL, overwrite=True)
    assert {(d.budget, d.nfe) for d in found.distances} == {(5, 5)}


def test_an_evaluation_is_extended_by_the_budgets_that_it_lacks(run, monkeypatch):
    """Nothing is lost, and nothing that is there is measured again."""
    short = replace(PROTOCOL, along=None)
    whole = evaluate(run, [3, 5, 7], protocol=short, overwrite=True)
    evaluate(run, [5], protocol=short, overwrite=True)
    for name in ("measure_levels", "measure_floors", "validate"):
        monkeypatch.setattr(evaluate_module, name, lambda *_: pytest.fail("measured again"))
    extended = evaluate(run, [7, 3], protocol=short)
    assert extended.budgets == [3, 5, 7]
    assert extended.protocol == whole.protocol
    assert [(d.metric, d.budget, d.estimate.value, d.floor) for d in extended.distances] == [
        (d.metric, d.budget, d.estimate.value, d.floor) for d in whole.distances
    ]
    monkeypatch.setattr(evaluate_module, "measure_samples", lambda *_: pytest.fail("drawn again"))
    assert evaluate(run, [5], protocol=short) == Evaluation.read(run.folder)
    assert Evaluation.read(run.folder).budgets == [3, 5, 7]


def test_an_evaluation_is_extended_by_diagnostics_that_are_younger(run, monkeypatch):
    short = replace(PROTOCOL, along=None)
    whole = evaluate(run, [5], protocol=short, overwrite=True)
    loops = {metric.name for metric in OF_LEVELS if metric.estimator.key == "loops"}
    estimators = {k: v for k, v in whole.protocol["estimators"].items() if k != "loops"}
    older = replace(
        whole,
        levels=tuple(v for v in whole.levels if v.metric not in loops),
        protocol={**whole.protocol, "estimators": estimators},
    )
    assert len(older.levels) < len(whole.levels)
    older.write(run.folder)
    measure, measured = evaluate_module.measure_levels, []
    monkeypatch.setattr(
        evaluate_module, "measure_levels", lambda *a: measured.append(measure(*a)) or measured[-1]
    )
    extended = evaluate(run, [5], protocol=short)
    assert {v.metric for v in measured[0]} == loops
    assert extended.protocol == whole.protocol
    values = [
        {(v.metric, v.sigma, v.scale_delta, v.cycle_len): v.estimate.value for v in e.levels}
        for e in (extended, whole)
    ]
    assert values[0] == values[1]
    assert [d.estimate.value for d in extended.distances] == [
        d.estimate.value for d in whole.distances
    ]
    evaluate(run, [5], protocol=short)
    assert len(measured) == 1


@pytest.mark.parametrize("there", [False, True])
def test_what_another_process_adds_meanwhile_is_kept(run, monkeypatch, there):
    short, measure = replace(PROTOCOL, along=None), evaluate_module.measure_samples
    whole = evaluate(run, [3, 5, 7], protocol=short, overwrite=True)
    shutil.rmtree(run.folder / "eval")
    if there:
        evaluate(run, [3], protocol=short)

    def meanwhile(*given):
        monkeypatch.setattr(evaluate_module, "measure_samples", measure)
        evaluate(run, [3, 7], protocol=short)
        return measure(*given)

    monkeypatch.setattr(evaluate_module, "measure_samples", meanwhile)
    evaluate(run, [3, 5], protocol=short)
    found = Evaluation.read(run.folder)
    assert found.protocol == whole.protocol
    assert [(d.metric, d.budget, d.estimate.value) for d in found.distances] == [
        (d.metric, d.budget, d.estimate.value) for d in whole.distances
    ]


def test_an_evaluation_by_another_protocol_is_not_overwritten_unless_asked(run):
    short = replace(PROTOCOL, along=None)
    before = evaluate(run, [5], protocol=short, overwrite=True)
    with pytest.raises(RunError, match="points is 16 there and 8 here; --overwrite"):
        evaluate(run, [5], protocol=replace(short, points=8))
    assert Evaluation.read(run.folder).protocol == before.protocol


def test_an_evaluation_of_an_earlier_checkpoint_gives_way(run):
    short = replace(PROTOCOL, along=None)
    replace(evaluate(run, [5], protocol=short, overwrite=True), step=4).write(run.folder)
    assert evaluate(run, [3], protocol=short).step == 6
    assert Evaluation.read(run.folder).budgets == [3]


@pytest.mark.parametrize("nfes", [(), (0,), (8, -1)])
def test_a_budget_without_a_call_is_refused(run, nfes):
    with pytest.raises(RunError, match="sampling takes a network call"):
        evaluate(run, nfes, protocol=PROTOCOL)


def test_a_run_without_a_checkpoint_cannot_be_evaluated(small, tmp_path):
    with pytest.raises(RunError, match="has no checkpoint yet"):
        evaluate(Run.create(load_config(small), tmp_path), protocol=PROTOCOL)


def test_a_folder_without_an_evaluation_names_the_command(tmp_path):
    with pytest.raises(RunError, match="scorefield eval"):
        Evaluation.read(tmp_path)


def test_a_spoilt_evaluation_is_an_error_and_not_a_number(run, evaluation, tmp_path):
    folder = tmp_path / "eval"
    shutil.copytree(run.folder / "eval", folder)
    text = (folder / "fid_vs_nfe.csv").read_text().splitlines()
    (folder / "fid_vs_nfe.csv").write_text("\n".join([text[0], text[1].replace(",", ",x", 8)]))
    with pytest.raises(RunError, match="does not hold an evaluation"):
        Evaluation.read(tmp_path)


def test_the_commands_of_a_run_name_its_preset_and_changes(tmp_path):
    config = load_config("toy/m3", ["train.steps=700", "optim.lr=1e-3"])
    facts = about(Run.create(config, tmp_path))
    assert facts["label"] == "M3"
    assert facts["preset"] == "toy/m3"
    assert load_config(facts["preset"], facts["overrides"]) == config


def test_a_ratio_to_the_floor_carries_the_errors_of_both():
    floor = Floor(mean=2.0, mean_error=0.1, sd=0.3, pairs=9)
    distance = Distance("heun", 8, 7, "d", "coordinates", Estimate(4.0, 0.2, 9), floor)
    assert distance.ratio.value == 2
    assert distance.ratio.standard_error == pytest.approx(math.hypot(0.2, 2 * 0.1) / 2)
    # Two equal errors of 8 degrees of freedom each have 16 together (Satterthwaite).
    assert distance.ratio.n - 1 == 16
    assert distance.excess == pytest.approx(2 / 0.3)
    assert replace(distance, floor=floor._replace(mean=0.01)).ratio is None
    assert replace(distance, floor=None).excess is None


def test_records_of_the_first_version_are_read_with_todays_names_and_its_sampler(
    run, evaluation, tmp_path
):
    folder = tmp_path / "eval"
    evaluation.write(run.folder)
    shutil.copytree(run.folder / "eval", folder)
    path, summary = folder / "fid_vs_nfe.csv", folder / "compute_summary.json"
    path.write_text(path.read_text().replace(",mmd,", ",ks,"))
    record = json.loads(summary.read_text())
    del record["protocol"]["sampler"]
    summary.write_text(json.dumps(record))
    found = Evaluation.read(tmp_path)
    assert found.protocol == evaluation.protocol
    assert {d.metric for d in found.distances} & {"ks", "marginal_ks"} == {"marginal_ks"}
    assert found.levels[0].sigma == evaluation.levels[0].sigma


def test_an_evaluation_says_that_the_configurations_sampler_is_not_used(run, monkeypatch, capsys):
    monkeypatch.setattr(Run, "_check_own", lambda self, found: found)
    document = run.config.document() | {"sampler": {"kind": "heun", "churn": 3.0}}
    for sampler, said in (({"kind": "heun"}, False), ({"kind": "heun", "churn": 3.0}, True)):
        other = Run(run.folder, validate(document | {"sampler": sampler}, "test"))
        short = replace(PROTOCOL, along=None)
        evaluate(other, [3], protocol=short, overwrite=True, stages=Stages())
        words = capsys.readouterr().out.splitlines()
        (line,) = [w for w in words if w.startswith("samples are drawn by heun")]
        assert ("is not used" in line) == said


def test_a_field_that_always_knows_the_class_is_evaluated_with_it(tmp_path, monkeypatch):
    """Its network is called with a class of the data at every point; samples have those of their
    indices, which are as frequent as in the data."""
    small = [
        "name=d/c",
        "data={kind: random, shape: [1, 4, 4], classes: 3, count: 48}",
        "field={kind: preconditioned, network: {kind: unet, channels: 4, multipliers: [1], "
        "blocks: 1, attention: [], classes: true}}",
        "objective={label_dropout: 0.0}",
        "train={steps: 1, batch_size: 4}",
    ]
    run = Run.create(load_config("digits/m0", small), tmp_path)
    run.train(quiet=True)
    plain, seen, sampled = UNet.forward, [], []

    def forward(network, x, label, classes=None):
        if not x.is_meta:  # as where multiply-adds are counted
            seen.append(classes)
        return plain(network, x, label, classes)

    class Spy(Heun):
        def sample(self, field, **options):
            sampled.append(options["classes"])
            return super().sample(field, **options)

    monkeypatch.setattr(UNet, "forward", forward)
    monkeypatch.setattr(Protocol, "method", lambda protocol, nfe: Spy.for_nfe(nfe))
    monkeypatch.setattr(evaluate_module, "has_classifier", lambda source: False)
    short = replace(PROTOCOL, nfes=(3,), along=None, samples=8, sigmas=(0.5,), points=4)
    found = evaluate(run, protocol=short)
    assert found.protocol["classes"] == "of each point"
    assert all(classes is not None and int(classes.max()) < 3 for classes in seen)
    expected = classes_by_index(run.source(), short.seed)(torch.arange(8))
    assert [classes.tolist() for classes in sampled] == [expected.tolist()]

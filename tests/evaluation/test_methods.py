"""Samplers compared at equal numbers of network calls, within one evaluation."""

import math
import shutil
from dataclasses import replace

import pytest

from scorefield import DDIM, Heun, Langevin, PredictorCorrector, ProbabilityFlow, sliced_wasserstein
from scorefield.config.resolve import load_config
from scorefield.errors import RunError
from scorefield.evaluation.evaluate import evaluate
from scorefield.evaluation.methods import evaluate_sampler, name_of
from scorefield.evaluation.records import Evaluation
from scorefield.runs.run import Run

OVERRIDES = [
    "train.steps=4", "train.batch_size=16", "train.log_every=2",
    "eval.samples=32", "eval.nfes=[5,9]",
    "eval.sigmas=[0.5]", "eval.points=4", "eval.pairs=2", "eval.along=false",
]  # fmt: skip


def numbers(distances):
    """What was measured; settings are texts once they are read from a file."""
    return [(d.sampler, d.nfe, d.metric, d.features, d.estimate.value) for d in distances]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run.create(load_config("toy/m0", OVERRIDES), tmp_path_factory.mktemp("runs"))
    run.train(quiet=True)
    evaluate(run)
    return run


def test_distances_are_those_of_the_methods_own_samples(run):
    before = Evaluation.read(run.folder)
    found = evaluate_sampler(run, DDIM(2))
    assert numbers(Evaluation.read(run.folder).by("ddim")) == numbers(found.by("ddim"))
    real = run.source().reference(32, 0)
    for budget in (5, 9):
        x = DDIM(budget).sample(run.field("ema"), 32, seed=0)
        expected = sliced_wasserstein(x, real).value
        distance = found.distance("sliced_wasserstein", budget, sampler="ddim")
        assert distance.nfe == budget
        assert math.isclose(distance.estimate.value, expected, rel_tol=1e-5)
    # What was there is untouched, and is still what the evaluation is by itself.
    assert numbers(found.by()) == numbers(before.by()) == numbers(before.by("heun"))
    assert found.budgets == [5, 9]
    assert found.levels == before.levels


def test_nothing_is_measured_twice_and_budgets_are_added(run, monkeypatch):
    found = evaluate_sampler(run, Heun(2, churn=10.0), [5])
    name = "heun churn=10.0"
    assert {d.budget for d in found.by(name)} == {5}
    more = evaluate_sampler(run, Heun(2, churn=10.0), [5, 9])
    assert {d.budget for d in more.by(name)} == {5, 9}
    assert numbers(d for d in more.by(name) if d.budget == 5) == numbers(found.by(name))
    monkeypatch.setattr("scorefield.evaluation.methods.measure_samples", None)
    again = evaluate_sampler(run, Heun(2, churn=10.0), [5, 9])
    assert numbers(again.by(name)) == numbers(more.by(name))


def test_an_evaluation_that_is_extended_keeps_other_methods(run):
    evaluate_sampler(run, DDIM(2))
    before = Evaluation.read(run.folder).by("ddim")
    extended = evaluate(run, [5, 7, 9])
    assert extended.budgets == [5, 7, 9]
    assert numbers(extended.by("ddim")) == numbers(before)


@pytest.mark.parametrize(
    ("sampler", "name"),
    [
        (Heun(7), "heun"),
        (Heun(rho=5.0), "heun rho=5.0"),
        (DDIM(3, eta=1.0), "ddim eta=1.0"),
        (PredictorCorrector(10, corrector=Langevin(0.1)),
         "predictor_corrector corrector=Langevin(snr=0.1, steps=1, norm='sample')"),
    ],
)  # fmt: skip
def test_a_method_is_named_by_what_is_not_usual_in_it(sampler, name):
    assert name_of(sampler) == name


def test_what_keeps_to_no_budget_is_refused(run):
    with pytest.raises(ValueError, match="budget"):
        evaluate_sampler(run, ProbabilityFlow())
    with pytest.raises(ValueError, match="budget of 1"):
        evaluate_sampler(run, PredictorCorrector(10, corrector=Langevin()), [1])


def test_an_evaluation_of_an_earlier_checkpoint_is_not_added_to(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    replace(Evaluation.read(run.folder), step=1).write(tmp_path / "run")
    with pytest.raises(RunError, match=r"at step 1, and is at step \d+: run `scorefield eval"):
        evaluate_sampler(Run.open(tmp_path / "run"), DDIM(2))


def test_a_run_without_an_evaluation_is_named(tmp_path):
    other = Run.create(load_config("toy/m0", OVERRIDES), tmp_path)
    with pytest.raises(RunError, match="scorefield eval"):
        evaluate_sampler(other, DDIM(2))

"""A strict report names the first number without an interval."""

from dataclasses import replace

import pytest

from scorefield.comparison.groups import collect
from scorefield.comparison.tables import compare_models, refuse
from scorefield.errors import RunError
from tests.comparison.benchmark import evaluation, write


def check(root):
    refuse(compare_models(collect(root), root))


@pytest.fixture
def runs(tmp_path):
    write(tmp_path, *(evaluation(m, s, 1.0 + s) for m in ("m0", "m1") for s in (0, 1)))
    return tmp_path


def test_equal_seeds_and_known_times_pass(runs):
    check(runs)


def test_a_single_seed_is_refused(runs):
    write(runs, evaluation("m2", 0, 1.0))
    with pytest.raises(RunError, match="toy/m2 has the single seed 0"):
        check(runs)


def test_seeds_that_differ_between_models_are_refused(runs):
    write(runs, evaluation("m2", 0, 1.0), evaluation("m2", 5, 1.0))
    with pytest.raises(RunError, match="toy/m2 has the seeds 0, 5 and m0 the seeds 0, 1"):
        check(runs)


def test_seeds_of_different_length_are_refused(runs):
    write(runs, evaluation("m1", 1, 1.0, steps=50))
    with pytest.raises(RunError, match=r"toy/m1 were evaluated after different .* 50, 100"):
        check(runs)


def test_a_time_of_sampling_without_an_error_is_refused(runs):
    whole = evaluation("m1", 1, 1.0)
    bare = replace(whole.distances[0], latency=None)
    write(runs, replace(whole, distances=(bare, *whole.distances[1:])))
    with pytest.raises(RunError, match=r"m1/seed1: the time of sampling at 7 network calls"):
        check(runs)


def test_a_time_of_training_that_is_not_known_is_refused(runs):
    whole = evaluation("m1", 1, 1.0)
    write(runs, replace(whole, compute={**whole.compute, "seconds_per_step": None}))
    with pytest.raises(RunError, match="the time of a training step of toy/m1 has no error"):
        check(runs)

"""Sentences say what the numbers allow, and no more."""

import math

import pytest

from scorefield.estimate import Estimate
from scorefield.experiments.records import Distance, Evaluation, Floor, Level
from scorefield.experiments.tables import Group
from scorefield.report.words import (
    differ,
    findings,
    headline,
    listed,
    number,
    over_levels,
    quotient,
    spoken,
)


def group(label, distance, asymmetry, error=0.01, modes=8.0):
    floor = Floor(1.0, 0.02, 0.1, 16)
    sliced = Estimate(distance, 0.1, 100)
    covered = Estimate(modes, 0.0, 0, "modes", {"modes": "8"})
    return Group(
        "toy",
        label.lower(),
        (
            Evaluation(
                "toy",
                label.lower(),
                0,
                1,
                (
                    Distance("heun", 8, 7, "sliced_wasserstein", "coordinates", sliced, floor),
                    Distance("heun", 8, 7, "mode_coverage", "coordinates", covered),
                ),
                (
                    Level("relative_asymmetry", 0.5, Estimate(asymmetry, asymmetry / 50, 100)),
                    Level("score_error", 0.5, Estimate(error, error / 50, 100)),
                ),
                Estimate(1.0, 0.1, 100),
                {},
                {},
                {"label": label},
            ),
        ),
    )


def test_numbers_are_set_with_two_digits_of_their_error():
    assert number(Estimate(0.12344, 0.0067, 10)) == ("0.1234", "0.0067", None)
    assert number(Estimate(4.79e-8, 3.4e-9, 10)) == ("4.79", "0.34", -8)
    assert number(Estimate(8.0, 0.0, 0)) == ("8", "", None)
    assert number(Estimate(-0.2, 0.1, 10)).value.startswith("−")


def test_a_spoken_number_has_its_interval():
    low, high = Estimate(1.0, 0.1, 1000).interval()
    assert spoken(Estimate(1.0, 0.1, 1000)) == f"1.0 ({low:.1f} to {high:.1f})"
    assert spoken(Estimate(3.0, 0.0, 0)) == "3"
    assert spoken(Estimate(4.0e-8, 1.0e-9, 10_000)) == "4.0e−8 (3.8e−8 to 4.2e−8)"


def test_lists_read_as_lists():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_the_root_mean_square_over_levels_adds_errors_as_if_correlated():
    levels = [Level("m", s, Estimate(v, 0.1 * v, 20)) for s, v in ((0.1, 3.0), (1.0, 4.0))]
    found = over_levels(levels)
    assert found.value == pytest.approx(math.sqrt(12.5))
    assert found.standard_error == pytest.approx(0.1 * math.sqrt(12.5))
    assert over_levels([]) is None


def test_numbers_differ_beyond_three_errors_only():
    one = Estimate(1.0, 0.1, 50)
    assert not differ(one, Estimate(1.4, 0.1, 50))
    assert differ(one, Estimate(1.5, 0.1, 50))


def test_a_quotient_has_the_relative_errors_of_both():
    found = quotient(Estimate(4.0, 0.4, 10), Estimate(2.0, 0.2, 10))
    assert found.value == 2
    assert found.standard_error == pytest.approx(2 * math.hypot(0.1, 0.1))


def test_what_cannot_be_told_apart_is_said_to_be_so():
    members = [group("M0", 1.05, 0.1), group("M1", 1.1, 0.1001)]
    assert headline(members) == (
        "At 7 network calls no model's samples can be told from real ones; no field is a gradient."
    )
    said = dict(findings(members, None, {}))
    assert "No model differs from M0" in said["Samples"]
    assert "Every model covers all 8 modes" in said["Samples"]
    assert "M1 cannot be told from M0" in said["Gradient or not"]
    assert "Cost" not in said


def test_what_differs_is_named_with_its_direction():
    members = [
        group("M0", 1.0, 0.1, 0.05),
        group("M1", 3.0, 0.05, 0.02, modes=5.0),
        group("M2", 1.0, 1e-8, 0.05),
    ]
    assert headline(members) == (
        "At 7 network calls only M1 can be told from real data; only M2 is a gradient."
    )
    said = dict(findings(members, None, {"m1": Estimate(1.5, 0.05, 4)}))
    assert "M1 can be told from real data, M0 and M2 cannot" in said["Samples"]
    assert "M1 is further off than M0" in said["Samples"]
    assert "Of 8 modes are covered: M0 8, M1 5 and M2 8" in said["Samples"]
    assert "M1 has 2.0" in said["Gradient or not"]
    assert "M2 is a gradient up to rounding" in said["Gradient or not"]
    assert "M1 is closer than M0" in said["Distance from the true score"]
    assert said["Cost"].startswith("A training step takes, in multiples of M0's: M1 1.5 (")


def test_the_samplers_own_error_is_told_from_the_models():
    exact = group("exact field", 9.0, 1e-16)
    said = dict(findings([group("M0", 9.5, 0.1)], exact, {}))
    assert "even the exact field" in said["Few network calls"]

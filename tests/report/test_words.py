"""Sentences say what the numbers allow, and no more."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from scorefield.comparison.groups import Group
from scorefield.comparison.paired import pairs
from scorefield.comparison.tables import Comparison
from scorefield.comparison.timing import Costs
from scorefield.estimate import Estimate
from scorefield.evaluation.records import Distance, Evaluation, Floor, Level
from scorefield.plotting.palette import looks
from scorefield.report.findings import findings, headline
from scorefield.report.likelihood import Likelihoods
from scorefield.report.overview import overview
from scorefield.report.tables import pair_cell
from scorefield.report.templating import templates
from scorefield.report.words import in_words, listed, number

SCATTER = (-0.003, 0.0, 0.003)


def run(label, seed, distance, asymmetry, error=0.01, modes=8.0):
    floor = Floor(1.0, 0.02, 0.1, 16)
    sliced = Estimate(distance, 0.1, 100)
    covered = Estimate(modes, 0.0, 0, "modes", {"modes": "8"})
    asymmetries = (asymmetry, asymmetry)
    return Evaluation(
        "toy",
        label.lower(),
        seed,
        1,
        (
            Distance("heun", 8, 7, "sliced_wasserstein", "coordinates", sliced, floor),
            Distance("heun", 8, 7, "mode_coverage", "coordinates", covered),
        ),
        tuple(
            level
            for sigma, a in zip((0.5, 1.0), asymmetries, strict=True)
            for level in (
                Level("relative_asymmetry", sigma, Estimate(a, a / 50, 100)),
                Level("score_error", sigma, Estimate(error, error / 50, 100)),
            )
        ),
        Estimate(1.0, 0.1, 100),
        {},
        {"sampler": "heun"},
        {"label": label},
        Path("nowhere"),
    )


def group(label, distance, asymmetry, error=0.01, modes=8.0, shifts=(0.0,)):
    """A model with one seed for each shift, which is common to the models of a seed."""
    runs = (
        run(label, seed, distance * (1 + s), asymmetry * (1 + s), error * (1 + s), modes)
        for seed, s in enumerate(shifts)
    )
    return Group("toy", label.lower(), tuple(runs))


def comparison(*members, ratios=None):
    costs = Costs(ratios or {}, {}, "", apart=False)
    return Comparison(list(members), costs, [], [], pairs(members), [])


def test_numbers_are_set_with_two_digits_of_their_error():
    assert number(Estimate(0.12344, 0.0067, 10)) == ("0.1234", "0.0067", None)
    assert number(Estimate(4.79e-8, 3.4e-9, 10)) == ("4.79", "0.34", -8)
    assert number(Estimate(8.0, 0.0, 0)) == ("8", "", None)
    assert number(Estimate(-0.2, 0.1, 10)).value.startswith("−")


def test_a_number_in_words_has_its_interval():
    low, high = Estimate(1.0, 0.1, 1000).interval()
    assert in_words(Estimate(1.0, 0.1, 1000)) == f"1.00 ({low:.2f} to {high:.2f})"
    assert in_words(Estimate(3.0, 0.0, 0)) == "3"
    assert in_words(Estimate(4.0e-8, 1.0e-9, 10_000)) == "4.00e−8 (3.80e−8 to 4.20e−8)"


def test_lists_read_as_lists():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_of_single_trainings_no_model_is_said_to_be_better():
    members = [group("M0", 1.0, 0.1, 0.05), group("M1", 3.0, 0.05, 0.02)]
    said = dict(findings(comparison(*members), None))
    assert "no interval" in said["What one training shows"]
    for text in said.values():
        for word in ("has less", "has more", "Seed by seed"):
            assert word not in text
    # What each is by itself is said.
    assert "M1 is distinguishable from real data, M0 is not" in said["Samples"]
    assert "for M0 and" in said["Gradient or not"]


def test_what_cannot_be_told_apart_is_said_to_be_so():
    wobble = [(-0.1, 0.1, 0.0), (0.1, -0.1, 0.02)]
    members = [group("M0", 1.05, 0.1, shifts=wobble[0]), group("M1", 1.06, 0.1, shifts=wobble[1])]
    assert headline(members) == (
        "At 7 network calls no model's samples are distinguishable from real ones; "
        "no field is a gradient."
    )
    said = dict(findings(comparison(*members), None))
    assert "Seed by seed M1 is not distinguishable from M0" in said["Samples"]
    assert "the number of modes covered, of 8: 8 for M0 and 8 for M1" in said["Samples"]
    assert "M1 is not distinguishable from M0" in said["Gradient or not"]
    assert "Cost" not in said


def test_what_differs_is_named_with_its_direction_and_interval():
    members = [
        group("M0", 1.0, 0.1, 0.05, shifts=SCATTER),
        group("M1", 3.0, 0.05, 0.02, modes=5.0, shifts=SCATTER),
        group("M2", 1.0, 1e-8, 0.05, shifts=SCATTER),
    ]
    assert headline(members) == (
        "At 7 network calls only M1 is distinguishable from real data; only M2 is a gradient."
    )
    said = dict(findings(comparison(*members, ratios={"m1": Estimate(1.5, 0.05, 4)}), None))
    assert "M1 is distinguishable from real data, M0 and M2 are not" in said["Samples"]
    assert (
        "M1 (+2 to +2, 3 times) has more than M0; M2 is not distinguishable from it"
        in said["Samples"]
    )
    assert "the number of modes covered, of 8: 8 for M0, 5 for M1 and 8 for M2" in said["Samples"]
    # The scatter of the seeds is common to both, and cancels in their ratio.
    assert "M1 (−0.05 to −0.05, 0.5 times) has less than M0" in said["Gradient or not"]
    assert "M2 is a gradient up to rounding" in said["Gradient or not"]
    assert "has less than M0" in said["Distance from the true score"]
    assert said["Cost"].startswith("A training step takes, in multiples of M0's: 1.50 (")


def test_the_samplers_own_error_is_told_from_the_models():
    exact = group("exact field", 9.0, 1e-16)
    said = dict(findings(comparison(group("M0", 9.5, 0.1)), exact))
    assert "even the exact field" in said["Few network calls"]


def on_a_torus(label, tv, winding, shifts=(0.0,)):
    """A model of atoms: the distance of its samples from their law, and what a turn gains."""
    members = []
    for seed, shift in enumerate(shifts):
        one = run(label, seed, 1.0, 0.1)
        law = Estimate(tv * (1 + shift), 0.01, 100)
        cells = Distance(
            "heun", 8, 7, "total_variation", "cells", law, Floor(0.04, 0.001, 0.005, 16)
        )
        more = tuple(
            Level(metric, sigma, Estimate(value * (1 + shift), value / 50, 100, unit))
            for sigma in (0.5, 1.0)
            for metric, value, unit in (
                ("winding", winding, "nats"),
                ("harmonic_part", winding / 2, "nats"),
                ("fokker_planck", winding / 10, ""),
                ("consistency", winding / 100, ""),
            )
        )
        members.append(replace(one, distances=(*one.distances, cells), levels=(*one.levels, *more)))
    return Group("atoms", label.lower(), tuple(members))


def test_samples_are_told_from_a_known_law_by_its_cells():
    """Where the sliced distance sees nothing."""
    members = [on_a_torus("A", 0.05, 1.0), on_a_torus("B", 0.3, 2.0)]
    assert headline(members).startswith(
        "At 7 network calls only B is distinguishable from real data"
    )
    said = dict(findings(comparison(*members), None))
    assert "the total variation from the exact distribution over a grid is" in said["Samples"]
    assert "1.25 (0.75 to 1.75) for A" in said["Samples"]  # 0.05 in multiples of 0.04
    assert "B is distinguishable from real data, A is not" in said["Samples"]


def test_what_winds_and_what_does_not_fit_between_levels_is_compared_seed_by_seed():
    members = [on_a_torus("A", 0.05, 1.0, SCATTER), on_a_torus("B", 0.05, 2.0, SCATTER)]
    said = dict(findings(comparison(*members), None))
    assert "nats for A and" in said["Around the torus"]
    assert "The harmonic part of it, which no curl explains, is 0.5" in said["Around the torus"]
    assert "has more than A" in said["Around the torus"]
    assert "The residual of the Fokker–Planck equation" in said["Across noise levels"]
    assert said["Across noise levels"].count("has more than A") == 2
    flat = dict(findings(comparison(group("M0", 1.0, 0.1)), None))
    assert not {"Around the torus", "Across noise levels"} & set(flat)


def test_of_a_single_model_no_sentence_speaks_of_several():
    for distance, asymmetry, samples, field in (
        (1.0, 0.1, "not distinguishable", "not a gradient"),
        (3.0, 1e-8, "distinguishable", "a gradient"),
    ):
        one = group("M0", distance, asymmetry)
        assert headline([one]) == (
            f"At 7 network calls samples of M0 are {samples} from real ones; M0 is {field}."
        )
        said = dict(findings(comparison(one), group("exact field", 9.0, 1e-16)))
        text = " ".join((*said, *said.values()))
        assert not re.search(r"\b(all|none|models|fields|every|only|trained ones)\b", text), text
        assert "What one training shows" not in said
        table = overview(comparison(one), Likelihoods([one]), looks(["M0"]))
        assert "single model" in table.note


def test_of_many_models_sentences_give_the_ends():
    members = [group(f"A{k}", 2.0 + k, 0.1 + k / 100) for k in range(20)]
    said = dict(findings(comparison(*members), None))
    assert re.search(r"is, [^.]*, 2\.00 \(.*\) for A0 to 21\.00 \(.*\) for A19\.", said["Samples"])
    assert "A7" not in " ".join(said.values())


def test_the_overview_marks_what_differs_seed_by_seed():
    members = [
        group("M0", 1.0, 0.1, 0.05, shifts=SCATTER),
        group("M1", 3.0, 0.05, 0.05, shifts=SCATTER),
        group("M2", 1.0, 1e-8, 0.05, shifts=SCATTER),
    ]
    table = overview(comparison(*members), Likelihoods(members), looks(["M0", "M1", "M2"]))
    names = [heading.name for heading in table.headings]
    assert len(names) <= 6
    assert names[:3] == ["sliced Wasserstein", "relative asymmetry", "validation loss"]
    marks = {line.label: [r.mark.words for r in line.readings] for line in table.lines}
    assert marks["M0"] == ["reference"] * len(names)
    assert marks["M1"] == ["worse", "better", "not distinguishable", "not distinguishable"]
    assert marks["M2"][:2] == ["not distinguishable", "a gradient"]
    for line in table.lines:
        for r in line.readings:
            assert 0 <= r.low <= r.at <= r.high <= 100


def test_the_overview_of_single_trainings_marks_nothing():
    members = [group("M0", 1.0, 0.1), group("M1", 3.0, 0.05)]
    table = overview(comparison(*members), Likelihoods(members), looks(["M0", "M1"]))
    assert {r.mark.kind for line in table.lines for r in line.readings} == {""}
    assert "several seeds" in table.note


def test_a_power_of_ten_is_that_of_the_error_too():
    environment = templates("scorefield.report")
    environment.globals.update(number=number)
    num = environment.get_template("macros.html.j2").module.num
    for value, error in ((880.0, 210.0), (1.5e5, 2e3), (1e-5, 3e-6), (880.0, 2.1), (12.0, 0.0)):
        shown = re.sub(r"·10<sup>(.*?)</sup>", r"e\1", str(num(Estimate(value, error, 9))))
        shown = re.sub(r"<[^>]*>|[\u2009 ]", "", shown).replace("−", "-")
        if error:
            found = re.fullmatch(r"\(?([\d.]+)±([\d.]+)\)?(e-?\d+)?", shown)
            values = [float(part + (found[3] or "")) for part in found.groups()[:2]]
            assert values == [pytest.approx(value, rel=0.05), pytest.approx(error, rel=0.05)]
        else:
            assert float(shown.removesuffix("exact")) == value


def test_a_difference_that_is_none_is_zero():
    members = [group("M0", 1.0, 0.1, shifts=SCATTER), group("M1", 1.0, 0.1, shifts=SCATTER)]
    found = [pair_cell(p) for p in pairs(members)]
    assert {(cell.text, cell.note, cell.strong) for cell in found} == {("0", "0 to 0", False)}

"""Dose and response on the ring: what theory says, measured."""

import csv
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy import stats

from scorefield import EDM, VE, GaussianMixture, LogProb
from scorefield.cli.program import main
from scorefield.config.resolve import load_config
from scorefield.estimate import Estimate, mean
from scorefield.evaluation.catalogue.score import SCORE_ERROR
from scorefield.noise import Noise
from scorefield.runs.run import Run
from scorefield.studies.dose import study as dose_study
from scorefield.studies.dose.cases import BANDS, KINDS, SIGMA_MAX, SIGMA_MIN, FieldCase, cases
from scorefield.studies.dose.compute import Trained, dose_response, ring_of_modes
from scorefield.studies.dose.divergence import divergence
from scorefield.studies.dose.errors import over_all
from scorefield.studies.dose.ranks import spearman
from scorefield.studies.frame import Work
from scorefield.studies.settings import Dose
from scorefield.targets.atoms import PseudoAtoms
from tests.elsewhere import ELSEWHERE, elsewhere

SMALL = Dose(
    doses=(0.03, 0.1),
    bands=("middle",),
    slices=1,
    kinds=("rotated score", "swirl", "gradient"),
    samples=256,
    sets=2,
    points=48,
    sampler_steps=12,
    tolerance=1e-5,
    pairs=6,
    mixtures=2,
    levels=3,
)
P = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)


def log_prob_of(value, error):
    """Log-densities as an integrator with an exact trace would tell them."""
    none = torch.zeros(len(value), dtype=torch.int64)
    return LogProb(value, torch.zeros_like(value), error, none, none, value, none == 0)


def shifted(m, n, seed=0):
    """The terms of the divergence of N(m, 1) from N(0, 1), which is m²/2, and the plain ones."""
    x = Noise(seed).normal("x", (), torch.arange(n), dtype=torch.float64)
    log_p, log_q = P.log_prob(x), P.log_prob(x - m)
    return divergence(log_p, log_prob_of(log_q, torch.zeros_like(x))), log_p - log_q


@pytest.mark.parametrize("m", [1e-4, 0.1, 1.0, 2.5])
def test_a_divergence_is_estimated_without_bias(m):
    found = [shifted(m, 64, seed)[0].estimate().value for seed in range(400)]
    over = mean(found)
    assert abs(over.value - m**2 / 2) < 5 * over.standard_error


def test_its_error_is_a_share_of_it_and_not_of_its_root():
    terms, plain = shifted(0.01, 4096)
    found = terms.estimate()
    assert found.standard_error < 0.05 * found.value
    assert float(plain.std()) / math.sqrt(4096) > 1.0 * found.value


def test_what_an_integrator_adds_is_within_the_numerical_error():
    x = Noise(0).normal("x", (), torch.arange(256), dtype=torch.float64)
    log_p, log_q = P.log_prob(x), P.log_prob(x - 0.3)
    error = 1e-3 * Noise(0).normal("e", (), torch.arange(256), dtype=torch.float64)
    exact = divergence(log_p, log_prob_of(log_q, error.abs())).estimate()
    wrong = divergence(log_p, log_prob_of(log_q + error, error.abs())).estimate()
    assert 0 < abs(wrong.value - exact.value) <= exact.numerical_error


def test_a_divergence_needs_points():
    with pytest.raises(ValueError, match="at least 4 points, got 3"):
        shifted(0.1, 3)


@pytest.fixture(scope="module")
def result():
    return dose_response(SMALL)


@pytest.mark.slow
def test_the_responses_on_another_device_are_those_of_the_cpu():
    few = Dose(
        doses=(0.1,), bands=("high",), slices=0, kinds=("swirl",), samples=16, sets=2, points=24,
        sampler_steps=2, tolerance=1e-2, pairs=2, mixtures=0, levels=1,
    )  # fmt: skip
    expected = dose_response(few).rows()
    with elsewhere():
        rows = dose_response(few, truth=ring_of_modes().to(ELSEWHERE)).rows()
    for found, row in zip(rows, expected, strict=True):
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        there = {name: found[name] for name in numbers}
        assert there == pytest.approx(numbers, rel=1e-6, abs=1e-9)


def test_every_case_is_there(result):
    planted = [r.case for r in result.responses]
    assert len(set(planted)) == len(planted) == 9 + SMALL.mixtures
    assert [len(result.of(kind, "middle")) for kind in SMALL.kinds] == [2, 2, 2]
    assert len(set(cases(Dose()))) == len(KINDS) * (len(BANDS) * 4 + 6) + Dose.mixtures


def test_curl_that_moves_no_mass_does_no_harm(result):
    turned = [r for r in result.responses if r.case.kind == "rotated score"]
    for response in turned:
        low, high = response.kl.interval()
        assert low <= 0 < high < 1e-4
        assert response.asymmetry.value > 0.9 * response.case.dose
        assert abs(response.ratio.value - result.exact.ratio.value) < 0.5
    # Samples move although their law does not.
    assert min(r.shift.value for r in turned) > 0.1
    assert result.exact.shift.value == 0


def test_other_errors_do_harm_in_proportion_to_the_dose_squared_with_curl_or_without(result):
    for kind in ("gradient", "swirl"):
        small, large = result.of(kind, "middle")
        slope = math.log(large.kl.value / small.kl.value) / math.log(10 / 3)
        assert abs(slope - 2) < 0.2
        assert small.kl.interval()[0] > 1e-4
        assert (small.asymmetry.interval()[0] > 0.01) == (kind != "gradient")


def test_parts_of_the_noise_levels_cover_them_all():
    slices = [c for c in cases(Dose(slices=5)) if c.kind == KINDS[0] and c.band_name == "slice"]
    ends = [c.ends for c in slices]
    assert [e[1] for e in ends[:-1]] == [e[0] for e in ends[1:]]
    assert (ends[0][0], ends[-1][1]) == pytest.approx((SIGMA_MIN, SIGMA_MAX))


def test_what_is_written_reads_back(result, tmp_path):
    files = {
        name: make() for name, make in dose_study.DoseStudy(SMALL).files(result, Work()).items()
    }
    rows = list(csv.DictReader(files["dose_response.csv"].decode().splitlines()))
    assert len(rows) == 1 + len(result.responses)
    assert rows[0]["kind"] == "exact"
    for row, response in zip(rows[1:], result.responses, strict=True):
        assert float(row["kl"]) == response.kl.value
        assert float(row["ratio_to_floor_se"]) == response.ratio.standard_error
    assert files["dose_response.png"].startswith(b"\x89PNG")
    assert files["harm.png"].startswith(b"\x89PNG")
    ranks = list(csv.DictReader(files["rank_correlations.csv"].decode().splitlines()))
    assert {row["group"] for row in ranks} == {"planted", "planted, all of dose 0.1"}
    assert len(files) == 5


def test_harmless_errors_have_intervals_around_zero_in_the_table(result):
    lines = dose_study.table(result, 0.03).rows
    assert len(lines) == 3
    for line in lines:
        cells = dict(zip(dose_study.HEADINGS, line, strict=True))
        harmless, curlfree = (cells["error"] == kind for kind in ("rotated score", "gradient"))
        assert (cells["KL [nats]"].interval()[0] <= 0) == harmless
        assert (cells["relative asymmetry"].interval()[0] <= 0) == curlfree


def test_a_number_compatible_with_zero_is_drawn_and_not_dropped(result):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    quantity = dose_study._quantities(result)[0]
    nothing = [
        r._replace(kl=Estimate(-1e-9, 1e-9, 9)) for r in result.of("rotated score", "middle")
    ]
    dose_study._draw(axes, quantity, nothing, lambda r: r.case.dose)
    (drawn,) = [line for line in axes.lines if line.get_marker() == "v" and len(line.get_xdata())]
    assert len(drawn.get_xdata()) == len(nothing)
    assert all(y > quantity.low for y in drawn.get_ydata())


@pytest.mark.slow
def test_the_command_writes_its_files_and_overwrites_none(monkeypatch, tmp_path, capsys):
    few = {"doses": (0.1,), "bands": ("high",), "slices": 1, "kinds": ("gradient",), "samples": 64}
    few |= {
        "mixtures": 0,
        "levels": 1,
        "sets": 2,
        "points": 24,
        "sampler_steps": 4,
        "tolerance": 1e-4,
        "pairs": 3,
    }
    whole = dose_study.DoseStudy.open
    small = lambda chosen: whole(Dose(**few, seed=chosen.seed))  # noqa: E731
    monkeypatch.setattr(dose_study.DoseStudy, "open", small)
    command = ["analyze", "dose", "--out", str(tmp_path / "out"), "--seed", "3"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "relative asymmetry" in printed
    assert all(str(file) in printed for file in (tmp_path / "out").iterdir())
    assert main(command) == 2
    assert "out exists; overwrite it" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--seed", "-1"), "seed"),
        (("--dose", "1"), "dose"),
        (("--device", "tpu"), "device must be auto, cpu, cuda"),
    ],
)
def test_a_mistake_is_one_sentence(option, words, capsys):
    assert main(["analyze", "dose", *option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="not 'twist'"):
        dose_response(Dose(kinds=("twist",), samples=32, sets=1, points=24, sampler_steps=2))


def test_the_ends_of_a_case_lie_in_the_process():
    assert FieldCase("swirl", "all", BANDS["all"], 0.1).ends == (SIGMA_MIN, SIGMA_MAX)


def test_the_observable_part_of_an_error_tells_what_moves_mass(result):
    """Of a rotated score no part is observable, of a gradient all of it."""
    for kind in ("rotated score", "gradient"):
        for response in result.of(kind, "middle"):
            (found,) = (x.estimate for x in response.levels if _is(x, "observable_error"))
            (whole,) = (x.estimate for x in response.levels if _is(x, "score_error"))
            if kind == "gradient":
                assert found.value > 0.8 * whole.value**2
            else:
                assert found.interval(1 - 1e-6)[0] <= 0


def _is(level, name):
    """Whether it is a measure at the level inside the middle band."""
    return level.metric == name and 0.35 < level.sigma < 4.0


def test_rank_correlations_are_spearmans_and_their_intervals_cover():
    """Of normal numbers of correlation 1/2 it is 6/π arcsin 1/4; of 60 intervals 42 to 60 cover,
    but for a chance of 1e-6 where they cover 90 to 97 %.
    """
    truth, inside = 6 / math.pi * math.asin(0.25), 0
    for seed in range(60):
        z = Noise(seed).normal("ranks", (2,), torch.arange(60), dtype=torch.float64)
        x, y = z[:, 0], 0.5 * z[:, 0] + math.sqrt(0.75) * z[:, 1]
        value, low, high = spearman(x.tolist(), y.tolist(), seed)
        inside += low <= truth <= high
    assert value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert inside >= stats.binom.ppf(1e-6, 60, 0.9)
    tied = [0.0, 0.0, 1.0, 2.0, 2.0]
    assert spearman(tied, [3 * v**3 for v in tied]) == pytest.approx((1.0, 1.0, 1.0))
    assert spearman(tied, [-v for v in tied])[0] == pytest.approx(-1.0)


def test_each_trained_field_is_compared_with_its_own_truth():
    """Fields that are exact under their own distribution have no error, whatever the others are,
    in the plane or on a torus."""
    process = EDM(SIGMA_MIN, SIGMA_MAX)
    truths = [GaussianMixture.ring(std=std, sde=process) for std in (0.3, 0.6)]
    truths.append(PseudoAtoms([[0.25], [0.75]], 0.05, sde=VE(0.002, 0.5)))
    data = ("ring", "ring", "atoms")
    settings = replace(SMALL, kinds=("gradient",), doses=(0.1,), slices=0, mixtures=0, points=64)
    trained = [Trained(f"{k}", data[k], truth, truth) for k, truth in enumerate(truths)]
    found = dose_response(settings, trained=trained)
    assert {name: len(some) for name, some in found.trained_by_data.items()} == {
        "trained on ring": 2,
        "trained on atoms": 1,
    }
    for response in found.trained:
        assert over_all(response.levels, SCORE_ERROR).value < 1e-9
        assert response.likelihood.value < 0.02
    box = found.trained[2]
    assert box.case.ends == (0.002, 0.5)
    assert box.weights is None
    assert box.row()["mode_weight_tv"] == ""
    assert box.ratio.value < 2


@pytest.mark.slow
def test_runs_of_one_name_are_told_apart(tmp_path):
    small = ("train.steps=20", "train.batch_size=32", "field.network.hidden=16", "name=toy/same")
    for root, std in (("one", 0.3), ("other", 0.6)):
        run = Run.create(load_config("toy/m0", (*small, f"data.std={std}")), tmp_path / root)
        run.train(quiet=True)
    folders = tuple(tmp_path / root / "toy/same/seed0" for root in ("one", "other"))
    settings = replace(SMALL, kinds=("gradient",), doses=(0.1,), slices=0, mixtures=0)
    study = dose_study.DoseStudy.open(replace(settings, runs=folders))
    one, other = study.compute(Work()).trained
    assert one.case != other.case
    assert one.kl.value != other.kl.value
    assert len(set(study.about["fingerprints"].values())) == 2
    assert len(study.table(dose_response(settings, trained=study.trained)).rows) == 3


def test_the_page_on_harm_has_the_correlations_of_its_file():
    results = Path(__file__).parents[2] / "docs" / "results"
    with (results / "rank_correlations.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            [float(row[k]) for k in ("spearman", "low", "high")] for row in csv.DictReader(file)
        ]
    texts = ["{:.2f} ({:.2f} to {:.2f})".format(*row).replace("-0.00", "0.00") for row in rows]
    page = (results / "harm.md").read_text(encoding="utf-8").replace("−", "-")
    assert re.findall(r"-?\d\.\d\d \(.*? to .*?\)", page) == texts

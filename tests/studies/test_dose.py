"""Dose and response on the ring: what theory says, measured."""

import csv
import math

import pytest
import torch

from scorefield.cli import main
from scorefield.estimate import Estimate, mean
from scorefield.likelihood import LogProb
from scorefield.noise import Noise
from scorefield.studies import dose, dose_figure
from scorefield.studies.divergence import divergence
from scorefield.studies.dose import BANDS, KINDS, Case, Design, dose_response

SMALL = Design(
    doses=(0.03, 0.1),
    bands=("middle",),
    slices=1,
    kinds=("rotated score", "swirl", "gradient"),
    samples=512,
    sets=2,
    points=64,
    sampler_steps=16,
    tolerance=1e-6,
    pairs=6,
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


def test_every_case_is_there(result):
    cases = [r.case for r in result.responses]
    assert len(set(cases)) == len(cases) == 9
    assert [len(result.of(kind, "middle")) for kind in SMALL.kinds] == [2, 2, 2]
    assert len(set(Design().cases())) == len(KINDS) * (len(BANDS) * 4 + 6)


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
    design = Design(slices=5)
    slices = [c for c in design.cases() if c.kind == KINDS[0] and c.band_name == "slice"]
    ends = [c.ends for c in slices]
    assert [e[1] for e in ends[:-1]] == [e[0] for e in ends[1:]]
    assert (ends[0][0], ends[-1][1]) == pytest.approx((dose.SIGMA_MIN, dose.SIGMA_MAX))


def test_what_is_written_reads_back(result, tmp_path):
    (tmp_path / "dose_response.csv").write_text("of an earlier run")
    table, picture = dose_figure.write(result, tmp_path)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + len(result.responses)
    assert rows[0]["kind"] == "exact"
    for row, response in zip(rows[1:], result.responses, strict=True):
        assert float(row["kl"]) == response.kl.value
        assert float(row["ratio_to_floor_se"]) == response.ratio.standard_error
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in tmp_path.iterdir()} == {table.name, picture.name}


def test_what_cannot_be_told_from_zero_is_a_bound_in_the_table(result):
    lines = dose_figure.table(result, 0.03)
    assert len(lines) == 3
    for line in lines:
        cells = dict(zip(dose_figure.TABLE, line, strict=True))
        harmless, curlfree = (cells["error"] == kind for kind in ("rotated score", "gradient"))
        assert cells["KL [nats]"].startswith("0 (below") == harmless
        assert cells["relative asymmetry"].startswith("0 (below") == curlfree


@pytest.mark.parametrize("high", [2.01e-6, 9.91e-3, 0.5, 13.0])
def test_a_bound_is_never_rounded_down(high):
    words = dose_figure._words(Estimate(0.0, 0.0, 9, numerical_error=high))
    bound = float(words.removeprefix("0 (below ").removesuffix(")"))
    assert high * (1 - 1e-9) <= bound < 1.1 * high


def test_a_point_at_the_foot_is_drawn_and_not_dropped(result):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    quantity = dose_figure._quantities(result)[0]
    nothing = [
        r._replace(kl=Estimate(-1e-9, 1e-9, 9)) for r in result.of("rotated score", "middle")
    ]
    dose_figure._draw(axes, quantity, nothing, lambda r: r.case.dose)
    drawn = [line for line in axes.lines if line.get_marker() == "v" and len(line.get_xdata()) == 1]
    assert len(drawn) == len(nothing)
    assert all(line.get_ydata()[0] > quantity.low for line in drawn)


def test_the_command_writes_both_files(monkeypatch, tmp_path, capsys):
    def small(seed):
        return Design((0.1,), ("high",), 1, 0.1, ("gradient",), 64, 2, 8, 4, 1e-4, 3, seed)

    monkeypatch.setattr(dose, "Design", small)
    out = tmp_path / "out"
    assert main(["analyze", "dose", "--out", str(out), "--seed", "3"]) == 0
    told = capsys.readouterr().out
    assert "relative asymmetry" in told
    assert all(str(file) in told for file in out.iterdir())


@pytest.mark.parametrize(
    ("option", "words"), [(("--seed", "-1"), "seed"), (("--dose", "1"), "dose")]
)
def test_a_mistake_is_one_sentence(option, words, capsys):
    assert main(["analyze", "dose", *option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="not 'twist'"):
        dose_response(Design(kinds=("twist",), samples=32, sets=1, points=4, sampler_steps=2))


def test_the_ends_of_a_case_lie_in_the_process():
    assert Case("swirl", "all", BANDS["all"], 0.1).ends == (dose.SIGMA_MIN, dose.SIGMA_MAX)

"""The study of coverage: what it counts, that it tells wrong intervals, and that it resumes."""

import csv
import io

import pytest
import torch
from scipy import stats

import scorefield as metrics
from scorefield.cli.results import Results
from scorefield.noise import Noise
from scorefield.studies import frame
from scorefield.studies.coverage import study
from scorefield.studies.coverage.intervals import Interval, Measured, _pair, intervals
from scorefield.studies.settings import Coverage


def normal(width, truth=0.0):
    """An interval of a normal number, ``width`` times as wide as 95 % takes."""

    def measure(seed):
        x = float(Noise(seed).normal("test", (), torch.arange(1))[0])
        return Measured(x, x - 1.96 * width, x + 1.96 * width, truth)

    return Interval("normal", "one draw", measure)


@pytest.mark.parametrize(
    ("width", "truth", "remark"),
    [(1.0, 0.0, ""), (1.0, None, ""), (0.6, 0.0, "outside"), (1.6, 0.0, "outside")],
)
def test_intervals_that_are_too_narrow_or_too_wide_are_told(monkeypatch, width, truth, remark):
    monkeypatch.setattr(study, "intervals", lambda: (normal(width, truth),))
    _, values = study.measure((0, 0, 400))
    found = study.count(0, [Measured(*v) for v in values])
    assert found.covered + found.below + found.above == found.repeats == 400
    assert study._line(found)[-1].startswith(remark)
    assert bool(remark) == bool(study._line(found)[-1])


def test_misses_are_counted_on_their_side():
    sides = [Measured(0.0, -1.0, 1.0, t) for t in (0.0, 2.0, 3.0, -2.0)]
    found = study.count(0, sides)
    assert (found.covered, found.below, found.above) == (1, 2, 1)


def _kinds():
    for kind in intervals():
        costly = kind.name in ("hodge_split", "log_prob, 8 probes", "observable_error")
        marks = [pytest.mark.slow] if costly else []
        yield pytest.param(kind, marks=marks, id=f"{kind.name}, {kind.data}")


@pytest.mark.parametrize("kind", list(_kinds()))
def test_every_interval_is_one_and_depends_on_the_seed(kind):
    one, other = kind.measure(0), kind.measure(1)
    assert one.low <= one.value <= one.high
    assert one.value != other.value
    assert one == kind.measure(0)


@pytest.mark.parametrize("law", ["equal", "different"])
@pytest.mark.parametrize("name", ["frechet_distance", "sliced_wasserstein"])
def test_an_interval_that_is_too_wide_between_like_distributions_says_so(name, law):
    (kind,) = (k for k in intervals() if (k.name, k.data) == (name, f"{law} distributions"))
    said = getattr(metrics, name)(*_pair(law, 0)).settings["coverage"]
    assert kind.note == ("" if law == "different" else said)
    assert "100 %" in said


SHARES = {
    "mode_weight_tv": lambda: metrics.mode_weight_tv(RING.sample(20, 0), RING),
    "total_variation": lambda: metrics.total_variation(ATOM.sample(20, 0), ATOM),
}
RING, ATOM = metrics.GaussianMixture.ring(), metrics.PseudoAtoms([[0.25]], std=0.05)


@pytest.mark.parametrize("name", SHARES)
def test_shares_say_that_their_interval_is_too_wide_between_like_distributions(name):
    like, other = (k for k in intervals() if k.name == name)
    assert SHARES[name]().settings["coverage"] == like.note
    assert other.note == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARES)
def test_intervals_of_shares_of_like_distributions_cover_more(name):
    """Of intervals that cover 93 to 97 %, so many of 300 once in a thousand times at most."""
    number, like = next((k, kind) for k, kind in enumerate(intervals()) if kind.name == name)
    found = study.count(number, [like.measure(seed) for seed in range(300)])
    assert found.covered > stats.binom.isf(1e-3, 300, 0.95)


LONG_TAILED = ("cycle_circulation", "path_gap", "potential_gap")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [k for k in intervals() if k.name in LONG_TAILED], ids=lambda k: f"{k.name}, {k.data}"
)
def test_long_tailed_numbers_are_covered_at_their_defaults(kind):
    """Of intervals that cover 93 to 97 %, so few or so many once in a million times."""
    found = [kind.measure(seed) for seed in range(600)]
    inside = sum(m.low <= m.truth <= m.high for m in found)
    assert stats.binom.ppf(1e-6, 600, 0.93) <= inside <= stats.binom.isf(1e-6, 600, 0.97)


def test_what_is_printed_has_numbers_with_the_intervals_of_the_file():
    found = [
        study.Covered("mean", "", "", "", 40, 40, 0, 0),
        study.Covered("root", "", "", "", 40, 30, 9, 1),
    ]
    table = study.CoverageStudy(Coverage()).table(found)
    rows = [dict(zip(table.headings, line, strict=True)) for line in table.rows]
    document = Results(rows=rows).document()["results"]
    assert [row["too low"] for row in document] == [0, 9]
    assert [row["remark"] for row in document] == ["", "outside 93 to 97 %"]
    for row, one in zip(document, found, strict=True):
        written, printed = one.row(), row["coverage"]
        assert (printed["value"], printed["n"]) == (one.covered / 40, 40)
        ends = written["coverage_low"], written["coverage_high"]
        assert (printed["low"], printed["high"]) == ends
        assert 0 < ends[0] <= printed["value"] <= ends[1] <= 1


@pytest.mark.slow
def test_the_study_continues_where_it_was(tmp_path, monkeypatch):
    settings = Coverage(repeats=20, jobs=2)
    work = frame.Work(tmp_path, study.CoverageStudy.kinds)
    first = study.CoverageStudy(settings).compute(work)
    # Nothing is left to be measured.
    monkeypatch.setattr(study, "measure", None)
    again = study.CoverageStudy(settings)
    assert again.compute(work) == first
    (content,) = (write() for write in again.files(first, work).values())
    names = [row["name"] for row in csv.DictReader(io.StringIO(content.decode()))]
    assert names == [kind.name for kind in intervals()]
    assert [line[0] for line in again.table(first).rows] == names

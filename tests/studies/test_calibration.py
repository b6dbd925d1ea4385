import csv
from dataclasses import replace

import pytest

from scorefield import Profile
from scorefield.cli.results import Results
from scorefield.estimate import proportion, share
from scorefield.studies import frame
from scorefield.studies.calibrate import study as calibration
from scorefield.studies.calibrate import study as command
from scorefield.studies.calibrate.fields import planted
from scorefield.studies.calibrate.instruments import BUDGET, INSTRUMENTS, Counting
from scorefield.studies.calibrate.study import Case, cases, measure
from scorefield.studies.settings import Calibration

SLOW = {name: pytest.param(name, marks=pytest.mark.slow) for name in INSTRUMENTS}
CURL = (
    "exterior derivative, probes",
    "relative asymmetry, probes",
    SLOW["loops"],
    SLOW["graph cycles"],
)


def case(name, shape="spread", dim=64, law="gaussian", size=0.05, lean=False, repeats=20):
    size = 0.0 if shape == "none" else size
    return Case(name, dim, law, shape, size, lean, repeats)


@pytest.mark.parametrize("name", CURL)
def test_instruments_find_a_planted_curl_and_raise_no_false_alarm(name):
    """Of twenty intervals of 95 % fewer than 11 hold the truth once in 10^8 times."""
    answer = measure(case(name))
    assert answer.covered >= 11
    assert answer.alarms == 20
    assert abs(answer.bias.value) < 6 * answer.bias.standard_error + 0.01
    none = measure(case(name, "none", law="mixture"))
    assert none.alarms == 0
    assert none.covered is None


@pytest.mark.parametrize(
    "name", [SLOW["path gap"], "potential gap", "denoising loss", SLOW["Hodge rest"]]
)
def test_closed_forms_are_met(name):
    answer = measure(case(name))
    assert answer.covered >= 11
    assert abs(answer.bias.value) < 6 * answer.bias.standard_error


@pytest.mark.parametrize("name", [n for n, i in INSTRUMENTS.items() if i.lean is not None])
@pytest.mark.parametrize("dim", [2, 784])
def test_lean_settings_stay_within_the_budget(name, dim):
    answer = measure(case(name, "plane" if dim == 2 else "spread", dim, lean=True, repeats=2))
    assert answer.calls <= BUDGET


def test_published_variants_are_as_blind_and_as_easily_alarmed_as_they_are_said_to_be():
    left = measure(case("published: cycles, left end point", "none", dim=2, repeats=20))
    assert left.alarms >= 10  # of an honest interval one in twenty
    line = measure(case("published: paths on one line", "plane", dim=2, repeats=20))
    assert line.average.value < 1e-20


def test_intervals_that_are_wrong_are_found_out(monkeypatch):
    """An instrument that is half a percent off and far too sure of itself covers nothing."""

    def wrong(field, data, protocol):
        (e,) = honest(field, data, protocol).estimates
        biased = replace(e, value=1.005 * e.value, standard_error=1e-9)
        return Profile("wrong", "", (biased,), protocol)

    honest = INSTRUMENTS["exterior derivative"].full.measure
    setting = replace(INSTRUMENTS["exterior derivative"].full, measure=wrong)
    monkeypatch.setitem(
        calibration.INSTRUMENTS, "wrong", replace(INSTRUMENTS["loops"], full=setting)
    )
    monkeypatch.setattr(calibration, "INSTRUMENTS", calibration.INSTRUMENTS)
    known = planted("gaussian", 2, "plane", 0.05)
    known.answers["wrong"] = known.answers["exterior derivative"]
    monkeypatch.setattr(calibration, "planted", lambda *_: known)
    answer = measure(case("wrong", "plane", dim=2))
    assert answer.covered == 0
    assert answer.bias.value == pytest.approx(0.005, rel=1e-6)


def test_calls_are_counted():
    known = planted("gaussian", 2, "plane", 0.05)
    field = Counting(known.field)
    x = known.data.sample(7, 0)
    field.score(x, 0.5)
    field.predict(x, 0.5, "denoiser")
    assert (field.rows, field.back) == (14, 0)


def test_ways_back_are_counted():
    """A probe takes a way forth with a tangent and one back; a Jacobian one back for each row."""
    probes = measure(case("exterior derivative, probes", lean=True, repeats=2))
    assert probes.calls == 4 * probes.points
    exact = measure(case("exterior derivative", repeats=2))
    assert exact.calls >= 2 * 64 * exact.points


@pytest.mark.slow
def test_the_table_tells_coverage_of_all_and_power_of_what_has_something_to_find():
    names = ("Hodge rest", "growth", "loops")
    wanted = [case(name, "plane", dim=2) for name in names]
    lines = {line[0]: line for line in command.table([measure(c) for c in wanted]).rows}
    column = command.COLUMNS.index
    for name in names:
        low, high = (lines[name][column(f"{end} coverage")].value for end in ("lowest", "highest"))
        assert 0 < low <= high <= 1
    assert lines["Hodge rest"][column("power at 5%")].value == 1
    assert lines["growth"][column("power at 5%")] is None
    assert lines["growth"][column("false alarms")] == share(0, 20)


def test_a_proportion_has_wilsons_interval():
    """The centre (k + z²/2) / (n + z²) and half width of Wilson (1927)."""
    z, k, n = 1.959964, 93, 100
    share, low, high = proportion(k, n)
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * (k * (n - k) / n + z**2 / 4) ** 0.5
    assert share == 0.93
    assert (low, high) == pytest.approx((centre - half, centre + half), rel=1e-5)


def test_every_instrument_is_asked_in_every_dimension_and_nothing_twice():
    wanted = cases(20, (2, 64, 784), tuple(INSTRUMENTS))
    assert len(wanted) == len(set(wanted))
    assert {(c.instrument, c.dim) for c in wanted} == {
        (name, dim) for name, instrument in INSTRUMENTS.items() for dim in instrument.full.points
    }


def test_the_study_writes_what_it_prints(tmp_path):
    names = ("exterior derivative", "loops")
    settings = Calibration(repeats=20, dims=(2,), only=names, jobs=1)
    written = frame.run(command.STUDY, settings, tmp_path / "out")
    none = share(0, 80)
    assert [line[:3] for line in written.table.rows] == [[name, 2, none] for name in names]
    rows = [dict(zip(command.COLUMNS, line, strict=True)) for line in written.table.rows]
    for found in Results(rows=rows).document()["results"]:
        assert [type(found[name]) for name in ("D", "largest on null", "calls")] == [
            int,
            float,
            int,
        ]
        shares = ("false alarms", "lowest coverage", "power at 5%")
        assert all(0 <= found[name]["low"] <= found[name]["high"] <= 1 for name in shares)
        assert found["bias"]["low"] <= found["bias"]["value"] <= found["bias"]["high"]
    table, figure, record = written.files
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(cases(20, (2,), names))
    assert (table.name, figure.name, record.name) == (
        "calibration.csv",
        "calibration.png",
        "study.json",
    )
    assert figure.read_bytes().startswith(b"\x89PNG")

"""A whole check: what it finds, where it stops, how it goes on, and the command."""

import json
import math
import sys
import time
from functools import partial

import pytest
import torch

import scorefield as sf
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate
from scorefield.fields.planted import PredictedNoise, Turned, right_angle
from scorefield.health.plan import Found, Measurement, Number, Plan
from scorefield.health.result import PAGE, RECORD, SAMPLES
from scorefield.health.samples import CALLS
from scorefield.progress import Stages
from tests import processes

RING = sf.GaussianMixture.ring(modes=4, radius=2.0, std=0.5)
QUIET = Stages(quiet=True)
LONG = 600.0  # so few points are done with long before


def scorefield(*arguments):
    return [sys.executable, "-m", "scorefield", *map(str, arguments)]


def source(n=64):
    """Points of the ring for training, and others."""
    train, test = (RING.sample(n, seed=s) for s in (1, 2))
    return sf.ArraySource(train, test, "ring")


class Slow(torch.nn.Module):
    """A network that takes its time."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.calls = 0

    def forward(self, x, label):
        self.calls += 1
        time.sleep(0.05)
        return self.layer(x)


def slow():
    return sf.wrap(Slow(), shape=(2,), predicts="noise", time="t", sde=sf.VP())


def graded(found):
    """The grades of the verdicts, by what they are about."""
    return {verdict.about: verdict.grade for verdict in found.verdicts}


@pytest.mark.slow
def test_the_exact_score_is_good_in_everything():
    found = sf.check(RING.under(sf.EDM()), source(), LONG, stages=QUIET)
    assert set(graded(found).values()) == {"good"}
    assert {"fit", "gradient", "levels", "memory"} <= set(graded(found))
    assert str(found).startswith("No evidence was found")
    low, high = next(n for n in found.numbers if n.name == "nats_per_dim").estimate.interval()
    assert low < high


@pytest.mark.slow
def test_a_planted_curl_is_found():
    turned = Turned(PredictedNoise(), right_angle(2))
    field = sf.PlantedField(RING.under(sf.EDM()), turned, 0.3)
    assert graded(sf.check(field, source(), LONG, stages=QUIET))["gradient"] != "good"


@pytest.mark.slow
def test_memorised_points_are_found():
    data = source()
    field = sf.IdealScore(data.stored("train"), sf.EDM())
    found = sf.check(field, data, LONG, stages=QUIET)
    assert graded(found)["memory"] == "fault"
    assert graded(found)["gradient"] == "good"


@pytest.mark.slow
def test_levels_that_do_not_agree_are_found():
    class Breathing(sf.ScoreField):
        """The exact score at a noise level that swings about the true one."""

        def __init__(self):
            super().__init__(sf.EDM(), RING.domain)

        def score(self, x, t, classes=None):
            t = torch.as_tensor(t, dtype=x.dtype).reshape(-1).expand(len(x))
            other = t * (1 + 0.4 * torch.sin(6 * t.log()))
            return RING.under(self.sde).score(x, other.clamp(0.002, 80.0))

    found = sf.check(Breathing(), source(), LONG, stages=QUIET)
    assert graded(found)["levels"] == "fault"
    assert graded(found)["gradient"] == "good"


@pytest.mark.slow
def test_a_second_call_goes_on(tmp_path):
    field = RING.under(sf.EDM())
    data = source(16)
    first = sf.check(field, data, 1e-6, out=tmp_path / "out", stages=QUIET)
    assert not first.done
    assert first.headline.startswith("Nothing was measured")
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["about"]["left_out"]
    second = sf.check(field, data, 60.0, out=tmp_path / "out", stages=QUIET)
    assert {f"samples_{calls}" for calls in CALLS} <= set(second.done)
    third = sf.check(field, data, 60.0, out=tmp_path / "out", stages=QUIET)
    # Everything that the points allow is measured already, and comes back as it was.
    assert [str(n.estimate) for n in third.numbers] == [str(n.estimate) for n in second.numbers]
    assert (tmp_path / "out" / SAMPLES).exists()
    page = (tmp_path / "out" / PAGE).read_text()
    assert "http://" not in page
    assert "https://" not in page
    with pytest.raises(RunError, match="another model"):
        sf.check(field, source(8), 1e-6, out=tmp_path / "out", stages=QUIET)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / RECORD).write_text('{"about": {}}'),
        lambda folder: (folder / RECORD).write_text("[1, 2]"),
        lambda folder: (folder / RECORD).write_bytes(b"\xff{"),
        lambda folder: (folder / SAMPLES).write_bytes(b"PK no archive"),
    ],
)
def test_a_damaged_check_is_refused_by_name(tmp_path, damage):
    field, data = RING.under(sf.EDM()), source(8)
    sf.check(field, data, 1e-6, out=tmp_path, stages=QUIET)
    damage(tmp_path)
    with pytest.raises(RunError, match=f"the check in {tmp_path} cannot be read"):
        sf.check(field, data, 1e-6, out=tmp_path, stages=QUIET)


def test_what_cannot_be_measured_is_a_fault_with_its_reason(tmp_path):
    class Broken(sf.ScoreField):
        """A score that is no number at high noise."""

        def __init__(self):
            super().__init__(sf.EDM(), RING.domain)

        def score(self, x, t, classes=None):
            t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
            return torch.where(t > 0.5, math.nan, -x)

    found = sf.check(Broken(), source(8), 20.0, out=tmp_path, stages=QUIET)
    assert graded(found)["fit of the claim to the data"] == "fault"
    assert "fit" not in found.done
    page = (tmp_path / PAGE).read_text()
    assert "not finite" in page
    # Names of records are none of a page.
    assert not any(name in page for name in ("relative_asymmetry", "fokker_planck", "samples_"))
    assert "fit" in json.loads((tmp_path / RECORD).read_text())["about"]["failed"]


def test_weights_that_are_no_numbers_are_named():
    field = slow()
    with torch.no_grad():
        field.backbone.net.layer.bias[0] = math.nan
    with pytest.raises(UserError, match=r"weights backbone\.net\.layer\.bias .* not all finite"):
        sf.check(field, source(), stages=QUIET)


def test_a_network_that_a_field_cuts_off_is_refused():
    class Cut(sf.ScoreField):
        """A field whose network is evaluated without derivatives."""

        def __init__(self):
            super().__init__(sf.VP(), RING.domain)
            self.net = torch.nn.Linear(2, 2)

        def score(self, x, t, classes=None):
            with torch.no_grad():
                return self.net(x) - x

    with pytest.raises(UserError, match="the network gives has no derivatives in the points"):
        sf.check(Cut(), source(), stages=QUIET)


def test_data_of_another_shape_are_refused():
    with pytest.raises(UserError, match="of shape"):
        sf.check(RING.under(sf.EDM()), torch.zeros(8, 3), stages=QUIET)


def measured(name, width, order, parts=1, part=lambda: None, like=None):
    """A measurement whose error halves with the size, in so many parts."""

    def part_of(size, k):
        order.append((name, size))
        part()
        number = Number(name, name, Estimate(1.0, width / 2**size, 100), float(k))
        return Found((number,), {"size": size})

    return Measurement(name, name, lambda size: [partial(part_of, size, k) for k in range(parts)],
                       3, like)  # fmt: skip


def test_a_plan_measures_what_lacks_precision_and_is_cheap():
    order = []
    plan = Plan([measured("coarse", 0.4, order), measured("fine", 1e-6, order)])
    plan.run(5.0, QUIET)
    assert order[:3] == [("coarse", 0), ("fine", 0), ("coarse", 1)]
    # Everything is measured at its largest size where there is time.
    assert plan.done["coarse"].size == plan.done["fine"].size == 3


class Clock:
    """A clock that goes on as it is told."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def wait(self, seconds):
        self.now += seconds


def test_parts_that_were_made_when_the_time_is_up_are_kept(monkeypatch):
    clock, order = Clock(monkeypatch), []
    plan = Plan([measured("slow", 0.4, order, 4, lambda: clock.wait(1.0))])
    plan.run(2.5, QUIET)
    assert clock.now == 3.0
    assert [n.sigma for n in plan.done["slow"].found.numbers] == [0.0, 1.0, 2.0]
    assert plan.left_out == ["slow (in part)"]
    # The next run begins with all of them, and does not begin what would end too late.
    plan.run(11.0, QUIET)
    assert clock.now == 7.0
    assert plan.done["slow"].size == 0
    assert not plan.left_out
    # Parts of a larger size take the place of their numbers, and nothing else.
    plan.done["slow"].seconds = 1.0
    plan.run(2.5, QUIET)
    errors = [n.estimate.standard_error for n in plan.done["slow"].found.numbers]
    assert errors == [0.2, 0.2, 0.2, 0.4]
    assert plan.done["slow"].size == plan.done["slow"].found.kept["size"] == 0


def test_what_is_known_to_take_too_long_is_not_begun(monkeypatch):
    clock, order = Clock(monkeypatch), []
    plan = Plan([
        measured("short", 0.4, order, part=lambda: clock.wait(1.0)),
        measured("long", 0.4, order, like=("short", 4.0)),
        measured("other", 0.4, order, part=lambda: clock.wait(0.5)),
    ])  # fmt: skip
    plan.run(4.5, QUIET)
    assert order[:2] == [("short", 0), ("other", 0)]
    assert plan.left_out == ["long"]


def test_a_measurement_stops_where_the_network_is_called():
    field = slow()
    net = field.backbone.net
    before, begin = net.calls, time.monotonic()
    found = sf.check(field, source(), 1.0, stages=QUIET)
    assert time.monotonic() - begin < 10.0
    assert net.calls - before <= 21
    assert found.about["left_out"]
    # And afterwards it is called as ever.
    field.score(torch.zeros(1, 2), 0.5)


def test_an_interrupt_leaves_the_page(tmp_path):
    field = slow()
    net = field.backbone.net

    def interrupt(*called):
        if net.calls > 40:
            raise KeyboardInterrupt

    net.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        sf.check(field, source(), LONG, out=tmp_path, stages=QUIET)
    assert "denoising loss" in (tmp_path / PAGE).read_text()
    assert json.loads((tmp_path / RECORD).read_text())["measured"]["fit"]["numbers"]


@pytest.mark.slow
def test_the_command_checks_a_run_and_a_factory(trained, tmp_path):
    done = processes.run(
        *scorefield("check", trained, "--budget", "5s", "--out", "page"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page" / PAGE).exists()
    (tmp_path / "own.py").write_text(
        "import scorefield as sf\n"
        "def field():\n"
        "    return sf.GaussianMixture.ring(modes=4, radius=2.0, std=0.5)\n"
    )
    check = ["check", "own:field", "--budget", "1s", "--out", "other"]
    for more, told in (
        ([], "give --data"),
        (["--data", "toy/m9"], "toy/m9"),
        (["--budget", "soon"], "as in 90s"),
    ):
        done = processes.run(*scorefield(*check, *more), cwd=tmp_path)
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
    done = processes.run(*scorefield(*check, "--data", "toy/m0"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_too_few_points_are_counted():
    held_out = sf.ArraySource(RING.sample(64, 1), RING.sample(3, 2), "ring")
    few = RING.sample(3, 1)
    for data, match in ((held_out, "4 held-out points, ring has 3$"), (few, "4 points, .* has 3$")):
        with pytest.raises(UserError, match=match):
            sf.check(RING.under(sf.EDM()), data, 1.0)


def test_a_check_of_something_else_is_replaced_only_where_that_is_wanted(tmp_path):
    """Nothing of it is left: its numbers would be resumed, its samples shown."""
    field, data = RING.under(sf.EDM()), RING.sample(64, 1)
    sf.check(field, data, 1e-6, out=tmp_path)
    with pytest.raises(RunError, match="another seed: overwrite it, or give another folder"):
        sf.check(field, data, 1e-6, seed=1, out=tmp_path)
    (tmp_path / SAMPLES).write_text("older")
    found = sf.check(field, data, 1e-6, seed=1, out=tmp_path, overwrite=True)
    assert json.loads((tmp_path / RECORD).read_text())["about"]["seed"] == found.about["seed"] == 1
    assert not (tmp_path / SAMPLES).exists() or (tmp_path / SAMPLES).read_bytes() != b"older"


def test_what_is_in_a_folder_and_no_check_stays(tmp_path):
    """It is refused before anything is measured, and so is a file in place of the folder."""

    def refused(out, match):
        with pytest.raises(RunError, match=match):
            sf.check(RING.under(sf.EDM()), RING.sample(64, 1), 1e-6, out=out)

    for name in (PAGE, SAMPLES):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_text("mine")
        refused(folder, f"{name} exists and is not of a check: give another folder")
        assert [(file.name, file.read_text()) for file in folder.iterdir()] == [(name, "mine")]
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "part" / "more"):
        refused(out, "file is no folder that can be written to")
    assert file.read_text() == "mine"

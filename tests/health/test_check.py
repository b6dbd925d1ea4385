"""A whole check: what it finds, where it stops, how it goes on, and the command."""

import json
import math
import sys

import pytest
import torch

import scorefield as sf
from scorefield.errors import RunError, UserError
from scorefield.estimate import Estimate
from scorefield.fields.planted import PredictedNoise, Turned, right_angle
from scorefield.health.measure import CALLS
from scorefield.health.plan import Found, Measurement, Number, Plan
from scorefield.health.result import PAGE, RECORD, SAMPLES
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
    assert len(first.done) == 1
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

    found = sf.check(Broken(), source(8), 60.0, out=tmp_path, stages=QUIET)
    assert graded(found)["fit"] == "fault"
    assert "fit" not in found.done
    assert "not finite" in (tmp_path / PAGE).read_text()
    assert "fit" in json.loads((tmp_path / RECORD).read_text())["about"]["failed"]


def test_data_of_another_shape_are_refused():
    with pytest.raises(UserError, match="of shape"):
        sf.check(RING.under(sf.EDM()), torch.zeros(8, 3), stages=QUIET)


def test_a_plan_measures_what_lacks_precision_and_is_cheap():
    order = []

    def measured(name, width):
        def measure(size):
            order.append((name, size))
            error = width / 2**size
            return Found((Number(name, name, Estimate(1.0, error, 100)),))

        return Measurement(name, name, measure, 3)

    plan = Plan([measured("coarse", 0.4), measured("fine", 1e-6)])
    plan.run(5.0, QUIET)
    assert order[:3] == [("coarse", 0), ("fine", 0), ("coarse", 1)]
    # Everything is measured at its largest size where there is time.
    assert plan.done["coarse"].size == plan.done["fine"].size == 3


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
        refused(out, "file is a file, and the check is a folder: give another")
    assert file.read_text() == "mine"

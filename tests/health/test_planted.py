"""Faults that are planted in scores of handwritten digits, of 8×8 pixels, are found."""

import math

import pytest
import torch

import scorefield as sf
from scorefield.fields.planted import PredictedNoise, Turned, right_angle
from scorefield.health.measure import measurements
from scorefield.health.plan import Done
from scorefield.health.result import Check, read, write
from scorefield.health.samples import _copies
from scorefield.health.subject import Subject
from scorefield.health.verdicts import verdicts

DIGITS = sf.digits()
FEW = DIGITS.reference(200, 0, "train")
LAW = sf.Empirical(FEW)
EXACT = LAW.under(sf.EDM())


class Swinging(sf.ScoreField):
    """The exact score at a noise level that swings about the true one."""

    def __init__(self):
        super().__init__(sf.EDM(), EXACT.domain)

    def score(self, x, t, classes=None):
        t = torch.as_tensor(t, dtype=x.dtype).reshape(-1).expand(len(x))
        other = t * (1 + 0.4 * torch.sin(6 * t.log()))
        return EXACT.score(x, other.clamp(0.002, 80.0))


def grades(field, source, name):
    """The grades of what one measurement of a few points shows."""
    chosen = next(m for m in measurements(Subject(field, source, 0)) if m.name == name)
    found = verdicts({name: Done(0, 1.0, chosen.measure(0))}, {})
    return {verdict.about: verdict.grade for verdict in found}


@pytest.mark.slow
def test_each_planted_fault_of_images_is_found_and_none_in_the_exact_score():
    curl = sf.PlantedField(EXACT, Turned(PredictedNoise(), right_angle(64)), 0.3)
    memory = sf.ArraySource(FEW, DIGITS.reference(200, 0, "test"), "few")
    true = sf.TargetSource(LAW, "true")
    cases = {
        "gradient": ("relative_asymmetry", curl, true),
        "levels": ("fokker_planck", Swinging(), true),
        "memory": ("samples_40", sf.IdealScore(FEW, sf.EDM()), memory),
    }
    for about, (name, field, source) in cases.items():
        assert grades(field, source, name) == {about: "fault"}
    for about in ("gradient", "levels"):
        assert grades(EXACT, true, cases[about][0]) == {about: "good"}
    # Samples of the law of all digits are no copies of a few of them.
    whole = sf.IdealScore(DIGITS.stored("test"), sf.EDM())
    assert grades(whole, memory, "samples_40") == {"memory": "good"}


def test_a_memorised_image_is_shown_beside_the_one_that_it_copies(tmp_path):
    source = sf.ArraySource(FEW, DIGITS.reference(200, 0, "test"), "few")
    subject = Subject(sf.IdealScore(FEW, sf.EDM()), source, 0)
    chosen = next(m for m in measurements(subject) if m.name == "samples_40")
    pairs = chosen.measure(0).kept["neighbours"]
    assert pairs.shape == (16, 2, 1, 8, 8)
    copied = torch.cdist(pairs[:, 1].flatten(1), FEW.flatten(1).float()).min(dim=1).values
    assert copied.max() == 0
    # What is left of the noise at the end of sampling.
    assert (pairs[:, 0] - pairs[:, 1]).abs().max() < 0.1
    # A sample that two training images are equal to is a copy too.
    twice = sf.ArraySource(FEW[:2].repeat(8, 1, 1, 1), FEW[:2].repeat(8, 1, 1, 1), "twice")
    numbers, _ = _copies(Subject(EXACT, twice, 0), FEW[:2].double(), FEW[2:4].double())
    assert [n.estimate.value for n in numbers] == [1.0, 0.0]
    found = Check([], [], {"samples_40": Done(0, 1.0, chosen.measure(0))}, {"identity": "this"})
    write(tmp_path, found)
    back = read(tmp_path, "this")["samples_40"].found
    assert torch.equal(back.kept["neighbours"], pairs)
    assert [n.interval() for n in back.numbers] == [n.interval() for n in found.numbers]


def test_the_circulation_of_a_rotation_is_its_curl():
    law = sf.Gaussian(torch.zeros(2), 1.0)
    exact, curl = law.under(sf.EDM()), 0.3
    field = sf.PlantedField(exact, Turned(PredictedNoise(), right_angle(2)), curl)
    source = sf.TargetSource(law, "gaussian")
    for checked, share in ((field, curl), (exact, 0.0)):
        subject = Subject(checked, source, 0)
        chosen = next(m for m in measurements(subject) if m.name == "loop_circulation")
        numbers = chosen.measure(3).numbers
        assert [n.sigma for n in numbers] == list(subject.sigmas)
        for n in numbers:
            # The denoiser x - sigma eps, with eps = sigma x / (1 + sigma^2) and its quarter turn.
            true = 2 * math.sqrt(2) * share * n.sigma**2 / (1 + n.sigma**2)
            assert n.estimate.value == pytest.approx(true, rel=1e-5, abs=1e-6)

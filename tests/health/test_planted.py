"""Faults that are planted in scores of handwritten digits, of 8×8 pixels, are found."""

import pytest
import torch

import scorefield as sf
from scorefield.fields.planted import PredictedNoise, Turned, right_angle
from scorefield.health.measure import Subject, measurements
from scorefield.health.plan import Done
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

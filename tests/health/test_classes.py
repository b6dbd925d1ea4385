"""Checks of models that know classes."""

import pytest
import torch

import scorefield as sf
from scorefield.data.arrays import LabelledSource
from scorefield.errors import UserError
from scorefield.health.measure import measurements
from scorefield.health.subject import Subject
from scorefield.progress import Stages

QUIET = Stages(quiet=True)
CENTRES = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
LAWS = [sf.GaussianMixture(centre[None], 0.3) for centre in CENTRES]


class OfClasses(sf.ScoreField):
    """The exact score of each class; of points of any, none, unless it is allowed."""

    def __init__(self, unlabelled=False):
        super().__init__(sf.EDM(), LAWS[0].domain)
        self.allowed = unlabelled

    @property
    def classes(self):
        return 3

    @property
    def unlabelled(self):
        return self.allowed

    def score(self, x, t, classes=None):
        rows = self.class_rows(classes, x)
        t = torch.as_tensor(t, dtype=x.dtype).reshape(-1).expand(len(x))
        every = torch.stack([law.under(self.sde).score(x, t) for law in LAWS])
        return every.mean(dim=0) if rows is None else every[rows, torch.arange(len(x))]


def labelled(n=160):
    """Points of three classes in turn."""
    classes = torch.arange(n) % 3
    points = [CENTRES[classes] + 0.3 * torch.randn(n, 2, generator=_seeded(s)) for s in (1, 2)]
    return LabelledSource(*points, classes, classes, "classes")


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_every_measurement_has_the_class_of_each_point():
    subject = Subject(OfClasses(), labelled(), 0)
    found = {m.name: m.measure(0) for m in measurements(subject) if m.name != "path_gap"}
    losses = {n.sigma: n.estimate.value for n in found["fit"].numbers if n.name == "loss"}
    # The variance of the noise given the point, of a normal distribution.
    for sigma, loss in losses.items():
        assert loss == pytest.approx(0.09 / (0.09 + sigma**2), rel=0.7)
    for name in ("relative_asymmetry", "fokker_planck"):
        assert all(n.estimate.value < 1e-3 for n in found[name].numbers)
    samples = {n.name: n.estimate.value for n in found["samples_40"].numbers}
    # Of the classes of the points, not of one of them.
    assert samples["distance_40"] < 4 * samples["floor_40"]


def test_a_model_that_needs_classes_is_refused_data_without():
    points = labelled().stored("train")
    with pytest.raises(UserError, match="needs the class of each point, of 3, and points has none"):
        sf.check(OfClasses(), points, stages=QUIET)


def test_more_classes_than_the_model_knows_are_refused():
    data = labelled()
    wide = [data.labels(split) + 1 for split in ("train", "test")]
    more = LabelledSource(data.stored("train"), data.stored("test"), *wide, "more")
    with pytest.raises(UserError, match="more has 4 classes, the model knows 3"):
        sf.check(OfClasses(), more, stages=QUIET)


def test_data_without_classes_are_checked_without_and_the_check_says_so():
    field, points = OfClasses(unlabelled=True), labelled().stored("train")
    assert sf.check(field, points, 1e-6, stages=QUIET).about["classes"] is False
    assert sf.check(field, labelled(), 1e-6, stages=QUIET).about["classes"] is True

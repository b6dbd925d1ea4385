"""Guided fields, where the truth is known: a mixture whose components are the classes."""

import pytest
import torch
from torch import nn

from scorefield import (
    EDM,
    VE,
    VP,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Gaussian,
    GaussianMixture,
    Heun,
    PreconditionedField,
    ScoreField,
    jacobian,
    log_prob,
)
from tests.laws.cases import KnownWave, SmoothClassifier, Wave, normal

MEANS = torch.tensor([[1.0, 0.5], [-1.2, 0.3], [0.2, -0.9]], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.5, 0.4], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
CLASSES = torch.tensor([0, 1, 2, 2, 1, 0])


class Bayes(nn.Module):
    """The exact classifier of the mixture's components, from points in units of the data."""

    classes = 3

    def forward(self, x, noise_level):
        variance = STDS**2 + noise_level[:, None] ** 2
        square = (x[:, None, :] - MEANS).square().sum(dim=2)
        return WEIGHTS.log() - square / (2 * variance) - variance.log()


class Known(ScoreField):
    """The mixture, and each component for points of its class."""

    classes = 3

    def __init__(self, sde):
        mixture = GaussianMixture(MEANS, stds=STDS, weights=WEIGHTS, sde=sde)
        super().__init__(sde, mixture.domain)
        self.mixture = mixture

    def score(self, x, t, classes=None):
        score = self.mixture.score(x, t)
        rows = self.class_rows(classes, x)
        if rows is None:
            return score
        own = torch.stack([component(k, self.sde).score(x, t) for k in range(3)] + [score])
        return own[rows, torch.arange(len(x))]


def component(k, sde):
    return Gaussian(MEANS[k], std=float(STDS[k]), sde=sde)


@pytest.fixture(
    params=[EDM(0.01, 20.0), VE(0.01, 20.0), VP(t_min=1e-3)], ids=lambda s: type(s).__name__
)
def sde(request):
    return request.param


def points(sde):
    levels = torch.tensor([0.02, 0.1, 0.4, 1.0, 3.0, 15.0], dtype=torch.float64)
    t = sde.time(levels)
    mixture = GaussianMixture(MEANS, stds=STDS, weights=WEIGHTS, sde=sde)
    x = sde.perturb(mixture.sample(6, 0, torch.float64), t, normal((6, 2), "z"))
    return mixture, x, t


@pytest.mark.parametrize("quantity", ["score", "denoiser", "noise", "velocity", "drift"])
def test_the_mixture_plus_its_classifier_is_the_component(sde, quantity):
    mixture, x, t = points(sde)
    for k in range(3):
        guided = ClassifierGuidance(mixture, Bayes())
        expected = component(k, sde).predict(x, t, quantity)
        found = guided.predict(x, t, quantity, k)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_each_point_is_drawn_to_its_own_class(sde):
    mixture, x, t = points(sde)
    guided = ClassifierGuidance(mixture, Bayes(), scale=1.7)
    found = guided.score(x, t, CLASSES)
    for k, c in enumerate(CLASSES.tolist()):
        alone = guided.score(x[k : k + 1], t[k : k + 1], c)
        torch.testing.assert_close(alone, found[k : k + 1])


def test_without_a_class_nothing_is_drawn(sde):
    mixture, x, t = points(sde)
    for guided in (ClassifierGuidance(mixture, Bayes()), ClassifierFreeGuidance(Known(sde))):
        for classes in (None, 3, torch.full((6,), 3)):
            torch.testing.assert_close(guided.score(x, t, classes), mixture.score(x, t))


@pytest.mark.parametrize("scale", [0, 0.5, 1, 3.0])
@pytest.mark.parametrize("kind", ["classifier", "classifier-free"])
def test_the_scale_goes_from_the_mixture_to_the_component_and_beyond(sde, kind, scale):
    mixture, x, t = points(sde)
    if kind == "classifier":
        guided = ClassifierGuidance(mixture, Bayes(), scale)
    else:
        guided = ClassifierFreeGuidance(Known(sde), scale)
    own, without, w = component(1, sde).score(x, t), mixture.score(x, t), scale - 1
    expected = (1 + w) * own - w * without
    torch.testing.assert_close(guided.score(x, t, 1), expected, rtol=1e-9, atol=1e-9)


def test_the_potential_is_the_density_of_the_component(sde):
    mixture, x, t = points(sde)
    guided = ClassifierGuidance(mixture, Bayes())
    assert guided.has_potential
    # p(x) p(c | x) = p(x | c) p(c)
    expected = component(2, sde).log_density(x, t) + WEIGHTS[2].log()
    torch.testing.assert_close(guided.potential(x, t, 2), expected, rtol=1e-9, atol=1e-9)
    assert not ClassifierGuidance(Known(sde), Bayes()).has_potential
    assert not ClassifierFreeGuidance(Known(sde)).has_potential


def test_the_jacobian_is_that_of_the_component(sde):
    mixture, x, t = points(sde)
    guided = ClassifierGuidance(mixture, Bayes())
    found = jacobian(guided.score, x, t, classes=CLASSES)
    for k, c in enumerate(CLASSES.tolist()):
        exact = component(c, sde).jacobian(x[k : k + 1], t[k : k + 1])
        scale = float(exact.abs().max())
        torch.testing.assert_close(found[k : k + 1], exact, rtol=1e-8, atol=1e-9 * scale)


def test_samples_have_the_law_of_their_component():
    """The means and deviations of 400 samples a class, within six standard errors."""
    sde, n = EDM(0.002, 80.0), 400
    mixture = GaussianMixture(MEANS, stds=STDS, weights=WEIGHTS, sde=sde)
    classes = torch.arange(3).repeat_interleave(n)
    guided = ClassifierGuidance(mixture, Bayes())
    samples = Heun(20).sample(guided, 3 * n, seed=1, classes=classes, dtype=torch.float64)
    for k, x in enumerate(samples.split(n)):
        error = float(STDS[k]) / n**0.5
        assert ((x.mean(dim=0) - MEANS[k]).abs() < 6 * error + 0.01).all()
        ratio = x.std(dim=0) / STDS[k]
        assert ((ratio - 1).abs() < 6 / (2 * n) ** 0.5 + 0.01).all()


def test_the_log_density_is_that_of_the_component():
    sde = EDM(0.002, 80.0)
    mixture = GaussianMixture(MEANS, stds=STDS, weights=WEIGHTS, sde=sde)
    x = component(1, sde).sample(4, seed=0, dtype=torch.float64)
    found = log_prob(ClassifierGuidance(mixture, Bayes()), x, classes=1).value
    expected = log_prob(component(1, sde), x).value
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


class Counted(KnownWave):
    calls = 0

    def forward(self, x, label, classes=None):
        self.calls += 1
        return super().forward(x, label, classes)


@pytest.mark.parametrize("classes", [1, torch.tensor([0, 1, 2, 2])])
def test_one_call_of_the_network_gives_both_sides(classes):
    sde = EDM()
    field = PreconditionedField(Counted((3,)), sde, sigma_data=0.7)
    x, t = normal((4, 3), "x"), torch.tensor([0.1, 0.5, 1.0, 5.0], dtype=torch.float64)
    guided = ClassifierFreeGuidance(field, 2.5)
    found = guided.predict(x, t, "denoiser", classes)
    assert field.backbone.calls == 1
    known, without = field.denoise(x, t, classes), field.denoise(x, t)
    torch.testing.assert_close(found, without + 2.5 * (known - without))


def test_the_weights_are_those_of_the_field_once():
    field = PreconditionedField(KnownWave((3,)), EDM(), sigma_data=0.7)
    guided = ClassifierFreeGuidance(field, 2.0)
    assert guided.state_dict().keys() == {f"field.{k}" for k in field.state_dict()}
    assert guided.classes == 3


def test_what_does_not_fit_is_an_error(unchecked):
    mixture, sde = GaussianMixture.ring(), EDM()
    known = PreconditionedField(KnownWave((2,)), sde, sigma_data=1.0)
    x = torch.zeros(3, 2, dtype=torch.float64)
    guided = ClassifierGuidance(mixture, SmoothClassifier((2,)))
    with pytest.raises(ValueError, match="classes must lie in 0 … 3, got 4"):
        guided.score(x, 1.0, 4)
    with pytest.raises(ValueError, match="classes must be integers"):
        guided.score(x, 1.0, 0.5)
    with pytest.raises(ValueError, match="classes must lie in 0 … 3, got -1"):
        ClassifierFreeGuidance(known).score(x, 1.0, -1)
    with pytest.raises(ValueError, match="PreconditionedField has none"):
        ClassifierFreeGuidance(PreconditionedField(Wave((2,)), sde, sigma_data=1.0))
    with pytest.raises(ValueError, match="GaussianMixture has none"):
        ClassifierFreeGuidance(mixture)
    with pytest.raises(ValueError, match="Linear has no number of classes"):
        ClassifierGuidance(mixture, nn.Linear(2, 2))
    for kind in (
        lambda s: ClassifierGuidance(mixture, SmoothClassifier((2,)), s),
        lambda s: ClassifierFreeGuidance(known, s),
    ):
        with pytest.raises(ValueError, match="the scale of guidance must be finite, got nan"):
            kind(float("nan"))


def test_a_classifier_of_another_number_of_classes_is_an_error():
    other = nn.Module()
    other.classes, other.forward = 5, lambda x, level: x @ x.new_ones(2, 4)
    guided = ClassifierGuidance(GaussianMixture.ring(), other)
    with pytest.raises(ValueError, match=r"of 5 classes gave logits of shape \(3, 4\)"):
        guided.score(torch.zeros(3, 2, dtype=torch.float64), 1.0, 4)

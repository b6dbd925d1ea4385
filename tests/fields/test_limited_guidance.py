"""Autoguidance, and guidance at some noise levels, where what the flow samples has closed forms."""

import pytest
import torch

import scorefield as sf
from tests.laws.cases import KnownWave, normal

SDE = sf.EDM(1e-3, 200.0)
V, W, SCALE = 0.8, 1.7, 2.5
MAIN, WEAK = (sf.Gaussian([0.0], std=v**0.5, sde=SDE) for v in (V, W))


def variance(field):
    """The variance at the end of the flow, which is linear, by the image of one point."""
    start = torch.tensor([[1.0]], dtype=torch.float64)
    end = sf.Heun(400).sample(field, start=start, dtype=torch.float64)
    return float(end) ** 2 * 200.0**2


def between(low, high):
    """d ln x / d ln λ is λ² times the precision, of guidance γ/(v + λ²) − (γ − 1)/(w + λ²)."""
    return (W + high**2) * (V + low**2) / ((W + low**2) * (V + high**2))


def test_autoguidance_is_the_quotient_of_powers_and_its_flow_samples_another():
    guided = sf.autoguidance(MAIN, WEAK, SCALE)
    x, t = normal((5, 1), "x"), 0.6
    precision = SCALE / (V + t**2) - (SCALE - 1) / (W + t**2)
    torch.testing.assert_close(guided.score(x, t), -precision * x)
    u = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(guided.potential(u, t).sum(), u)
    torch.testing.assert_close(guided.score(x, t), slope)
    sampled, claimed = V**SCALE * W ** (1 - SCALE), 1 / (SCALE / V - (SCALE - 1) / W)
    assert variance(guided) == pytest.approx(sampled, rel=1e-3)
    assert sampled < 0.6 * claimed
    torch.testing.assert_close(sf.autoguidance(MAIN, WEAK, 1.0).score(x, t), MAIN.score(x, t))


@pytest.mark.parametrize(("low", "high"), [(0, 2.0), (0.3, 2.0), (0.3, 1000.0)])
def test_an_interval_narrows_samples_by_its_own_levels_only(low, high):
    limited = sf.guidance_interval(sf.autoguidance(MAIN, WEAK, SCALE), MAIN, low, high)
    expected = V * between(low, min(high, 200.0)) ** (SCALE - 1)
    # A step across an end of the interval is of either kind.
    assert variance(limited) == pytest.approx(expected, rel=2e-2)


class Counted(sf.ScoreField):
    """A field that counts the points at which it is evaluated."""

    def __init__(self, field):
        super().__init__(field.sde, field.domain)
        self.field, self.points = field, 0

    def predict(self, x, t, quantity, classes=None):
        self.points += len(x)
        return self.field.predict(x, t, quantity, classes)


@pytest.mark.parametrize("known", [True, False])
def test_each_field_of_an_interval_is_evaluated_once(known, monkeypatch):
    """On a CPU at its own points; where the host does not know the times, at all of them."""
    guided, field = Counted(sf.autoguidance(MAIN, WEAK, SCALE)), Counted(MAIN)
    limited = sf.guidance_interval(guided, field, 0.2, 3.0)
    x = normal((5, 1), "x")
    t = torch.tensor([0.1, 0.2, 1.0, 3.0, 9.0], dtype=torch.float64)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: not known)
    found = limited.score(x, t)
    assert (guided.points, field.points) == ((2, 3) if known else (5, 5))
    inside = (t > 0.2) & (t <= 3.0)
    expected = torch.where(inside[:, None], guided.field.score(x, t), MAIN.score(x, t))
    torch.testing.assert_close(found, expected)


def test_guidance_of_a_class_is_inside_of_the_interval_alone():
    field = sf.PreconditionedField(KnownWave((2,)), SDE, sigma_data=0.7)
    guided = sf.ClassifierFreeGuidance(field, 3.0)
    limited = sf.guidance_interval(guided, field, 0.2, 3.0)
    x, classes = normal((5, 2), "x"), torch.tensor([0, 1, 2, 1, 3])
    t = torch.tensor([0.2, 0.21, 1.0, 3.0, 3.01], dtype=torch.float64)
    found, inside = limited.score(x, t, classes), guided.score(x, t, classes)
    outside = field.score(x, t, classes)
    torch.testing.assert_close(found[1:4], inside[1:4])
    torch.testing.assert_close(found[[0, 4]], outside[[0, 4]])
    assert (inside - outside)[1:4].abs().min() > 1e-4
    for low, high in ((0.5, 0.5), (-1.0, 2.0), (0.0, 0.0)):
        with pytest.raises(ValueError, match="guidance interval"):
            sf.guidance_interval(guided, field, low, high)
    with pytest.raises(ValueError, match="scale of autoguidance must be positive"):
        sf.autoguidance(MAIN, WEAK, 0.0)
    with pytest.raises(ValueError, match="fields of a field with autoguidance share one process"):
        sf.autoguidance(MAIN, WEAK.under(sf.VP()), 2.0)

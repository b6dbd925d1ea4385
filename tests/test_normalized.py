"""The log-density of a potential, with the constant of the greatest noise level."""

import math
from functools import partial

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VE,
    VP,
    Gaussian,
    GaussianMixture,
    NormalizedField,
    OneClass,
    PotentialField,
    PreconditionedField,
    PseudoAtoms,
    ScoreField,
    log_prob,
    mixture,
    normalized,
    tempered,
)
from tests.laws.cases import KnownWave


class Offset(ScoreField):
    """The exact potential of a law plus a constant."""

    has_potential = True

    def __init__(self, truth, constant):
        super().__init__(truth.sde, truth.domain)
        self.truth, self.constant = truth, constant

    def score(self, x, t, classes=None):
        return self.truth.score(x, t)

    def potential(self, x, t, classes=None):
        return self.truth.potential(x, t) + self.constant


TRUTHS = [
    GaussianMixture([[1.5, 0.3], [-1.0, 0.4]], stds=0.4, sde=EDM(0.05, 20.0)),
    GaussianMixture([[1.5, 0.3], [-1.0, 0.4]], stds=0.4, sde=VP(t_min=1e-3)),
    PseudoAtoms([[0.25], [0.75]], std=0.05, sde=VE(0.01, 0.5)),
]


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda t: type(t.sde).__name__)
def test_a_density_up_to_a_constant_becomes_the_density(truth):
    """Within six standard errors, which are below a hundredth of a nat."""
    found = normalized(Offset(truth, 3.7), n=4096)
    assert 0 < found.standard_error < 0.01
    assert found.log_constant == pytest.approx(3.7, abs=6 * found.standard_error)
    x = truth.sample(64, seed=1, dtype=torch.float64)
    t = float(truth.sde.t_min)
    alpha = float(truth.sde.alpha(torch.tensor(t, dtype=torch.float64)))
    exact = truth.log_density(alpha * x, t) + truth.domain.dim * math.log(alpha)
    torch.testing.assert_close(found.log_prob(x), exact + 3.7 - found.log_constant)


def test_it_is_the_density_that_the_flow_integrates():
    truth = TRUTHS[1]
    x = truth.sample(16, seed=2, dtype=torch.float64)
    flow = log_prob(truth, x, rtol=1e-6, atol=1e-6)
    one = NormalizedField(truth, 0.0).log_prob(x)
    # The flow starts from the prior, in which a ten-thousandth of the data's variance is left.
    torch.testing.assert_close(flow.value, one, rtol=0, atol=0.02)
    assert not torch.allclose(one, truth.log_density(x, truth.sde.t_min), rtol=0, atol=1e-4)


def test_a_mixture_of_them_has_its_weights():
    sde = EDM(0.05, 20.0)
    one, other = (GaussianMixture([[m]], stds=0.5, sde=sde) for m in (-2.0, 2.0))
    parts = [normalized(Offset(one, 5.0)), normalized(Offset(other, -1.0))]
    field = mixture(parts, [0.3, 0.7])
    exact = GaussianMixture([[-2.0], [2.0]], stds=0.5, weights=[0.3, 0.7], sde=sde)
    x = torch.linspace(-3, 3, 30, dtype=torch.float64).unsqueeze(1)
    worst = 6 * max(part.standard_error for part in parts)
    assert worst < 0.02
    torch.testing.assert_close(
        field.potential(x, 0.1), exact.log_density(x, 0.1), rtol=0, atol=worst
    )


def test_few_weights_are_counted_and_warned_of(capsys):
    """A normal distribution of 16 coordinates and half the width of the prior: the mean square of
    the weights N(x; 0, ½²) / N(x; 0, 1) is (16 / 7)⁸ = 745, and 4,096 draws are worth six."""
    truth = Gaussian(torch.zeros(16), std=1e-3, sde=EDM(0.05, 1.0))
    wide = normalized(truth, n=512)
    assert wide.effective == pytest.approx(512, rel=1e-4)
    assert "effective=512" in repr(wide)
    assert not capsys.readouterr().err
    narrow = normalized(tempered(truth, 4.0), n=4096)
    assert narrow.effective < 40
    assert f"carried by {narrow.effective:.1f} of 4096 weights" in capsys.readouterr().err


def test_the_constant_has_an_address():
    field = PotentialField(MLP(2, 8, 1, outputs=1), EDM(0.05, 20.0), sigma_data=1.0)
    first, again, other = (normalized(field, n=64, seed=seed) for seed in (3, 3, 4))
    assert first.log_constant == again.log_constant != other.log_constant


def test_what_has_no_constant_is_an_error():
    free = PreconditionedField(MLP(2, 8, 1), EDM(), sigma_data=1.0)
    with pytest.raises(TypeError, match="PreconditionedField has no potential"):
        normalized(free)
    known = PotentialField(KnownWave((2,)), EDM(), sigma_data=1.0)
    with pytest.raises(ValueError, match=r"has 3 classes.* OneClass\(field, number\)"):
        normalized(known)
    assert math.isfinite(normalized(OneClass(known, 1), n=16).log_constant)
    truth = GaussianMixture.ring()
    with pytest.raises(ValueError, match="its potential is not finite"):
        normalized(Offset(truth, math.inf))
    for density in (NormalizedField(truth, 0.0).log_prob, partial(log_prob, truth)):
        with pytest.raises(ValueError, match="t_min must be finite, got 'a'"):
            density(torch.zeros(1, 2), t_min="a")
    with pytest.raises(ValueError, match="t_min must lie in"):
        NormalizedField(truth, 0.0).log_prob(torch.zeros(1, 2), t_min=100.0)

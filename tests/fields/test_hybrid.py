"""Truths about a potential below and a network above."""

import pytest
import torch

from scorefield import EDM, VP, HybridField, PotentialField, PreconditionedField
from tests.laws.cases import SDES, Wave, normal, times

SIGMA_C = 0.5


def hybrid(sde, shape=(3,)):
    low = PotentialField(Wave(shape, 1), sde, sigma_data=0.7, head="inner")
    high = PreconditionedField(Wave(shape, 2), sde, sigma_data=0.7)
    return HybridField(low, high, SIGMA_C)


def test_the_boundary_belongs_to_the_potential():
    field, x = hybrid(EDM()), normal((4, 3), "x")
    below, above = torch.tensor(SIGMA_C).double(), torch.tensor(SIGMA_C).double() * (1 + 1e-15)
    assert torch.equal(field.score(x, below), field.low.score(x, below))
    assert torch.equal(field.score(x, above), field.high.score(x, above))


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("quantity", ["score", "denoiser", "velocity"])
def test_a_mixed_batch_is_its_parts(name, quantity):
    sde = SDES[name]
    field, n = hybrid(sde), 30
    t = times(sde, n)[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    x = normal((n, 3), "x")
    value = field.predict(x, t, quantity)
    below = sde.noise_level(t) <= SIGMA_C
    assert 0 < int(below.sum()) < n
    for rows, part in ((below, field.low), (~below, field.high)):
        expected = part.predict(x[rows], t[rows], quantity)
        torch.testing.assert_close(value[rows], expected, rtol=1e-12, atol=1e-12)


def test_each_part_sees_its_own_points_only():
    field, seen = hybrid(EDM()), {}
    for name in ("low", "high"):
        getattr(field, name).backbone.register_forward_hook(
            lambda module, args, output, name=name: seen.__setitem__(name, len(output))
        )
    field.score(normal((5, 3), "x"), torch.tensor([0.1, 2.0, 0.2, 0.3, 9.0]).double())
    assert seen == {"low": 3, "high": 2}
    seen.clear()
    field.score(normal((5, 3), "x"), 0.1)
    assert seen == {"low": 5}


def test_gradients_reach_both_parts():
    field = hybrid(EDM())
    field.score(normal((4, 3), "x"), torch.tensor([0.1, 2.0, 0.2, 3.0]).double()).sum().backward()
    for name, p in field.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_the_parts_share_process_and_domain():
    low = PotentialField(Wave((3,)), EDM(), sigma_data=1.0)
    for high in (
        PreconditionedField(Wave((3,)), VP(), sigma_data=1.0),
        PreconditionedField(Wave((2,)), EDM(), sigma_data=1.0),
    ):
        with pytest.raises(ValueError, match="one process and one domain"):
            HybridField(low, high, 1.0)


@pytest.mark.parametrize("sigma_c", [0.0, -1.0, float("inf"), float("nan")])
def test_the_boundary_is_positive(sigma_c):
    low = PotentialField(Wave((3,)), EDM(), sigma_data=1.0)
    with pytest.raises(ValueError, match="sigma_c must be positive"):
        HybridField(low, low, sigma_c)

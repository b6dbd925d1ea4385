"""Truths about fields that are gradients."""

import pytest
import torch
from torch import nn

from scorefield import EDM, PotentialField, PreconditionedField
from tests.laws.cases import PARAMETRIZATIONS, SDES, SHAPES, Wave, normal, times

HEADS = ["sum", "inner", "denoising"]


@pytest.fixture(params=HEADS)
def head(request):
    return request.param


@pytest.fixture(params=PARAMETRIZATIONS, ids=lambda p: type(p).__name__)
def parametrization(request):
    return request.param


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def sde(request):
    return request.param


def jacobian(field, x, t):
    """Rows of the Jacobian by reverse mode, (batch, D, D)."""
    x = x.detach().requires_grad_()
    score = field.score(x, t).flatten(1)
    rows = [torch.autograd.grad(s.sum(), x, retain_graph=True)[0] for s in score.unbind(1)]
    return torch.stack([row.flatten(1) for row in rows], dim=1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_score_is_the_gradient_of_the_potential(sde, head, parametrization, shape):
    field = PotentialField(Wave(shape), sde, parametrization=parametrization, head=head)
    t = times(sde, 6)
    x = sde.perturb(normal((6, *shape), "data"), t, normal((6, *shape), "z")).requires_grad_()
    (gradient,) = torch.autograd.grad(field.potential(x, t).sum(), x)
    score = field.score(x, t).detach()
    torch.testing.assert_close(score, gradient, rtol=1e-9, atol=1e-11 * float(score.abs().max()))


def test_the_jacobian_is_symmetric_at_every_noise_level(sde, head, parametrization):
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        net = Wave((5,), dtype=dtype)
        field = PotentialField(net, sde, parametrization=parametrization, head=head)
        t = times(sde, 24).to(dtype)
        x = sde.perturb(normal((24, 5), "data").to(dtype), t, normal((24, 5), "z").to(dtype))
        j = jacobian(field, x, t)
        asymmetry = (j - j.mT).flatten(1).norm(dim=1) / (2 * j.flatten(1).norm(dim=1))
        assert asymmetry.max() < limit


def test_a_free_field_of_the_same_backbone_is_not_symmetric():
    field = PreconditionedField(Wave((5,)), EDM(), sigma_data=0.7)
    j = jacobian(field, normal((4, 5), "x"), 0.5)
    assert ((j - j.mT).flatten(1).norm(dim=1) / j.flatten(1).norm(dim=1)).min() > 1e-3


def test_a_call_needs_no_gradients_around_it(head):
    field, x = PotentialField(Wave((3,)), EDM(), 0.7, head=head), normal((4, 3), "x")
    expected = field.score(x, 0.5)
    with torch.no_grad():
        score = field.score(x, 0.5)
        assert not score.requires_grad
    assert torch.equal(score, expected.detach())
    assert expected.requires_grad
    assert not x.requires_grad


def test_one_output_is_a_potential_by_itself():
    class Scalar(nn.Module):
        event_shape = (3,)

        def forward(self, x, label):
            return -0.5 * (x**2).sum(dim=1, keepdim=True) * (1 + label.unsqueeze(1) ** 2)

    field = PotentialField(Scalar(), EDM(), sigma_data=1.0)
    x = normal((4, 3), "x")
    u, label = x / (1 + 0.25) ** 0.5, torch.tensor(0.5).log().double() / 4
    expected = (u.square().sum(dim=1) * (1 + label**2)).neg() / 2
    # N(0, σ²+σ_d²) and (q / c_in) ψ with q/c_in = σ_d/σ
    normal_part = torch.distributions.Normal(0.0, 1.25**0.5).log_prob(x).sum(dim=1)
    torch.testing.assert_close(field.potential(x, 0.5), normal_part + 2 * expected)


def test_a_quadratic_potential_has_its_linear_score():
    """ψ = ½ uᵀ A u by the inner head: only the symmetric part of A acts."""
    a = normal((3, 3), "a")

    class Linear(nn.Module):
        event_shape = (3,)

        def forward(self, x, label):
            return 0.5 * x @ a.T

    field = PotentialField(Linear(), EDM(), sigma_data=1.0, head="inner")
    x = normal((4, 3), "x")
    sigma = 0.5
    u = x / (1 + sigma**2) ** 0.5
    gradient = 0.5 * u @ (a + a.T)
    expected = -x / (1 + sigma**2) + gradient / (sigma * (1 + sigma**2) ** 0.5)
    torch.testing.assert_close(field.score(x, sigma), expected)


def test_an_unknown_head_is_an_error(unchecked):
    with pytest.raises(ValueError, match="sum, inner or denoising"):
        PotentialField(Wave((2,)), EDM(), 1.0, head="product")


@pytest.mark.parametrize("head", ["inner", "denoising"])
def test_a_head_that_needs_a_vector_names_the_shape_it_got(head):
    class Scalar(nn.Module):
        event_shape = (3,)

        def forward(self, x, label):
            return x.sum(dim=1, keepdim=True)

    field = PotentialField(Scalar(), EDM(), sigma_data=1.0, head=head)
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(4, 1\)"):
        field.score(torch.ones(4, 3), 0.5)

import pytest
import torch
from torch import nn

from scorefield import (
    EDM,
    GaussianMixture,
    PotentialField,
    PreconditionedField,
    differentiable,
    jacobian,
    jvp,
    vjp,
)
from scorefield.calculus.derivatives import jvp_vjp
from scorefield.errors import UserError


class Smooth(nn.Module):
    """A small smooth backbone for any event shape."""

    def __init__(self, shape, outputs=None):
        super().__init__()
        self.event_shape = shape
        size = max(1, torch.Size(shape).numel())
        self.body = nn.Sequential(
            nn.Linear(size + 1, 16), nn.SiLU(), nn.Linear(16, outputs or size)
        )

    def forward(self, x, label):
        flat = x.reshape(x.shape[0], -1)
        out = self.body(torch.cat((flat, label.unsqueeze(1)), dim=1))
        return out.reshape(x.shape) if out.shape == flat.shape else out


@pytest.fixture(scope="module", params=[(), (5,), (2, 3, 2)], ids=str)
def points(request):
    generator = torch.Generator().manual_seed(0)
    shape = request.param
    x = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    v = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    return shape, x, t, v


@pytest.fixture(params=["network", "potential"])
def field(request, points):
    torch.manual_seed(1)
    shape = points[0]
    if request.param == "network":
        return PreconditionedField(Smooth(shape), EDM(), sigma_data=1.0).double()
    return PotentialField(Smooth(shape, outputs=1), EDM(), sigma_data=1.0).double()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("t", [0.5, torch.tensor(0.5), torch.tensor([0.5])], ids=str)
def test_one_time_is_that_of_every_point(field, points, t):
    """In blocks too."""
    x = points[1]
    each = torch.full((len(x),), 0.5)
    assert torch.equal(jacobian(field.score, x, t, 3), jacobian(field.score, x, each, 3))
    with pytest.raises(UserError, match="4 points need one time or as many"):
        jacobian(field.score, x, each[:2])


@pytest.mark.parametrize("grad", [True, False])
def test_products_agree_with_central_differences(field, points, grad):
    _, x, t, v = points
    h = 1e-6
    with torch.no_grad():
        difference = (field.score(x + h * v, t) - field.score(x - h * v, t)) / (2 * h)
    with torch.set_grad_enabled(grad):
        forward = jvp(field.score, x, t, v)
        both = jvp_vjp(field.score, x, t, v)
        backward = vjp(field.score, x, t, v)
    torch.testing.assert_close(forward.detach(), difference, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(both[0], forward, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both[1], backward, rtol=1e-12, atol=1e-12)
    assert forward.requires_grad == backward.requires_grad == both[0].requires_grad == grad


def test_jacobian_holds_both_products_whatever_the_chunk(field, points):
    _, x, t, v = points
    whole = jacobian(field.score, x, t)
    assert whole.shape == (4, x[0].numel(), x[0].numel())
    assert not whole.requires_grad
    torch.testing.assert_close(jacobian(field.score, x, t, rows=1), whole, rtol=1e-12, atol=1e-13)
    flat = v.reshape(4, -1, 1)
    with torch.no_grad():
        forward, backward = jvp_vjp(field.score, x, t, v)
    torch.testing.assert_close((whole @ flat).reshape(v.shape), forward, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close((whole.mT @ flat).reshape(v.shape), backward, rtol=1e-10, atol=1e-12)


def test_jacobian_of_one_point(field, points):
    _, x, t, _ = points
    alone = jacobian(field.score, x[:1], t[:1])
    torch.testing.assert_close(alone[0], jacobian(field.score, x, t)[0], rtol=1e-12, atol=1e-13)


def test_jacobian_evaluates_no_more_rows_at_once_than_it_may():
    seen = []

    def field(x, t):
        seen.append(len(x))
        return x**3

    x = torch.arange(35.0, dtype=torch.float64).reshape(5, 7)
    j = jacobian(field, x, torch.ones(5, dtype=torch.float64), rows=3)
    assert seen == [3, 2]
    torch.testing.assert_close(j, torch.diag_embed(3 * x**2), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="rows must be a positive integer"):
        jacobian(field, x, torch.ones(5), rows=0)


def test_jacobian_of_a_field_that_does_not_depend_on_the_point_is_zero():
    x, t = torch.randn(3, 2), torch.ones(3)
    weight = torch.ones(3, 2, requires_grad=True)
    for field in (lambda x, t: torch.ones_like(x), lambda x, t: weight.repeat(len(x) // 3, 1)):
        assert not jacobian(field, x, t).any()


def test_jacobian_of_the_mixture_is_the_analytic_one():
    truth = GaussianMixture.ring()
    for sigma in (0.05, 0.5, 5.0):
        x = truth.sample(16, seed=0, dtype=torch.float64, t=sigma)
        t = torch.full((16,), sigma, dtype=torch.float64)
        exact = truth.jacobian(x, t)
        torch.testing.assert_close(
            jacobian(truth.score, x, t), exact, rtol=1e-9, atol=1e-9 * float(exact.abs().max())
        )


def test_gradients_of_products_reach_every_parameter(field, points):
    _, x, t, v = points
    for product in (jvp, vjp):
        field.zero_grad()
        product(field.score, x, t, v).square().sum().backward()
        missing = [name for name, p in field.named_parameters() if p.grad is None]
        # a product with the Jacobian does not see the bias of a last, affine layer
        assert all(name.endswith("body.2.bias") for name in missing)


def test_attention_is_differentiable_twice_inside_the_context_only():
    """The reason for `differentiable`: the fused kernels have no second derivative."""

    def attend(x):
        return nn.functional.scaled_dot_product_attention(x, x, x)

    x = torch.randn(1, 1, 4, 8, dtype=torch.float64, requires_grad=True)
    with differentiable():
        (gradient,) = torch.autograd.grad(attend(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
    h, e = 1e-5, torch.zeros_like(x)
    e[0, 0, 1, 2] = 1.0

    def energy(y):
        y = y.detach().requires_grad_()
        with differentiable():
            return torch.autograd.grad(attend(y).sum(), y)[0].square().sum()

    expected = (energy(x + h * e) - energy(x - h * e)) / (2 * h)
    torch.testing.assert_close(second[0, 0, 1, 2], expected, rtol=1e-6, atol=1e-8)

"""What every field must obey: trained, potential, gated or in closed form."""

from typing import get_args

import pytest
import torch
from torch.autograd import forward_ad

import scorefield.fields
import scorefield.targets
from scorefield import EDM, VP, Energy, OneClass, ScoreField, convert, differentiable
from scorefield.fields.forms import Quantity
from tests.laws.cases import (
    CLOSED_FORMS,
    FIELDS,
    ONCE,
    SDES,
    SHAPES,
    TARGETS,
    closed_forms,
    field_makers,
    normal,
    public_classes,
    targets,
    times,
)

CASES = [(name, shape) for name in FIELDS for shape in SHAPES]
CASES += [(name, None) for name in (*TARGETS, *CLOSED_FORMS)]
NOTHING = 1e-20
"""On a torus that noise has filled, scores are differences of equals: nothing but rounding."""


def make(name, shape, sde, dtype=torch.float64):
    if shape is None:
        return {**targets(sde), **closed_forms(sde)}[name]
    return field_makers(shape, sde, dtype)[name]()


def points(field, n=6, dtype=torch.float64):
    t = times(field.sde, n)
    shape = field.domain.shape
    x = field.sde.perturb(normal((n, *shape), "data"), t, normal((n, *shape), "z"))
    return x.to(dtype), t.to(dtype)


@pytest.fixture(params=[EDM(0.01, 40.0), VP(t_min=1e-3)], ids=lambda s: type(s).__name__)
def sde(request):
    return request.param


@pytest.fixture(params=CASES, ids=lambda c: f"{c[0]} {c[1] if c[1] is not None else ''}".strip())
def case(request):
    return request.param


@pytest.fixture
def field(case, sde):
    return make(*case, sde)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_shape_and_dtype_of_the_points(case, sde, dtype):
    field = make(*case, sde, dtype)
    x, t = points(field, dtype=dtype)
    before = x.clone()
    for quantity in get_args(Quantity):
        value = field.predict(x, t, quantity)
        assert value.shape == x.shape
        assert value.dtype == dtype
        assert value.isfinite().all()
    assert torch.equal(x, before)
    if field.has_potential:
        assert field.potential(x, t).shape == (len(x),)
        assert field.potential(x, t).dtype == dtype


def test_every_form_is_the_score_converted(field):
    x, t = points(field)
    score = field.score(x, t).detach()
    for quantity in get_args(Quantity):
        expected = convert(score, x, t, field.sde, "score", quantity)
        scale = float(expected.abs().max()) + float(x.abs().max())
        torch.testing.assert_close(
            field.predict(x, t, quantity), expected, rtol=1e-8, atol=1e-9 * scale
        )


def test_a_point_has_the_same_value_in_any_batch(field):
    x, t = points(field, 9)
    together = field.score(x, t)
    for rows in ([4], [8, 2], [0, 1, 2, 3, 4]):
        alone = field.score(x[rows], t[rows])
        torch.testing.assert_close(alone, together[rows], rtol=1e-11, atol=1e-11)
    level = float(t[4])
    torch.testing.assert_close(field.score(x[4:5], level), together[4:5], rtol=1e-11, atol=1e-11)


def test_forward_and_reverse_mode_agree(field):
    """Jv by torch.func.jvp and by dual numbers, Jᵀw by reverse mode: ⟨w, Jv⟩ = ⟨Jᵀw, v⟩."""
    x, t = points(field)
    v, w = normal(tuple(x.shape), "v"), normal(tuple(x.shape), "w")
    with differentiable():
        _, jv = torch.func.jvp(lambda y: field.score(y, t), (x,), (v,))
    with differentiable(), forward_ad.dual_level():
        dual = forward_ad.unpack_dual(field.score(forward_ad.make_dual(x, v), t)).tangent
    torch.testing.assert_close(dual, jv, rtol=1e-10, atol=1e-10)
    y = x.clone().requires_grad_()
    (jtw,) = torch.autograd.grad(field.score(y, t), y, w)
    n = len(x)
    left, right = (w * jv).reshape(n, -1).sum(dim=1), (jtw * v).reshape(n, -1).sum(dim=1)
    scale = jv.reshape(n, -1).norm(dim=1) * w.reshape(n, -1).norm(dim=1)
    assert ((left - right).abs() <= 1e-10 * scale + NOTHING).all()


def test_double_backward_is_the_derivative_of_the_gradient(field, case):
    """The gradient of ½|s|² along v, and a difference quotient of its own."""
    x, t = points(field, 4)
    v, w = normal(tuple(x.shape), "v"), normal(tuple(x.shape), "w")

    def gradient(y, create_graph=False):
        return torch.autograd.grad(field.score(y, t), y, w, create_graph=create_graph)[0]

    y = x.clone().requires_grad_()
    first = gradient(y, create_graph=True)
    if case[0] in ONCE:
        with pytest.raises(RuntimeError, match="differentiate"):
            torch.autograd.grad(first, y, v)
        return
    if first.requires_grad:
        (second,) = torch.autograd.grad(first, y, v, materialize_grads=True)
    else:
        second = torch.zeros_like(x)
    h = 1e-5 * field.sde.sigma(t).reshape(-1, *(1,) * (x.dim() - 1))
    shifted = [gradient((x + sign * h * v).requires_grad_()) for sign in (1, -1)]
    n = len(x)
    along = ((shifted[0] - shifted[1]) / (2 * h) * v).reshape(n, -1).sum(dim=1)
    exact = (second * v).reshape(n, -1).sum(dim=1)
    scale = first.detach().reshape(n, -1).norm(dim=1) / field.sde.sigma(t)
    assert ((along - exact).abs() <= 1e-4 * (scale + exact.abs()) + NOTHING).all()


def test_gradients_reach_every_parameter(field):
    x, t = points(field)
    parameters = dict(field.named_parameters())
    if parameters:
        field.score(x, t).square().sum().backward()
    for name, p in parameters.items():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_the_score_is_the_gradient_of_the_potential_where_there_is_one(field):
    x, t = points(field)
    if not field.has_potential:
        with pytest.raises(TypeError):
            field.potential(x, t)
        return
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(field.potential(y, t).sum(), y)
    score = field.score(x, t)
    torch.testing.assert_close(
        score, gradient, rtol=1e-7, atol=1e-9 * float(score.detach().abs().max())
    )


def test_every_public_field_is_here():
    concrete = public_classes(scorefield.fields, ScoreField)
    concrete |= public_classes(scorefield.targets, ScoreField)
    sde = SDES["EDM"]
    fields = [make() for make in field_makers((2,), sde, torch.float64).values()]
    fields += [*targets(sde).values(), *closed_forms(sde).values()]
    inner = [f.field for f in fields if isinstance(f, OneClass)]
    made = {type(field) for field in (*fields, *inner)}
    # Energies are known of clean data only, and have tests of their own.
    assert {kind for kind in concrete if not issubclass(kind, Energy)} <= made

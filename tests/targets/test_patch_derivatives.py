"""Truths about the Jacobians of the scores of patches, and about what autograd makes of them."""

import pytest
import torch

from scorefield import jacobian, jvp, vjp
from scorefield.calculus.asymmetry import exact_asymmetry
from scorefield.calculus.derivatives import jvp_vjp
from tests.laws.cases import normal
from tests.planted import Watched
from tests.targets import definition
from tests.targets.test_patches import LEVELS, MACHINES, SDE, close, noisy

SHAPE = (2, 4, 5)
IMAGES = normal((4, *SHAPE), "images")


@pytest.fixture(params=MACHINES)
def kind(request):
    return request.param


@pytest.fixture
def field(kind):
    return MACHINES[kind](IMAGES, SDE, 3)


def flat(v):
    return v.flatten(1)


def test_the_jacobian_is_that_of_autograd(field):
    x, t = noisy(IMAGES, LEVELS)
    assert field.has_jacobian
    close(field.jacobian(x, t), jacobian(field.score, x, t), 1e-11)


def test_products_forth_and_back_are_those_with_the_jacobian(field):
    x, t = noisy(IMAGES, LEVELS)
    v = normal(tuple(x.shape), "v")
    exact = field.jacobian(x, t)
    forward = torch.einsum("bij,bj->bi", exact, flat(v))
    backward = torch.einsum("bji,bj->bi", exact, flat(v))
    close(flat(jvp(field.score, x, t, v)), forward, 1e-11)
    close(flat(vjp(field.score, x, t, v)), backward, 1e-11)
    both = jvp_vjp(field.score, x, t, v)
    close(flat(both[0]), forward, 1e-11)
    close(flat(both[1]), backward, 1e-11)


@pytest.mark.parametrize("name", ["denoise", "predict_noise", "velocity"])
def test_every_form_has_its_derivative(field, name):
    x, t = noisy(IMAGES, LEVELS)
    v, w = normal(tuple(x.shape), "v"), normal(tuple(x.shape), "w")
    forward, backward = (
        jvp_vjp(getattr(field, name), x, t, v)[0],
        vjp(getattr(field, name), x, t, w),
    )
    left, right = (flat(w * forward)).sum(dim=1), flat(backward * v).sum(dim=1)
    scale = flat(forward).norm(dim=1) * flat(w).norm(dim=1)
    # A denoiser that is the nearest image has a derivative of rounding alone.
    assert ((left - right).abs() <= 1e-11 * (scale + 1)).all()


@pytest.mark.parametrize("level", [0.2, 1.0, 5.0])
def test_it_is_the_derivative_of_the_definition(kind, level):
    """Central differences of the loops over pixels and candidates."""
    images, size = normal((2, 1, 3, 4), "images"), 3
    x, t = noisy(images, [level])
    sigma = float(SDE.sigma(t))
    h = 1e-4 * sigma
    steps = h * torch.eye(12, dtype=torch.float64).reshape(12, 1, 3, 4)
    alpha, sigmas, sizes = SDE.alpha(t).expand(12), SDE.sigma(t).expand(12), [size] * 12
    above, below = (
        definition.score(kind, images, x + sign * steps, alpha, sigmas, sizes) for sign in (1, -1)
    )
    expected = flat((above - below) / (2 * h)).T.unsqueeze(0)
    close(MACHINES[kind](images, SDE, size).jacobian(x, t), expected, 1e-6)


def test_it_vanishes_outside_the_window_of_a_pixel():
    """No pixel further than m in either direction matters; on the torus it may be that near."""
    images = normal((4, 1, 6, 7), "images")
    x, t = noisy(images, [2.0])
    rows = torch.arange(6).repeat_interleave(7)
    columns = torch.arange(7).repeat(6)
    for kind in ("local", "equivariant local"):
        near = ((rows[:, None] - rows).abs() <= 1) & ((columns[:, None] - columns).abs() <= 1)
        found = MACHINES[kind](images, SDE, 3).jacobian(x, t)[0]
        assert (found[~near] == 0).all()
        assert (found[near] != 0).all()


def test_a_score_of_whole_images_is_a_gradient_and_one_of_patches_is_not(kind):
    x, t = noisy(IMAGES, [1.0, 2.0])
    skew, whole = exact_asymmetry(MACHINES[kind](IMAGES, SDE, 3).jacobian(x, t))
    relative = 0.5 * (skew / whole).sqrt()
    if kind in ("ideal", "equivariant"):
        assert (relative < 1e-14).all()
    else:
        assert (relative > 1e-3).all()


def test_patches_of_one_pixel_make_a_gradient():
    """Each pixel has a law of its own, and a score that knows nothing of the others."""
    x, t = noisy(IMAGES, LEVELS)
    for kind in ("local", "equivariant local"):
        found = MACHINES[kind](IMAGES, SDE, 1).jacobian(x, t)
        torch.testing.assert_close(found, found.mT, rtol=1e-12, atol=1e-12)


def test_float32_is_near_to_float64(field):
    x, t = (v.float() for v in noisy(IMAGES, LEVELS))
    close(field.jacobian(x, t).double(), field.jacobian(x.double(), t.double()), 1e-4)


def test_other_fields_have_no_jacobian_of_their_own(field):
    x, t = noisy(IMAGES, LEVELS)
    assert not Watched(field).has_jacobian
    with pytest.raises(TypeError, match="Watched"):
        Watched(field).jacobian(x, t)

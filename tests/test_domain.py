"""Truths about flat space."""

import subprocess
import sys

import pytest
import torch
from torch.distributions import Normal

from scorefield.domain import Euclidean, Torus
from scorefield.noise import Noise


@pytest.fixture(params=[(), (5,), (3, 4, 4)], ids=str)
def shape(request):
    return request.param


def _points(shape, purpose, n=6):
    return Noise(0).normal(purpose, shape, torch.arange(n), dtype=torch.float64)


def test_dimension_counts_coordinates():
    assert [Euclidean(s).dim for s in ((), (5,), (3, 4, 4))] == [1, 5, 48]


def test_displacement_leads_from_start_to_end(shape):
    domain, a, b = Euclidean(shape), _points(shape, "a"), _points(shape, "b")
    torch.testing.assert_close(domain.wrap(a + domain.displacement(a, b)), b)
    assert torch.equal(domain.wrap(a), a)


def test_kernel_is_the_isotropic_normal_density(shape):
    domain, delta = Euclidean(shape), _points(shape, "a")
    for sigma in (torch.full((1,), 0.3), torch.linspace(0.1, 3, 6)):
        sigma = sigma.double()
        scale = sigma.reshape(-1, *(1,) * len(shape)).expand_as(delta)
        expected = Normal(0.0, scale).log_prob(delta).reshape(6, -1).sum(dim=1)
        torch.testing.assert_close(domain.kernel_log_prob(delta, sigma), expected)


def test_kernel_score_is_the_gradient_of_its_log_density(shape):
    domain, delta = Euclidean(shape), _points(shape, "a").requires_grad_()
    sigma = torch.linspace(0.1, 3, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(domain.kernel_log_prob(delta, sigma).sum(), delta)
    torch.testing.assert_close(domain.kernel_score(delta, sigma), gradient)


def test_domains_of_one_shape_are_equal_and_hashable():
    assert Euclidean((2, 3)) == Euclidean((2, 3))
    assert len({Euclidean((2,)), Euclidean((2,)), Euclidean((3,))}) == 2
    assert Torus((3, 2), (1.5, 1.5)) == Torus((3, 2), 1.5)
    assert Torus((3, 2), (1.5, 2.0)) != Torus((3, 2), 1.5)


@pytest.mark.parametrize("shape", [(0,), (2, -1)])
def test_lengths_are_positive(shape):
    with pytest.raises(ValueError, match="length of an event shape must be a positive integer"):
        Euclidean(shape)


@pytest.mark.slow
def test_shape_annotations_can_be_checked_at_run_time():
    code = """
import jaxtyping, torch
with jaxtyping.install_import_hook("scorefield", "beartype.beartype"):
    from scorefield.domain import Euclidean
try:
    Euclidean((2,)).kernel_log_prob(torch.zeros(3, 2), torch.ones(2))
except jaxtyping.TypeCheckError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)], ids=str)
def test_the_noise_of_the_kernel_is_its_score_times_minus_sigma(shape):
    domain = Euclidean(shape)
    z = torch.randn(5, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0, 30.0], dtype=torch.float64)
    wide = sigma.reshape(-1, *(1,) * len(shape))
    torch.testing.assert_close(
        domain.kernel_noise(z, sigma), -wide * domain.kernel_score(wide * z, sigma)
    )

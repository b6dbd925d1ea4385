"""Sums over all assignments against the sums themselves."""

from itertools import permutations

import pytest
import torch

from scorefield.noise import Noise
from scorefield.targets.permanent import assignment, log_permanent


def weights(n, batch=4, scale=3.0):
    return scale * Noise(n).normal("weights", (n, n), torch.arange(batch), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_permanent_and_probabilities_are_sums_over_permutations(n):
    a = weights(n)
    terms, places = [], []
    for order in permutations(range(n)):
        terms.append(a[:, range(n), list(order)].sum(dim=1))
        places.append(torch.eye(n, dtype=torch.float64)[list(order)])
    terms = torch.stack(terms, dim=1)
    torch.testing.assert_close(log_permanent(a), terms.logsumexp(dim=1))
    expected = torch.einsum("bp,pij->bij", terms.softmax(dim=1), torch.stack(places))
    torch.testing.assert_close(assignment(a), expected)


def test_probabilities_are_the_gradient_and_doubly_stochastic_for_many():
    a = weights(11, batch=3).requires_grad_()
    (gradient,) = torch.autograd.grad(log_permanent(a).sum(), a)
    p = assignment(a.detach())
    torch.testing.assert_close(p, gradient)
    for axis in (1, 2):
        torch.testing.assert_close(p.sum(dim=axis), torch.ones(3, 11, dtype=torch.float64))


def test_weights_of_any_size_neither_overflow_nor_vanish():
    a = weights(3, scale=1e5)
    p = assignment(a)
    assert p.isfinite().all()
    torch.testing.assert_close(p.sum(dim=2), torch.ones(4, 3, dtype=torch.float64))


def test_too_many_are_refused():
    with pytest.raises(ValueError, match="16 is the most"):
        log_permanent(torch.zeros(1, 17, 17))


def test_a_table_that_was_made_in_inference_mode_serves_gradients():
    log_weight = torch.linspace(-2, 1, 49, dtype=torch.float64).reshape(1, 7, 7)
    with torch.inference_mode():
        probabilities = assignment(log_weight)
    log_weight.requires_grad_()
    (gradient,) = torch.autograd.grad(log_permanent(log_weight).sum(), log_weight)
    torch.testing.assert_close(gradient, probabilities.clone())

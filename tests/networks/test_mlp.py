import pytest
import torch

from scorefield import MLP


def test_a_potential_has_no_parameter_without_gradient():
    network = MLP(3, hidden=8, depth=2, embedding=4, outputs=1).double()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    label = torch.linspace(-1, 1, 5, dtype=torch.float64)
    assert network(x, label).shape == (5, 1)
    (score,) = torch.autograd.grad(network(x, label).sum(), x, create_graph=True)
    score.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().amax() > 0, name


def test_seeds_differ():
    a, b = (MLP(2, hidden=8, seed=s).last.weight for s in (0, 1))
    assert not torch.equal(a, b)


def test_outputs_have_unit_scale_at_initialisation():
    network = MLP(2, hidden=512, depth=1, embedding=64)
    hidden = network.level(torch.linspace(-1, 1, 64))
    assert 0.2 < float(hidden.detach().std()) < 2


@pytest.mark.parametrize("name", ["dim", "hidden", "depth", "outputs"])
def test_the_perceptron_names_the_size_that_it_refuses(name):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, got 0"):
        MLP(**{"dim": 2, name: 0})


def test_needs_an_even_embedding():
    with pytest.raises(ValueError, match="even number"):
        MLP(2, embedding=5)

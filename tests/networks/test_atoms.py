"""What the networks of several atoms on a torus keep."""

from itertools import permutations

import pytest
import torch

from scorefield import EquivariantMLP, SymmetrizedMLP
from scorefield.networks.atoms import PeriodicFeatures

PERIODS = (1.0, 2.5)
NETWORKS = {
    "symmetrized": lambda **k: SymmetrizedMLP((3, 2), PERIODS, **{"hidden": 12, **k}),
    "equivariant": lambda **k: EquivariantMLP((3, 2), PERIODS, **{"hidden": 12, **k}),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param](harmonics=2).double()


def inputs(batch=4, atoms=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, atoms, 2, generator=generator, dtype=torch.float64)
    return x * torch.tensor(PERIODS), torch.linspace(-1, 0, batch, dtype=torch.float64)


def test_atoms_in_another_order_have_their_outputs_in_that_order(network):
    x, label = inputs()
    y = network(x, label)
    for order in map(list, permutations(range(3))):
        torch.testing.assert_close(network(x[:, order], label), y[:, order], rtol=0, atol=1e-13)


def test_periodic_in_every_coordinate(network):
    x, label = inputs()
    y = network(x, label)
    for atom in range(3):
        for axis, period in enumerate(PERIODS):
            moved = x.clone()
            moved[:, atom, axis] += 2 * period
            torch.testing.assert_close(network(moved, label), y, rtol=0, atol=1e-12)
            # Not of a shorter period.
            moved[:, atom, axis] += period / 2
            assert (network(moved, label) - y).abs().amax() > 1e-3


def test_an_output_depends_on_every_atom(network):
    x, label = inputs(batch=1)
    jacobian = torch.autograd.functional.jacobian(lambda u: network(u, label), x)
    assert (jacobian[0, :, :, 0].abs().amax(dim=(1, 3)) > 1e-4).all()


def test_moving_all_atoms_together_is_seen(network):
    x, label = inputs()
    assert (network(x + 0.3, label) - network(x, label)).abs().amax() > 1e-3


def test_precision_is_that_of_the_weights_whatever_they_were_before():
    """A network trained in single precision and made double is periodic in double precision."""
    network = SymmetrizedMLP((2, 1), 0.7, hidden=8).float().double()
    x = torch.rand(3, 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(network(x + 0.7, label), network(x, label), rtol=0, atol=1e-13)


@pytest.mark.parametrize("atoms", [1, 2, 4])
def test_the_mean_over_permutations_is_the_mean_over_permutations(atoms):
    network = SymmetrizedMLP((atoms, 2), PERIODS, hidden=8, depth=2, embedding=4).double()
    x, label = inputs(atoms=atoms)

    def plain(u):
        features = network.features(u).flatten(1)
        h = torch.nn.functional.silu(network.layers[0](features) + network.level(label))
        h = torch.nn.functional.silu(network.layers[1](h))
        return network.last(h).reshape(u.shape)

    terms = []
    for order in map(list, permutations(range(atoms))):
        # (P x)_i is x_order[i]; P^-1 puts it back.
        back = torch.empty_like(x)
        back[:, order] = plain(x[:, order])
        terms.append(back)
    torch.testing.assert_close(network(x, label), sum(terms) / len(terms), rtol=0, atol=1e-14)


def test_features_are_cosines_and_sines_of_each_period():
    features = PeriodicFeatures(2, PERIODS, harmonics=2)
    x = torch.tensor([[0.25, 1.25]], dtype=torch.float64)
    # A quarter of the first period, half of the second.
    cosines, sines = [0.0, -1.0, -1.0, 1.0], [1.0, 0.0, 0.0, 0.0]
    expected = torch.tensor([cosines + sines], dtype=torch.float64)
    torch.testing.assert_close(features(x), expected, rtol=0, atol=1e-15)
    assert features.number == 8
    assert not list(features.state_dict())


@pytest.mark.parametrize(
    ("kind", "weights"), [(SymmetrizedMLP, 2 * 2 * 2), (EquivariantMLP, 2 * 3 * 2)]
)
def test_the_number_of_parameters(kind, weights):
    """Of two atoms on a line with two harmonics; ``weights`` are those of a first unit."""
    network = kind((2, 1), hidden=16, depth=3, harmonics=2, embedding=8)
    inner = 16 if kind is SymmetrizedMLP else 32
    level = (8 * 16 + 16) + (16 * 16 + 16)
    outputs = 2 if kind is SymmetrizedMLP else 1
    wanted = level + (weights * 16 + 16) + 2 * (inner * 16 + 16) + 16 * outputs
    assert sum(p.numel() for p in network.parameters()) == wanted


def test_weights_serve_any_number_of_atoms():
    one, other = (EquivariantMLP((n, 2), hidden=8, depth=2, embedding=4) for n in (2, 9))
    other.load_state_dict(one.state_dict())
    x = torch.rand(2, 9, 2, generator=torch.Generator().manual_seed(0))
    assert other(x, torch.zeros(2)).shape == x.shape


def test_a_seed_decides_the_weights(network, request):
    make = NETWORKS[request.node.callspec.params["network"]]
    x, label = inputs()
    a, b, c = (make(seed=s).double()(x, label) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("kind", [SymmetrizedMLP, EquivariantMLP])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"shape": (0, 1)}, "atoms must be a positive integer, got 0"),
        ({"shape": (2, 0)}, "dims must be a positive integer, got 0"),
        ({"hidden": 0}, "hidden must be a positive integer, got 0"),
        ({"depth": 0}, "depth must be a positive integer, got 0"),
        ({"harmonics": 0}, "harmonics must be a positive integer, got 0"),
        ({"period": 0.0}, "a period is positive and finite, got 0.0"),
        ({"period": (1.0, 2.0)}, "1 coordinates need one period or 1, got 2"),
        ({"embedding": 5}, "even number"),
    ],
)
def test_says_which_argument_is_wrong(kind, arguments, told):
    with pytest.raises(ValueError, match=told):
        kind(**{"shape": (2, 1), **arguments})


def test_refuses_more_permutations_than_can_be_averaged():
    with pytest.raises(ValueError, match="at most 6 atoms, got 7: take an EquivariantMLP"):
        SymmetrizedMLP((7, 1))
    assert SymmetrizedMLP((6, 1), hidden=2, embedding=4)(torch.rand(1, 6, 1), torch.zeros(1)).shape
    assert EquivariantMLP((7, 1), hidden=2)(torch.rand(1, 7, 1), torch.zeros(1)).shape == (1, 7, 1)


def test_second_derivatives_in_forward_and_in_reverse_mode_agree(network):
    x, label = inputs(batch=1)

    def at(u):
        return network(u, label)

    forward = torch.func.jacfwd(torch.func.jacfwd(at))(x)
    reverse = torch.func.jacrev(torch.func.jacrev(at))(x)
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-12)
    assert forward.abs().amax() > 1e-3

"""Truths about fields whose points have classes."""

import copy

import pytest
import torch

from scorefield.calculus import jacobian, vjp
from scorefield.fields import EDMScaling, PotentialField, PreconditionedField
from scorefield.networks import MLP, MinimalResNet, MinimalUNet, UNet
from scorefield.samplers import Heun
from scorefield.sde import EDM
from scorefield.targets import Gaussian
from tests.laws.cases import KnownWave, Wave, normal

SDE = EDM(0.01, 20.0)
CLASSES = torch.tensor([2, 0, 1, 0, 3])
T = torch.tensor([0.1, 0.5, 1.0, 2.0, 7.0], dtype=torch.float64)


def make(kind=PreconditionedField, shape=(3,)):
    return kind(KnownWave(shape), SDE, sigma_data=0.7)


@pytest.fixture(params=[PreconditionedField, PotentialField])
def field(request):
    return make(request.param)


X = normal((5, 3), "x")


def test_each_point_has_the_field_of_its_own_class(field):
    together = field.given(CLASSES).score(X, T)
    for k, c in enumerate(CLASSES.tolist()):
        alone = field.given(c).score(X[k : k + 1], T[k : k + 1])
        torch.testing.assert_close(alone, together[k : k + 1], rtol=1e-11, atol=1e-11)
    assert not torch.allclose(field.given(0).score(X, T), field.given(1).score(X, T))


def test_the_last_index_stands_for_no_class(field):
    assert torch.equal(field.given(3).score(X, T), field.score(X, T))


def test_the_network_is_told_the_classes_as_they_are():
    network = MLP(3, hidden=8, depth=1, embedding=4, classes=4).double()
    field = PreconditionedField(network, SDE, parametrization=EDMScaling(0.7)).given(CLASSES)
    c = EDMScaling(0.7).coefficients(T[:, None], SDE)
    output = network(c.c_in * X, c.c_noise[:, 0], CLASSES)
    torch.testing.assert_close(field.score(X, T), c.p * X + c.q * output)


def test_the_weights_are_shared_and_not_listed_twice(field):
    view = field.given(CLASSES)
    assert isinstance(view, type(field))
    assert {id(p) for p in view.parameters()} == {id(p) for p in field.parameters()}
    assert field.state_dict().keys() == make().state_dict().keys()
    assert len(view.state_dict()) == len(field.state_dict())
    with torch.no_grad():
        field.backbone.outward.mul_(2)
    assert torch.equal(field.given(CLASSES).score(X, T), view.score(X, T))
    assert torch.equal(copy.deepcopy(view).score(X, T), view.score(X, T))


def test_given_again_it_is_of_the_new_classes(field):
    assert torch.equal(field.given(0).given(CLASSES).score(X, T), field.given(CLASSES).score(X, T))
    assert field.given(0).classes == 3


def test_copies_of_a_batch_have_its_classes(field):
    view = field.given(CLASSES)
    torch.testing.assert_close(
        view.score(X.repeat(3, 1), T.repeat(3)), view.score(X, T).repeat(3, 1)
    )


@pytest.mark.parametrize("n", [1, 4, 6])
def test_other_points_than_those_of_the_batch_are_an_error(field, n):
    with pytest.raises(ValueError, match=f"classes of 5 points do not fit {n} points"):
        field.given(CLASSES).score(normal((n, 3), "x"), 1.0)


def test_a_part_of_a_batch_has_the_classes_of_its_points(field):
    rows = torch.tensor([4, 1])
    part = field.given(CLASSES).for_rows(rows)
    torch.testing.assert_close(part.score(X[rows], T[rows]), field.given(CLASSES).score(X, T)[rows])
    assert torch.equal(
        field.given(1).for_rows(rows).score(X[rows], T[rows]),
        field.given(1).score(X[rows], T[rows]),
    )
    assert field.for_rows(rows) is field


@pytest.mark.parametrize("rows", [None, 7])
def test_jacobians_of_points_with_classes_of_their_own(field, rows):
    found = jacobian(field.given(CLASSES).score, X, T, rows)
    for k, c in enumerate(CLASSES.tolist()):
        expected = jacobian(field.given(c).score, X[k : k + 1], T[k : k + 1])
        torch.testing.assert_close(found[k : k + 1], expected)


def test_transforms_of_torch_func(field):
    view, v = field.given(CLASSES), normal((5, 3), "v")
    _, product = torch.func.vjp(lambda x: view.score(x, T), X)
    torch.testing.assert_close(product(v)[0], vjp(view.score, X, T, v))
    _, forward = torch.func.jvp(lambda x: view.score(x, T), (X,), (v,))
    exact = torch.einsum("bij,bj->bi", jacobian(view.score, X, T), v)
    torch.testing.assert_close(forward, exact)


def test_samples_of_each_class_whatever_the_block(field):
    classes = torch.tensor([0, 1, 2, 2, 1, 0, 3])
    together = Heun(4).sample(field, 7, classes=classes, dtype=torch.float64)
    parted = Heun(4).sample(field, 7, classes=classes, batch_size=3, dtype=torch.float64)
    torch.testing.assert_close(together, parted)
    for c in range(4):
        index = (classes == c).nonzero().flatten()
        alone = Heun(4).sample(field, index=index, classes=c, dtype=torch.float64)
        torch.testing.assert_close(alone, together[index])


def test_log_densities_of_points_with_classes_of_their_own():
    field = make(shape=(2,))
    x = 0.5 * normal((5, 2), "points")
    together = field.given(CLASSES).log_prob(x).value
    for k, c in enumerate(CLASSES.tolist()):
        alone = field.given(c).log_prob(x[k : k + 1]).value
        torch.testing.assert_close(alone, together[k : k + 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "network",
    [
        lambda classes: MLP(3, hidden=8, depth=2, embedding=4, classes=classes),
        lambda classes: UNet((1, 4, 4), channels=8, classes=classes),
        lambda classes: MinimalUNet((1, 4, 4), (4, 8), embedding=16, classes=classes),
        lambda classes: MinimalResNet((1, 4, 4), 16, 1, classes=classes),
    ],
)
def test_networks_with_and_without_classes_begin_with_the_same_weights(network):
    plain, known = network(None), network(5)
    mine, theirs = plain.state_dict(), known.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    (added,) = theirs.keys() - mine.keys()
    assert theirs[added].shape[0] == 6
    assert (plain.classes, known.classes) == (None, 5)
    x, label = torch.randn(4, *plain.event_shape), torch.zeros(4)
    classes = torch.tensor([0, 1, 4, 5])
    assert torch.equal(known(x, label), known(x, label, torch.full((4,), 5)))
    rows = [known(x[k : k + 1], label[:1], classes[k : k + 1]) for k in range(4)]
    torch.testing.assert_close(known(x, label, classes), torch.cat(rows), rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="given to a network that knows none"):
        plain(x, label, classes)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (-1, r"classes must lie in 0 … 3, got -1"),
        (4, r"classes must lie in 0 … 3, got 4"),
        (10**30, r"classes must lie in 0 … 3, got 10{30}"),
        (torch.tensor([0, 4]), r"classes must lie in 0 … 3, got 4"),
        (
            torch.tensor([0.0, 1.0]),
            r"classes must be an integer.* got torch.float32 of shape \(2,\)",
        ),
        (torch.tensor([[0, 1]]), r"classes must be an integer.* of shape \(1, 2\)"),
        (torch.tensor([], dtype=torch.int64), r"at least one, got torch.int64 of shape \(0,\)"),
        (True, "classes must be an integer"),
        (1.0, "classes must be an integer"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_class_is_an_error(classes, message):
    with pytest.raises(ValueError, match=message):
        make().given(classes)


def test_fields_without_classes_say_so():
    for network in (Wave((3,)), MLP(3, hidden=4, embedding=4), MinimalUNet((1, 4, 4), (4, 8))):
        field = PreconditionedField(network, SDE, sigma_data=1.0)
        assert field.classes is None
        with pytest.raises(TypeError, match=f"{type(network).__name__} knows no classes"):
            field.given(0)
    with pytest.raises(TypeError, match="Gaussian has no classes"):
        Gaussian(0.0, std=1.0).given(0)


def test_a_network_has_at_least_one_class():
    with pytest.raises(ValueError, match="classes >= 1, got 0"):
        MLP(2, classes=0)

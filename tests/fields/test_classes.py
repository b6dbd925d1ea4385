"""Truths about fields whose points have classes."""

import copy

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    EDMScaling,
    Gaussian,
    Heun,
    HybridField,
    MinimalResNet,
    MinimalUNet,
    OneClass,
    PlantedField,
    PotentialField,
    PreconditionedField,
    UNet,
    differentiable,
    jacobian,
    log_prob,
    vjp,
)
from scorefield.fields.planted import Radial
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
    together = field.score(X, T, CLASSES)
    for k, c in enumerate(CLASSES.tolist()):
        alone = field.score(X[k : k + 1], T[k : k + 1], c)
        torch.testing.assert_close(alone, together[k : k + 1], rtol=1e-11, atol=1e-11)
    assert not torch.allclose(field.score(X, T, 0), field.score(X, T, 1))


def test_the_last_index_stands_for_no_class(field):
    assert torch.equal(field.score(X, T, 3), field.score(X, T))


def test_the_network_is_told_the_classes_as_they_are():
    network = MLP(3, hidden=8, depth=1, embedding=4, classes=4).double()
    field = PreconditionedField(network, SDE, parametrization=EDMScaling(0.7))
    c = EDMScaling(0.7).coefficients(T[:, None], SDE)
    output = network(c.c_in * X, c.c_noise[:, 0], CLASSES)
    a, b = c.means.noise
    torch.testing.assert_close(field.predict_noise(X, T, CLASSES), a * X + b * output)


def test_the_field_of_one_class_shares_the_weights_and_knows_no_other(field, unchecked):
    one = OneClass(field, 2)
    assert {id(p) for p in one.parameters()} == {id(p) for p in field.parameters()}
    assert torch.equal(one.score(X, T), field.score(X, T, 2))
    assert torch.equal(copy.deepcopy(one).score(X, T), one.score(X, T))
    assert one.classes is None
    with pytest.raises(ValueError, match="OneClass has no classes, and was given 1"):
        one.score(X, T, 1)
    with pytest.raises(ValueError, match=r"classes must lie in 0 … 3, got 4"):
        OneClass(field, 4)


@pytest.mark.parametrize("n", [1, 4, 6, 10])
def test_there_are_as_many_classes_as_points(field, n, unchecked):
    with pytest.raises(ValueError, match=f"{n} points need as many classes, got torch.int64"):
        field.score(normal((n, 3), "x"), 1.0, CLASSES)


def test_a_network_that_was_never_trained_without_classes_needs_them():
    network = MinimalResNet((1, 4, 4), 16, 1, classes=5, unlabelled=False)
    field = PreconditionedField(network, SDE, sigma_data=0.7)
    x = torch.zeros(2, 1, 4, 4)
    assert not field.unlabelled
    assert not PlantedField(field, Radial(1.0), dose=0.1).unlabelled
    with pytest.raises(ValueError, match="trained on points of known classes only, and needs"):
        field.score(x, 1.0)
    with pytest.raises(ValueError, match=r"classes must lie in 0 … 4, got 5"):
        field.score(x, 1.0, 5)
    assert OneClass(field, 4).score(x, 1.0).shape == x.shape


@pytest.mark.parametrize("rows", [None, 7])
def test_jacobians_of_points_with_classes_of_their_own(field, rows):
    found = jacobian(field.score, X, T, rows, CLASSES)
    for k, c in enumerate(CLASSES.tolist()):
        expected = jacobian(OneClass(field, c).score, X[k : k + 1], T[k : k + 1])
        torch.testing.assert_close(found[k : k + 1], expected)


def test_transforms_of_torch_func(field):
    v = normal((5, 3), "v")
    with differentiable():
        _, product = torch.func.vjp(lambda x: field.score(x, T, CLASSES), X)
        _, forward = torch.func.jvp(lambda x: field.score(x, T, CLASSES), (X,), (v,))
    torch.testing.assert_close(product(v)[0], vjp(field.score, X, T, v, CLASSES))
    exact = torch.einsum("bij,bj->bi", jacobian(field.score, X, T, None, CLASSES), v)
    torch.testing.assert_close(forward, exact)


def test_hybrid_and_planted_fields_pass_the_classes_on(field):
    planted = PlantedField(field, Radial(1.0), dose=0.1)
    hybrid = HybridField(field, make(PreconditionedField), sigma_c=1.5)
    for whole in (planted, hybrid):
        assert whole.classes == 3
        found = whole.score(X, T, CLASSES)
        for k, c in enumerate(CLASSES.tolist()):
            alone = whole.score(X[k : k + 1], T[k : k + 1], c)
            torch.testing.assert_close(alone, found[k : k + 1], rtol=1e-11, atol=1e-11)
    with pytest.raises(ValueError, match="know the same classes, not 3 and none"):
        HybridField(field, PreconditionedField(Wave((3,)), SDE, sigma_data=0.7), sigma_c=1.5)


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
    together = log_prob(field, x, classes=CLASSES).value
    for k, c in enumerate(CLASSES.tolist()):
        alone = log_prob(field, x[k : k + 1], classes=c).value
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
        (torch.tensor([0.0, 1.0]), r"classes must be integers, got torch.float32 of shape \(2,\)"),
        (torch.tensor([[0, 1]]), r"2 points need as many classes, got torch.int64 of .* \(1, 2\)"),
        (torch.tensor([], dtype=torch.int64), r"2 points need as many classes, got .* \(0,\)"),
        (True, "classes must be integers, got True"),
        (1.0, "classes must be integers, got 1.0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_class_is_an_error(classes, message):
    with pytest.raises(ValueError, match=message):
        make().score(X[:2], T[:2], classes)


def test_fields_without_classes_say_so():
    for network in (Wave((3,)), MLP(3, hidden=4, embedding=4), MinimalUNet((1, 4, 4), (4, 8))):
        field = PreconditionedField(network, SDE, sigma_data=1.0)
        assert field.classes is None
        x = torch.zeros(2, *field.domain.shape, dtype=torch.float64)
        with pytest.raises(ValueError, match="PreconditionedField has no classes"):
            field.score(x, 1.0, 0)
    with pytest.raises(ValueError, match="Gaussian has no classes, and was given 0"):
        Gaussian([0.0], std=1.0).potential(X[:, :1], T, 0)
    with pytest.raises(ValueError, match=r"Gaussian has no classes, and was given torch\.int64"):
        Heun(4).sample(Gaussian([0.0], std=1.0), 3, classes=torch.tensor([0, 1, 1]))


def test_a_network_has_at_least_one_class():
    with pytest.raises(ValueError, match="classes must be a positive integer, got 0"):
        MLP(2, classes=0)


@pytest.mark.parametrize("classes", [X.numpy(), X.tolist(), X, (1, 2), {"a": 1}])
def test_what_are_no_classes_is_named_by_its_kind(field, classes, unchecked):
    with pytest.raises(ValueError, match=r"classes must be integers, got [^\n]{1,60}$"):
        field.score(X, T, classes)

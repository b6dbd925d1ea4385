import math

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VP,
    Empirical,
    Gaussian,
    GaussianMixture,
    PotentialField,
    PreconditionedField,
    Protocol,
    hodge_split,
)
from scorefield.diagnostics import hodge
from tests.planted import Affine, Function, Planted, Plus, skew

SIGMAS = (0.05, 0.5, 5.0)
RING = GaussianMixture.ring()


def swirl(base, k):
    r"""A field that is orthogonal to every gradient under N(0, v) in the plane, and not affine.

    With h = cos(k x_1) it is the rotated gradient of h times the density, over the density:
    (-d_2, d_1) h + h (-d_2, d_1) log p = (h x_2 / v, h' - h x_1 / v).
    """

    def score(x, t):
        v = (1 + base.sde.sigma(t) ** 2).reshape(-1)
        h, slope = (k * x[:, 0]).cos(), -k * (k * x[:, 0]).sin()
        return torch.stack((h * x[:, 1] / v, slope - h * x[:, 0] / v), dim=1)

    return Function(score)


def energy_of_the_swirl(k, v):
    """E|.|^2 = E[h^2 x_2^2 / v^2 + (h' - h x_1 / v)^2] in closed form."""
    decay = math.exp(-2 * k**2 * v)
    square = (1 + decay) / 2
    weighted = v / 2 * (1 + decay * (1 - 4 * k**2 * v))
    # By parts, E[h h' x_1] = v E[h'^2 + h h''] = -v k^2 E[cos(2 k x_1)].
    slopes = k**2 * (1 - decay) / 2
    return square / v + slopes + weighted / v**2 + 2 * k**2 * decay


def test_the_swirl_is_orthogonal_to_gradients_and_has_its_energy():
    """What the tests below rest on, by quadrature over a million points."""
    base = Gaussian(torch.zeros(2), 1.0)
    field, energy = swirl(base, 0.8), energy_of_the_swirl(0.8, 1.25)
    x = base.sample(1_000_000, seed=0, dtype=torch.float64, t=0.5)
    value = field.score(x, torch.full((len(x),), 0.5, dtype=torch.float64))
    square = value.square().sum(dim=1)
    assert abs(float(square.mean()) - energy) < 6 * float(square.std()) / 1e3
    for gradient in (x, torch.stack((x[:, 1], x[:, 0]), dim=1), x**3, (0.7 * x).sin()):
        product = (value * gradient).sum(dim=1)
        assert abs(float(product.mean())) < 6 * float(product.std()) / 1e3


@pytest.mark.parametrize(
    "truth",
    [RING, Gaussian(torch.arange(3.0), [0.5, 1.0, 2.0]), Empirical(RING.sample(50, 0))],
    ids=["mixture", "gaussian", "data"],
)
def test_the_truth_is_a_gradient(truth):
    gradient, rest = hodge_split(truth, truth, Protocol(SIGMAS, n=64), features=32)
    for (_, g), (_, r) in zip(gradient, rest, strict=True):
        assert 0 <= r.value < 1e-20
        assert g.value == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("dim", [2, 64, 784])
@pytest.mark.parametrize("sde", [EDM(), VP()], ids=["edm", "vp"])
def test_a_potential_is_a_gradient_in_any_dimension(dim, sde):
    network = MLP(dim, hidden=16, depth=2, outputs=1)
    field = PotentialField(network, sde, sigma_data=1.0).double()
    data = Gaussian(torch.linspace(-1, 1, dim), 1.0)
    for _, e in hodge_split(field, data, Protocol((0.1, 2.0), n=16), features=16).rest:
        assert e.value < 1e-20


def rotation_share(dim, eps, sigma):
    """The share of eps R x in the score of N(0, 1) plus eps R x, as the noise sees it."""
    v = 1 + sigma**2
    turning = eps**2 * v * float(skew(dim).square().sum())
    return turning / (dim / v + turning)


@pytest.mark.slow
def test_a_planted_rotation_lies_in_its_interval():
    """At least 82 of 100 intervals of 95%, but for a chance of 1e-6 over the seeds."""
    base = Gaussian(torch.zeros(2), 1.0)
    field = Planted(base, skew(2), 0.2)
    expected, inside = rotation_share(2, 0.2, 0.5), 0
    for seed in range(100):
        protocol = Protocol((0.5,), n=80, seed=seed)
        low, high = hodge_split(field, base, protocol, features=16).rest.estimates[0].interval()
        inside += low <= expected <= high
    assert inside >= 82


@pytest.mark.parametrize("dim", [64, 784])
def test_a_planted_rotation_in_many_dimensions(dim):
    base = Gaussian(torch.zeros(dim), 1.0)
    field = Planted(base, skew(dim) / dim**0.5, 0.05)
    expected = rotation_share(dim, 0.05 / dim**0.5, 0.5)
    gradient, rest = hodge_split(field, base, Protocol((0.5,), n=64), features=32)
    (e,), (g,) = rest.estimates, gradient.estimates
    assert abs(e.value - expected) < 6 * e.standard_error
    assert e.standard_error < 0.03 * e.value
    assert g.value == 1 - e.value
    assert g.standard_error == e.standard_error


def affine_share(matrix, variances):
    r"""The share of M x under N(0, diag v) that is orthogonal to all S x with S symmetric.

    At the nearest S the moment of what is left, (M - S) diag v, has no symmetric part.
    """
    moment = matrix * variances
    s = (moment + moment.T) / (variances + variances.unsqueeze(1))
    return float(((matrix - s).square() * variances).sum() / (matrix * moment).sum())


def uneven(dim):
    """A rotation planted in the score of an uneven normal law, where the points come from, and
    the share of it that is no gradient.
    """
    deviations = torch.linspace(0.2, 3.0, dim, dtype=torch.float64)
    base = Gaussian(torch.zeros(dim, dtype=torch.float64), deviations)
    eps, variances = 0.3 / dim**0.5, deviations**2 + 0.25
    matrix = eps * skew(dim) - torch.diag(1 / variances)
    return Planted(base, skew(dim), eps), base, affine_share(matrix, variances)


@pytest.mark.parametrize(("dim", "n"), [(6, 512), (20, 768)])
def test_the_rest_is_tight_for_affine_fields_under_an_uneven_normal_law(dim, n):
    field, base, expected = uneven(dim)
    (e,) = hodge_split(field, base, Protocol((0.5,), n=n), features=16).rest.estimates
    assert abs(e.value - expected) < 5 * e.standard_error
    assert e.standard_error < 0.04 * expected


def test_fewer_points_than_dimensions_leave_a_bound():
    field, base, expected = uneven(20)
    (e,) = hodge_split(field, base, Protocol((0.5,), n=16), features=16).rest.estimates
    assert expected < e.interval(1 - 1e-6)[1] < 2


def test_a_pure_rotation_is_all_rest():
    for _, e in hodge_split(Affine(skew(2)), Gaussian(torch.zeros(2), 1.0), Protocol(SIGMAS)).rest:
        low, high = e.interval(1 - 1e-6)
        assert low <= 1 <= high
        assert e.value > 0.9


@pytest.mark.parametrize("k", [0.3, 0.8])
def test_the_rest_is_a_bound_that_waves_make_tight(k):
    """Of a field whose own potential is a poor one, more waves find nearly all that is a gradient.

    The fit can only add: the rest is not below the truth, and with 128 waves at most 15% above.
    """
    base = Gaussian(torch.zeros(2), 1.0)
    field = Plus(base, swirl(base, k))
    energy = energy_of_the_swirl(k, 1.25)
    expected = energy / (2 / 1.25 + energy)
    few, many = (
        hodge_split(field, base, Protocol((0.5,), n=1024), features=f).rest.estimates[0]
        for f in (2, 128)
    )
    assert expected - 5 * many.standard_error < many.value < 1.15 * expected
    assert many.value < few.value + 5 * many.standard_error
    assert many.numerical_error < few.numerical_error + 0.1 * expected


def test_a_gradient_that_is_added_changes_what_is_left_by_nothing():
    """The energy of the rest, not its share, is the same with and without the mixture's score."""
    base = Gaussian(torch.zeros(2), 1.0)
    alone = swirl(base, 0.5)
    other = GaussianMixture(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), stds=[0.5, 1.0])
    protocol, energies = Protocol((0.5,), n=512), []
    for field in (alone, Plus(base, alone), Plus(other, alone)):
        (points,) = protocol.points(base, field)
        square = field.predict_noise(points.noisy, points.t).square().sum(dim=1).mean()
        rest = hodge_split(field, base, protocol, features=64).rest
        energies.append(rest.estimates[0].value * float(square))
    assert energies[1:] == pytest.approx([energies[0]] * 2, rel=0.05)


def test_an_unconstrained_network_is_mostly_a_gradient_but_not_quite():
    field = PreconditionedField(MLP(2, hidden=32), EDM(), sigma_data=2.85).double()
    for _, e in hodge_split(field, RING, Protocol((0.5,), n=128), features=32).rest:
        low, high = e.interval()
        assert 0 < low < high < 0.5


def test_a_batch_of_points_at_a_time_gives_the_same(monkeypatch):
    base = Gaussian(torch.zeros(2), 1.0)
    field, protocol = Plus(base, swirl(base, 0.5)), Protocol((0.5,), n=24)
    (expected,) = hodge_split(field, base, protocol, features=16).rest.estimates
    monkeypatch.setattr("scorefield.diagnostics.protocol._ENTRIES", 15)
    monkeypatch.setattr(hodge, "_WORKSPACE", 500)
    (streamed,) = hodge_split(field, base, protocol, features=16).rest.estimates
    assert streamed.value == pytest.approx(expected.value, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "arguments", "message"),
    [
        (64, {"features": 1}, "at least 2 waves"),
        (64, {"folds": 2}, "3 folds"),
        (7, {}, "needs 8 points, the protocol has 7"),
    ],
)
def test_the_split_needs_two_waves_three_folds_and_eight_points(n, arguments, message):
    with pytest.raises(ValueError, match=message):
        hodge_split(RING, RING, Protocol((1.0,), n=n), **arguments)


def test_a_ridge_is_chosen_by_the_squared_residuals_of_folds_left_out():
    """Against least squares with a penalty by hand, also where no weights help."""
    draw = torch.Generator().manual_seed(0)
    chosen = set()
    for noise in (0.01, 1.0, 2.0, 3.0, 100.0):
        columns = [torch.randn(12, 4, generator=draw, dtype=torch.float64) for _ in range(3)]
        slope = torch.tensor([1.0, -0.5, 0.0, 0.2], dtype=torch.float64)
        wanted = [
            c @ slope + noise * torch.randn(12, generator=draw, dtype=torch.float64)
            for c in columns
        ]

        def solved(folds, ridge, columns=columns, wanted=wanted):
            x, y = (torch.cat([v[k] for k in folds]) for v in (columns, wanted))
            scale = torch.cat(columns).norm(dim=0)
            penalty = ridge * torch.diag(scale**2)
            return torch.linalg.solve(x.T @ x + penalty, x.T @ y)

        left = {0.0: sum(float(y.square().sum()) for y in wanted)}
        for ridge in hodge._RIDGES:
            left[ridge] = sum(
                float(
                    (wanted[k] - columns[k] @ solved([j for j in range(3) if j != k], ridge))
                    .square()
                    .sum()
                )
                for k in range(3)
            )
        best = min(left, key=left.get)
        expected = solved(range(3), best) if best else torch.zeros(4, dtype=torch.float64)
        moments = [
            hodge.FoldMoments(x.T @ x, x.T @ y) for x, y in zip(columns, wanted, strict=True)
        ]
        torch.testing.assert_close(hodge._fit(moments), expected, rtol=1e-6, atol=1e-9)
        chosen.add(best)
    assert 0.0 in chosen
    assert len(chosen) > 2

import math

import pytest
import torch

from scorefield import GaussianMixture
from scorefield.calculus.circulation import (
    circulation,
    circulation_and_error,
    find_cycles,
    in_blocks,
    nearest_neighbours,
    planes,
    propose_cycles,
    quadrature,
    regular_polygons,
    squared_area,
    squared_curl,
)
from scorefield.domain import Euclidean
from scorefield.noise import Noise
from tests.planted import Affine, skew

RULES = ["left", "midpoint", "trapezoid", "simpson", "gauss-1", "gauss-2", "gauss-5"]


def polygons(dim, sides, n=8, radius=0.7):
    domain = Euclidean((dim,))
    plane = planes(Noise(1), "test", domain, torch.arange(n), dtype=torch.float64)
    centres = Noise(2).normal("centre", (dim,), torch.arange(n), dtype=torch.float64)
    radii = torch.full((n,), radius, dtype=torch.float64)
    return regular_polygons(centres, radii, plane, sides), domain


@pytest.mark.parametrize("name", RULES)
def test_the_declared_degree_is_the_measured_one(name):
    rule = quadrature(name)

    def error(degree):
        total = sum(w * c**degree for c, w in zip(rule.nodes, rule.weights, strict=True))
        return abs(total - 1 / (degree + 1))

    assert all(error(k) < 1e-15 for k in range(rule.degree + 1))
    assert error(rule.degree + 1) > 1e-7


@pytest.mark.parametrize("name", ["gauss", "gauss-0", "romberg", ""])
def test_an_unknown_rule_is_named(name):
    with pytest.raises(ValueError, match="quadrature is"):
        quadrature(name)


@pytest.mark.parametrize("name", RULES[1:])
@pytest.mark.parametrize("sides", [3, 4, 7])
def test_affine_fields_are_integrated_exactly(name, sides):
    """By Stokes, the circulation of M x is <M^T - M, B>; a symmetric M gives none at all."""
    vertices, domain = polygons(4, sides)
    torch.manual_seed(0)
    matrix = torch.randn(4, 4, dtype=torch.float64)
    t = torch.ones(len(vertices), dtype=torch.float64)
    following = vertices.roll(-1, dims=1)
    bivector = 0.5 * (
        torch.einsum("bki,bkj->bij", vertices, following)
        - torch.einsum("bki,bkj->bij", following, vertices)
    )
    expected = 0.5 * ((matrix.T - matrix) * bivector).sum(dim=(1, 2))
    turn = circulation(Affine(matrix).score, vertices, t, quadrature(name), domain)
    torch.testing.assert_close(turn, expected, rtol=1e-11, atol=1e-12)
    symmetric = circulation(Affine(matrix + matrix.T).score, vertices, t, quadrature(name), domain)
    assert float(symmetric.abs().max()) < 1e-12


def test_the_published_left_rule_sees_circulation_in_a_gradient():
    vertices, domain = polygons(2, 4)
    t = torch.ones(len(vertices), dtype=torch.float64)
    harmonic = Affine(-torch.eye(2, dtype=torch.float64))
    left = circulation(harmonic.score, vertices, t, quadrature("left"), domain)
    # sum of x_i . (x_{i+1} - x_i) is minus half the sum of the squared edges
    edges = vertices - vertices.roll(-1, dims=1)
    torch.testing.assert_close(left, 0.5 * edges.square().sum(dim=(1, 2)))


def shear(x, t):
    """A smooth field whose curl and divergence vary."""
    first = torch.sin(2.3 * x[:, 1]) + torch.sin(1.1 * x[:, 0])
    return torch.stack((first, torch.exp(0.8 * x[:, 0])), dim=1)


@pytest.mark.parametrize("name", [*RULES[:-1], "gauss-3", "gauss-4"])
def test_the_error_falls_with_the_declared_degree(name):
    """Splitting every edge in two divides the error on a smooth field by 2^(degree + 1)."""
    vertices, domain = polygons(2, 5, radius=1.0)
    t = torch.ones(len(vertices), dtype=torch.float64)
    exact = circulation(shear, vertices, t, quadrature("gauss-16"), domain)
    errors = []
    # The finest pair that rounding leaves alone.
    while len(errors) < 8 and (not errors or errors[-1] > 1e-11):
        turn = circulation(shear, vertices, t, quadrature(name), domain)
        errors.append(float((turn - exact).square().mean().sqrt()))
        middle = (vertices + vertices.roll(-1, dims=1)) / 2
        vertices = torch.stack((vertices, middle), dim=2).flatten(1, 2)
    order = math.log2(errors[-2] / errors[-1])
    assert abs(order - (quadrature(name).degree + 1)) < 0.2


@pytest.mark.parametrize("name", RULES)
def test_a_companion_tells_the_error_of_its_rule(name):
    """In quadratic mean it is at least the error of the rule, and about that of the companion."""
    vertices, domain = polygons(2, 5, n=64, radius=0.2)
    t = torch.ones(64, dtype=torch.float64)
    exact = circulation(shear, vertices, t, quadrature("gauss-16"), domain)
    rule = quadrature(name)
    turn, error = circulation_and_error(shear, vertices, t, rule, domain, precision=0.0)
    alone = circulation(shear, vertices, t, quadrature(name), domain)
    torch.testing.assert_close(turn, alone, rtol=1e-12, atol=1e-14)
    assert float((turn - exact).norm()) < 1.01 * float(error.norm())
    companion = quadrature(quadrature(name).companion)
    assert companion.degree < quadrature(name).degree or quadrature(name).degree <= 1
    if companion.degree < quadrature(name).degree:
        low = circulation(shear, vertices, t, companion, domain)
        ratio = error.square().mean() / (low - exact).square().mean()
        assert abs(float(ratio) - 1) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_counts_as_an_error(dtype):
    """A constant, whose circulation is rounding alone and the same by all rules."""
    vertices, domain = (v.to(dtype) if isinstance(v, torch.Tensor) else v for v in polygons(3, 8))
    t = torch.ones(len(vertices), dtype=dtype)
    fn, precision = (lambda x, t: torch.full_like(x, 1e6)), torch.finfo(dtype).eps
    turn, error = circulation_and_error(fn, vertices, t, quadrature("gauss-4"), domain, precision)
    assert bool((turn.abs() <= error).all())
    assert float(error.max()) < 1e8 * precision


def test_coarse_values_count_by_how_errors_at_random_add_up():
    """Errors of 1e-3 in values that are otherwise a constant, on loops that share no point."""
    n, noise = 2000, Noise(3)
    vertices, domain = polygons(5, 6, n=n)
    t, rule = torch.ones(n, dtype=torch.float64), quadrature("gauss-2")

    def coarse(x, t):
        errors = noise.normal("error", x.shape[1:], torch.arange(len(x)), dtype=torch.float64)
        return 1 + 1e-3 * errors

    turn, without = circulation_and_error(coarse, vertices, t, rule, domain, precision=0.0)
    _, error = circulation_and_error(coarse, vertices, t, rule, domain, precision=1e-3)
    added = (error - without).square().mean()
    assert abs(float(turn.square().mean() / added) - 1) < 6 * (2 / n) ** 0.5


def test_blocks_bound_the_points_of_one_evaluation():
    rows = []

    def field(x, t):
        rows.append(len(x))
        return t.reshape(-1, 1, 1) * x

    x, t = torch.arange(44.0).reshape(11, 2, 2), torch.arange(11.0)
    assert torch.equal(in_blocks(field, coordinates=18)(x, t), t.reshape(-1, 1, 1) * x)
    assert rows == [4, 4, 3]
    rows.clear()
    in_blocks(field, coordinates=1)(x, t)
    assert rows == [1] * 11


def test_shared_corners_are_evaluated_once():
    vertices, domain = polygons(3, 4, n=6)
    rows = []

    def field(x, t):
        rows.append(len(x))
        return x

    t = torch.ones(6, dtype=torch.float64)
    for name, per_edge in [("left", 1), ("midpoint", 1), ("trapezoid", 1), ("simpson", 2)]:
        circulation(field, vertices, t, quadrature(name), domain)
        assert rows.pop() == 6 * 4 * per_edge


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_area_of_regular_polygons_and_of_a_bent_one(dim):
    for sides in (3, 4, 6, 11):
        vertices, _ = polygons(dim, sides)
        area = 0.5 * sides * 0.7**2 * math.sin(math.tau / sides)
        torch.testing.assert_close(
            squared_area(vertices), torch.full((8,), area**2, dtype=torch.float64)
        )
    bent = torch.zeros(1, 4, max(dim, 3), dtype=torch.float64)
    bent[0, 1, 0] = bent[0, 3, 1] = bent[0, 2, 0] = bent[0, 2, 1] = bent[0, 2, 2] = 1.0
    # two triangles of a folded square: B = 1/2 (e1 ^ (e1+e2+e3) + (e1+e2+e3) ^ e2)
    # = e1 ^ e2 + 1/2 (e1 ^ e3 - e2 ^ e3)
    area = squared_area(bent)
    torch.testing.assert_close(area, torch.tensor([1.5], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(2,), (7,), (1, 3, 3)])
def test_planes_are_orthonormal(shape):
    plane = planes(Noise(0), "test", Euclidean(shape), torch.arange(50), dtype=torch.float64)
    assert plane.shape == (50, 2, *shape)
    gram = plane.flatten(2) @ plane.flatten(2).mT
    torch.testing.assert_close(gram, torch.eye(2, dtype=torch.float64).expand(50, 2, 2))


def test_nothing_circulates_in_one_dimension():
    with pytest.raises(ValueError, match="two dimensions"):
        planes(Noise(0), "test", Euclidean((1,)), torch.arange(3))


def test_loops_estimate_the_squared_curl_without_bias():
    """Over 40,000 random planes the mean is within six standard errors of |A|_F^2."""
    dim, n = 6, 40_000
    matrix = skew(dim) + torch.eye(dim, dtype=torch.float64)
    vertices, domain = polygons(dim, 4, n=n)
    t = torch.ones(n, dtype=torch.float64)
    turn = circulation(Affine(matrix).score, vertices, t, quadrature("midpoint"), domain)
    numerator, denominator = squared_curl(turn, squared_area(vertices), dim)
    draws = numerator / denominator
    expected = (matrix - matrix.T).square().sum()
    assert abs(draws.mean() - expected) < 6 * draws.std() / math.sqrt(n)


def test_neighbours_and_cycles():
    x = GaussianMixture.ring().sample(60, seed=0, dtype=torch.float64)
    graph = nearest_neighbours(x, 5)
    for i in range(60):
        distance = (x - x[i]).norm(dim=1)
        assert graph[i].tolist() == distance.argsort()[1:6].tolist()
    draws = Noise(0).uniform("walk", (4,), torch.arange(500), dtype=torch.float64)
    vertices, closed = propose_cycles(graph, draws)
    assert 0 < int(closed.sum()) < 500
    for walk, is_cycle in zip(vertices.tolist(), closed.tolist(), strict=True):
        edges = [b in graph[a].tolist() for a, b in zip(walk, walk[1:] + walk[:1], strict=True)]
        assert all(edges[:-1])
        assert is_cycle == (edges[-1] and len(set(walk)) == 4)
    with pytest.raises(ValueError, match="at least three"):
        propose_cycles(graph, draws[:, :2])
    with pytest.raises(ValueError, match="1 to 59"):
        nearest_neighbours(x, 60)


def test_cycles_have_no_edge_beyond_reach():
    x = GaussianMixture.ring().sample(60, seed=0, dtype=torch.float64).reshape(60, 1, 2)
    domain = Euclidean((1, 2))
    graph = nearest_neighbours(x.flatten(1), 5)
    draws = Noise(0).uniform("walk", (3,), torch.arange(500), dtype=torch.float64)
    walks, closed = propose_cycles(graph, draws)
    everything = find_cycles(x, graph, draws, domain)
    assert torch.equal(everything, x[walks[closed]])
    near = find_cycles(x, graph, draws, domain, reach=0.4)
    longest = (near - near.roll(-1, dims=1)).flatten(2).norm(dim=2).amax(dim=1)
    assert 0 < len(near) < len(everything)
    assert float(longest.max()) <= 0.4
    edges = (everything - everything.roll(-1, dims=1)).flatten(2).norm(dim=2)
    assert torch.equal(near, everything[edges.amax(dim=1) <= 0.4])

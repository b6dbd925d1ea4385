import math

import pytest
import torch

from scorefield import GaussianMixture
from scorefield.calculus import paths
from scorefield.calculus.paths import Paths, detours, line_integrals
from scorefield.domain import Euclidean
from scorefield.noise import Noise
from tests.planted import Affine

RING = GaussianMixture.ring()


def batch(shape, n=12, bend=0.5, detour="detour"):
    """Paths between random points, their times and domain."""
    index = torch.arange(n)
    start, end = (Noise(0).normal(p, shape, index, dtype=torch.float64) for p in ("start", "end"))
    chord = end - start
    w = detours(Noise(0), detour, chord, index)
    size = bend * chord.flatten(1).norm(dim=1).reshape(-1, *(1,) * len(shape))
    return Paths(start, chord, size * w), torch.ones(n, dtype=torch.float64), Euclidean(shape)


def integrate(fn, along, t, domain, tolerance=1e-9, epsilon=2.3e-16, panels=64):
    return line_integrals(fn, along, t, domain, tolerance, epsilon, torch.ones_like(t), panels)


@pytest.mark.parametrize("shape", [(2,), (5,), (2, 3, 3)])
def test_detours_are_unit_vectors_at_right_angles(shape):
    chord = Noise(0).normal("chord", shape, torch.arange(50), dtype=torch.float64)
    w = detours(Noise(0), "detour", chord, torch.arange(50))
    assert w.shape == chord.shape
    norms = w.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(50, dtype=torch.float64))
    assert float((w * chord).flatten(1).sum(dim=1).abs().max()) < 1e-13
    alone = detours(Noise(0), "detour", chord[7:8], torch.tensor([7]))
    torch.testing.assert_close(alone[0], w[7], rtol=1e-14, atol=1e-15)


def test_detours_have_no_preferred_direction():
    """Their mean square along an axis at a right angle to the chord is 1/(D - 1)."""
    n, dim = 40_000, 5
    chord = torch.zeros(n, dim, dtype=torch.float64)
    chord[:, 0] = 3.0
    w = detours(Noise(1), "detour", chord, torch.arange(n))
    second = w[:, 1:].T @ w[:, 1:] / n
    expected = torch.eye(dim - 1, dtype=torch.float64) / (dim - 1)
    # An entry of w w^T has a standard deviation below 0.28.
    assert float((second - expected).abs().max()) < 6 * 0.28 / math.sqrt(n)


def test_paths_run_from_start_to_end_at_their_own_velocity():
    along, _, domain = batch((2, 2))
    tau = torch.linspace(0, 1, 5, dtype=torch.float64)
    points, velocity = along.at(tau, domain)
    torch.testing.assert_close(points[:, 0], along.start)
    torch.testing.assert_close(points[:, -1], along.start + along.chord)
    torch.testing.assert_close(points[:, 2], along.start + along.chord / 2 + along.detour)
    _, derivative = torch.func.jvp(
        lambda tau: along.at(tau, domain)[0], (tau,), (torch.ones_like(tau),)
    )
    torch.testing.assert_close(velocity, derivative)


@pytest.mark.parametrize("dim", [2, 5, 64])
def test_affine_fields_in_closed_form(dim):
    r"""The chord gives s(middle) . e, the detour -2/pi delta^T A e, two paths their difference."""
    matrix = Noise(3).normal("matrix", (dim, dim), torch.tensor(0), dtype=torch.float64)
    field, a = Affine(matrix), matrix - matrix.T
    values, expected = [], []
    for detour in ("one detour", "another"):
        along, t, domain = batch((dim,), detour=detour)
        middle = along.start + along.chord / 2
        turn = torch.einsum("bi,ij,bj->b", along.detour, a, along.chord)
        expected.append((field.score(middle, t) * along.chord).sum(dim=1) - 2 / math.pi * turn)
        values.append(integrate(field.score, along, t, domain).value)
        torch.testing.assert_close(values[-1], expected[-1], rtol=1e-11, atol=1e-11)
    gap = values[0] - values[1]
    assert float(gap.abs().max()) > 0.1
    torch.testing.assert_close(gap, expected[0] - expected[1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_gradients_integrate_to_differences_of_their_potential(tolerance):
    along, t, domain = batch((2,), n=200, bend=0.8)
    scaled = Paths(2 * along.start, 2 * along.chord, 2 * along.detour)
    found = integrate(RING.score, scaled, 0.5 * t, domain, tolerance, panels=512)
    end = scaled.start + scaled.chord
    expected = RING.potential(end, 0.5) - RING.potential(scaled.start, 0.5)
    wrong = (found.value - expected).abs()
    assert bool(found.resolved.all())
    assert float(wrong.max()) < tolerance
    assert float(found.error.max()) <= tolerance * 1.001
    # What is stated as the error is that of the coarser of two refinements; a chance crossing
    # of the two may hide it on a single path.
    assert float(wrong.norm()) < float(found.error.norm())


def test_only_paths_that_need_it_are_refined():
    """A kink in one path costs evaluations on that path alone, and changes no other."""
    seen = []

    def field(x, t):
        seen.append(len(x))
        return torch.stack((torch.tanh(200 * (x[:, 0] - 5.3)), x[:, 0]), dim=1)

    start = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    chord = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(3, 2)
    along = Paths(start, chord, torch.zeros(3, 2, dtype=torch.float64))
    t, domain = torch.ones(3, dtype=torch.float64), Euclidean((2,))
    together = integrate(field, along, t, domain, panels=512)
    per_panel = seen[0] // 3
    assert seen[:2] == [3 * per_panel, 6 * per_panel]
    assert seen[2:] == [per_panel * 2**k for k in range(2, len(seen))]
    assert len(seen) > 3
    # the integral of tanh(200 (x - 5.3)) over [5, 6] is (ln cosh 140 - ln cosh 60) / 200 = 0.4
    torch.testing.assert_close(
        together.value, torch.tensor([-1.0, 0.4, -1.0], dtype=torch.float64), rtol=1e-9, atol=0
    )
    for i in range(3):
        alone = integrate(field, along[torch.tensor([i])], t[:1], domain, panels=512)
        torch.testing.assert_close(alone.value[0], together.value[i], rtol=1e-14, atol=1e-14)


def test_what_does_not_settle_is_told():
    def step(x, t):
        return (x > 0.3).to(x.dtype)

    start = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
    ahead = torch.ones(2, 1, dtype=torch.float64)
    along = Paths(start, ahead, torch.zeros_like(ahead))
    t = torch.ones(2, dtype=torch.float64)
    found = integrate(step, along, t, Euclidean((1,)), 1e-9, panels=8)
    assert found.resolved.tolist() == [False, True]
    assert 1e-9 < float(found.error[0]) < 0.1
    assert abs(float(found.value[0]) - 0.7) < 0.1


def test_rounding_is_not_refined_away():
    """A field that rounds to float32 is done at once if it says so, and else never."""
    seen = []

    def field(x, t):
        seen.append(len(x))
        return RING.score(x, t).to(torch.float32).to(torch.float64)

    along, t, domain = batch((2,), n=50)
    exact = integrate(RING.score, along, 3 * t, domain, 1e-10)
    coarse = integrate(field, along, 3 * t, domain, 1e-10, epsilon=1.2e-7)
    assert bool(coarse.resolved.all())
    few = sum(seen)
    seen.clear()
    assert not bool(integrate(field, along, 3 * t, domain, 1e-10).resolved.all())
    assert few < 0.2 * sum(seen)
    assert float((coarse.value - exact.value).abs().max()) < 1e-6


def test_blocks_do_not_change_the_integrals(monkeypatch):
    along, t, domain = batch((2,), n=20)
    whole = integrate(RING.score, along, t, domain)
    monkeypatch.setattr(paths, "_COORDINATES", 40)
    blocks = integrate(RING.score, along, t, domain)
    torch.testing.assert_close(blocks.value, whole.value, rtol=1e-13, atol=1e-13)


def test_scalar_events_have_line_integrals():
    start = torch.tensor([0.0, 1.0], dtype=torch.float64)
    along = Paths(start, torch.ones_like(start), torch.zeros_like(start))
    found = integrate(lambda x, t: x**2, along, torch.ones_like(start), Euclidean(()))
    expected = torch.tensor([1 / 3, 7 / 3], dtype=torch.float64)
    torch.testing.assert_close(found.value, expected)


def test_paths_need_a_tolerance_two_panels_and_two_dimensions():
    along, t, domain = batch((2,))
    with pytest.raises(ValueError, match="tolerance"):
        integrate(RING.score, along, t, domain, 0.0)
    with pytest.raises(ValueError, match="panels must be an integer of at least 2"):
        integrate(RING.score, along, t, domain, panels=1)
    with pytest.raises(ValueError, match="two dimensions"):
        detours(Noise(0), "detour", torch.ones(3, 1), torch.arange(3))


def test_the_points_of_one_evaluation_are_few_however_many_paths_there_are():
    """A megabyte of coordinates or two, for paths of many panels in many dimensions."""
    along, t, domain = batch((64,), n=600)
    sizes = []

    def waves(x, t, *classes):
        sizes.append(x.numel())
        return torch.sin(x)

    integrate(waves, along, t, domain, tolerance=1e-3, panels=16)
    assert max(sizes) <= 2**18 < sum(sizes)

"""Steps of their own: SciPy's integrator, row by row, is the oracle."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from scorefield.samplers.runge_kutta import DORMAND_PRINCE, Outcome, solve

STARTS = torch.tensor([[2.0, 0.0], [0.5, 1.0], [0.1, -0.2], [-3.0, 4.0]], dtype=torch.float64)


def oscillator(u, y, rows):
    """Van der Pol's, with some stiffness."""
    return torch.stack((y[:, 1], 3 * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]), dim=1)


def decay(rate):
    return lambda u, y, rows: -rate * y


def by_scipy(y, tol, method="RK45", span=(0.0, 8.0)):
    def slope(u, y):
        return oscillator(u, torch.as_tensor(y).reshape(1, -1), None)[0].numpy()

    return solve_ivp(slope, span, y.numpy(), method, rtol=tol, atol=tol)


def test_the_tableau_has_its_order():
    t = DORMAND_PRINCE
    nodes = np.array((0.0, *t.nodes))
    weights = np.array((*t.stages[-1], 0.0))
    lower = weights - np.array(t.error)
    for power in range(1, 6):
        assert weights @ nodes ** (power - 1) == pytest.approx(1 / power, abs=1e-14)
    for power in range(1, 5):
        assert lower @ nodes ** (power - 1) == pytest.approx(1 / power, abs=1e-14)
    for node, row in zip(t.nodes, t.stages, strict=True):
        assert math.fsum(row) == pytest.approx(node, abs=1e-14)


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_every_row_goes_as_scipy_goes_alone(tol):
    found = solve(oscillator, STARTS, 0.0, 8.0, tol, tol)
    assert bool(found.arrived.all())
    for row, start in enumerate(STARTS):
        alone, exact = by_scipy(start, tol), by_scipy(start, 1e-13, "DOP853").y[:, -1]
        assert abs(int(found.calls[row]) - alone.nfev) <= 0.02 * alone.nfev
        error = np.abs(found.y[row].numpy() - exact).max()
        assert error <= 1.1 * np.abs(alone.y[:, -1] - exact).max() + 1e-11
        assert int(found.calls[row]) == 2 + 6 * int(found.accepted[row] + found.rejected[row])


@pytest.mark.parametrize("row", range(len(STARTS)))
def test_its_first_places_are_those_of_scipy(row):
    """That of the trial from which the first step follows, and those of the first three steps."""
    ours, theirs = [], []

    def slope(u, y, rows):
        ours.append(float(u))
        return oscillator(u, y, rows)

    def alone(u, y):
        theirs.append(float(u))
        return oscillator(u, torch.as_tensor(y).reshape(1, -1), None)[0].numpy()

    solve(slope, STARTS[row : row + 1], 0.0, 8.0, 1e-6, 1e-6)
    solve_ivp(alone, (0.0, 8.0), STARTS[row].numpy(), rtol=1e-6, atol=1e-6)
    assert ours[:20] == pytest.approx(theirs[:20], rel=1e-10)


def test_the_error_follows_the_tolerance():
    y = torch.ones(1, 1, dtype=torch.float64)
    tolerances = (1e-4, 1e-6, 1e-8, 1e-10)
    found = [solve(decay(1.0), y, 0.0, 3.0, tol, tol) for tol in tolerances]
    errors = [abs(float(f.y) - math.exp(-3)) for f in found]
    for tol, error in zip(tolerances, errors, strict=True):
        assert 1e-3 * tol < error < 10 * tol
    # With order 5, ten times the steps are a hundred thousandth of the error.
    steps = [int(f.accepted) for f in found]
    order = math.log(errors[1] / errors[3]) / math.log(steps[3] / steps[1])
    assert 4 < order < 6.5


def test_it_goes_backwards_too():
    there = solve(decay(0.5), STARTS, 0.0, 2.0, 1e-10, 1e-10)
    back = solve(decay(0.5), there.y, 2.0, 0.0, 1e-10, 1e-10)
    torch.testing.assert_close(back.y, STARTS, rtol=0, atol=1e-6)
    assert torch.equal(back.place, torch.zeros(4, dtype=torch.float64))


def test_a_row_does_not_know_its_neighbours():
    many = torch.cat([STARTS * (1 + 0.01 * k) for k in range(4)])
    whole = solve(oscillator, many, 0.0, 8.0, 1e-6, 1e-6)
    for size in (1, 7):
        parts = [solve(oscillator, part, 0.0, 8.0, 1e-6, 1e-6) for part in many.split(size)]
        for name in ("accepted", "rejected", "calls", "outcome"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts]))
        y = torch.cat([part.y for part in parts])
        torch.testing.assert_close(y, whole.y, rtol=1e-10, atol=0)


def test_rows_that_have_arrived_are_not_evaluated():
    sizes, rates = [], torch.tensor([[0.1], [5.0], [50.0]], dtype=torch.float64)

    def slope(u, y, rows):
        sizes.append(len(rows))
        return torch.cos(rates[rows] * u.unsqueeze(1)) * rates[rows]

    found = solve(slope, torch.zeros(3, 1, dtype=torch.float64), 0.0, 4.0, 1e-8, 1e-8)
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == int(found.calls.sum())
    torch.testing.assert_close(found.y, torch.sin(4 * rates), rtol=0, atol=1e-6)


def test_a_stiff_row_stops_when_its_calls_are_used_up_and_the_others_go_on():
    rates = torch.tensor([[1.0], [1e9], [2.0]], dtype=torch.float64)
    found = solve(
        lambda u, y, rows: -rates[rows] * (y - torch.cos(u).unsqueeze(1)),
        torch.zeros(3, 1, dtype=torch.float64),
        0.0,
        2.0,
        1e-6,
        1e-6,
        max_calls=500,
    )
    assert found.outcome.tolist() == [Outcome.ARRIVED, Outcome.OUT_OF_CALLS, Outcome.ARRIVED]
    assert 490 < int(found.calls[1]) <= 500
    assert 0 < float(found.place[1]) < 1e-3
    assert abs(float(found.y[1]) - 1) < 1e-3


def test_a_slope_that_blows_up_stops_at_the_pole():
    found = solve(
        lambda u, y, rows: y**2, torch.ones(1, 1, dtype=torch.float64), 0.0, 2.0, 1e-8, 1e-8
    )
    assert int(found.outcome) in (Outcome.STEP_TOO_SMALL, Outcome.NOT_FINITE)
    assert float(found.place) == pytest.approx(1.0, abs=1e-6)
    assert bool(found.y.isfinite().all())


def test_a_slope_that_is_not_a_number_is_told_with_its_place():
    def slope(u, y, rows):
        bad = (rows == 1) & (u > 0.5)
        return torch.where(bad.unsqueeze(1), torch.nan, -y)

    found = solve(slope, torch.ones(3, 1, dtype=torch.float64), 0.0, 1.0, 1e-6, 1e-6)
    assert found.outcome.tolist() == [Outcome.ARRIVED, Outcome.NOT_FINITE, Outcome.ARRIVED]
    assert float(found.place[1]) == pytest.approx(0.5, abs=1e-3)
    at_once = solve(
        lambda u, y, rows: y / 0, torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0, 1e-6, 1e-6
    )
    assert int(at_once.outcome) == Outcome.NOT_FINITE
    assert int(at_once.calls) == 1


def test_what_is_constant_or_has_no_way_to_go_is_no_trouble():
    y = torch.ones(2, 3, dtype=torch.float64)
    still = solve(lambda u, y, rows: 0 * y, y, 0.0, 1.0, 1e-6, 1e-6)
    assert bool(still.arrived.all())
    assert torch.equal(still.y, y)
    nowhere = solve(decay(1.0), y, 1.0, 1.0, 1e-6, 1e-6)
    assert bool(nowhere.arrived.all())
    assert torch.equal(nowhere.y, y)
    assert len(solve(decay(1.0), y[:0], 0.0, 1.0, 1e-6, 1e-6).y) == 0


def test_the_start_is_not_changed_and_dtypes_stay():
    y = torch.ones(2, 3)
    found = solve(decay(1.0), y, 0.0, 1.0, 1e-4, 1e-4)
    assert torch.equal(y, torch.ones(2, 3))
    assert found.y.dtype == torch.float32
    assert found.place.dtype == torch.float64
    torch.testing.assert_close(found.y, math.exp(-1) * y, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rtol": 0.0}, "rtol must be at least"),
        ({"rtol": 1e-7}, "rtol must be at least 1.2e-06 and finite for states of torch.float32"),
        ({"atol": -1.0}, "atol must be"),
        ({"max_calls": 0}, "max_calls must be a positive integer"),
    ],
)
def test_a_tolerance_below_rounding_is_refused(settings, words):
    settings = {"rtol": 1e-3, "atol": 1e-3} | settings
    with pytest.raises(ValueError, match=words):
        solve(decay(1.0), torch.ones(1, 1), 0.0, 1.0, **settings)


def test_without_an_absolute_tolerance_a_zero_is_not_a_fault():
    """A component that is and stays at zero has no error, and so no relative one."""
    y = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    found = solve(lambda u, y, rows: -y, y, 0.0, 1.0, 1e-6, 0.0)
    expected = torch.tensor([[0.0, math.exp(-1)]], dtype=torch.float64)
    torch.testing.assert_close(found.y, expected, rtol=1e-5, atol=0)

"""Gradients do not wind, drifts wind by what was planted, and curl is not taken for a drift."""

import math

import pytest
import torch
from scipy import stats

from scorefield import EDM, VE, Gaussian, Protocol, PseudoAtoms, harmonic_part, winding
from scorefield.calculus.winding import straight_loops
from scorefield.domain import Torus
from scorefield.noise import Noise
from tests.planted import Drifting, Shear

PROCESS = VE(0.001, 0.5)
SIGMAS = (0.001, 0.01, 0.03, 0.1, 0.5)
PAIR = PseudoAtoms([[0.25], [0.75]], std=0.01, sde=PROCESS)
BOX = PseudoAtoms([[0.1, 0.2], [1.0, 0.9]], std=0.05, period=(2.0, 1.0), sde=EDM(0.01, 2.0))


@pytest.mark.parametrize("diagnostic", [winding, harmonic_part])
@pytest.mark.parametrize("law", [PAIR, BOX], ids=["pair", "box"])
def test_gradients_do_not_wind(law, diagnostic):
    sigmas = [s for s in SIGMAS if law.sde.sigma_min <= s]
    for sigma, e in diagnostic(law, law, Protocol(sigmas, n=16)):
        low, high = e.interval()
        assert low <= 0 <= high, sigma
        assert e.unit == "nats"
        if sigma > 0.3:
            assert e.value < 1e-10
            assert e.settings["unresolved"] == 0
        # What a score of the size 1 / sigma would gain.
        assert e.value < 0.01 / sigma


@pytest.mark.parametrize("diagnostic", [winding, harmonic_part])
def test_a_planted_drift_in_closed_form(diagnostic):
    r"""The root mean square of L c / sigma over coordinates."""
    field, protocol = Drifting(PAIR, [[3.0], [-4.0]]), Protocol(SIGMAS, n=16)
    for sigma, e in diagnostic(field, PAIR, protocol):
        expected = 5 / math.sqrt(2) / sigma
        assert (
            abs(e.value - expected) <= 6 * e.standard_error + e.numerical_error + 1e-14 * expected
        )
        if sigma > 0.05:
            assert e.value == pytest.approx(expected, rel=1e-10)


def test_every_direction_has_its_own_period():
    field = Drifting(BOX, [[1.0, 2.0], [3.0, 4.0]])
    (e,) = winding(field, BOX, Protocol((0.5,), n=4)).estimates
    turns = [2 * 1.0, 1 * 2.0, 2 * 3.0, 1 * 4.0]
    assert e.value == pytest.approx(math.sqrt(sum(v**2 for v in turns) / 4) / 0.5, rel=1e-10)


def test_curl_makes_the_winding_depend_on_the_point_and_has_no_harmonic_part():
    field, n = Shear(PAIR, 0.8), 100
    (around,) = winding(field, PAIR, Protocol((0.5,), n=n)).estimates
    # At this noise atoms are almost uniform: half the mean square of the sine.
    assert around.value == pytest.approx(0.8 / 2, rel=0.25)
    found = [
        harmonic_part(field, PAIR, Protocol((0.5,), n=n, seed=seed)).estimates[0]
        for seed in range(20)
    ]
    covered = sum(e.interval()[0] <= 0 for e in found)
    assert covered >= stats.binom.ppf(1e-6, 20, 0.95)
    assert max(e.value for e in found) < 0.25


def test_the_square_of_the_harmonic_part_is_unbiased_and_its_error_covers():
    """A drift of the size of its uncertainty, beneath a curl."""
    field, n, repeats = Drifting(Shear(PAIR, 0.8), [[0.03], [0.02]]), 64, 60
    truth = (0.03**2 + 0.02**2) / 2 / 0.5**2
    squares, inside = [], 0
    for seed in range(repeats):
        (e,) = harmonic_part(field, PAIR, Protocol((0.5,), n=n, seed=seed)).estimates
        low, high = e.interval()
        inside += low <= math.sqrt(truth) <= high
        squares.append(e.value**2)
    assert inside >= stats.binom.ppf(1e-6, repeats, 0.93)
    # Negative squares are reported as zero, which adds a little.
    spread = torch.tensor(squares).std() / math.sqrt(repeats)
    assert -6 * spread < sum(squares) / repeats - truth < 6 * spread + truth


def step(x, t):
    """Two jumps a turn of equal size with straight lines between: a periodic sawtooth in pieces."""
    rest = (x + 0.137) % 1.0
    return torch.where(rest < 0.5937, 0.3 - rest, 0.8 - rest) * 1000


def test_quadrature_errors_of_fields_that_jump_are_no_smaller_than_told():
    """Two rules of half the nodes agree on half of these loops; four of a quarter do not."""
    x = torch.linspace(0, 1, 500, dtype=torch.float64)[:-1].unsqueeze(1) * 0.9871
    t = torch.ones(len(x), dtype=torch.float64)
    # The integral: two pieces, 0.3 u - u^2 / 2 and 0.8 u - u^2 / 2.
    at, end = 0.5937, 1.0
    truth = 1000 * (0.3 * at + 0.8 * (end - at) - end**2 / 2)
    for nodes in (64, 256):
        loops = straight_loops(step, x, t, Torus((1,)), 1e-3, 1e-16, torch.ones_like(t), nodes)
        error = (loops.value - truth).abs()
        assert bool((error <= loops.error).all())
        assert not bool(loops.resolved.any())
        assert float(loops.error.max()) < 3000 / nodes


def test_nodes_are_added_where_they_are_needed():
    calls = []

    def sharp(x, t):
        calls.append(len(x))
        return torch.exp(t.unsqueeze(1) * (torch.cos(2 * math.pi * x) - 1))

    x = torch.full((2, 1), 0.3, dtype=torch.float64)
    t = torch.tensor([1.0, 1000.0], dtype=torch.float64)
    loops = straight_loops(sharp, x, t, Torus((1,)), 1e-8, 1e-16, torch.zeros_like(t))
    assert bool(loops.resolved.all())
    assert loops.value[0, 0] == pytest.approx(float(torch.special.i0e(t[0])), rel=1e-12)
    assert loops.value[1, 0] == pytest.approx(float(torch.special.i0e(t[1])), rel=1e-12)
    # 64 nodes each, and then those of one loop only.
    assert calls[0] == 128
    assert calls[1] == 64


def test_the_error_of_a_loop_is_its_scatter_and_its_rounding():
    """A constant has no scatter between the four rules. What a point of relative precision moves a
    value by adds to it.
    """
    domain, steepness = Torus((2,), 3.0), torch.tensor([0.0, 5.0], dtype=torch.float64)
    x, t = torch.ones(2, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)

    def constant(x, t, *classes):
        return torch.tensor([2.0, -4.0], dtype=x.dtype).expand(x.shape)

    loops = straight_loops(constant, x, t, domain, 1e-9, 1e-3, steepness, 64)
    exact = torch.tensor([[6.0, -12.0]] * 2, dtype=torch.float64)
    rounding = 1e-3 * 3.0 * torch.tensor([[2.0, 4.0], [17.0, 19.0]], dtype=torch.float64)
    torch.testing.assert_close(loops.value, exact)
    torch.testing.assert_close(loops.error, rounding)
    assert bool(loops.resolved.all())


def test_the_points_of_one_evaluation_are_few_however_many_loops_there_are():
    x = Noise(0).uniform("x", (64,), torch.arange(20), dtype=torch.float64)
    t, sizes = torch.ones(20, dtype=torch.float64), []

    def constant(x, t, *classes):
        sizes.append(x.numel())
        return torch.ones_like(x)

    straight_loops(constant, x, t, Torus((64,)), 1e-3, 1e-15, torch.ones_like(t), 64)
    assert max(sizes) <= 2**18 < sum(sizes)


def test_loops_are_the_same_in_small_blocks(monkeypatch):
    protocol = Protocol((0.05, 0.5), n=8)
    whole = winding(BOX, BOX, protocol)
    monkeypatch.setattr("scorefield.calculus.winding._COORDINATES", 300)
    for (_, a), (_, b) in zip(whole, winding(BOX, BOX, protocol), strict=True):
        assert (a.value, a.numerical_error) == pytest.approx((b.value, b.numerical_error))


@pytest.mark.parametrize("diagnostic", [winding, harmonic_part])
def test_flat_space_is_refused(diagnostic):
    law = Gaussian(torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match=r"a winding needs a torus.*Euclidean"):
        diagnostic(law, law, Protocol((0.5,), n=4))


@pytest.mark.parametrize(
    ("settings", "message"), [({"tolerance": 0.0}, "tolerance"), ({"nodes": 32}, "nodes")]
)
def test_winding_names_the_setting_that_it_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        winding(PAIR, PAIR, Protocol((0.5,), n=4), **settings)

import math
from functools import partial

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VP,
    DenoisingScoreMatching,
    Empirical,
    Gaussian,
    GaussianMixture,
    LogNormal,
    PotentialField,
    PreconditionedField,
    Protocol,
    denoising_loss,
    exterior_derivative,
    loop_circulation,
    relative_asymmetry,
    score_error,
    validation_loss,
)
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from tests.planted import Affine, Drifting, Planted, skew

SIGMAS = (0.02, 0.1, 0.5, 2.0, 10.0)
RING = GaussianMixture.ring()
SKEWED = GaussianMixture(
    torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.5, 0.0]]),
    covariances=torch.tensor(
        [
            [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.3]],
            [[0.2, 0.0, 0.1], [0.0, 0.5, 0.0], [0.1, 0.0, 0.4]],
        ]
    ),
)
CURL = (exterior_derivative, relative_asymmetry)
LOSS = DenoisingScoreMatching("score", LogNormal())


@pytest.mark.parametrize(
    "truth", [RING, SKEWED, Empirical(RING.sample(50, 0))], ids=["ring", "skewed", "data"]
)
@pytest.mark.parametrize("probes", [None, 2])
def test_an_analytic_field_has_no_curl(truth, probes):
    """Zero up to rounding at every noise level."""
    protocol = Protocol(SIGMAS, n=64)
    for diagnostic in CURL:
        for _, estimate in diagnostic(truth, truth, protocol, probes=probes):
            assert estimate.value < 1e-12


def test_an_analytic_field_circulates_by_the_error_of_the_quadrature_only():
    """With more nodes the circulation of the mixture's score falls to rounding."""
    protocol = Protocol(SIGMAS, n=64)
    values = {
        rule: max(e.value for _, e in loop_circulation(RING, RING, protocol, 0.2, rule=rule))
        for rule in ("left", "midpoint", "gauss-2", "gauss-8")
    }
    assert values["left"] > values["midpoint"] > values["gauss-2"] > values["gauss-8"]
    assert values["gauss-8"] < 1e-11


@pytest.mark.parametrize("dim", [2, 5])
@pytest.mark.parametrize("eps", [1e-3, 1e-2, 1e-1])
def test_exact_asymmetry_of_a_planted_rotation_follows_eps_squared(dim, eps):
    """|J - J^T|^2 = 4 eps^2 |R|^2 to four digits and more, with no error bar to speak of."""
    base = Gaussian(torch.zeros(dim), 1.0)
    field = Planted(base, skew(dim), eps, mu=0.7)
    expected = 4 * eps**2 * skew(dim).square().sum().item()
    for sigma, e in exterior_derivative(field, base, Protocol(SIGMAS, n=16), quantity="score"):
        assert e.value**2 == pytest.approx(expected, rel=1e-6), sigma
        assert e.standard_error < 1e-6 * e.value


def test_relative_asymmetry_in_closed_form():
    """J = -I / (1 + sigma^2) + eps R gives 2 eps sqrt(D) / (2 sqrt(D (a^2 + eps^2)))."""
    base = Gaussian(torch.zeros(2), 1.0)
    for sigma, e in relative_asymmetry(Planted(base, skew(2), 0.3), base, Protocol(SIGMAS, n=8)):
        a = 1 / (1 + sigma**2)
        assert e.value == pytest.approx(0.3 / math.hypot(a, 0.3), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["probes", "loops", "relative"])
@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_a_planted_rotation_lies_in_its_own_interval(method, sigma):
    """At least 93% of 300 repeats, in five dimensions where all estimators have an error.

    The base is a mixture, so that the Jacobian varies from point to point. Its relative
    asymmetry is known from 100,000 points, whose own error is a twentieth of that of 200.
    """
    means = 2 * torch.eye(5, dtype=torch.float64)[:3]
    base = GaussianMixture(means, stds=torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64))
    field = Planted(base, skew(5), 0.2, mu=0.3)
    asymmetry = 0.16 * skew(5).square().sum().item()
    expected = math.sqrt(asymmetry)
    if method == "relative":
        x = base.sample(100_000, seed=99, dtype=torch.float64, t=sigma)
        parts = [base.jacobian(part, sigma) + 0.2 * skew(5) for part in x.split(10_000)]
        norm = sum(part.square().sum().item() for part in parts) / len(x)
        expected = 0.5 * math.sqrt(asymmetry / norm)
    measure = {
        "probes": partial(exterior_derivative, probes=1, quantity="score"),
        "loops": partial(loop_circulation, radius=0.01, rule="midpoint", quantity="score"),
        "relative": partial(relative_asymmetry, probes=1),
    }[method]
    inside = 0
    for seed in range(300):
        profile = measure(field, base, Protocol((sigma,), n=200, seed=seed))
        low, high = profile.estimates[0].interval(0.95)
        inside += low <= expected <= high
    assert inside >= 279


def test_loops_and_jacobians_agree_on_a_network_as_loops_shrink():
    field = PreconditionedField(MLP(2, hidden=32, depth=2), EDM(), sigma_data=2.85).double()
    protocol = Protocol((0.5, 5.0), n=64)
    exact = exterior_derivative(field, RING, protocol)
    loops = loop_circulation(field, RING, protocol, radius=1e-3)
    for (_, a), (_, b) in zip(exact, loops, strict=True):
        assert b.value == pytest.approx(a.value, rel=1e-4)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("head", ["sum", "inner", "denoising"])
def test_a_potential_field_is_conservative_at_every_noise_level(dtype, bound, head):
    backbone = MLP(2, hidden=64, depth=3, outputs=1 if head == "sum" else None)
    field = PotentialField(backbone, EDM(), sigma_data=2.85, head=head).to(dtype)
    protocol = Protocol((0.002, *SIGMAS, 80.0), n=64, dtype=dtype)
    for _, e in relative_asymmetry(field, RING, protocol):
        assert e.value < bound


def test_an_unconstrained_network_is_not():
    field = PreconditionedField(MLP(2, hidden=64, depth=3), EDM(), sigma_data=2.85)
    for _, e in relative_asymmetry(field, RING, Protocol((0.1, 0.5, 2.0), n=64)):
        assert e.value > 1e-3


def test_probes_agree_with_the_exact_norms():
    field = PreconditionedField(MLP(2, hidden=32, depth=2), EDM(), sigma_data=2.85)
    exact = exterior_derivative(field, RING, Protocol(SIGMAS, n=1000))
    probed = exterior_derivative(field, RING, Protocol(SIGMAS, n=1000, seed=1), probes=2)
    for (_, a), (_, b) in zip(exact, probed, strict=True):
        assert abs(a.value - b.value) < 6 * math.hypot(a.standard_error, b.standard_error)


def test_score_error_of_a_known_error():
    for sde in (EDM(), VP()):
        truth = RING.under(sde)
        for _, e in score_error(Drifting(truth, 0.25), RING, Protocol(SIGMAS, n=8)):
            assert e.value == pytest.approx(0.25, rel=1e-9)
        for _, e in score_error(truth, RING, Protocol(SIGMAS, n=8)):
            assert e.value < 1e-9


def test_denoising_loss_of_the_gaussian_in_closed_form():
    """For N(0, s^2 I) the posterior variance of the noise is s^2 / (s^2 + sigma^2)."""
    truth = Gaussian(torch.zeros(3), 2.0)
    for sigma, e in denoising_loss(truth, truth, Protocol(SIGMAS, n=20_000)):
        assert abs(e.value - 4 / (4 + sigma**2)) < 6 * e.standard_error


def test_validation_loss_is_the_mean_over_the_law():
    """With edm weighting and sigma_data = s the Gaussian's loss is 1 at every level."""
    truth = Gaussian(torch.zeros(3), 2.0)
    loss = DenoisingScoreMatching("edm", LogNormal(0.0, 1.0), sigma_data=2.0)
    data = truth.sample(20_000, 7)
    once, often = (validation_loss(truth, data, loss, draws=n) for n in (1, 4))
    for e in (once, often):
        assert abs(e.value - 1.0) < 6 * e.standard_error
    assert often.standard_error < 0.7 * once.standard_error


def test_validation_loss_has_the_addresses_of_no_training():
    """Of a seed it takes those of -1 - seed, which a training of that or another seed never has."""
    truth, seed = Gaussian(torch.zeros(3), 2.0), 3
    loss = DenoisingScoreMatching("edm", LogNormal(0.0, 1.0), sigma_data=2.0)
    data, index = truth.sample(8, 7), torch.arange(8)
    found = validation_loss(truth, data, loss, draws=2, seed=seed)
    by_hand = torch.zeros(8)
    for draw in range(2):
        t, z = loss.draw(truth, Noise(-1 - seed), index, draw)
        by_hand += loss(truth, Batch(data, t.float(), z.float())) / 2
    assert found.value == pytest.approx(float(by_hand.mean()), rel=1e-6)


def test_all_fields_see_the_same_points():
    seen = {}

    class Spy(Affine):
        def score(self, x, t, classes=None):
            seen.setdefault(id(self), []).append(x.clone())
            return super().score(x, t)

    fields = [Spy(skew(2)), Spy(2 * skew(2))]
    for field in fields:
        loop_circulation(field, RING, Protocol((0.1, 1.0), n=10))
        denoising_loss(field, RING, Protocol((1.0,), n=10))
    for a, b in zip(*seen.values(), strict=True):
        assert torch.equal(a, b)


def test_points_at_a_level_do_not_depend_on_the_other_levels():
    alone = next(iter(Protocol((1.0,), n=10).points(RING, RING)))
    among = list(Protocol((0.1, 1.0, 2.0), n=10).points(RING, RING))[1]
    assert torch.equal(alone.noisy, among.noisy)


def test_points_of_a_finite_set_are_distinct_and_limited():
    data = torch.arange(40.0).reshape(20, 2)
    field = Affine(skew(2))
    points = next(iter(Protocol((1.0,), n=20).points(data, field)))
    assert len(points.clean.unique(dim=0)) == 20
    with pytest.raises(ValueError, match=r"21 points.*has 20"):
        list(Protocol((1.0,), n=21).points(data, field))


def test_the_field_is_judged_in_evaluation_mode_and_left_as_it_was():
    field = PreconditionedField(MLP(2, hidden=8, depth=1), EDM(), sigma_data=2.85).train()
    modes = []
    field.backbone.register_forward_hook(lambda m, *_: modes.append(m.training))
    denoising_loss(field, RING, Protocol((1.0,), n=4))
    assert modes == [False]
    assert field.training


@pytest.mark.parametrize("diagnostic", [*CURL, loop_circulation, denoising_loss, score_error])
def test_a_failed_measurement_is_an_error_and_never_a_number(diagnostic):
    broken = Affine(torch.full((2, 2), math.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"at noise level 0\.5.*not finite"):
        diagnostic(broken, RING, Protocol((0.5,), n=4))


def test_profiles_print_and_become_rows():
    profile = exterior_derivative(RING, RING, Protocol((0.1, 1.0), n=8), probes=3)
    rows = profile.rows()
    assert [row["sigma"] for row in rows] == [0.1, 1.0]
    assert rows[0]["settings"] == "quantity=denoiser probes=3"
    assert "n = 8" in str(profile)
    assert len(profile) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Protocol(()), "noise levels"),
        (lambda: Protocol((-1.0,)), "noise levels"),
        (lambda: Protocol((1.0,), n=1), "at least 2"),
        (lambda: denoising_loss(RING, RING, Protocol((1e-4, 1.0))), r"\[0.0001\].* outside"),
        (lambda: validation_loss(RING, RING.sample(4, 0), LOSS, draws=0), "draw"),
        (lambda: exterior_derivative(RING, RING, Protocol((1.0,), n=4), probes=0), "probes"),
        (lambda: loop_circulation(RING, RING, Protocol((1.0,), n=4), radius=0.0), "radius"),
        (lambda: loop_circulation(RING, RING, Protocol((1.0,), n=4), sides=2), "sides"),
    ],
)
def test_a_protocol_and_a_diagnostic_name_the_setting_that_they_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()

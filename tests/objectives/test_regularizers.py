import inspect
import itertools
import math

import pytest
import torch
from scipy import stats
from torch import nn

from scorefield import (
    EDM,
    MLP,
    Asymmetry,
    BalancedWeight,
    BoundaryMatching,
    CycleCirculation,
    DenoisingScoreMatching,
    Gaussian,
    GaussianMixture,
    HybridField,
    LogNormal,
    LoopCirculation,
    Objective,
    PointRegularizer,
    PotentialField,
    PreconditionedField,
)
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from tests.planted import Affine, Planted, Watched, skew

LAW = LogNormal(0.0, 1.0)
SDE = EDM(0.01, 40.0)
TRUTH = GaussianMixture.ring(sde=SDE)


def energy(regularizer, field, x, steps=1):
    draws = [regularizer(field, LAW, x, Noise(0), step) for step in range(steps)]
    return torch.stack([d for d in draws if d is not None])


def points(dim=2, n=256):
    return Noise(9).normal("data", (dim,), torch.arange(n), dtype=torch.float64)


@pytest.mark.parametrize(
    "regularizer",
    [
        Asymmetry(weight=1.0, variant="difference", rows=128),
        Asymmetry(weight=1.0, variant="trace", probe="gaussian", probes=3, rows=64),
        LoopCirculation(weight=1.0, rows=128),
        LoopCirculation(weight=1.0, sides=3, quadrature="gauss-3", rows=64),
    ],
    ids=["difference", "trace", "square loops", "triangular loops"],
)
@pytest.mark.parametrize("dim", [2, 5])
def test_planted_curl_is_seen_by_all_in_the_same_unit(regularizer, dim):
    """E = sigma^4 |A|_F^2 / D with sigma from the law; within six standard errors of 300 steps."""
    field = Planted(Gaussian(torch.zeros(dim), 1.0, sde=SDE), skew(dim), eps=0.1)
    with torch.no_grad():
        draws = energy(regularizer, field, points(dim), steps=300)
    sigma = LAW.times(SDE, Noise(5), torch.arange(200_000))
    asymmetry = (2 * 0.1 * skew(dim)).square().sum()
    expected = sigma.pow(4).mean() * asymmetry / dim
    tolerance = 6 * math.hypot(
        float(draws.std()) / math.sqrt(300),
        float(sigma.pow(4).std() * asymmetry / dim) / math.sqrt(200_000),
    )
    assert abs(float(draws.mean() - expected)) < tolerance


@pytest.mark.parametrize("lengths", [(3,), (3, 4, 5)])
def test_cycles_see_a_rotation_exactly_in_two_dimensions(lengths):
    """In the plane C / B is the curl of an affine field on every cycle: no error is left."""
    regularizer = CycleCirculation(weight=1.0, lengths=lengths, reach=50.0)
    rotation = Planted(Gaussian(torch.zeros(2), 1.0, sde=SDE), skew(2), eps=0.3)
    for step in range(5):
        with torch.no_grad():
            value = regularizer(rotation, LAW, points(), Noise(0), step)
        sigma = LAW.times(SDE, Noise(0), torch.arange(1), step, "cycles/time")
        expected = sigma.pow(4) * 8 * 0.3**2 / 2
        torch.testing.assert_close(value, expected[0], rtol=1e-5, atol=0)


def test_a_rule_of_degree_one_is_blind_to_a_harmonic_potential_and_the_left_rule_is_not():
    gradient = Affine(-torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64)), sde=SDE)
    with torch.no_grad():
        right, wrong = (
            energy(
                CycleCirculation(weight=1.0, quadrature=q, reach=50.0), gradient, points(), steps=3
            )
            for q in ("trapezoid", "left")
        )
    assert float(right.max()) < 1e-20
    assert float(wrong.min()) > 1e-3


def test_cycles_find_less_in_the_truth_than_in_a_slight_rotation_of_it():
    """With edges no longer than the noise and a rule of degree 3 the quadrature's error on the
    curved field of the mixture lies far below a relative asymmetry of one percent; with long
    edges and the trapezoid it would be what is measured."""
    x = TRUTH.sample(512, seed=1, dtype=torch.float64)
    gates = {"sigma_min": 0.2, "sigma_max": 1.5}
    fine = CycleCirculation(weight=1.0, **gates)
    rough = CycleCirculation(weight=1.0, quadrature="trapezoid", reach=50.0, **gates)
    with torch.no_grad():
        truth = energy(fine, TRUTH, x, steps=40)
        turned = energy(fine, Planted(TRUTH, skew(2), eps=0.02), x, steps=40)
        coarse = energy(rough, TRUTH, x, steps=40)
    assert len(truth) > 20
    assert float(truth.mean()) < 0.01 * float(turned.mean())
    assert float(coarse.mean()) > float(turned.mean())


def test_a_step_without_a_cycle_has_no_such_term():
    """No number is made up: neither the loss nor the controller hears of the step."""
    balance = BalancedWeight(0.1, 1.0)
    cycles = CycleCirculation(weight=balance, reach=1e-6)
    losses = objective(cycles)(Planted(TRUTH, skew(2), 0.2), batch(), Noise(0), 0)
    assert set(losses.terms) == {"denoising"}
    assert float(balance.count) == 0


@pytest.mark.parametrize(
    "kind", [Asymmetry, LoopCirculation, CycleCirculation], ids=lambda k: k.name
)
def test_the_noise_gates_hold(kind):
    """Nothing is evaluated outside of them, and the range between them is used."""
    seen = []

    class Spy(Affine):
        def score(self, x, t, classes=None):
            seen.extend(t.tolist())
            return super().score(x, t)

    x = 0.05 * points()
    energy(kind(weight=1.0, sigma_min=0.1, sigma_max=0.2), Spy(skew(2), sde=SDE), x, steps=30)
    assert 0.1 * (1 - 1e-6) <= min(seen) < 0.13
    assert 0.17 < max(seen) <= 0.2 * (1 + 1e-6)


@pytest.mark.parametrize("gate", [{"sigma_min": 1e-3}, {"sigma_max": 100.0}])
def test_gates_outside_of_the_process_are_an_error(gate):
    with pytest.raises(ValueError, match="loops/time: noise levels from"):
        energy(LoopCirculation(weight=1.0, **gate), TRUTH, points())


def test_the_potential_of_a_hybrid_is_not_asked_above_its_gate():
    class Forbidden(Affine):
        def score(self, x, t, classes=None):
            raise AssertionError("the low branch was asked")

    hybrid = HybridField(Forbidden(skew(2), sde=SDE), Affine(skew(2), sde=SDE), sigma_c=0.35)
    energy(CycleCirculation(weight=1.0, sigma_min=0.35 * (1 + 1e-9)), hybrid, points(), steps=20)


def objective(*regularizers):
    return Objective(DenoisingScoreMatching("edm", LAW, TRUTH.std), regularizers)


def batch(step=0, n=64, dtype=torch.float64):
    noise, index = Noise(0), torch.arange(n)
    x = TRUTH.draw(noise, index, step, dtype=dtype)
    t, z = objective().draw(TRUTH, noise, index, step)
    return Batch(x, t.to(dtype), z.to(dtype))


@pytest.mark.parametrize("every", [1, 3])
def test_a_weight_is_the_weight_on_average_over_steps(every):
    field = Planted(TRUTH, skew(2), eps=0.2)
    total = objective(LoopCirculation(weight=0.7, every=every))
    added = []
    for step in range(6):
        losses = total(field, batch(step), Noise(0), step)
        added.append(float(losses.total - losses.terms["denoising"]))
        due = step % every == 0
        assert ("loops" in losses.terms) == due
        expected = 0.7 * every * float(losses.terms["loops"]) if due else 0.0
        assert added[-1] == pytest.approx(expected, rel=1e-9)


def test_a_weight_of_zero_switches_off_and_costs_nothing():
    field = Watched(Affine(skew(2), sde=SDE))
    parts = (Asymmetry(weight=0.0), LoopCirculation(weight=0.0), CycleCirculation(weight=0.0))
    losses = objective(*parts)(field, batch(), Noise(0), 0)
    assert len(field.points) == 1
    assert set(losses.terms) == {"denoising"}


class Masked(nn.Module):
    """A linear backbone behind dropout."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(2, 2), nn.Dropout(0.5)

    def forward(self, x, label):
        return self.dropout(self.linear(x))


@pytest.mark.parametrize(
    "regularizer",
    [Asymmetry(weight=1.0), LoopCirculation(weight=1.0), CycleCirculation(weight=1.0)],
    ids=lambda r: r.name,
)
def test_regularisers_do_not_see_dropout(regularizer):
    torch.manual_seed(0)
    field = PreconditionedField(Masked(), SDE, sigma_data=2.85).double().train()
    values = [float(regularizer(field, LAW, points(), Noise(0), 0).detach()) for _ in range(3)]
    assert values[0] == values[1] == values[2]
    assert field.training
    assert field.backbone.dropout.training


def test_gradients_reach_the_network_through_every_regulariser():
    field = PreconditionedField(MLP(2, hidden=16, depth=2), SDE, sigma_data=2.85)
    for regularizer in (
        Asymmetry(weight=1.0),
        LoopCirculation(weight=1.0),
        CycleCirculation(weight=1.0),
    ):
        field.zero_grad()
        regularizer(field, LAW, points().float(), Noise(0), 0).backward()
        grads = {n: p.grad for n, p in field.named_parameters()}
        # curl does not see a constant added to the field
        seen = {n for n, g in grads.items() if g is not None and bool(g.abs().sum() > 0)}
        assert seen >= {n for n in grads if n.endswith("weight")}


def test_a_conservative_field_leaves_the_regularisers_nothing_to_do():
    field = PotentialField(MLP(2, hidden=16, depth=2, outputs=1), SDE, sigma_data=2.85).double()
    with torch.no_grad():
        for variant, probe in itertools.product(
            ("difference", "trace"), ("rademacher", "gaussian")
        ):
            value = energy(Asymmetry(weight=1.0, variant=variant, probe=probe), field, points())
            assert float(value.abs().max()) < 1e-14
        fine = LoopCirculation(weight=1.0, radii=(0.25,), quadrature="gauss-8")
        assert float(energy(fine, field, points()).max()) < 1e-18


def test_boundary_matching_is_the_squared_jump():
    low = Planted(TRUTH, skew(2), eps=0.2)
    hybrid = HybridField(low, TRUTH, sigma_c=0.5)
    value = energy(BoundaryMatching(weight=1.0, bandwidth=0.0, rows=200), hybrid, points()).item()
    z = Noise(0).normal("boundary/perturbation", (2,), torch.arange(200), torch.tensor([[0]]))
    x_t = points()[:200] + 0.5 * z[0].double()
    expected = (0.5 * 0.2 * x_t).square().mean().item()
    assert value == pytest.approx(expected, rel=1e-6)
    same = HybridField(TRUTH, TRUTH, sigma_c=0.5)
    assert energy(BoundaryMatching(weight=1.0), same, points()).item() == 0.0
    with pytest.raises(TypeError, match="HybridField"):
        energy(BoundaryMatching(weight=1.0), TRUTH, points())


def test_the_boundary_is_as_wide_as_it_is_set():
    """Levels are uniform in σ_c (1 ± b): by Kolmogorov and Smirnov, and at both ends."""
    hybrid = HybridField(TRUTH, TRUTH, sigma_c=0.5)
    term, index = BoundaryMatching(weight=1.0, bandwidth=0.4), torch.arange(4096)
    t = term.times(hybrid, LAW, Noise(0), index, torch.tensor([[0]]))
    place = (SDE.noise_level(t).flatten() / 0.5 - 0.6) / 0.8
    assert 0 <= float(place.min()) < 0.01
    assert 0.99 < float(place.max()) <= 1
    assert stats.kstest(place, "uniform").pvalue > 1e-6


def test_boundary_matching_moves_both_branches():
    low = PotentialField(MLP(2, hidden=8, depth=1, outputs=1), SDE, sigma_data=2.85)
    high = PreconditionedField(MLP(2, hidden=8, depth=1, seed=1), SDE, sigma_data=2.85)
    field = HybridField(low, high, sigma_c=0.5)
    energy(BoundaryMatching(weight=1.0), field, points().float()).sum().backward()
    assert all(p.grad is not None for p in field.parameters())


def test_a_step_draws_the_same_wherever_the_run_began():
    field = Planted(TRUTH, skew(2), eps=0.2)
    for make in (Asymmetry, LoopCirculation, CycleCirculation):
        with torch.no_grad():
            whole = energy(make(weight=1.0), field, points(), steps=70)
            resumed = make(weight=1.0)(field, LAW, points(), Noise(0), 66)
        assert torch.equal(whole[66], resumed)


@pytest.mark.parametrize("make", [Asymmetry, LoopCirculation, CycleCirculation, BoundaryMatching])
def test_every_random_number_of_a_step_is_its_own(make):
    """None is that of another step; with another seed none is the same."""
    regularizer, steps = make(weight=1.0), torch.arange(2).reshape(2, 1)
    field = HybridField(TRUTH, TRUTH, sigma_c=0.5) if make is BoundaryMatching else TRUTH
    draws = regularizer.draw(field, LAW, Noise(0), 64, steps)
    others = regularizer.draw(field, LAW, Noise(1), 64, steps)
    for drawn, other in zip(draws, others, strict=True):
        assert drawn.shape[0] == 2
        if not bool((drawn.abs() == 1).all()):  # signs are often the same
            assert (drawn[0] != drawn[1]).double().mean() > 0.9
            assert (drawn != other).double().mean() > 0.9
        else:
            assert 0.3 < (drawn[0] != drawn[1]).double().mean() < 0.7


def test_a_regulariser_of_ones_own_is_a_class_with_one_method():
    """Its settings are keywords of the constructor and show in the signature."""

    class Large(PointRegularizer):
        name = "large"
        power: float = 1.0

        def energy(self, field, x, t):
            return x.abs().pow(self.power).mean()

    assert inspect.signature(Large).parameters["power"].default == 1.0
    with pytest.raises(TypeError, match="positional"):
        Large(1.0)
    large = Large(weight=2.0, power=2.0, rows=32, sigma_min=0.1, sigma_max=0.2)
    losses = objective(large)(TRUTH, batch(), Noise(0), 0)
    t = LAW.times(SDE, Noise(0), torch.arange(32), torch.tensor([[0]]), "large/time", 0.1, 0.2)[0]
    z = Noise(0).normal("large/perturbation", (2,), torch.arange(32), torch.tensor([[0]]))[0]
    expected = SDE.perturb(batch().x[:32], t, z.double()).square().mean()
    torch.testing.assert_close(losses.terms["large"], expected, rtol=1e-6, atol=0)
    added = losses.total - losses.terms["denoising"]
    torch.testing.assert_close(added, 2 * losses.terms["large"])


def test_balance_keeps_the_proportion_within_its_bound():
    balance = BalancedWeight(ratio=0.1, max_weight=5.0, horizon=10.0)
    loss = torch.tensor(2.0)
    weights = [float(balance(loss, torch.tensor(0.4))) for _ in range(50)]
    assert weights == pytest.approx([0.1 * 2.0 / 0.4] * 50)
    assert float(balance(loss, torch.tensor(0.0))) <= 5.0
    idle = BalancedWeight(ratio=0.1, max_weight=5.0)
    assert float(idle(loss, torch.tensor(0.0))) == 5.0


def test_balance_is_an_average_that_is_corrected_for_its_start():
    """The first 10 steps are averaged plainly; a step then decays by 1 - 1/horizon."""
    torch.manual_seed(0)
    losses, energies = torch.rand(2, 40, dtype=torch.float64) + 0.5
    balance = BalancedWeight(ratio=1.0, max_weight=1e9, horizon=10.0)
    for n in range(1, 41):
        weight = balance(losses[n - 1], energies[n - 1])
        if n <= 10:
            average = losses[:n].mean(), energies[:n].mean()
        else:
            average = tuple(
                0.9 * a + 0.1 * v[n - 1] for a, v in zip(average, (losses, energies), strict=True)
            )
        torch.testing.assert_close(weight, average[0] / average[1])


def test_the_averages_of_a_balance_are_not_rounded_to_float32():
    """Up to the horizon, the ratio of the two means of all that was seen."""
    balance = BalancedWeight(ratio=1.0, max_weight=1e9, horizon=1000.0)
    seen = 1 + Noise(0).uniform("seen", (2,), torch.arange(50), dtype=torch.float64)
    weights = [float(balance(*pair)) for pair in seen]
    means = seen.cumsum(dim=0)
    expected = (means[:, 0] / means[:, 1]).tolist()
    assert weights == pytest.approx(expected, rel=1e-13)


def test_the_controller_is_part_of_the_state():
    def make():
        return objective(
            CycleCirculation(weight=BalancedWeight(1e-3, 1e6, horizon=3.0), reach=50.0)
        )

    field = Planted(TRUTH, skew(2), eps=0.2)
    first, second = make(), make()
    for step in range(4):
        first(field, batch(step), Noise(0), step)
    second.load_state_dict(first.state_dict())
    one, two = (o(field, batch(4), Noise(0), 4) for o in (first, second))
    assert torch.equal(one.total, two.total)
    fresh = make()(field, batch(4), Noise(0), 4)
    assert not torch.equal(one.terms["cycles_weight"], fresh.terms["cycles_weight"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Asymmetry(weight=-1.0), "weight"),
        (lambda: Asymmetry(weight=math.nan), "weight"),
        (lambda: Asymmetry(weight=1.0, every=0), "every"),
        (lambda: Asymmetry(weight=1.0, probes=0), "probes"),
        (lambda: Asymmetry(weight=1.0, probe="sphere"), "'sphere'"),
        (lambda: LoopCirculation(weight=1.0, radii=(0.0,)), "radii"),
        (lambda: LoopCirculation(weight=1.0, sides=2), "sides"),
        (lambda: LoopCirculation(weight=1.0, sigma_max=-1.0), "sigma_max"),
        (lambda: CycleCirculation(weight=1.0, lengths=(2,)), "lengths"),
        (lambda: CycleCirculation(weight=1.0, neighbours=128), "neighbours"),
        (lambda: CycleCirculation(weight=1.0, quadrature="romberg"), "romberg"),
        (lambda: CycleCirculation(weight=1.0, reach=0.0), "reach"),
        (lambda: LoopCirculation(weight=1.0, sigma_min=2.0, sigma_max=1.0), "sigma_min"),
        (lambda: BoundaryMatching(weight=1.0, bandwidth=1.0), "bandwidth"),
        (lambda: BalancedWeight(0.0, 1.0), "ratio"),
        (lambda: objective(Asymmetry(weight=1.0), Asymmetry(weight=2.0)), "once"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_regularisers_name_the_setting_that_they_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()

import itertools
import math

import pytest
import torch
from torch import nn

from scorefield import (
    EDM,
    MLP,
    VE,
    VP,
    Consistency,
    DenoisingScoreMatching,
    Gaussian,
    GaussianMixture,
    LogNormal,
    Objective,
    PreconditionedField,
    PseudoAtoms,
    ScoreField,
    UniformTime,
)
from scorefield.domain import Torus
from scorefield.noise import Noise
from scorefield.training.identity import of_module
from tests.planted import Planted, skew

LAW = UniformTime()
SDE = VE(0.01, 2.0)
ATOMS = PseudoAtoms([[0.25], [0.75]], std=0.05, sde=VE(0.02, 0.5))
KINDS = [
    ("kernel", "single", "start"),
    ("kernel", "pair", "start"),
    ("martingale", "single", "start"),
    ("martingale", "pair", "start"),
    ("martingale", "pair", "both"),
]


def settings(kind):
    return dict(zip(("target", "estimator", "gradient"), kind, strict=True))


def energies(regularizer, field, x, steps):
    with torch.no_grad():
        return torch.stack([regularizer(field, LAW, x, Noise(0), k) for k in range(steps)])


def z_score(values, expected=0.0):
    return float((values.mean() - expected) / (values.std() / len(values) ** 0.5))


def expected_energy(field, times, target, estimator, weighting):
    """The mean for a linear field, whose steps are products of matrices, and clean points at 0."""
    sde, one = field.sde, torch.eye(2, dtype=torch.float64)
    means = []
    for k in range(len(times) - 2):
        t = times[k : k + 3]
        matrices = [field.score(one, u.expand(2)).T for u in t]
        sigma = sde.sigma(t)
        mean = one
        for matrix, a, b in zip(matrices, sigma, sigma[1:], strict=False):
            mean = (one + (a**2 - b**2) * matrix) @ mean
        p = sigma[0] * matrices[0]
        if target == "kernel":
            y = sigma[0] / (sigma[0] ** 2 - sigma[2] ** 2) * (mean - one)
            scale = sigma[0] ** -2
        else:
            y = ((one + sigma[2] ** 2 * matrices[2]) @ mean - one) / sigma[0]
            scale = sigma[0] ** 2
        product = p * (p - 2 * y) if estimator == "single" else (p - y) ** 2
        scale = scale if weighting == "none" else 1.0
        means.append(scale * float(product.sum() * sigma[0] ** 2 / 2))
    return sum(means) / len(means)


@pytest.mark.parametrize("weighting", ["sigma", "none"])
@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_estimators_are_unbiased(kind, weighting):
    """Against the mean over trajectories, in closed form, of a normal law's field that is turned;
    only what depends on the target alone is missing from the single trajectory's."""
    field = Planted(Gaussian(torch.zeros(2), 0.5, sde=SDE), skew(2), eps=0.4)
    times = SDE.time(torch.tensor([1.2, 1.0, 0.7, 0.5, 0.3], dtype=torch.float64))
    term = Consistency(
        weight=1.0,
        **settings(kind),
        steps=2,
        grid=times.tolist(),
        weighting=weighting,
        rows=500,
    )
    found = energies(term, field, torch.zeros(500, 2).double(), 12)
    expected = expected_energy(field, times, *kind[:2], weighting)
    assert abs(z_score(found, expected)) < 6
    assert float(found.std()) / 12**0.5 < 0.6 * abs(expected)


@pytest.mark.parametrize("kind", KINDS[1:2] + KINDS[3:4], ids="-".join)
@pytest.mark.parametrize("points", ["data", "uniform"])
def test_the_exact_field_on_a_torus_has_nothing_to_do(kind, points):
    """In short steps, whose error is of no account."""
    term = Consistency(
        weight=1.0,
        **settings(kind),
        grid=400,
        points=points,
        rows=64,
        sigma_min=0.05,
    )
    found = energies(term, ATOMS, ATOMS.sample(64, 0, dtype=torch.float64), 10)
    assert abs(z_score(found)) < 6


class Levels(ScoreField):
    """A field with a weight of its own at each of three times."""

    def __init__(self):
        super().__init__(EDM(), Gaussian(torch.zeros(2), 1.0).domain)
        self.weights = nn.Parameter(torch.tensor([-0.3, -0.5, -0.7], dtype=torch.float64))

    def score(self, x, t, classes=None):
        t = torch.as_tensor(t).to(x.dtype).expand(len(x))
        weight = self.weights[(t < 0.9).long() + (t < 0.4).long()]
        return weight.unsqueeze(1) * x


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_the_gradient_reaches_the_ends_that_are_named_and_no_trajectory(kind):
    field = Levels()
    term = Consistency(weight=1.0, **settings(kind), steps=2, grid=(1.0, 0.6, 0.2), rows=16)
    term(field, LAW, torch.ones(16, 2).double(), Noise(0), 0).backward()
    start, middle, end = field.weights.grad.tolist()
    assert start != 0
    assert middle == 0
    assert (end != 0) == (kind[2] == "both")


def test_the_gradient_in_both_ends_is_that_of_the_square():
    """By finite differences of the mean over fixed trajectories, which a guide draws."""
    field, x = Levels(), torch.ones(100, 2).double()
    grid = {"steps": 2, "grid": (1.0, 0.6, 0.2), "rows": 100}
    term = Consistency(weight=1.0, gradient="both", guide=Gaussian(torch.zeros(2), 0.7), **grid)
    term(field, LAW, x, Noise(0), 0).backward()
    for k in (0, 2):
        values = []
        for step in (1e-4, -1e-4):
            moved = Levels()
            with torch.no_grad():
                moved.weights[k] += step
                values.append(float(term(moved, LAW, x, Noise(0), 0)))
        slope = (values[0] - values[1]) / 2e-4
        assert float(field.weights.grad[k]) == pytest.approx(slope, rel=1e-6)


def test_pairs_have_the_gradient_of_single_trajectories_for_a_given_target():
    """The mean of the two, whichever the target: what is gained is a value that is a square."""
    x = torch.ones(2_000, 2).double()
    for target in ("kernel", "martingale"):
        grads = []
        for estimator in ("single", "pair"):
            field = Levels()
            kind = (target, estimator, "start")
            term = Consistency(
                weight=1.0,
                **settings(kind),
                steps=2,
                grid=(1.0, 0.6, 0.2),
                rows=2_000,
            )
            term(field, LAW, x, Noise(0), 0).backward()
            grads.append(float(field.weights.grad[0]))
        assert grads[0] == pytest.approx(grads[1], rel=0.3)


class Counted(GaussianMixture):
    """The ring, which counts the points that it is asked at."""

    def __init__(self):
        ring = GaussianMixture.ring(sde=SDE)
        super().__init__(ring.means, stds=0.1, sde=SDE)
        self.calls = []

    def predict(self, x, t, quantity, classes=None):
        self.calls.append(len(x))
        return super().predict(x, t, quantity)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_the_cost_is_the_one_that_is_stated(kind, guided):
    field, guide = Counted(), Counted() if guided else None
    term = Consistency(weight=1.0, **settings(kind), guide=guide, rows=10)
    term(field, LAW, torch.zeros(64, 2), Noise(0), 0)
    many = 20 if kind[1] == "pair" else 10
    ends = [many] if kind[0] == "martingale" else []
    assert field.calls == [10] + ([] if guided else [many] * 4) + ends
    if guide is not None:
        assert guide.calls == [many] * 5


def test_a_guide_draws_the_trajectories_and_is_not_trained():
    """With the guide of the exact field the target is what it is for it, whatever the field."""
    guide = PreconditionedField(Masked(), SDE, sigma_data=1.0).train()
    field = PreconditionedField(MLP(2, hidden=8, depth=1), SDE, sigma_data=1.0)
    term = Consistency(weight=1.0, guide=guide)
    x = torch.ones(64, 2)
    values = [float(term(field, LAW, x, Noise(0), 0).detach()) for _ in range(2)]
    assert values[0] == values[1]
    assert guide.training
    assert guide.backbone.dropout.training
    assert values[0] != float(Consistency(weight=1.0)(field, LAW, x, Noise(0), 0).detach())
    objective = Objective(DenoisingScoreMatching("score", LAW), [term])
    term(field, LAW, x, Noise(0), 0).backward()
    assert not list(objective.parameters())
    assert not objective.state_dict()
    assert guide not in list(objective.modules())
    assert all(p.grad is None for p in guide.parameters())


class Masked(nn.Module):
    """A linear backbone behind dropout."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(2, 2), nn.Dropout(0.5)

    def forward(self, x, label):
        return self.dropout(self.linear(x))


def test_a_training_knows_its_guide():
    def identity(guide):
        return of_module("objective", Consistency(weight=1.0, guide=guide))

    first, same, other = (Gaussian(torch.zeros(2), s, sde=SDE) for s in (1.0, 1.0, 1.1))
    assert identity(first) == identity(same)
    assert identity(first) != identity(other)
    assert identity(first) != identity(None)
    assert identity(first) != identity(first.under(EDM()))


def test_each_point_has_a_start_of_its_own():
    """Every time with enough behind it and a noise level within the gates, equally often."""
    seen = []

    class Spy(Levels):
        def score(self, x, t, classes=None):
            seen.append(t)
            return super().score(x, t)

    times = [3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.4]
    term = Consistency(weight=1.0, steps=2, grid=times, rows=600, sigma_min=0.7, sigma_max=2.0)
    energies(term, Spy(), torch.zeros(600, 2).double(), 1)
    starts, counts = seen[0].unique(return_counts=True)
    assert starts.tolist() == [0.7, 1.0, 1.5, 2.0]
    assert int((counts - 150).abs().max()) < 70
    assert seen[1].shape == (1200,)
    behind = dict(itertools.pairwise(times))
    expected = [behind[t] for t in seen[0].tolist()]
    assert seen[1].tolist() == pytest.approx(expected * 2)


@pytest.mark.parametrize("sde", [VP(), VE(0.01, 5.0), EDM(0.1, 5.0)])
def test_the_default_grid_is_of_the_whole_process(sde):
    times = Consistency(weight=1.0).times_of(sde, torch.device("cpu"))
    assert len(times) == 100
    assert float(times[0]) == sde.t_max
    assert float(times[-1]) == sde.t_min
    # Whatever the clock: of EDM, even times would all be far above the scale of the data.
    steps = sde.noise_level(times).log().diff()
    torch.testing.assert_close(steps, steps[:1].expand(99))


@pytest.mark.parametrize("shape", [(), (3,), (2, 4, 4)])
def test_points_of_any_shape(shape):
    field = Gaussian(torch.zeros(shape), 1.0, sde=SDE)
    for kind in KINDS:
        term = Consistency(weight=1.0, **settings(kind), rows=8)
        value = term(field, LAW, torch.ones(8, *shape), Noise(0), 0)
        assert value.shape == ()
        assert math.isfinite(float(value))
        assert value.dtype == torch.float32


def test_large_points_are_drawn_few_steps_at_once(monkeypatch):
    """What is drawn does not depend on how many."""
    field, x = Gaussian(torch.zeros(8), 1.0, sde=SDE), torch.ones(64, 8)
    whole = energies(Consistency(weight=1.0), field, x, 3)
    shapes = [(2,), (3, 32, 32), (3, 256, 256)]
    spans = [Consistency(weight=1.0).span(Gaussian(torch.zeros(s), std=1.0)) for s in shapes]
    assert spans == [64, 2, 1]
    monkeypatch.setattr(Consistency, "span", lambda self, field: 2)
    assert torch.equal(energies(Consistency(weight=1.0), field, x, 3), whole)


def test_the_gradient_is_at_both_ends_where_it_can_be():
    assert Consistency(weight=1.0).gradient == "both"
    assert Consistency(weight=1.0, estimator="single").gradient == "start"
    assert Consistency(weight=1.0, target="kernel").gradient == "start"


def test_networks_learn_to_agree_with_themselves():
    """Along given trajectories, what is gone down is a square."""
    ring = GaussianMixture.ring(sde=SDE)
    field = PreconditionedField(MLP(2, hidden=16, depth=2), SDE, sigma_data=1.0)
    optimizer = torch.optim.Adam(field.parameters(), 1e-2)
    term = Consistency(weight=1.0, rows=64, grid=30, guide=ring)
    values = []
    for step in range(40):
        optimizer.zero_grad()
        value = term(field, LAW, ring.draw(Noise(0), torch.arange(64), step), Noise(0), step)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert sum(values[-10:]) < 0.5 * sum(values[:10])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "score"}, "target is kernel or martingale, not 'score'"),
        ({"estimator": "triple"}, "estimator is single or pair"),
        ({"gradient": "end"}, "gradient is start or both"),
        ({"target": "kernel", "gradient": "both"}, "gradient at both ends needs"),
        ({"estimator": "single", "gradient": "both"}, "gradient at both ends needs"),
        ({"weighting": "edm"}, "consistency: weighting is sigma or none"),
        ({"points": "grid"}, "consistency: points is data or uniform"),
        ({"rows": 0}, "rows must be a positive integer"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"grid": 5}, "5 steps need a grid of more times, got 5"),
        ({"grid": (1.0, 0.5), "steps": 2}, "more times, got 2"),
        ({"grid": (1.0, 0.5, 0.5), "steps": 2}, "must descend"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_the_regulariser_names_the_setting_that_it_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Consistency(weight=1.0, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guide": Gaussian(torch.zeros(2), 1.0, sde=EDM())}, "consistency: the oracle is a field"),
        ({"guide": Gaussian(torch.zeros(3), 1.0, sde=SDE)}, "consistency: the oracle is a field"),
        ({"grid": (1.5, 0.5), "steps": 1}, "times from 1.5 to 0.5, the process from 1 to 0"),
        ({"sigma_min": 3.0}, "none of the 95 times .* between 3 and inf"),
        ({"points": "uniform"}, "uniform points need a torus"),
    ],
)
def test_what_does_not_fit_the_field_is_named(arguments, message):
    field = Gaussian(torch.zeros(2), 1.0, sde=SDE)
    with pytest.raises(ValueError, match=message):
        Consistency(weight=1.0, **arguments)(field, LAW, torch.zeros(8, 2), Noise(0), 0)


def test_the_kind_of_domain_is_that_of_the_field():
    assert isinstance(ATOMS.domain, Torus)
    term = Consistency(weight=1.0, points="uniform", rows=8)
    found = [energies(term, ATOMS, ATOMS.sample(8, seed), 2) for seed in (0, 1)]
    assert torch.equal(*found)


def test_a_law_of_times_does_not_matter():
    """The grid is the law of the starts."""
    field = GaussianMixture.ring(sde=SDE)
    x = field.sample(64, 0)
    first, second = (
        Consistency(weight=1.0)(field, law, x, Noise(0), 0) for law in (LAW, LogNormal())
    )
    assert torch.equal(first, second)

"""The law of classes: each point is evaluated with its own, however points are repeated or split.

What returns a value for each point is compared with the field of one class at that point alone.
Diagnostics return means; they are run on points whose times tell their classes, with a field that
compares the two at every evaluation.
"""

import pytest
import torch

from scorefield import (
    DDIM,
    EDM,
    VE,
    VP,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPlusPlus2M,
    Euler,
    Heun,
    IdealScore,
    Langevin,
    NoisePrediction,
    OneClass,
    PotentialField,
    PreconditionedField,
    PredictorCorrector,
    ProbabilityFlow,
    Protocol,
    ScoreField,
    circulation_growth,
    consistency_error,
    cycle_circulation,
    decode,
    denoising_loss,
    distance_to_ideal,
    encode,
    exterior_derivative,
    fokker_planck_errors,
    harmonic_part,
    hodge_split,
    intrinsic_dimension,
    log_prob,
    loop_circulation,
    path_gap,
    potential_gap,
    relative_asymmetry,
    score_error,
    winding,
)
from scorefield.calculus.asymmetry import probed_asymmetry
from scorefield.calculus.circulation import (
    circulation,
    circulation_and_error,
    in_blocks,
    quadrature,
)
from scorefield.calculus.consistency import martingale_target, reverse_trajectory
from scorefield.calculus.derivatives import jacobian, jvp, jvp_vjp, value_and_products, vjp
from scorefield.calculus.fokker_planck import fokker_planck_terms
from scorefield.calculus.paths import Paths, line_integrals
from scorefield.calculus.winding import straight_loops
from scorefield.diagnostics.exterior import asymmetries
from scorefield.diagnostics.published import (
    finite_difference_asymmetry,
    left_cycle_circulation,
    path_variance,
)
from scorefield.diagnostics.trajectories import walk
from scorefield.domain import Torus
from tests.laws.cases import KnownWave, normal

N = 5
CLASSES = torch.tensor([2, 0, 1, 3, 0])
X, V = 0.7 * normal((N, 2), "x"), normal((N, 2), "v")
T = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
TORUS = Torus((2,), 3.0)


def flat(kind=PreconditionedField):
    return kind(KnownWave((2,)), VP(), sigma_data=0.7)


def periodic():
    process = VE(0.01, 10.0)
    return PreconditionedField(KnownWave((2,)), process, None, NoisePrediction(), TORUS)


def polygons(rows):
    corners = torch.tensor([[0.0, 0.0], [0.3, 0.0], [0.0, 0.4]], dtype=torch.float64)
    return X[rows].unsqueeze(1) + corners


def fokker_planck(field, rows, classes, probes):
    signs = None if probes is None else V[rows].sign().expand(probes, -1, -1)
    terms = fokker_planck_terms(
        field.score, X[rows], T[rows], field.sde, probes=signs, classes=classes
    )
    draws = [terms[form].residual(T[rows], field.sde).transpose(0, 1) for form in terms]
    return torch.cat(draws, dim=1)


def lines(field, rows, classes):
    paths = Paths(X[rows], V[rows], 0.3 * V[rows].flip(1))
    steep = torch.ones_like(T[rows])
    with torch.no_grad():
        return line_integrals(
            field.score, paths, T[rows], field.domain, 1e-7, 1e-15, steep, classes=classes
        ).value


def loops(field, rows, classes):
    steep = torch.ones_like(T[rows])
    at = X[rows], T[rows], TORUS, 1e-7, 1e-15, steep, 256
    with torch.no_grad():
        return straight_loops(field.score, *at, classes=classes).value


def trajectory(field, rows, classes):
    times = torch.stack((T, 0.8 * T, 0.5 * T))[:, rows]
    z = normal((2, N, 2), "z")[:, rows]
    states = reverse_trajectory(field, X[rows], times, z, classes=classes)
    end = martingale_target(field, X[rows], times[0], states[-1], times[-1], classes)
    return torch.cat((states.transpose(0, 1).flatten(1), end), dim=1)


def products(field, rows, classes):
    vectors = torch.stack((V, V.flip(1), -X))[:, rows]
    value, found = value_and_products(field.score, X[rows], T[rows], vectors, classes)
    return torch.cat((value, found.transpose(0, 1).flatten(1)), dim=1)


CALCULUS = {
    "jvp": lambda f, r, k: jvp(f.score, X[r], T[r], V[r], k),
    "vjp": lambda f, r, k: vjp(f.score, X[r], T[r], V[r], k),
    "jvp and vjp": lambda f, r, k: torch.cat(jvp_vjp(f.score, X[r], T[r], V[r], k), dim=1),
    "jacobian": lambda f, r, k: jacobian(f.score, X[r], T[r], None, k),
    "jacobian, row by row": lambda f, r, k: jacobian(f.score, X[r], T[r], 1, k),
    "jacobian, three rows": lambda f, r, k: jacobian(f.score, X[r], T[r], 3, k),
    "asymmetry": lambda f, r, k: torch.stack(
        probed_asymmetry(f.score, X[r], T[r], V[r], classes=k), dim=1
    ),
    "products": products,
    "circulation": lambda f, r, k: circulation(
        f.score, polygons(r), T[r], quadrature("simpson"), f.domain, k
    ),
    "circulation in blocks": lambda f, r, k: circulation(
        in_blocks(f.score, 6), polygons(r), T[r], quadrature("gauss-2"), f.domain, k
    ),
    "circulation and error": lambda f, r, k: torch.stack(
        circulation_and_error(f.score, polygons(r), T[r], quadrature("gauss-2"), f.domain, 1e-9, k),
        dim=1,
    ),
    "line integrals": lines,
    "trajectory": trajectory,
    "fokker-planck": lambda f, r, k: fokker_planck(f, r, k, None),
    "fokker-planck, probes": lambda f, r, k: fokker_planck(f, r, k, 2),
    "potential": lambda f, r, k: f.potential(X[r], T[r], k),
    "potential in blocks": lambda f, r, k: in_blocks(f.potential, 4)(X[r], T[r], k),
}


def compare(evaluate, field, rtol=1e-9, atol=1e-9, rows=range(N)):
    """Rows of all classes at once, with those of their class and of their field alone."""
    whole = evaluate(field, torch.arange(N), CLASSES)
    for k in rows:
        number = int(CLASSES[k])
        row = torch.tensor([k])
        found = whole[k : k + 1]
        alone = evaluate(field, row, CLASSES[k : k + 1])
        torch.testing.assert_close(found, alone, rtol=rtol, atol=atol)
        bound = evaluate(OneClass(field, number), row, None)
        torch.testing.assert_close(found, bound, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", CALCULUS)
def test_calculus(name):
    compare(CALCULUS[name], flat(PotentialField if "potential" in name else PreconditionedField))


@pytest.mark.parametrize("entries", [64, 2**18])
def test_paths_and_loops_in_blocks(monkeypatch, entries):
    monkeypatch.setattr("scorefield.calculus.paths._COORDINATES", entries)
    monkeypatch.setattr("scorefield.calculus.winding._COORDINATES", entries)
    compare(lines, flat())
    compare(loops, periodic())


SAMPLERS = [
    Euler(4),
    Heun(4, churn=2.0),
    DDIM(4, eta=0.5),
    DPMSolverPlusPlus2M(4),
    PredictorCorrector(4, Ancestral(), AnnealedLangevin(0.1, 2)),
    PredictorCorrector(4, Ancestral(), Langevin(0.1), first="predictor"),
    ProbabilityFlow(1e-6, 1e-6),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}")
@pytest.mark.parametrize("batch_size", [2, N])
def test_samplers(sampler, batch_size):
    def sample(field, rows, classes):
        return sampler.sample(
            field, seed=3, index=rows, classes=classes, batch_size=batch_size, dtype=torch.float64
        )

    compare(sample, flat(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("to", [encode, decode])
def test_latent_codes(to):
    compare(lambda f, r, k: to(f, X[r], classes=k).x, flat(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"trace": "exact"},
        {"trace": "probes", "n_probes": 2},
        {"trace": "probes", "n_probes": 2, "probes": "variance_reduced"},
        {"trace": "probes", "standard_error": 0.2, "max_probes": 16},
    ],
)
@pytest.mark.parametrize("batch_size", [2, N])
def test_log_densities(settings, batch_size):
    field = PreconditionedField(KnownWave((3,)), VP(), sigma_data=0.7)
    x = 0.5 * normal((N, 3), "points")

    def value(field, rows, classes):
        found = log_prob(
            field,
            x[rows],
            index=rows,
            classes=classes,
            batch_size=batch_size,
            rtol=1e-3,
            atol=1e-3,
            **settings,
        )
        return torch.cat((found.value.unsqueeze(1), found.latent), dim=1)

    # The first and the last of a class lie in different blocks.
    compare(value, field, rtol=1e-6, atol=1e-6, rows=(1, 4))


def test_states_on_the_way():
    states = walk(flat(), Heun(3), N, classes=CLASSES, dtype=torch.float64).states
    for state in states:
        assert state.classes.tolist() == CLASSES.tolist()
    for k, number in enumerate(CLASSES.tolist()):
        alone = walk(flat(), Heun(3), 1, first=k, classes=number, dtype=torch.float64).states
        for one, all_of_them in zip(alone, states, strict=True):
            torch.testing.assert_close(one.x, all_of_them.x[k : k + 1], rtol=1e-9, atol=1e-9)


STEP = 1e-3
"""By how much, relative to the noise level, times differ from class to class."""


class Coded(Protocol):
    """A protocol whose times tell the classes of the points."""

    def points(self, data, field, classes=None):
        for points in super().points(data, field, classes):
            yield points._replace(t=points.t * (1 + STEP * points.classes))


class Checking(ScoreField):
    """A field that compares the classes that it is given with those that the times tell."""

    classes, has_potential = 3, True

    def __init__(self, field):
        super().__init__(field.sde, field.domain)
        self.field, self.checked = field, 0

    def check(self, t, classes):
        level = self.sde.time(torch.ones_like(t))
        told = torch.round((t.detach() / level - 1) / STEP).long()
        assert torch.equal(told, classes), "these are the classes of other points"
        self.checked += len(told)

    def score(self, x, t, classes=None):
        return self.predict(x, t, "score", classes)

    def predict(self, x, t, quantity, classes=None):
        self.check(t, classes)
        return self.field.predict(x, t, quantity, classes)

    def potential(self, x, t, classes=None):
        self.check(t, classes)
        return self.field.potential(x, t, classes)


DATA, LABELS = normal((60, 2), "data"), torch.arange(60) % 3
DIAGNOSTICS = {
    "exterior": exterior_derivative,
    "exterior, probes": lambda *a, **k: exterior_derivative(*a, probes=3, **k),
    "relative": relative_asymmetry,
    "both": asymmetries,
    "loops": loop_circulation,
    "growth": circulation_growth,
    "cycles": lambda *a, **k: cycle_circulation(*a, cloud=8, **k),
    "fokker-planck": fokker_planck_errors,
    "fokker-planck, probes": lambda *a, **k: fokker_planck_errors(*a, probes=2, **k),
    "path": path_gap,
    "potential": potential_gap,
    "dimension": intrinsic_dimension,
    "dimension, probes": lambda *a, **k: intrinsic_dimension(*a, probes=3, **k),
    "hodge": lambda *a, **k: hodge_split(*a, features=8, **k),
    "denoising": denoising_loss,
    "ideal": distance_to_ideal,
    "left cycles": lambda *a, **k: left_cycle_circulation(*a, cycles=8, **k),
    "path variance": path_variance,
    "finite differences": finite_difference_asymmetry,
}
BLOCKS = ["protocol._ENTRIES", "asymmetry._WORKSPACE"]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_diagnostics(name, small, monkeypatch):
    if small:
        for block in BLOCKS:
            monkeypatch.setattr(f"scorefield.diagnostics.{block}", 14)
        monkeypatch.setattr("scorefield.calculus.paths._COORDINATES", 30)
    kind = PotentialField if name == "potential" else PreconditionedField
    field = Checking(kind(KnownWave((2,)), EDM(0.01, 20.0), sigma_data=0.7))
    DIAGNOSTICS[name](field, DATA, Coded((1.0,), n=48), classes=LABELS)
    assert field.checked >= 48


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("diagnostic", [winding, harmonic_part])
def test_diagnostics_on_a_torus(diagnostic, small, monkeypatch):
    if small:
        monkeypatch.setattr("scorefield.calculus.winding._COORDINATES", 100)
    field = Checking(periodic())
    diagnostic(field, DATA % 3.0, Coded((1.0,), n=8), nodes=64, classes=LABELS)
    assert field.checked >= 8


def test_the_error_of_a_score_is_that_of_each_class():
    truth = IdealScore(DATA, EDM(0.01, 20.0), labels=LABELS)
    protocol = Protocol((0.1, 1.0), n=30)
    (_, low), (_, high) = score_error(truth, truth, protocol, torch.arange(30) % 3)
    assert low.value == high.value == 0
    (_, low), _ = distance_to_ideal(truth, DATA, protocol, LABELS)
    assert low.value < 1e-12
    (_, low), _ = distance_to_ideal(truth, DATA, protocol, LABELS.flip(0))
    assert low.value > 0.1


@pytest.mark.parametrize("coordinates", [100, 2**18])
def test_a_field_of_classes_that_lie_far_apart_is_as_consistent_as_the_whole(
    coordinates, monkeypatch
):
    monkeypatch.setattr("scorefield.diagnostics.consistency._COORDINATES", coordinates)
    data = DATA + 100 * LABELS.unsqueeze(1)
    field = IdealScore(data, EDM(0.01, 200.0), labels=LABELS)
    protocol = Protocol((0.5,), n=24)
    (known,), (whole,) = (
        consistency_error(field, data, protocol, classes=k).estimates for k in (LABELS, None)
    )
    assert known.value == pytest.approx(whole.value, rel=1e-9)
    assert known.standard_error == pytest.approx(whole.standard_error, rel=1e-9)

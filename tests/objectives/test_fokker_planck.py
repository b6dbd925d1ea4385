"""The Fokker–Planck regulariser: what it measures, where, and what it costs in bias."""

import pytest
import torch
from torch import nn

from scorefield import (
    EDM,
    MLP,
    VE,
    DenoisingScoreMatching,
    FokkerPlanck,
    GaussianMixture,
    LogUniform,
    NoisePrediction,
    Objective,
    PotentialField,
    PreconditionedField,
    PseudoAtoms,
    SymmetrizedMLP,
)
from scorefield.calculus.fokker_planck import fokker_planck_residual, per_log_noise
from scorefield.domain import Torus
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch

LAW = LogUniform()
SDE = EDM(0.01, 40.0)
TRUTH = GaussianMixture.ring(sde=SDE)
ATOMS = PseudoAtoms([[0.25], [0.75]], std=0.05, sde=VE(0.01, 0.5))
FORMS = ("gradient", "component")


def network(kind=PreconditionedField, outputs=None):
    return kind(MLP(2, hidden=16, depth=2, outputs=outputs), SDE, sigma_data=2.85).double()


def clean(n=64):
    return TRUTH.draw(Noise(9), torch.arange(n), dtype=torch.float64)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weighting", ["sigma", "none"])
def test_the_energy_is_the_mean_square_of_a_coordinate(form, weighting):
    field = network()
    energy = FokkerPlanck(weight=1.0, form=form, weighting=weighting)(
        field, LAW, clean(), Noise(0), 3
    )
    step, index = torch.tensor([[3]]), torch.arange(64)
    t = LAW.times(SDE, Noise(0), index, step, "fokker_planck/time").double()[0]
    z = Noise(0).normal("fokker_planck/point", (2,), index, step).double()[0]
    residual = fokker_planck_residual(field.score, SDE.perturb(clean(), t, z), t, SDE, form)
    if weighting == "sigma":
        residual = per_log_noise(residual.unsqueeze(0), t, SDE)
    assert energy.item() == pytest.approx(residual.square().mean().item(), rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("points", ["data", "uniform"])
def test_the_truth_leaves_it_nothing_to_do(form, points):
    x = ATOMS.draw(Noise(1), torch.arange(32), dtype=torch.float64)
    for step in range(3):
        regularizer = FokkerPlanck(weight=1.0, form=form, points=points)
        assert float(regularizer(ATOMS, LAW, x, Noise(0), step).detach()) < 1e-16


def test_probes_leave_no_bias():
    """At the same points, the difference from the exact energy is zero on average, within five
    standard errors of 100 steps; its spread is not."""
    field, x = network(), clean(16)
    exact, probed = (FokkerPlanck(weight=1.0, form="component", probes=p) for p in (None, 3))
    with torch.no_grad():
        differences = torch.stack(
            [
                probed(field, LAW, x, Noise(0), step) - exact(field, LAW, x, Noise(0), step)
                for step in range(100)
            ]
        )
    error = float(differences.std()) / 10
    assert error > 1e-6
    assert abs(float(differences.mean())) < 5 * error


def test_uniform_points_are_anywhere_on_the_torus():
    seen = []

    class Spy(PseudoAtoms):
        def score(self, x, t, classes=None):
            seen.append(x.detach())
            return super().score(x, t)

    field = Spy([[0.25], [0.75]], std=0.05, sde=VE(0.01, 0.5))
    x = field.draw(Noise(1), torch.arange(64), dtype=torch.float64)
    narrow = {"sigma_max": 0.02}
    FokkerPlanck(weight=1.0, points="uniform", **narrow)(field, LAW, x, Noise(0), 0)
    FokkerPlanck(weight=1.0, points="data", **narrow)(field, LAW, x, Noise(0), 0)
    sites = field.positions.flatten()
    far = [float((y - sites).abs().amin(dim=2).mean()) for y in seen]
    assert far[0] > 0.1 > 0.06 > far[1]
    assert 0 <= float(seen[0].min()) < 0.05 < 0.95 < float(seen[0].max()) < 1


def test_uniform_points_need_a_torus():
    with pytest.raises(ValueError, match="fokker_planck/point: uniform points need a torus"):
        FokkerPlanck(weight=1.0, points="uniform")(network(), LAW, clean(), Noise(0), 0)


def test_rows_and_gates():
    seen = []

    class Spy(GaussianMixture):
        def score(self, x, t, classes=None):
            seen.extend(t.tolist())
            return super().score(x, t)

    field = Spy(TRUTH.means, 0.35, sde=SDE)
    FokkerPlanck(weight=1.0, rows=8, sigma_min=0.1, sigma_max=0.2)(field, LAW, clean(), Noise(0), 0)
    assert len(seen) == 2 * 8
    assert 0.1 * (1 - 1e-6) <= min(seen) < max(seen) <= 0.2 * (1 + 1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("probes", [None, 2])
def test_gradients_reach_every_weight(form, probes):
    for field in (network(), network(PotentialField, outputs=1)):
        FokkerPlanck(weight=1.0, form=form, probes=probes)(
            field, LAW, clean(), Noise(0), 0
        ).backward()
        grads = {name: p.grad for name, p in field.named_parameters()}
        assert all(g is not None and bool(g.any()) for g in grads.values())


def test_the_network_is_asked_in_evaluation_mode():
    class Masked(nn.Module):
        event_shape = (2,)

        def __init__(self):
            super().__init__()
            self.linear, self.dropout = nn.Linear(2, 2), nn.Dropout(0.5)

        def forward(self, x, label):
            return torch.tanh(self.dropout(self.linear(x)))

    field = PreconditionedField(Masked(), SDE, sigma_data=2.85).double().train()
    values = {
        float(FokkerPlanck(weight=1.0)(field, LAW, clean(), Noise(0), 0).detach()) for _ in range(3)
    }
    assert len(values) == 1
    assert field.training


def test_it_is_a_term_of_the_loss():
    objective = Objective(
        DenoisingScoreMatching("edm", LAW, TRUTH.std), [FokkerPlanck(weight=0.3, every=2, probes=2)]
    )
    field, x, index = network(), clean(), torch.arange(64)
    for step in range(4):
        t, z = objective.draw(field, Noise(0), index, step)
        losses = objective(field, Batch(x, t.double(), z.double()), Noise(0), step)
        assert ("fokker_planck" in losses.terms) == (step % 2 == 0)
        added = float((losses.total - losses.terms["denoising"]).detach())
        term = float(losses.terms.get("fokker_planck", 0.0))
        assert added == pytest.approx(0.6 * term, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("probes", [None, 2])
def test_a_step_draws_the_same_wherever_the_run_began(probes):
    field, x = network(), clean()
    one, two = (FokkerPlanck(weight=1.0, probes=probes) for _ in range(2))
    with torch.no_grad():
        whole = [one(field, LAW, x, Noise(0), step) for step in range(67)]
        assert torch.equal(whole[66], two(field, LAW, x, Noise(0), 66))


def test_descent_makes_a_field_obey_the_equation():
    """From a random network, in 60 steps of Adam, to a tenth of the residual."""
    network = SymmetrizedMLP((2, 1), hidden=16, depth=2)
    field = PreconditionedField(
        network, VE(0.01, 0.5), None, NoisePrediction(), domain=Torus((2, 1))
    )
    x = torch.zeros(64, 2, 1)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-2)
    regularizer, values = FokkerPlanck(weight=1.0, points="uniform"), []
    for step in range(60):
        optimizer.zero_grad()
        energy = regularizer(field, LAW, x, Noise(0), step)
        energy.backward()
        optimizer.step()
        values.append(float(energy.detach()))
    assert sum(values[-10:]) < 0.1 * sum(values[:10])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -1.0}, "weight"),
        ({"form": "curl"}, "gradient or component, not 'curl'"),
        ({"weighting": "rate"}, "sigma or none, not 'rate'"),
        ({"probes": 1}, "probes must be an integer of at least 2"),
        ({"points": "grid"}, "points is data or uniform, not 'grid'"),
        ({"rows": 0}, "rows must be a positive integer"),
        ({"every": 0}, "every"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min"),
    ],
)
def test_the_regulariser_names_the_setting_that_it_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        FokkerPlanck(**{"weight": 1.0, **arguments})

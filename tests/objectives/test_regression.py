import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VE,
    DenoisingScoreMatching,
    GaussianMixture,
    LogNormal,
    Objective,
    PreconditionedField,
    PseudoAtoms,
    Regression,
)
from scorefield.noise import Noise
from scorefield.training.identity import of_module
from tests.planted import Planted, skew

LAW = LogNormal(0.0, 1.0)
SDE = EDM(0.01, 40.0)
TRUTH = GaussianMixture.ring(sde=SDE)
ATOMS = PseudoAtoms([[0.25], [0.75]], std=0.05, sde=VE(0.02, 0.5))


def energy(term, field, x, step=0):
    with torch.no_grad():
        return float(term(field, LAW, x, Noise(0), step))


@pytest.mark.parametrize("weighting", ["sigma", "none"])
def test_the_energy_is_the_mean_square_of_the_error(weighting):
    field, x = Planted(TRUTH, skew(2), eps=0.2), TRUTH.sample(64, 0, dtype=torch.float64)
    found = energy(Regression(weight=1.0, oracle=TRUTH, weighting=weighting), field, x)
    t = LAW.times(SDE, Noise(0), torch.arange(64), torch.tensor([[0]]), "regression/time")[0]
    z = Noise(0).normal("regression/points", (2,), torch.arange(64), torch.tensor([[0]]))[0]
    square = (0.2 * SDE.perturb(x, t, z.double())).square().mean(dim=1)
    expected = (square * t**2 if weighting == "sigma" else square).mean()
    assert found == pytest.approx(float(expected), rel=1e-5)
    assert energy(Regression(weight=1.0, oracle=TRUTH, weighting=weighting), TRUTH, x) == 0.0


def test_uniform_points_are_where_the_data_never_come():
    wrong = PseudoAtoms([[0.2], [0.7]], std=0.05, sde=ATOMS.sde)
    x = ATOMS.sample(64, 0)
    near = energy(Regression(weight=1.0, oracle=ATOMS, sigma_max=0.05), wrong, x)
    far = energy(Regression(weight=1.0, oracle=ATOMS, sigma_max=0.05, points="uniform"), wrong, x)
    assert near > 0
    assert far > near
    other = energy(
        Regression(weight=1.0, oracle=ATOMS, sigma_max=0.05, points="uniform"), wrong, 0 * x
    )
    assert far == other


def test_the_gradient_is_the_fields_alone():
    field, oracle = (
        PreconditionedField(MLP(2, hidden=8, depth=1, seed=k), SDE, sigma_data=2.0) for k in (0, 1)
    )
    oracle.train()
    term = Regression(weight=1.0, oracle=oracle)
    objective = Objective(DenoisingScoreMatching("score", LAW), [term])
    term(field, LAW, TRUTH.sample(64, 0), Noise(0), 0).backward()
    assert all(p.grad is not None for p in field.parameters())
    assert all(p.grad is None for p in oracle.parameters())
    assert not list(objective.parameters())
    assert not objective.state_dict()
    assert oracle.training


def test_a_training_knows_its_oracle():
    laws = [GaussianMixture.ring(std=s, sde=SDE) for s in (0.1, 0.1, 0.2)]
    first, same, other = (
        of_module("objective", Regression(weight=1.0, oracle=law)) for law in laws
    )
    assert first == same != other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weighting": "edm"}, "regression: weighting is sigma or none, not 'edm'"),
        ({"points": "all"}, "regression: points is data or uniform"),
        ({"rows": 0}, "regression: rows must be a positive integer"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_regression_names_the_setting_that_it_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Regression(weight=1.0, oracle=TRUTH, **arguments)


def test_an_oracle_of_another_process_is_refused():
    with pytest.raises(ValueError, match="regression: the oracle is a field of VE"):
        energy(Regression(weight=1.0, oracle=ATOMS), TRUTH, TRUTH.sample(8, 0))

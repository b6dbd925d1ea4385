"""Every number that a user gives is checked: its kind, its sign, and that it is finite."""

import math

import pytest
import torch

import scorefield as sf
from scorefield.diagnostics.published import finite_difference_asymmetry, path_variance
from scorefield.errors import UserError
from scorefield.estimate import mean
from scorefield.median import median
from scorefield.samplers.correctors import Langevin
from scorefield.targets.atoms import PseudoAtoms
from scorefield.training.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("unchecked")

TRUTH = sf.Gaussian(torch.zeros(2), 1.0)
ATOMS = PseudoAtoms([[0.2, 0.3]], 0.05)
LOSS = sf.DenoisingScoreMatching(sigma_data=1.0)
PROTOCOL = sf.Protocol([0.5], n=64)
POINTS, T = torch.eye(3)[:, :2], torch.ones(3)


def small_fit(**settings):
    field = sf.PreconditionedField(sf.MLP(2, hidden=4, depth=1), sf.EDM(), 1.0, shape=(2,))
    return sf.fit(field, POINTS, **{"steps": 1, "batch_size": 2, "quiet": True, **settings})


def log_prob(**settings):
    return sf.log_prob(TRUTH, POINTS, **{"rtol": 1e-2, "atol": 1e-2, **settings})


COUNTS = [
    (small_fit, "steps batch_size log_every checkpoint_every keep seed"),
    (TrainSettings, "steps batch_size log_every checkpoint_every keep"),
    (sf.Optim, "warmup"),
    (sf.Euler, "steps"),
    (sf.Heun, "steps"),
    (sf.DDIM, "steps"),
    (sf.DPMSolverPlusPlus2M, "steps"),
    (sf.PredictorCorrector, "steps"),
    (sf.ProbabilityFlow, "max_calls"),
    (lambda **n: Langevin(**{"snr": 0.1, **n}), "steps"),
    (lambda **n: sf.Heun(2).sample(TRUTH, **{"n": 2, **n}), "n batch_size seed"),
    (lambda budget: sf.Heun.for_nfe(budget), "budget"),
    (log_prob, "n_probes max_probes batch_size max_calls seed"),
    (lambda **n: sf.encode(TRUTH, POINTS, 1e-2, 1e-2, **n), "max_calls"),
    (lambda n: sf.interpolate(POINTS[0], POINTS[1] + 1, n), "n"),
    (lambda **n: sf.MLP(**{"dim": 2, **n}), "dim hidden depth embedding classes"),
    (lambda n: sf.Euclidean((2, n)), "n"),
    (lambda n: sf.Torus((2, n)), "n"),
    (sf.Noise, "seed"),
    (lambda **n: sf.DiscreteVP(**n), "levels"),
    (lambda **n: sf.IndexLabel(**n), "levels"),
    (lambda **n: sf.Noise(0).integers("purpose", n["high"], (), torch.arange(2)), "high"),
    (lambda **n: sf.jacobian(TRUTH.score, POINTS, T, **n), "rows"),
    (lambda **n: sf.noise_floor(sf.mmd, TRUTH, **{"n": 4, **n}), "n m pairs"),
    (lambda **n: sf.sliced_wasserstein(POINTS, POINTS, **n), "projections"),
    (lambda **n: sf.total_variation(POINTS[:, None], ATOMS, **n), "bins"),
    (lambda **n: sf.validation_loss(TRUTH, POINTS, LOSS, **n), "draws"),
    (lambda **n: sf.walk(TRUTH, sf.Heun(2), **{"n": 2, **n}), "n"),
    (lambda **n: sf.Protocol([0.5], **n), "n"),
    (lambda **n: sf.exterior_derivative(TRUTH, TRUTH, PROTOCOL, **n), "probes"),
    (lambda **n: sf.fokker_planck_error(TRUTH, TRUTH, PROTOCOL, **n), "probes"),
    (lambda **n: sf.winding(ATOMS, ATOMS, PROTOCOL, **n), "nodes"),
    (lambda **n: path_variance(TRUTH, TRUTH, PROTOCOL, **n), "paths segments"),
    (lambda **n: finite_difference_asymmetry(TRUTH, TRUTH, PROTOCOL, **n), "probes"),
    (lambda **n: sf.Asymmetry(weight=1.0, **n), "probes rows every"),
    (lambda **n: sf.LoopCirculation(weight=1.0, **n), "sides"),
    (lambda **n: sf.CycleCirculation(weight=1.0, **n), "cycles neighbours"),
    (lambda **n: sf.FokkerPlanck(weight=1.0, **n), "probes"),
    (lambda **n: sf.Consistency(weight=1.0, **n), "steps"),
    (lambda **n: sf.NCSN((1, 8, 8), **n), "levels"),
    (lambda **n: sf.MinimalResNet((1, 8, 8), **n), "layers"),
]

REALS = [
    (small_fit, "ema_decay"),
    (TrainSettings, "ema_decay"),
    (sf.Optim, "lr eps weight_decay clip"),
    (lambda beta: sf.Optim(betas=(beta, 0.9)), "beta"),
    (sf.Heun, "rho churn churn_noise churn_min"),
    (sf.Euler, "rho"),
    (sf.ProbabilityFlow, "rtol atol"),
    (lambda **n: Langevin(**{"snr": 0.1, **n}), "snr"),
    (log_prob, "rtol atol standard_error"),
    (lambda value: sf.temper(POINTS, value), "value"),
    (sf.EDM, "sigma_min sigma_max"),
    (sf.VE, "sigma_min sigma_max t_min"),
    (sf.VP, "beta_min beta_max t_min"),
    (sf.SubVP, "beta_min beta_max t_min"),
    (sf.Cosine, "offset t_min t_max"),
    (lambda value: sf.Torus((2,), value), "value"),
    (lambda value: sf.EDMScaling(value), "value"),
    (lambda value: sf.TimeLabel(value), "value"),
    (lambda value: sf.HybridField(TRUTH, TRUTH, value), "value"),
    (lambda **n: sf.ks_test(POINTS[:, 0], torch.special.ndtr, **n), "confidence inexact"),
    (lambda **n: sf.log_prob(TRUTH, POINTS, rtol=1e-2, atol=1e-2).interval(**n), "confidence"),
    (lambda **n: mean([1.0, 2.0]).interval(**n), "confidence"),
    (lambda **n: median(range(20), **n), "confidence"),
    (lambda **n: sf.mode_coverage(POINTS, sf.GaussianMixture.ring(), **n), "within"),
    (lambda **n: sf.Protocol([0.5], **n), "precision"),
    (lambda **n: sf.path_gap(TRUTH, TRUTH, PROTOCOL, **n), "tolerance"),
    (lambda **n: sf.winding(ATOMS, ATOMS, PROTOCOL, **n), "tolerance"),
    (lambda **n: sf.cycle_circulation(TRUTH, TRUTH, PROTOCOL, **n), "reach"),
    (lambda **n: finite_difference_asymmetry(TRUTH, TRUTH, PROTOCOL, **n), "step"),
    (lambda value: PseudoAtoms([[0.2, 0.3]], value), "value"),
    (lambda **n: sf.LogNormal(**n), "std"),
    (lambda **n: sf.DenoisingScoreMatching(**n), "sigma_data"),
    (lambda **n: sf.Asymmetry(**n), "weight"),
    (lambda value: sf.LoopCirculation(weight=1.0, radii=[value]), "value"),
    (lambda **n: sf.CycleCirculation(weight=1.0, **n), "reach"),
    (lambda **n: sf.BoundaryMatching(weight=1.0, **n), "bandwidth"),
    (lambda **n: sf.BalancedWeight(**{"ratio": 1.0, "max_weight": 1.0, **n}), "ratio horizon"),
    (lambda **n: sf.BalancedWeight(**{"ratio": 1.0, **n}), "max_weight"),
    (lambda **n: sf.UNet((1, 8, 8), **n), "dropout"),
    (lambda **n: sf.DDPM((1, 8, 8), **n), "dropout"),
]


def each(table):
    return [
        pytest.param(call, name, id=f"{getattr(call, '__name__', call)}-{name}-{k}")
        for k, (call, names) in enumerate(table)
        for name in names.split()
    ]


@pytest.mark.parametrize(("call", "name"), each(COUNTS))
def test_counts_are_positive_integers(call, name):
    negative = () if name == "seed" else (-1,)
    for value in (1.5, 2.0, True, math.nan, math.inf, "3", *negative):
        with pytest.raises(UserError, match=r"must be|even number"):
            call(**{name: value})


@pytest.mark.parametrize(("call", "name"), each(REALS))
def test_numbers_are_real_finite_and_not_negative(call, name):
    for value in (True, math.nan, math.inf, -1.0, "3", 1j):
        with pytest.raises(UserError, match=r"must"):
            call(**{name: value})

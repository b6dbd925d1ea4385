"""The residual of the score Fokker–Planck equation against recorded values."""

import pytest
import torch

from scorefield import FokkerPlanck, PseudoAtoms, jacobian
from scorefield.calculus.fokker_planck import fokker_planck_residual, fokker_planck_terms
from scorefield.domain import Torus
from tests.conformance.atoms import PROCESS, PerceptronField, close, recorded

FORMS = ("gradient", "component")


@pytest.fixture(scope="module")
def network():
    arrays, state = recorded("mlp_and_fp")
    return arrays, PerceptronField(state, Torus((2, 1)))


@pytest.fixture(scope="module")
def truth():
    return PseudoAtoms([[0.25], [0.75]], 0.01, sde=PROCESS)


def test_the_network(network):
    arrays, field = network
    t = arrays["t"][:, 0]
    sigma = field.sde.sigma(t)
    close(sigma, arrays["sigma"][:, 0])
    close(field.network(arrays["x"], t, sigma), arrays["mlp_out_sigma_normalized"])
    close(field.score(arrays["x"], t), arrays["score"])
    close(jacobian(field.score, arrays["x"], t), arrays["score_jacobian"])


def test_the_terms(network):
    arrays, field = network
    t = arrays["t"][:, 0]
    terms = fokker_planck_terms(field.score, arrays["x"], t, field.sde)["component"]
    g2 = field.sde.diffusion_squared(t).reshape(-1, 1, 1)
    close(terms.score, arrays["score"])
    close(terms.time_derivative, arrays["dt_score"])
    close(terms.advection / g2, arrays["adv_J_s"])
    close(terms.diffusion[0], arrays["laplacian"])


@pytest.mark.parametrize(
    ("form", "name"), [("component", "residual"), ("gradient", "own_lai_residual")]
)
def test_both_forms(network, form, name):
    arrays, field = network
    x = arrays["x"]
    found = fokker_planck_residual(field.score, x, arrays["t"][:, 0], field.sde, form)
    close(found, arrays[name].reshape(x.shape))


def test_the_loss(network):
    arrays, field = network
    found = fokker_planck_residual(
        field.score, arrays["x"], arrays["t"][:, 0], field.sde, "component"
    )
    close(found.square().mean(), arrays["fp_loss_mean"])


def test_probes(network):
    arrays, field = network
    x, t = arrays["x"], arrays["t"][:, 0]
    terms = fokker_planck_terms(field.score, x, t, field.sde, probes=arrays["hte_z"])["component"]
    close(terms.diffusion.mean(dim=0), arrays["hte_laplacian"])
    close(terms.residual(t, field.sde).mean(dim=0), arrays["hte_residual"])
    close(terms.time_derivative, arrays["dt_score"])


def test_the_published_regulariser(network):
    """At uniform points, unweighted."""
    _, field = network
    arrays, _ = recorded("analytic_fp")
    regularizer = FokkerPlanck(weight=1e-5, form="component", weighting="none", points="uniform")
    energy = regularizer.energy(field, arrays["public_fp_coordinates"], arrays["t"][:, 0])
    close(energy, arrays["public_fp_loss"])


@pytest.mark.parametrize("form", FORMS)
def test_the_exact_score(truth, form):
    """The recorded residual of the exact score is at most 3.5e-10, of scores up to 2.8e3."""
    arrays, _ = recorded("analytic_fp")
    x, t = arrays["x"], arrays["t"][:, 0]
    close(truth.score(x, t), arrays["score"].reshape(x.shape))
    with torch.no_grad():
        residual = fokker_planck_residual(truth.score, x, t, truth.sde, form)
    assert float((residual - arrays["residual"].reshape(x.shape)).abs().max()) < 1e-8
    assert float(residual.abs().max()) < 1e-8

"""Bits per dimension and latent codes, with the probes that were recorded."""

import math

import numpy as np
import pytest
import torch

from scorefield import VE, VP, Gaussian, log_prob
from scorefield.likelihood.density import CENTERED_BYTES, UNIT_BYTES
from scorefield.noise import Noise
from tests.conformance.reference import load, meta, tensor

PLAIN = ["ve_centered", "ve_uncentered", "vp_centered", "vp_uncentered"]
CORRELATED = ["corr_ve", "corr_vp"]
KINDS = ["Rademacher", "Gaussian"]
EPS = 1e-5
TOL = 1e-9


class Recorded(Noise):
    """Hands out a recorded probe for each point."""

    def __init__(self, probe):
        super().__init__(0)
        object.__setattr__(self, "probe", torch.as_tensor(probe))

    def _recorded(self, purpose, shape, index, step, dtype):
        assert (purpose, int(torch.as_tensor(step).max())) == ("probe", 0)
        return self.probe[index].to(dtype).unsqueeze(0)

    def signs(self, purpose, shape, index, step=0, dtype=torch.float32):
        return self._recorded(purpose, shape, index, step, dtype)

    def normal(self, purpose, shape, index, step=0, dtype=torch.float32):
        return self._recorded(purpose, shape, index, step, dtype)


def problem(name):
    """The arrays, the field, the points in units of the data, and the scale they were divided by.

    The originals' density is that of the scaled state at their first time, ours that of the state
    in units of the data.
    """
    arrays = load(f"likelihood_{name}")
    sde = (VE if "ve" in name else VP)(t_min=EPS)
    if "mu" in arrays:
        field = Gaussian(tensor(arrays["mu"]), float(arrays["sigma0"]), sde=sde)
    else:
        mean = tensor(arrays["mean"]).reshape(arrays["data"].shape[1:])
        field = Gaussian(mean, covariance=tensor(arrays["cov"]), sde=sde)
    alpha = float(sde.alpha(torch.tensor(EPS, dtype=torch.float64)))
    return arrays, field, tensor(arrays["data"]) / alpha, alpha


def bits(name, found, alpha):
    centered = name.endswith("_centered")
    transform = CENTERED_BYTES if centered else UNIT_BYTES
    return (found.bits_per_dim(transform).value + math.log2(alpha)).numpy()


def constant(field, probe, alpha):
    r"""What the originals' estimate holds beside ours, in bits per dimension.

    Both add :math:`v^\top A v` up along the flow, theirs of the velocity in :math:`x_t`, ours of
    that in :math:`x_t / \sqrt{\alpha^2 + \sigma^2}`; the Jacobians differ by a multiple of the
    identity, which is integrated in closed form here, and costs them
    :math:`|v|^2 - D` times a constant where the probe is no row of signs.
    """
    ends = torch.tensor([EPS, 1.0], dtype=torch.float64)
    a, s = field.sde.alpha(ends), field.sde.sigma(ends)
    scale = 0.5 * torch.log(a**2 + s**2)
    dim = field.domain.dim
    excess = torch.as_tensor(probe).flatten(1).square().sum(dim=1) - dim
    return (-(excess * (scale[1] - scale[0])) / (dim * math.log(2))).numpy()


def test_the_offsets_are_theirs():
    for name in PLAIN:
        transform = CENTERED_BYTES if name.endswith("_centered") else UNIT_BYTES
        assert transform.offset == float(load(f"likelihood_{name}")["offset"])
        assert meta(f"likelihood_{name}")["inverse_scaler"] in ("(x+1)/2", "identity")


@pytest.mark.parametrize("name", PLAIN)
def test_exact_traces_give_the_closed_form(name):
    arrays, field, x, alpha = problem(name)
    for tol in (1e-5, TOL):
        found = log_prob(field, x, rtol=tol, atol=tol, trace="exact")
        error = np.abs(bits(name, found, alpha) - arrays["bpd_analytic_exact_divergence"])
        told = found.bits_per_dim(UNIT_BYTES).solver_error.numpy()
        assert (error <= told + 1e-12).all()
    assert error.max() < 1e-8
    scale = np.abs(arrays["z_analytic"]).max()
    assert np.abs(found.latent.numpy() - arrays["z_analytic"]).max() < 1e-8 * scale


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_probes_give_the_closed_form_of_their_estimate(name, kind):
    arrays, field, x, alpha = problem(name)
    probe = arrays[f"{kind}_eps_noise"]
    found = log_prob(
        field, x, rtol=TOL, atol=TOL, trace="probes", probes=kind.lower(), n_probes=1,
        seed=Recorded(probe),
    )  # fmt: skip
    value = bits(name, found, alpha) + constant(field, probe, alpha)
    assert np.abs(value - arrays[f"bpd_analytic_{kind}"]).max() < 1e-7


@pytest.mark.parametrize("name", CORRELATED)
def test_of_correlated_data_exact_traces_agree(name):
    arrays, field, x, alpha = problem(name)
    found = log_prob(field, x, rtol=TOL, atol=TOL, trace="exact")
    assert np.abs(bits(name, found, alpha) - arrays["bpd_exact_trace_f64"]).max() < 1e-7
    scale = np.abs(arrays["z_f64"]).max()
    assert np.abs(found.latent.numpy() - arrays["z_f64"]).max() < 1e-7 * scale


@pytest.mark.slow
@pytest.mark.parametrize("name", CORRELATED)
@pytest.mark.parametrize("kind", KINDS)
def test_of_correlated_data_recorded_probes_agree(name, kind):
    arrays, field, x, alpha = problem(name)
    probe = arrays[f"{kind}_eps_noise"]
    found = log_prob(
        field, x, rtol=TOL, atol=TOL, trace="probes", probes=kind.lower(), n_probes=1,
        seed=Recorded(probe),
    )  # fmt: skip
    value = bits(name, found, alpha) + constant(field, probe, alpha)
    assert np.abs(value - arrays[f"bpd_{kind}_f64"]).max() < 1e-7
    single = arrays[f"{kind}_bpd_ref_f32"]
    assert np.abs(value - single).max() < 1e-3 * np.abs(single).max()


@pytest.mark.parametrize("name", PLAIN + CORRELATED)
def test_it_takes_half_the_passes_at_the_same_tolerance(name):
    arrays, field, x, _ = problem(name)
    found = log_prob(
        field, x, rtol=1e-5, atol=1e-5, trace="probes", n_probes=1,
        seed=Recorded(arrays["Rademacher_eps_noise"]), solver_error="embedded",
    )  # fmt: skip
    # They integrate once, and run the network once for the velocity, and again for its divergence.
    theirs = 2 * int(arrays["Rademacher_nfe"])
    assert 2 * float(found.calls.double().mean()) <= theirs

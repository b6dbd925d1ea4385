"""The norms of Jacobians at points: known ones, probed ones, and those in closed form."""

import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VP,
    Cosine,
    EquivariantLocalScore,
    GaussianMixture,
    IdealScore,
    LocalScore,
    PreconditionedField,
    jacobian,
)
from scorefield.diagnostics.asymmetry import Norms, Probing, asymmetry_at, each_point
from scorefield.diagnostics.protocol import form
from scorefield.fields.forms import affine
from scorefield.noise import Noise
from tests.conformance.reference import load, tensor
from tests.planted import Affine, Planted, skew

COSINE = Cosine(offset=0.0, margin=0.008, t_min=1e-3, t_max=1.0)
QUANTITIES = ("score", "noise", "denoiser", "velocity", "drift")
IMAGES = Noise(3).normal("images", (1, 5, 5), torch.arange(7), dtype=torch.float64)
CLOSED = {
    "ls": LocalScore(IMAGES, COSINE, size=3),
    "els": EquivariantLocalScore(IMAGES, COSINE, size=3),
    "is": IdealScore(IMAGES, COSINE),
}


def points(n, shape, seed=0):
    return Noise(seed).normal("points", shape, torch.arange(n), dtype=torch.float64)


def test_a_matrix_is_known_everywhere():
    """|A - Aᵀ| and |A| at every point, without any error."""
    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    norms = asymmetry_at(Affine(matrix, mu=0.3), points(5, (2,)), torch.full((5,), 0.7))
    assert norms.probes is None
    assert norms.exterior.tolist() == pytest.approx([2**0.5] * 5, rel=1e-14)
    assert norms.relative.tolist() == pytest.approx([(2 / 30) ** 0.5 / 2] * 5, rel=1e-14)
    assert float(norms.exterior_error.max()) == float(norms.relative_error.max()) == 0


def test_the_linear_field_of_the_reference():
    arrays = load("ed_linear", family="els")
    x = tensor(arrays["x"])
    norms = asymmetry_at(Affine(tensor(arrays["A"])), x, torch.ones(len(x)).double())
    assert torch.allclose(norms.exterior, tensor(arrays["edmag"]), rtol=1e-13)


@pytest.mark.parametrize("model", ["LS", "ELSborder", "ELScirc_query", "IS"])
@pytest.mark.parametrize("t", ["0.3", "0.7"])
@pytest.mark.parametrize("size", [3, 5])
def test_scores_in_closed_form_have_the_curl_of_the_reference(model, t, size):
    """At t = 0.3 and k = 3 that is 16.1 for LS and 8.2 for ELS; IS has none."""
    arrays = load("ed_els", family="els")
    train = tensor(arrays["train"])
    field = {
        "LS": lambda: LocalScore(train, COSINE, size=size),
        "ELSborder": lambda: EquivariantLocalScore(train, COSINE, size=size),
        "ELScirc_query": lambda: EquivariantLocalScore(train, COSINE, size, padding="valid"),
        "IS": lambda: IdealScore(train, COSINE),
    }[model]()
    x = tensor(arrays["x"]).reshape(1, *train.shape[1:])
    norms = asymmetry_at(field, x, torch.full((1,), float(t), dtype=torch.float64))
    expected = float(arrays[f"edmag_{model}_t{t}_k{size}"][0])
    if model == "IS":
        assert float(norms.exterior) < norms.rounding * float(norms.whole.sqrt())
    else:
        assert float(norms.exterior) == pytest.approx(expected, rel=1e-10)
    if (t, size) == ("0.3", 3) and model in ("LS", "ELSborder"):
        assert float(norms.exterior) == pytest.approx({"LS": 16.1}.get(model, 8.2), abs=0.05)


@pytest.mark.parametrize("model", list(CLOSED))
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_closed_form_says_what_its_derivative_does(model, quantity):
    field, x, t = CLOSED[model], points(3, (1, 5, 5)), torch.tensor([0.2, 0.5, 0.9]).double()
    norms = asymmetry_at(field, x, t, quantity)
    truth = jacobian(form(field, quantity), x, t)
    skew_norm = (truth - truth.mT).flatten(1).norm(dim=1)
    assert torch.allclose(norms.whole[0].sqrt(), truth.flatten(1).norm(dim=1), rtol=1e-9)
    assert torch.allclose(norms.exterior, skew_norm, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_forms_of_a_field_differ_by_the_factor_between_them(quantity):
    field = CLOSED["els"]
    x, t = points(2, (1, 5, 5)), torch.tensor([0.3, 0.8]).double()
    _, factor = affine(x.flatten(1), t, field.sde, quantity)
    score = asymmetry_at(field, x, t, "score").exterior
    found = asymmetry_at(field, x, t, quantity).exterior
    assert torch.allclose(found, factor[:, 0].abs() * score, rtol=1e-12)


def test_probes_miss_the_truth_by_their_error():
    """(probed - exact) / error has variance 1, at points of their own and of each number.

    Of 400 such the mean square lies within these bounds but for a chance of 1e-6.
    """
    base = GaussianMixture(2 * torch.eye(12, dtype=torch.float64)[:3], stds=torch.ones(3))
    field = Planted(base, skew(12), 0.2, mu=0.3)
    x, t = points(400, (12,)), torch.ones(400).double()
    exact = asymmetry_at(field, x, t)
    probed = asymmetry_at(field, x, t, probing=Probing(Noise(1), torch.arange(400), 64))
    assert probed.probes == 64
    for value, error, truth in (
        (probed.exterior, probed.exterior_error, exact.exterior),
        (probed.relative, probed.relative_error, exact.relative),
    ):
        assert 0.6 < float(((value - truth) / error).square().mean()) < 1.6


def test_probes_go_on_until_every_point_is_precise():
    network = PreconditionedField(MLP(40, hidden=32), EDM(), sigma_data=1.5).double().eval()
    x, t = points(6, (40,)), torch.linspace(0.3, 3.0, 6).double()
    probing = Probing(Noise(0), torch.arange(6), 2, 0.02)
    norms, exact = asymmetry_at(network, x, t, probing=probing), asymmetry_at(network, x, t)
    assert norms.added <= 0.02
    assert norms.added == pytest.approx(each_point(norms))
    assert float((norms.exterior_error / norms.exterior).max()) <= 0.02
    assert float((norms.relative_error / norms.relative).max()) <= 0.02
    assert norms.probes in {2**k for k in range(1, 11)}
    assert torch.allclose(norms.exterior, exact.exterior, rtol=0.12)
    assert torch.allclose(norms.relative, exact.relative, rtol=0.12)


def test_probes_have_addresses():
    network = PreconditionedField(MLP(5, hidden=8), VP(), sigma_data=1.0).double().eval()
    x, t = points(4, (5,)), torch.full((4,), 0.5).double()
    index = torch.tensor([3, 0, 2, 9])
    whole = asymmetry_at(network, x, t, probing=Probing(Noise(0), index, 3))
    part = asymmetry_at(network, x[2:], t[2:], probing=Probing(Noise(0), index[2:], 3))
    assert torch.allclose(whole.skew[:, 2:], part.skew, rtol=1e-12)
    other = asymmetry_at(network, x, t, probing=Probing(Noise(0), index, 3, purpose="other"))
    assert not torch.allclose(whole.skew, other.skew)


def test_what_is_not_finite_is_an_error():
    class Broken(Affine):
        def score(self, x, t, classes=None):
            return super().score(x, t) * torch.where(x[:, :1] > 0, torch.inf, 1.0)

    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0]])
    field = Broken(torch.eye(2))
    for probing in (None, Probing(Noise(0), torch.arange(3), 2)):
        with pytest.raises(ValueError, match="not finite at 2 of 3 points"):
            asymmetry_at(field, x, torch.ones(3), probing=probing)


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"first": 0}, "positive"), ({"first": 2, "precision": 1.0}, r"in \(0, 1\)")],
)
def test_a_number_of_probes_and_a_precision_out_of_range_are_refused(settings, what):
    with pytest.raises(ValueError, match=what):
        Probing(Noise(0), torch.arange(2), **settings)


def test_rounding_is_no_error_bar():
    """A point without curl beside one with curl has no probe error, and not 0/0."""
    skew_draws = torch.tensor([[1e-30, 4.0], [2e-30, 5.0]])
    norms = Norms(skew_draws, torch.ones(2, 2), 1e-10, exact=False)
    assert float(norms.exterior_error[0]) == 0
    assert float(norms.exterior_error[1]) > 0
    assert each_point(norms) < 1

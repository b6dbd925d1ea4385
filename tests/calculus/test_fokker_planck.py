"""The residual of the score Fokker–Planck equation, term by term, and what must be zero."""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from scorefield import (
    EDM,
    VE,
    VP,
    Gaussian,
    GaussianMixture,
    PotentialField,
    PreconditionedField,
    jacobian,
)
from scorefield.calculus.fokker_planck import (
    FokkerPlanckTerms,
    fokker_planck_difference,
    fokker_planck_residual,
    fokker_planck_terms,
    per_log_noise,
    unbiased_square,
)
from scorefield.noise import Noise
from tests.laws.cases import SDES, TARGETS, Wave, normal, targets
from tests.planted import Affine, Planted, skew

FORMS = ("gradient", "component")
SHAPES = [(), (5,), (2, 1, 2)]
LEVELS = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)


class Elsewhere(nn.Module):
    """A backbone that the label reaches through its input and through its output."""

    def __init__(self, shape):
        super().__init__()
        self.event_shape, self.body = shape, Wave(shape)

    def forward(self, x, label):
        return self.body(x, label) * (1 + 0.3 * torch.sin(label)).reshape(-1, *(1,) * (x.dim() - 1))


def free(shape, sde):
    return PreconditionedField(Elsewhere(shape), sde, sigma_data=0.7)


def potential(shape, sde):
    return PotentialField(Wave(shape), sde, sigma_data=0.7)


def points(shape, sde):
    t = sde.time(LEVELS)
    return sde.perturb(normal((4, *shape), "x"), t, normal((4, *shape), "z")), t


def signs(shape, draws, seed=0):
    index = torch.arange(4)
    drawn = Noise(seed).signs("probe", (draws, *shape), index, dtype=torch.float64)
    return drawn.movedim(1, 0)


def directions(x):
    """The unit vectors of the event shape."""
    eye = torch.eye(x[0].numel(), dtype=x.dtype)
    return eye.reshape(len(eye), 1, *x.shape[1:])


@torch.no_grad()
def by_differences(field, x, t):
    """The same terms from Jacobians at displaced points, and values at displaced times."""
    h = 1e-5
    time = (field.score(x, t + h) - field.score(x, t - h)) / (2 * h)
    second = [
        (jacobian(field.score, x + h * e, t) - jacobian(field.score, x - h * e, t)) / (2 * h)
        for e in directions(x)
    ]
    third = torch.stack(second, dim=3)  # of s_i in x_j and x_k
    j = jacobian(field.score, x, t)
    shape = (-1, *(1,) * (x.dim() - 1))
    sde = field.sde
    u = (
        sde.diffusion_squared(t).reshape(shape) * field.score(x, t)
        - sde.drift(t).reshape(shape) * x
    )
    u = u.reshape(len(x), -1, 1)
    return {
        "time": time,
        "gradient": ((j.mT @ u), torch.einsum("bjji->bi", third)),
        "component": ((j @ u), torch.einsum("bijj->bi", third)),
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", [free, potential])
@pytest.mark.parametrize("grad", [True, False])
def test_terms_agree_with_central_differences(shape, kind, grad):
    field = kind(shape, VP())
    x, t = points(shape, field.sde)
    expected = by_differences(field, x, t)
    for probes in (None, signs(shape, 2)):
        with torch.set_grad_enabled(grad):
            terms = fokker_planck_terms(field.score, x, t, field.sde, probes=probes)
        for form in FORMS:
            found, (advection, diffusion) = terms[form], expected[form]
            assert all(term.requires_grad == grad for term in found)
            close = {"rtol": 1e-6, "atol": 1e-6 * float(expected["time"].abs().max())}
            torch.testing.assert_close(found.score.detach(), field.score(x, t).detach())
            torch.testing.assert_close(found.time_derivative.detach(), expected["time"], **close)
            torch.testing.assert_close(
                found.advection.detach(), advection.reshape(x.shape), **close
            )
            if probes is None:
                torch.testing.assert_close(
                    found.diffusion[0].detach(), diffusion.reshape(x.shape), **close
                )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_the_residual_is_made_of_its_terms(shape, form):
    """One form alone gives the numbers that both together give."""
    field = free(shape, VP())
    x, t = points(shape, field.sde)
    with torch.no_grad():
        alone = fokker_planck_residual(field.score, x, t, field.sde, form)
        terms = fokker_planck_terms(field.score, x, t, field.sde)[form]
    column = (-1, *(1,) * len(shape))
    f, g2 = (c(t).reshape(column) for c in (field.sde.drift, field.sde.diffusion_squared))
    whole = terms.time_derivative + f * terms.score - terms.advection
    torch.testing.assert_close(alone, whole - 0.5 * g2 * terms.diffusion[0], rtol=1e-10, atol=1e-10)
    assert bool((alone.abs() <= terms.size(t, field.sde)[0] * (1 + 1e-12)).all())


def test_the_size_of_a_residual_is_that_of_its_terms_in_absolute_value():
    """Of VE, whose data stand still, f = 0 and g² = 2 σ σ̇."""
    sde, t = VE(), torch.tensor([0.3], dtype=torch.float64)
    a, b, c, d = (torch.tensor([[value]], dtype=torch.float64) for value in (1.5, -2.0, 0.5, -3.0))
    terms = FokkerPlanckTerms(a, b, c, d.unsqueeze(0))
    half = sde.sigma(t) * sde.sigma_dot(t)
    torch.testing.assert_close(terms.size(t, sde)[0], 2.0 + 0.5 + 3.0 * half.unsqueeze(1))


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("name", TARGETS)
def test_exact_scores_have_no_residual(sde, name):
    """In natural units at all levels from 1e-3 on; there, in those of the score too, up to the
    rounding of terms that reach 1e9."""
    truth = targets(SDES[sde])[name]
    process, shape = truth.sde, truth.domain.shape
    levels = torch.logspace(-3, 1, 6, dtype=torch.float64)
    levels = levels.clamp(*process.level_range)
    t, x = process.time(levels), truth.draw(Noise(0), torch.arange(6), dtype=torch.float64)
    x = process.perturb(x, t, normal((6, *shape), "z"), truth.domain)
    with torch.no_grad():
        terms = fokker_planck_terms(truth.score, x, t, process)
    for form in FORMS:
        residual = terms[form].residual(t, process)
        assert float(per_log_noise(residual, t, process).abs().max()) < 1e-8
        size = terms[form].size(t, process).reshape(6, -1).amax(dim=1, keepdim=True)
        assert bool((residual.reshape(6, -1).abs() < 1e-8 * size.clamp(min=1)).all())


def natural(field, clean, form):
    """The residual at data and noise levels that are the same under all processes."""
    t, column = field.sde.time(LEVELS), (-1, *(1,) * (clean.dim() - 1))
    x = clean * field.sde.alpha(t).reshape(column)
    with torch.no_grad():
        terms = fokker_planck_terms(field.score, x, t, field.sde, (form,))[form]
    return per_log_noise(terms.residual(t, field.sde), t, field.sde)


@pytest.mark.parametrize(
    ("one", "other"), [("EDM", "VE"), ("VP", "Cosine"), ("VP", "DiscreteVP")], ids="-".join
)
@pytest.mark.parametrize("form", FORMS)
def test_natural_units_know_no_clock(one, other, form):
    clean = normal((4, 5), "x")
    expected, found = (natural(free((5,), SDES[sde]), clean, form) for sde in (one, other))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert float(expected.abs().min()) > 1e-4


@pytest.mark.parametrize("sde", [s for s in SDES if s != "EDM"])
@pytest.mark.parametrize(("kind", "form"), [(free, FORMS[1]), *((potential, f) for f in FORMS)])
def test_natural_units_know_no_scale(sde, kind, form):
    """A denoiser of x / alpha and the noise level has one residual under all processes; a field
    with curl only in component form, since the other turns with the drift what the drift moves."""
    clean = normal((4, 5), "x")
    expected, found = (natural(kind((5,), process), clean, form) for process in (EDM(), SDES[sde]))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    assert float(expected.abs().min()) > 1e-5


def test_natural_units_in_closed_form():
    """s = -x has d_t s = 0, J = -I and u = -2 t x under EDM: r = -2 t x, and rho = -2 t^3 x."""
    field = Affine(-torch.eye(3, dtype=torch.float64))
    x = normal((4, 3), "x")
    terms = fokker_planck_terms(field.score, x, LEVELS, field.sde)
    expected = -2 * LEVELS.unsqueeze(1) ** 3 * x
    for form in FORMS:
        found = per_log_noise(terms[form].residual(LEVELS, field.sde), LEVELS, field.sde)
        torch.testing.assert_close(found[0].detach(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(5,), (2, 1, 2)], ids=str)
def test_the_forms_differ_by_curl(shape):
    """By -A u - g^2/2 div A, from dense Jacobians."""
    field = free(shape, VP())
    x, t = points(shape, field.sde)
    with torch.no_grad():
        terms = fokker_planck_terms(field.score, x, t, field.sde)
    found = fokker_planck_difference(terms, t, field.sde)
    expected = by_differences(field, x, t)
    (_, one), (_, other) = expected["component"], expected["gradient"]
    j, g2 = jacobian(field.score, x, t), field.sde.diffusion_squared(t).unsqueeze(1)
    f, flat = field.sde.drift(t).unsqueeze(1), x.flatten(1)
    u = g2 * field.score(x, t).detach().flatten(1) - f * flat
    curl = -((j - j.mT) @ u.unsqueeze(2)).squeeze(2) - 0.5 * g2 * (one - other)
    torch.testing.assert_close(found[0].flatten(1), curl, rtol=1e-5, atol=1e-5)
    residuals = [terms[form].residual(t, field.sde) for form in ("component", "gradient")]
    torch.testing.assert_close(found, residuals[0] - residuals[1], rtol=1e-9, atol=1e-9)


def test_a_planted_rotation_is_all_that_the_forms_differ_by():
    """A = 2 eps R everywhere, so that the difference is -2 eps R u."""
    base = GaussianMixture(1.5 * normal((3, 4), "means"), stds=0.5)
    field = Planted(base, skew(4), 0.1)
    x = normal((4, 4), "x")
    terms = fokker_planck_terms(field.score, x, LEVELS, field.sde)
    found = fokker_planck_difference(terms, LEVELS, field.sde).detach()
    u = 2 * LEVELS.unsqueeze(1) * field.score(x, LEVELS)
    torch.testing.assert_close(found[0], -0.2 * u @ skew(4).T, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("probes", [None, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_forms_agree_for_gradients(shape, probes):
    """Probe by probe: third derivatives of a potential have no order."""
    field = potential(shape, VP())
    x, t = points(shape, field.sde)
    v = None if probes is None else signs(shape, probes)
    with torch.no_grad():
        terms = fokker_planck_terms(field.score, x, t, field.sde, probes=v)
    gap = fokker_planck_difference(terms, t, field.sde)
    assert bool((gap.abs() <= 1e-12 * terms["component"].size(t, field.sde).max()).all())


@pytest.mark.parametrize("form", FORMS)
def test_probes_are_unbiased(form):
    """Of 2500 intervals from 64 signs each, 95 % hold the exact residual; of the squares, the mean
    over 500 such is within five standard errors."""
    field = free((5,), VP())
    x, t = points((5,), field.sde)
    x, t = x[1:2], t[1:2]
    probes = Noise(3).signs("probe", (64, 5), torch.arange(500), dtype=torch.float64)
    with torch.no_grad():
        exact = fokker_planck_terms(field.score, x, t, field.sde, (form,))[form].residual(
            t, field.sde
        )[0]
        many = fokker_planck_terms(
            field.score, x.expand(500, 5), t.expand(500), field.sde, (form,), probes.movedim(1, 0)
        )[form].residual(t.expand(500), field.sde)
    error = many.std(dim=0) / 8
    inside = ((many.mean(dim=0) - exact).abs() / error) < stats.t.ppf(0.975, 63)
    assert 0.93 < float(inside.double().mean()) < 0.97
    squares = unbiased_square(many[:2])
    miss = (squares.mean(dim=0) - exact[0].square()) * 500**0.5 / squares.std(dim=0)
    assert float(miss.abs().max()) < 5


def test_one_probe_is_exact_in_one_dimension():
    field = free((), VP())
    x, t = points((), field.sde)
    with torch.no_grad():
        for form in FORMS:
            exact, probed = (
                fokker_planck_residual(field.score, x, t, field.sde, form, v)
                for v in (None, signs((), 1))
            )
            torch.testing.assert_close(probed, exact, rtol=1e-11, atol=1e-11)


def test_squares_of_draws():
    draws = torch.tensor([[1.0], [2.0], [4.0]])
    assert float(unbiased_square(draws)) == pytest.approx((2 + 4 + 8) / 3)
    assert float(unbiased_square(draws[2:])) == 16


@pytest.mark.parametrize("kind", [free, potential])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("probes", [None, 2])
def test_the_gradient_in_the_weights(kind, form, probes):
    """Against central differences along a random direction, and on every parameter."""
    field = kind((3,), VP())
    x, t = points((3,), field.sde)
    v = None if probes is None else signs((3,), probes)

    def energy():
        return fokker_planck_residual(field.score, x, t, field.sde, form, v).square().mean()

    parameters = list(field.parameters())
    slopes = torch.autograd.grad(energy(), parameters)
    assert all(bool(slope.any()) for slope in slopes)
    way = [normal(tuple(p.shape), f"way {k}") for k, p in enumerate(parameters)]
    expected = sum(float((a * b).sum()) for a, b in zip(slopes, way, strict=True))
    values = []
    for h in (1e-5, -2e-5):
        with torch.no_grad():
            for p, w in zip(parameters, way, strict=True):
                p += h * w
            values.append(float(energy()))
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(expected, rel=1e-6)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return result


@pytest.mark.parametrize("form", FORMS)
def test_no_tensor_is_larger_than_the_jacobians(form):
    """B D^2 entries, with D = 24 copies of 4 points; all second derivatives would be B D^3."""
    dim = 24
    field, x = free((dim,), VP()), normal((4, dim), "x")
    t = field.sde.time(LEVELS)
    with Largest() as largest:
        residual = fokker_planck_residual(field.score, x, t, field.sde, form)
        residual.square().mean().backward()
    assert largest.numel == 4 * dim**2


class Attending(nn.Module):
    """Attention between the coordinates."""

    event_shape = (3,)

    def __init__(self):
        super().__init__()
        self.key, self.value = (nn.Parameter(normal((2, 4), name)) for name in ("key", "value"))

    def forward(self, x, label):
        h = torch.stack((x, label.unsqueeze(1).expand_as(x)), dim=2)
        h = h.unsqueeze(1) @ self.key
        h = nn.functional.scaled_dot_product_attention(h, h, h)
        return (h.squeeze(1) @ self.value.T).sum(dim=2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("probes", [None, 2])
def test_attention_can_be_trained(form, probes):
    """Whose fused kernels have no second derivatives, and whose tangents no way back."""
    field = PreconditionedField(Attending(), VP(), sigma_data=0.7)
    x, t = points((3,), field.sde)
    v = None if probes is None else signs((3,), probes)
    residual = fokker_planck_residual(field.score, x, t, field.sde, form, v)
    residual.square().mean().backward()
    assert all(bool(p.grad.any()) for p in field.parameters())


def test_fields_without_derivatives():
    """Linear, constant, and without a time: there is nothing to go back through, and no error."""
    x = normal((4, 3), "x")
    for probes in (None, signs((3,), 2)):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                terms = fokker_planck_terms(
                    lambda x, t: torch.ones_like(x), x, LEVELS, EDM(), probes=probes
                )
                linear = fokker_planck_terms(Affine(skew(3)).score, x, LEVELS, EDM(), probes=probes)
            for form in FORMS:
                assert not terms[form].residual(LEVELS, EDM()).any()
                assert not linear[form].diffusion.any()
                assert not linear[form].time_derivative.any()
            expected = 2 * LEVELS.unsqueeze(1) * (x @ skew(3).T) @ skew(3).T
            torch.testing.assert_close(linear["component"].advection.detach(), expected)
            torch.testing.assert_close(linear["gradient"].advection.detach(), -expected)


def test_a_gaussian_whose_width_is_wrong_has_the_residual_of_its_error():
    """A field of p_0 = N(0, a^2) whose noise grows as 2 t: s = -x / (a^2 + 4 t^2) under EDM.

    d_t s = 8 t x / v^2 and J u = 2 t x / v^2, hence r = 6 t x / v^2.
    """
    wide, a = Gaussian(torch.zeros(2), 0.5), 0.25
    x = normal((4, 2), "x")
    residual = fokker_planck_residual(lambda x, t: wide.score(x, 2 * t), x, LEVELS, EDM())
    v = (a + 4 * LEVELS**2).unsqueeze(1)
    expected = 6 * LEVELS.unsqueeze(1) * x / v**2
    torch.testing.assert_close(residual.detach(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_form_and_no_probes_are_refused():
    x = normal((4, 3), "x")
    with pytest.raises(ValueError, match="gradient or component, not 'curl'"):
        fokker_planck_residual(Affine(skew(3)).score, x, LEVELS, EDM(), "curl")
    with pytest.raises(ValueError, match="at least one probe"):
        fokker_planck_residual(Affine(skew(3)).score, x, LEVELS, EDM(), probes=x.new_zeros(0, 4, 3))

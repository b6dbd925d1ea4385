"""What a field refuses to be evaluated at, and what it goes on allowing."""

import math
import threading
import time

import numpy as np
import pytest
import torch

from scorefield import (
    EDM,
    MLP,
    VE,
    VP,
    ClassifierFreeGuidance,
    Empirical,
    Gaussian,
    Heun,
    HybridField,
    IdealScore,
    OneClass,
    PlantedField,
    PotentialField,
    PreconditionedField,
    ScoreField,
    differentiable,
    encode,
    evaluation_mode,
    log_prob,
)
from scorefield.errors import UserError
from scorefield.fields.base import training_mode
from scorefield.fields.planted import Waves
from tests.planted import Function

pytestmark = pytest.mark.usefixtures("unchecked")


def networks(kind, sde=None):
    return kind(MLP(2, hidden=8, depth=1), EDM() if sde is None else sde, 1.0, shape=(2,)).eval()


def labelled():
    points = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    return IdealScore(points, labels=torch.arange(12) % 3)


FIELDS = {
    "network": lambda: networks(PreconditionedField),
    "potential": lambda: networks(PotentialField),
    "gaussian": lambda: Gaussian(torch.zeros(2), 1.0),
    "empirical": lambda: Empirical(torch.eye(2)),
    "VP": lambda: Gaussian(torch.zeros(2), 1.0, sde=VP()),
    "VE": lambda: networks(PreconditionedField, VE()),
    "one's own": lambda: Function(lambda x, t: -x, (2,)),
    "one class": lambda: OneClass(labelled(), 1),
    "guided": lambda: ClassifierFreeGuidance(labelled(), 2.0),
    "hybrid": lambda: HybridField(networks(PotentialField), networks(PreconditionedField), 1.0),
    "planted": lambda: PlantedField(Gaussian(torch.zeros(2), 1.0), Waves(2, 1.0), 0.1),
}


def entries(field):
    """Every way to evaluate a field."""
    yield from (field, field.score, field.denoise, field.predict_noise, field.velocity, field.drift)
    yield lambda x, t: field.predict(x, t, "denoiser")
    if field.has_potential:
        yield field.potential
    if field.has_jacobian:
        yield field.jacobian


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.ones(2), r"points of shape \(2,\), got \(\)"),
        (torch.ones(3, 3), r"points of shape \(2,\), got \(3,\)"),
        (torch.ones(3, 1), r"points of shape \(2,\), got \(1,\)"),
        (torch.ones(3, 1, 2), r"points of shape \(2,\), got \(1, 2\)"),
        (torch.ones(()), r"got torch.float32 of shape \(\)"),
        (torch.ones(3, 2, dtype=torch.int64), "must be floating-point numbers, got torch.int64"),
        (torch.ones(3, 2, dtype=torch.bool), "got torch.bool"),
        (torch.ones(3, 2, dtype=torch.complex64), "got torch.complex64"),
        (np.ones((3, 2)), "got a ndarray"),
    ],
    ids=str,
)
def test_points_are_refused_by_every_field_and_entry(name, x, told):
    for entry in entries(FIELDS[name]()):
        with pytest.raises(UserError, match=told):
            entry(x, 0.5)


class Scored:
    """What defines a score, and is no field."""

    def score(self, x, t, classes=None):
        return -x


class Inherited(Scored, ScoreField):
    """A field whose score is that of a base which is none."""


def test_a_score_of_another_base_is_checked_too():
    field = Inherited(EDM(), Gaussian(torch.zeros(2), 1.0).domain)
    assert torch.equal(field.score(torch.ones(3, 2), 0.5), -torch.ones(3, 2))
    with pytest.raises(UserError, match=r"points of shape \(2,\), got \(\)"):
        field(torch.ones(2), 0.5)
    with pytest.raises(UserError, match="has times"):
        field.denoise(torch.ones(3, 2), math.nan)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("t", [math.nan, -0.5, 0.0, 1e30, math.inf])
def test_times_outside_of_the_process_are_refused(name, t):
    field, x = FIELDS[name](), torch.ones(3, 2)
    if t == field.sde.t_min:  # VE, whose time 0 has noise
        assert bool(field.score(x, t).isfinite().all())
        return
    for entry in entries(field):
        for given in (t, torch.tensor(t), torch.tensor([0.5, t, 0.5])):
            with pytest.raises(UserError, match=f"has times .* up to {field.sde.t_max:g}, got"):
                entry(x, given)


@pytest.mark.parametrize("t", [True, 1j, "1", [0.5], None, torch.tensor(True), torch.ones(2)])
def test_what_is_no_time_is_refused(t):
    for entry in entries(Function(lambda x, t: -x, (2,))):
        with pytest.raises(UserError, match=r"times are|one time or as many"):
            entry(torch.ones(3, 2), t)


def test_times_that_are_rounded_or_raised_by_churn_are_allowed():
    for sde in (EDM(), VP(), VE()):
        field = Gaussian(torch.zeros(2), 1.0, sde=sde)
        ends = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            field.score(torch.ones(2, 2), ends.to(dtype))
        top = torch.tensor(math.sqrt(2) * sde.sigma_max, dtype=torch.float64)
        field.score(torch.ones(1, 2), sde.time(top))
        with pytest.raises(UserError, match="has times"):
            field.score(torch.ones(1, 2), 1.1 * float(sde.time(top)))
    Heun(4, churn=40.0).sample(Gaussian(torch.zeros(2), 1.0), n=4)


def test_a_density_at_time_zero_is_that_of_the_data():
    law, x = Gaussian(torch.zeros(2), 1.0), torch.ones(3, 2)
    torch.testing.assert_close(law.log_density(x, 0.0), torch.full((3,), -1 - math.log(math.tau)))
    for t in (math.nan, -1.0, 1e30):
        with pytest.raises(UserError, match="has times from 0 up to"):
            law.log_density(x, t)


def test_times_on_another_device_are_not_waited_for():
    # Of a tensor without numbers, to look at one is an error.
    field = Function(lambda x, t: -x, (2,))
    x, t = torch.ones(3, 2, device="meta"), torch.full((3,), math.nan, device="meta")
    assert field.score(x, t).shape == (3, 2)
    with pytest.raises(UserError, match="3 points need one time or as many"):
        field.score(x, t[:2])
    with pytest.raises(UserError, match="points of shape"):
        field.score(x[:, :1], t)


@pytest.mark.parametrize("name", ["network", "gaussian", "planted"])
def test_one_graph_and_every_transform(name):
    field, x, t = FIELDS[name](), torch.ones(4, 2), torch.full((4,), 0.5)
    torch.compiler.reset()
    compiled = torch.compile(field.score, backend="eager", fullgraph=True)
    for given in (0.5, t[0], t):
        torch.testing.assert_close(compiled(x, given), field.score(x, given))

    def one(x, t):
        return field.score(x[None], t[None])[0]

    with differentiable():
        rows = torch.func.vmap(one)(x, t)
        jacobians = torch.func.vmap(torch.func.jacrev(one))(x, t)
        forward = torch.func.vmap(torch.func.jacfwd(one))(x, t)
        torch.func.grad(lambda t: field.score(x, t).sum())(t)
        torch.func.jvp(field.score, (x, t), (x, t))
        with pytest.raises(UserError, match="has times"):
            torch.func.vmap(one)(x, torch.tensor([0.5, 0.5, math.nan, 0.5]))
    torch.testing.assert_close(rows, field.score(x, t))
    torch.testing.assert_close(jacobians, forward)


class Slow(ScoreField):
    """A field with dropout, whose evaluations overlap."""

    def __init__(self):
        super().__init__(EDM(), Gaussian(torch.zeros(2), 1.0).domain)
        self.dropout = torch.nn.Dropout(0.5)

    def score(self, x, t, classes=None):
        time.sleep(2e-3)
        return -self.dropout(x)


def test_two_threads_share_evaluation_mode():
    field = Slow().train()
    samples = [Heun(4).sample(field, n=8)] * 2

    def sample(k):
        time.sleep(5e-3 * k)
        samples[k] = Heun(4 + 2 * (1 - k)).sample(field, n=8)

    expected = [Heun(6).sample(field, n=8), Heun(4).sample(field, n=8)]
    threads = [threading.Thread(target=sample, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found, right in zip(samples, expected, strict=True):
        assert torch.equal(found, right)
    assert all(module.training for module in field.modules())


def test_the_last_thread_puts_the_modes_back():
    """The first to enter leaves first."""
    field = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(1, 1).eval())
    first, second = evaluation_mode(field), evaluation_mode(field[0])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert [m.training for m in field.modules()] == [True, False, False]
    second.__exit__(None, None, None)
    assert [m.training for m in field.modules()] == [True, True, False]


def test_a_field_is_not_evaluated_while_another_thread_trains_it():
    """It would be trained without its dropout."""
    field, told = Slow().train(), []

    def sample():
        try:
            Heun(2).sample(field, n=2)
        except UserError as error:
            told.append(str(error))

    with training_mode(field):
        with evaluation_mode(field):
            assert not field.training
        thread = threading.Thread(target=sample)
        thread.start()
        thread.join()
        assert all(module.training for module in field.modules())
    assert not field.training
    assert told == ["the field is trained in another thread: evaluate a copy of it here"]
    with evaluation_mode(field), pytest.raises(UserError, match="in use"), training_mode(field):
        pass
    sample()
    assert len(told) == 1


def test_the_last_thread_ends_what_is_differentiable():
    from scorefield.fields.gradient import is_differentiable

    before = torch.backends.cuda.flash_sdp_enabled()
    first, second = differentiable(), differentiable()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert is_differentiable()
    assert not torch.backends.cuda.flash_sdp_enabled()
    second.__exit__(None, None, None)
    assert not is_differentiable()
    assert torch.backends.cuda.flash_sdp_enabled() == before


@pytest.mark.parametrize("kind", [PreconditionedField, PotentialField])
def test_inference_mode_changes_no_number(kind):
    from scorefield import jvp, vjp
    from scorefield.calculus.derivatives import jacobian, jvp_vjp
    from scorefield.calculus.fokker_planck import fokker_planck_residual

    field, sde = networks(kind).double(), EDM()

    def numbers():
        x, t = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2), torch.full((3,), 0.5)
        t = t.double()
        yield field.score(x, t)
        yield from (vjp(field.score, x, t, x), jvp(field.score, x, t, x))
        yield from jvp_vjp(field.score, x, t, x)
        yield jacobian(field.score, x, t)
        yield fokker_planck_residual(field.score, x, t, sde)
        yield log_prob(field, x, rtol=1e-3, atol=1e-3).value
        yield encode(field, x, rtol=1e-3, atol=1e-3).x
        yield Heun(2).sample(field, n=3, dtype=torch.float64)

    with torch.no_grad():
        expected = list(numbers())
    with torch.inference_mode():
        found = list(numbers())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert all(p.grad is None for p in field.parameters())


class Gives(torch.nn.Module):
    """A network whose output has a shape of its own."""

    def __init__(self, output):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.output = output

    def forward(self, u, label):
        return self.output(self.weight * u)


OUTPUTS = {
    "one column": lambda u: u[:, :1],
    "one row": lambda u: u[:1],
    "one number": lambda u: u.sum(),
    "one each": lambda u: u.sum(dim=1),
    "a number each more": lambda u: u[..., None],
    "more columns": lambda u: u.repeat(1, 2),
    "a pair": lambda u: (u, u),
    "a dictionary": lambda u: {"sample": u},
    "nothing": lambda u: None,
}
OF_EACH_ROW = {"one column", "one each", "a number each more", "more columns"}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("head", [None, "sum", "inner", "denoising"])
def test_a_network_gives_the_shape_of_its_points(head, output):
    kind = PreconditionedField if head is None else PotentialField
    options = {} if head is None else {"head": head}
    field = kind(Gives(OUTPUTS[output]), EDM(), 1.0, shape=(2,), **options)
    if head == "sum" and output in OF_EACH_ROW:
        # Any sum of a row is a potential.
        assert field.score(torch.ones(3, 2), 0.5).shape == (3, 2)
        return
    for entry in entries(field):
        with pytest.raises(
            UserError, match=r"Gives (must give values of shape \(3|gave no tensor)"
        ):
            entry(torch.ones(3, 2), 0.5)


class Own(ScoreField):
    """A field that defines everything itself."""

    has_potential = has_jacobian = True

    def __init__(self, values):
        super().__init__(EDM(), Gaussian(torch.zeros(2), 1.0).domain)
        self.values = values

    def score(self, x, t, classes=None):
        return self.values(x)

    def potential(self, x, t, classes=None):
        return self.values(x)

    def jacobian(self, x, t, classes=None):
        return self.values(x)


@pytest.mark.parametrize("values", OUTPUTS.values(), ids=OUTPUTS)
def test_a_field_of_ones_own_gives_the_shapes_of_its_points(values):
    field, x = Own(values), torch.ones(3, 2)
    shapes = {field.score: r"\(3, 2\)", field.jacobian: r"\(3, 2, 2\)", field.potential: r"\(3,\)"}
    for entry, shape in shapes.items():
        if entry == field.potential and values is OUTPUTS["one each"]:
            assert torch.equal(entry(x, 0.5), x.sum(dim=1))
            continue
        with pytest.raises(UserError, match=f"Own must give values of shape {shape}, got "):
            entry(x, 0.5)

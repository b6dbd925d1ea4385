"""Distillation: its minimum over potentials is the conservative projection of the teacher."""

import math

import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov
from torch import nn

from scorefield import (
    EDM,
    MLP,
    VE,
    Augmentation,
    DenoisingScoreMatching,
    Distillation,
    Gaussian,
    LogUniform,
    Objective,
    PotentialField,
    PreconditionedField,
    Protocol,
    PseudoAtoms,
    ScorePrediction,
    fit,
    score_error,
)
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch
from tests.laws.cases import SDES, KnownWave, Wave, normal, times
from tests.planted import Affine, Function, skew


class Quadratic(nn.Module):
    """The scalar uᵀ Q u / 2 + b · u."""

    def __init__(self, dim):
        super().__init__()
        self.form = nn.Parameter(torch.zeros(dim, dim, dtype=torch.float64))
        self.slope = nn.Parameter(torch.zeros(dim, dtype=torch.float64))

    def forward(self, u, label):
        return 0.5 * ((u @ self.form) * u).sum(dim=1) + u @ self.slope


def cubature(sde, t, covariance):
    """Points, and noise that leads to them, with exactly the second moments of a normal x_t: every
    quadratic loss of them is that of the normal distribution."""
    dim = len(covariance)
    axes = dim**0.5 * torch.linalg.cholesky(covariance).T
    z, clock = normal((2 * dim, dim), "z"), torch.full((2 * dim,), t, dtype=torch.float64)
    x = (torch.cat((axes, -axes)) - sde.sigma(clock)[:, None] * z) / sde.alpha(clock)[:, None]
    return Batch(x, clock, z)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())
def test_the_minimum_over_quadratic_potentials_is_the_projection_in_closed_form(sde):
    """∇·(p (B − A) x) = 0 of p = N(0, S) and a symmetric A is A S + S A = B S + S Bᵀ."""
    dim, t = 4, float(times(sde, 5)[2])
    m, eye = normal((dim, dim), "covariance"), torch.eye(dim, dtype=torch.float64)
    covariance = m @ m.T + 0.2 * eye
    b = eye + normal((dim, dim), "field")
    projection = solve_continuous_lyapunov(covariance, b @ covariance + covariance @ b.T)
    projection, rest = torch.from_numpy(projection), b - torch.from_numpy(projection)
    # It is the symmetric part where all axes are alike, and no other.
    assert (projection - 0.5 * (b + b.T)).norm() > 0.1

    student = PotentialField(Quadratic(dim), sde, parametrization=ScorePrediction(), shape=(dim,))
    batch, loss = cubature(sde, t, covariance), Distillation("score", teacher=Affine(-b, sde=sde))
    scale = float(sde.sigma(batch.t[0])) ** 2 / dim
    optimizer = torch.optim.LBFGS(
        student.parameters(), 1.0, 500, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = loss(student, batch).mean() / scale
        value.backward()
        return value

    optimizer.step(closure)
    found = -student.score(eye, t).detach()
    torch.testing.assert_close(found, projection, rtol=1e-5, atol=1e-5)
    lost = scale * float(torch.trace(rest @ covariance @ rest.T))
    assert float(loss(student, batch).detach().mean()) == pytest.approx(lost, rel=1e-6)


def test_a_teacher_is_evaluated_at_rest_and_is_not_trained():
    """Its dropout is off, and on again afterwards; its weights have no gradient."""
    sde, t = EDM(0.05, 20.0), times(EDM(0.05, 20.0), 6)
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).double()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, label):
            return self.net(x)

    teacher = PreconditionedField(Net(), sde, sigma_data=1.0, shape=(3,)).train()
    student = PreconditionedField(Wave((3,)), sde, sigma_data=1.0)
    batch = Batch(normal((6, 3), "x"), t, normal((6, 3), "z"))
    loss = Distillation("edm", LogUniform(), 1.5, teacher=teacher)
    value = loss(student, batch)
    value.mean().backward()
    assert net.training
    assert all(p.grad is None for p in teacher.parameters())
    assert all(float(p.grad.abs().max()) > 0 for p in student.parameters())
    teacher.eval()
    x_t = batch.x + t[:, None] * batch.z
    error = (student.denoise(x_t, t) - teacher.denoise(x_t, t)).square().mean(dim=1)
    torch.testing.assert_close(value, (t**2 + 2.25) / (1.5 * t) ** 2 * error)
    assert not loss(teacher, batch).any()


def test_it_is_a_loss_on_the_torus():
    """Of the exact field as the teacher it is what denoising score matching has in excess, within
    six standard errors of the difference, whose mean is zero."""
    truth = PseudoAtoms([[0.25], [0.75]], std=0.05, sde=VE(0.01, 0.5))
    wrong = Function(
        lambda x, t: truth.score(x, t) + torch.cos(2 * math.pi * x), (2, 1), truth.sde, truth.domain
    )
    index = torch.arange(20_000)
    plain = DenoisingScoreMatching("score", LogUniform())
    t, z = plain.draw(truth, Noise(0), index, 0)
    batch = Batch(truth.draw(Noise(1), index, dtype=torch.float64), t.double(), z.double())
    found = Distillation("score", LogUniform(), teacher=truth)(wrong, batch)
    difference = plain(wrong, batch) - plain(truth, batch) - found
    assert abs(difference.mean()) < 6 * difference.std() / len(index) ** 0.5
    assert float(found.mean()) > 10 * float(difference.std()) / len(index) ** 0.5


def test_a_potential_learns_the_gradient_part_of_a_field_that_rotates():
    """R ∇ log p has no divergence under p: the projection of the teacher is the exact score. What
    is left after a short training is below a fifth of what was planted, at each level."""
    truth = Gaussian(torch.tensor([1.0, -0.5]), std=0.5, sde=EDM(0.2, 10.0))

    def rotating(x, t):
        score = truth.score(x, t)
        return score + score @ skew(2).to(score.dtype).T

    teacher = Function(rotating, (2,), truth.sde)
    field = PotentialField(MLP(2, 32, 2, outputs=1, seed=1), truth.sde, sigma_data=truth.std)
    loss = Distillation("edm", LogUniform(), truth.std, teacher=teacher)
    run = fit(
        field, truth, objective=Objective(loss), steps=300, batch_size=128, seed=0, quiet=True
    )
    assert run.history[-1]["distillation"] == run.history[-1]["loss"]
    assert "denoising" not in run.history[-1]
    protocol = Protocol((0.3, 1.0, 3.0), n=256)
    planted, left = (score_error(f, truth, protocol) for f in (teacher, field))
    for (_, there), (_, here) in zip(planted, left, strict=True):
        assert here.value < 0.2 * there.value


def test_a_teacher_of_something_else_is_refused():
    student = PreconditionedField(Wave((3,)), EDM(), sigma_data=1.0)
    batch = Batch(normal((6, 3), "x"), times(EDM(), 6), normal((6, 3), "z"))
    for teacher, match in (
        (PreconditionedField(Wave((3,)), VE(), sigma_data=1.0), "the teacher is a field of VE"),
        (PreconditionedField(Wave((2,)), EDM(), sigma_data=1.0), "the teacher is a field of EDM"),
        (
            PreconditionedField(KnownWave((3,)), EDM(), sigma_data=1.0),
            "the teacher knows 3 classes, and what is trained none",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            Distillation("score", teacher=teacher)(student, batch)
    with pytest.raises(TypeError, match="MLP is no score field"):
        Distillation("score", teacher=MLP(2))
    with pytest.raises(ValueError, match="sigma_data of edm weighting"):
        Distillation(teacher=student)
    with pytest.raises(ValueError, match="augmentation is not for a distillation"):
        Objective(Distillation("score", teacher=student), augmentation=Augmentation(0.1))

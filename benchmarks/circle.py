"""A circle in eight dimensions whose diffused score is known, and what counts its dimension in a
field, for ``dimension.py``.
"""

import time

import torch
from pages import Row
from torch import Tensor

import scorefield as sf
from scorefield.domain import Euclidean
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Batch, Quantity, Times
from scorefield.fields.planted import PlantedField, PredictedNoise, Turned, right_angle

D = 8
DIMENSION = 1
SDE = sf.EDM(0.01, 10.0)
SIGMAS = (0.02, 0.05, 0.1, 0.2)
TRAIN, TEST, CENTRES, COPIES = 32_768, 256, 64, 4 * D
STEPS, BATCH, HIDDEN = 1000, 256, 64


class Circle(sf.ScoreField):
    r"""The exact field of the uniform distribution on a circle of radius 1 in a random plane.

    The mean of :math:`x_0` at :math:`x` is :math:`A(\kappa)\,u`, with the direction :math:`u` of
    the part of :math:`x` in the plane, :math:`\kappa` its length over :math:`\sigma^2`, and the
    mean length :math:`A = I_1 / I_0` of the distribution of von Mises.
    """

    def __init__(self) -> None:
        super().__init__(SDE, Euclidean((D,)))
        index = torch.arange(D)
        axes = sf.Noise(7).normal("axes", (D,), index, dtype=torch.float64)
        self.register_buffer("axes", torch.linalg.qr(axes).Q[:, :2].contiguous())

    def draw(self, n: int, seed: int) -> Tensor:
        z = sf.Noise(seed).normal("sphere", (2,), torch.arange(n), dtype=torch.float64)
        return z / z.norm(dim=1, keepdim=True) @ self.axes.mT

    def dimension(self, x: Tensor, sigma: float) -> Tensor:
        kappa = (x @ self.axes).norm(dim=1) / sigma**2
        return (1 - length(kappa) ** 2) / sigma**2

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        sigma = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
        inside = x @ self.axes.to(x)
        r = inside.norm(dim=1, keepdim=True)
        mean_of_data = length(r / sigma**2) * (inside / r) @ self.axes.to(x).mT
        return sf.convert(mean_of_data, x, t, self.sde, "denoiser", quantity)


def length(kappa: Tensor) -> Tensor:
    """The mean length of the distribution of von Mises."""
    return torch.special.i1e(kappa) / torch.special.i0e(kappa)


def trained(model: str, seed: int) -> tuple[sf.ScoreField, float]:
    """A field, and the seconds of processor time of its training."""
    exact = Circle()
    if model == "exact":
        return exact, 0.0
    if model == "turned":
        return PlantedField(exact, Turned(PredictedNoise(), right_angle(D)), 1.0), 0.0
    data = exact.draw(TRAIN, seed=0).float()
    spread = float(data.square().mean().sqrt())
    scaling = sf.EDMScaling(spread)
    net = sf.MLP(D, hidden=HIDDEN, depth=3, outputs=1 if model == "m2" else None, seed=seed)
    kind = sf.PotentialField if model == "m2" else sf.PreconditionedField
    field = kind(net, SDE, parametrization=scaling, shape=(D,))
    loss = sf.DenoisingScoreMatching("edm", sf.LogUniform(), spread)
    begin = time.process_time()
    sf.fit(
        field,
        data,
        objective=sf.Objective(loss),
        steps=STEPS,
        batch_size=BATCH,
        seed=seed,
        quiet=True,
    )
    return field, time.process_time() - begin


def by_gap(field: sf.ScoreField, centres: Tensor, sigma: float, seed: int) -> Tensor:
    """D less the number of singular values before the largest gap, at each centre."""
    index = torch.arange(len(centres))
    z = sf.Noise(seed).normal("copies", (COPIES, D), index, dtype=torch.float64)
    copies = (centres.unsqueeze(1) + sigma * z).reshape(-1, D)
    with torch.no_grad():
        scores = field.score(copies, sigma).reshape(len(centres), COPIES, D)
    values = torch.linalg.svdvals(scores.double())
    return D - 1 - (values[:, :-1] - values[:, 1:]).argmax(dim=1)


def measured(model: str, seed: int) -> list[Row]:
    """The numbers of a model at every noise level."""
    field, seconds = trained(model, seed)
    exact = Circle()
    test = exact.draw(TEST, seed=1000 + seed)
    rows = []
    for sigma in SIGMAS:
        protocol = sf.Protocol((sigma,), n=TEST // 2, seed=seed)
        (points,) = protocol.points(test, field)
        jacobians = sf.jacobian(field.denoise, points.noisy, points.t)
        symmetric = (jacobians + jacobians.mT) / 2
        at_clean = (
            sf.jacobian(field.denoise, points.clean, points.t).diagonal(dim1=1, dim2=2).sum(dim=1)
        )
        with torch.no_grad():
            square = field.score(points.clean, points.t).double().square().sum(dim=1)
        gaps = by_gap(field, points.clean[:CENTRES], sigma, seed)
        (dimension,) = sf.intrinsic_dimension(field, test, protocol).estimates
        (loss,) = sf.denoising_loss(field, test, protocol).estimates
        (asymmetry,) = sf.relative_asymmetry(field, test, protocol, quantity="denoiser").estimates
        values, of_symmetric = (torch.linalg.svdvals(j) for j in (jacobians, symmetric))
        rows.append(
            {
                "model": model,
                "seed": seed,
                "seconds": seconds,
                "sigma": sigma,
                "exact": float(exact.dimension(points.noisy, sigma).mean()),
                "trace": dimension.value,
                "trace_error": dimension.standard_error,
                "loss": D * loss.value,
                "above_half": float((values > 0.5).double().sum(dim=1).mean()),
                "above_half_symmetric": float((of_symmetric > 0.5).double().sum(dim=1).mean()),
                "value_change": float((values - of_symmetric).abs().max(dim=1).values.mean()),
                "gap": float(gaps.double().mean()),
                "gap_right": float((gaps == DIMENSION).double().mean()),
                "at_clean": float((at_clean + sigma**2 * square).mean()),
                "asymmetry": asymmetry.value,
            }
        )
    return rows

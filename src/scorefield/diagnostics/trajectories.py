r"""Points along sampling trajectories, and the agreement of images that two fields predict there.

For one image, :math:`y` as observed and :math:`\hat y` as predicted, both over all pixels and
channels,

.. math:: r = \frac{(y - \bar y) \cdot (\hat y - \bar{\hat y})}
    {|y - \bar y|\,|\hat y - \bar{\hat y}|}, \qquad
    r^2 := 1 - \frac{|y - \hat y|^2}{|y - \bar y|^2}.

The first, Pearson's correlation, is invariant to the scale and the offset of a prediction. The
second, the coefficient of determination, is not: it is 1 for a perfect prediction, 0 for one that
is as far off as the image's own mean, and has no lower bound; it never exceeds the square of the
first. The published comparison of networks with closed forms computes the first and calls it
:math:`r^2`; compare with it by :math:`r`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.checks import check_count, check_floating
from scorefield.engine import device_of, exact
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.fields.forms import Quantity, convert
from scorefield.median import Median, median
from scorefield.noise import Noise
from scorefield.samplers.base import Sampler
from scorefield.samplers.step import SamplerState


class State(NamedTuple):
    r"""Points of one noise level: ``sigma`` is :math:`\sigma / \alpha` in units of the data, ``t``
    its time.
    """

    sigma: float
    t: float
    x: Float[Tensor, "batch *event"]
    classes: Int[Tensor, " batch"] | None = None


class Walk(NamedTuple):
    """The trajectories of a sampler: ``states`` on its grid of noise levels, from the first to the
    last above zero, and final ``samples``.
    """

    states: tuple[State, ...]
    samples: Float[Tensor, "batch *event"]


def walk(
    field: ScoreField,
    sampler: Sampler,
    n: int,
    seed: int = 0,
    first: int = 0,
    dtype: torch.dtype = torch.float32,
    classes: Classes = None,
) -> Walk:
    """The points along the sampling trajectories of a field, in one batch.

    Two fields of one process start from the same noise under one seed.

    Arguments:
        sampler: A sampler with one grid of noise levels for all samples.
        n: The number of samples.
        seed: The seed of their noise.
        first: The index of the first.
        dtype: The dtype of the points.

    Raises:
        ValueError: If ``n`` is below 1, or the sampler is adaptive.
        FloatingPointError: If a point is not finite.
    """
    check_field(field)
    check_count("n", n)
    if sampler.nfe is None:
        raise UserError(f"{type(sampler).__name__} has no noise levels that all samples share")
    sde = field.sde
    device = device_of(field)
    index = torch.arange(first, first + n, device=device)
    start = sde.prior(field.domain).sample(Noise(seed), index, dtype)
    top = torch.tensor(sde.t_max, dtype=torch.float64)
    places = [(sde.sigma_max, start / float(sde.alpha(top)))]

    def watch(state: SamplerState) -> None:
        places.append((state.sigma_next, state.x.clone()))

    known = field.class_rows(classes, index)
    samples = sampler.sample(
        field,
        seed=seed,
        index=index,
        start=start,
        dtype=dtype,
        batch_size=n,
        callback=watch,
        classes=known,
    )
    states = []
    for sigma, x in places[:-1]:
        t = sde.time(torch.tensor(sigma, dtype=torch.float64))
        states.append(State(sigma, float(t), x * float(sde.alpha(t)), known))
    return Walk(tuple(states), samples)


@dataclass(frozen=True, eq=False)
class Agreement:
    """Agreement of predicted images, one by one: ``correlation`` :math:`r` and
    ``determination`` :math:`r^2`.
    """

    correlation: npt.NDArray[np.float64]
    determination: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.correlation)

    @property
    def median_correlation(self) -> Median:
        """The median of :math:`r` over images, with an exact 95 % interval."""
        return median(self.correlation)

    @property
    def median_determination(self) -> Median:
        """The median of :math:`r^2` over images, with an exact 95 % interval."""
        return median(self.determination)

    def beats(self, other: Agreement) -> int:
        """The number of images with a larger correlation than another prediction of them; raises
        ``ValueError`` if the numbers of images differ.
        """
        if len(self) != len(other):
            raise UserError(f"{len(self)} images cannot be compared with {len(other)}")
        return int((self.correlation > other.correlation).sum())


def image_agreement(
    predicted: Float[Tensor, "batch *event"], observed: Float[Tensor, "batch *event"]
) -> Agreement:
    """Compare images with their predictions, one by one.

    Raises:
        ValueError: If an image or its prediction is constant, which correlates with nothing.
    """
    check_floating("observed", observed)
    check_floating("predicted", predicted)
    if predicted.shape != observed.shape:
        raise UserError(
            f"images of shape {tuple(observed.shape)} cannot be compared with predictions of "
            f"shape {tuple(predicted.shape)}"
        )
    y, f = observed.double().flatten(1), predicted.double().flatten(1)
    u, v = y - y.mean(dim=1, keepdim=True), f - f.mean(dim=1, keepdim=True)
    whole, other = u.square().sum(dim=1), v.square().sum(dim=1)
    r = (u * v).sum(dim=1) / (whole * other).sqrt()
    r2 = 1 - (y - f).square().sum(dim=1) / whole
    # The mean of a constant image rounds, and the residual is not a variance.
    rounding = (64 * torch.finfo(torch.float64).eps) ** 2
    varied = (whole > rounding * y.square().sum(dim=1)) & (other > rounding * f.square().sum(dim=1))
    defined = varied & torch.isfinite(r) & torch.isfinite(r2)
    if not bool(defined.all()):
        bad = (~defined).nonzero()[0].item()
        raise UserError(f"image {bad} has no correlation: it or its prediction is constant")
    return Agreement(r.clamp(-1, 1).cpu().numpy(), r2.cpu().numpy())


def field_agreement(
    field: ScoreField,
    machines: Mapping[str, ScoreField],
    states: Iterable[State],
    quantities: tuple[Quantity, ...] = ("score", "denoiser"),
) -> dict[tuple[str, Quantity], tuple[Agreement, ...]]:
    """Compare closed forms (``machines``) with a field at the same noisy points.

    Arguments:
        field: The field to be predicted, a network's.
        machines: The predicting fields, by name, under the same process.
        states: Points at several noise levels.
        quantities: The forms in which the fields are compared. Scores and predicted noise agree
            equally well, since their ratio is the same at all pixels.

    Returns:
        For each closed form and quantity, one agreement per state, in their order.

    Raises:
        ValueError: As :func:`image_agreement`; names the closed form, quantity and noise level.
    """
    found: dict[tuple[str, Quantity], list[Agreement]] = {
        (name, quantity): [] for name in machines for quantity in quantities
    }
    with exact(), torch.no_grad(), ExitStack() as stack:
        for each in (field, *machines.values()):
            stack.enter_context(evaluation_mode(each))
        for sigma, t, x, classes in states:
            wide, truth = x.double(), field.predict_noise(x, t, classes).double()
            for name, machine in machines.items():
                guess = machine.denoise(x, t, classes).double()
                for quantity in quantities:
                    predicted = convert(guess, wide, t, field.sde, "denoiser", quantity)
                    observed = convert(truth, wide, t, field.sde, "noise", quantity)
                    try:
                        found[name, quantity].append(image_agreement(predicted, observed))
                    except UserError as error:
                        raise UserError(
                            f"{quantity} of {name} at noise level {sigma:g}: {error}"
                        ) from error
    return {key: tuple(values) for key, values in found.items()}

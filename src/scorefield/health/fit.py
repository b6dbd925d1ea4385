r"""Whether what a model claims to be fits: its denoising loss, by noise level.

On held-out points :math:`x_t = \alpha x_0 + \sigma\varepsilon` the loss
:math:`\ell = \tfrac1D \|\hat\varepsilon - \varepsilon\|^2` is compared with that of the *trivial
denoiser*, the posterior mean of a normal distribution with the data's own mean and covariance,
:math:`\ell_0`, and the skill :math:`(\ell_0 - \ell) / (\ell_0 + \ell)` with that of other readings
of the same network. All see the same points and the same noise, so that small differences are seen,
and no noise level counts for more than others, however large the loss is there.

A posterior mean has :math:`\mathbb{E}[\varepsilon \cdot \hat\varepsilon] =
\mathbb{E}\|\hat\varepsilon\|^2`. The *slope* of the noise on its prediction is therefore 1 at every
noise level for the exact field, and for any network that cannot be improved by a factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from scorefield.engine import device_of, exact
from scorefield.errors import DivergedError, UserError
from scorefield.estimate import Estimate, mean, ratio
from scorefield.fields.base import evaluation_mode
from scorefield.health.points import LEVELS, Points
from scorefield.health.readings import SAME, Reading
from scorefield.noise import Noise
from scorefield.targets.base import Target
from scorefield.targets.gaussian import Gaussian

MARGIN, MARGIN_OF_ONE = 0.002, 0.005
"""The least gain of skill that is named, however certain: in the mean over noise levels, or at one.
"""
LOST = 0.5
"""How much worse than the trivial denoiser a reading may be, in units of its loss."""
ERROR = 1e-4
"""The probability that a right claim is called wrong, over all readings."""
FIRST = 8
"""With how many points a reading is tried first, at every second noise level."""
_WHOLE = 1024
"""The most dimensions of a covariance, above which coordinates are taken as independent."""


class AtLevel(NamedTuple):
    """What is seen at one noise level: the losses of the field and of the trivial denoiser, the
    correlation of the noise with its prediction, and the slope.
    """

    sigma: float
    loss: Estimate
    trivial: Estimate
    correlation: Estimate
    slope: Estimate


class Gain(NamedTuple):
    """What another reading gains of skill, in the mean over noise levels and at the level where it
    gains most for certain; that level, and there the correlation of the noise with its prediction
    as claimed and then; whether the reading fits; and what a factor at each noise level would still
    gain under it, in the mean.
    """

    reading: Reading
    mean: Estimate
    most: Estimate
    sigma: float
    claimed: float
    found: float
    fits: bool
    lack: float

    def beyond(self, readings: int) -> bool:
        """Whether it is a gain for certain, with so many readings tried, of a reading that fits.

        A network that is not trained to the end gains from many small changes. What its lack of
        calibration under the other reading exceeds is no evidence for that reading; of another
        network, or of other points, such as images of another size, the lack says nothing.
        """
        error = ERROR / readings
        over_all, at_one = _least(self.mean, error), _least(self.most, error / LEVELS)
        known = over_all > MARGIN or at_one > MARGIN_OF_ONE
        return self.fits and over_all > self.lack and known


def _least(estimate: Estimate, error: float) -> float:
    """The lower end of an interval that holds the number but for a probability."""
    if estimate.standard_error == 0:
        return estimate.value
    return (
        estimate.value - float(stats.t.isf(error, df=estimate.draws - 1)) * estimate.standard_error
    )


def trivial(points: Float[Tensor, "n *event"]) -> Target:
    """The normal distribution with the mean and the covariance of points, which is shrunk towards
    its diagonal as far as few points determine it badly.
    """
    flat = points.to(torch.float64).flatten(1)
    n, dim = flat.shape
    centred = flat - flat.mean(dim=0)
    variances = centred.square().mean(dim=0)
    floor = 1e-6 * variances.mean().clamp(min=1e-12)
    where = flat.mean(dim=0).reshape(points.shape[1:])
    if dim > _WHOLE:
        return Gaussian(where, (variances + floor).sqrt().reshape(points.shape[1:]))
    share = dim / (n + dim)
    whole = (1 - share) * centred.mT @ centred / n + share * torch.diag(variances)
    return Gaussian(where, covariance=whole + floor * torch.eye(dim, dtype=torch.float64))


@dataclass(frozen=True)
class Seen:
    """Per noise level and point: losses of a field and of the trivial denoiser, and the products
    of the noise and its prediction with themselves and each other, all per coordinate.
    """

    sigmas: tuple[float, ...]
    loss: Float[Tensor, "levels n"]
    trivial: Float[Tensor, "levels n"]
    cross: Float[Tensor, "levels n"]
    predicted: Float[Tensor, "levels n"]
    noise: Float[Tensor, "levels n"]

    @property
    def parts(self) -> tuple[Float[Tensor, "levels n"], ...]:
        """The losses of the field and the products, by level and point."""
        return self.loss, self.cross, self.predicted, self.noise

    def few(self) -> Seen:
        """The same of the first points alone, at every second noise level."""
        loss, trivial, *products = (
            part[::2, :FIRST] for part in (self.loss, self.trivial, *self.parts[1:])
        )
        return Seen(self.sigmas[::2], loss, trivial, *products)

    @property
    def skill(self) -> Float[Tensor, "levels n"]:
        r"""The skill of a level, :math:`(1 - r) / (1 + r)` with the loss :math:`r` in units of the
        trivial denoiser's, plus what each point adds to it in first order.
        """
        share = self.loss / self.trivial.mean(dim=1, keepdim=True)
        r = share.mean(dim=1, keepdim=True)
        return (1 - r) / (1 + r) - 2 * (share - r) / (1 + r) ** 2

    @property
    def lack(self) -> float:
        """What the prediction would gain of skill if it had the best factor at each noise level, in
        the mean; at least 0. The factor of half of the points is found at the other half.
        """
        half = torch.arange(self.loss.shape[1]) % 2 == 0
        loss = self.loss.clone()
        for here, there in ((half, ~half), (~half, half)):
            cross, predicted, noise = (part[:, here] for part in self.parts[1:])
            size = self.predicted[:, there].mean(dim=1).clamp(min=1e-30)
            factor = (self.cross[:, there].mean(dim=1) / size).unsqueeze(1)
            loss[:, here] = noise - 2 * factor * cross + factor.square() * predicted
        return max(0.0, float((replace(self, loss=loss).skill - self.skill).mean()))

    @property
    def misfits(self) -> int:
        """At how many of the higher noise levels the loss is above the trivial denoiser's by half
        or more.
        """
        bad = self.loss.mean(dim=1) > (1 + LOST) * self.trivial.mean(dim=1)
        return int(bad[len(bad) // 2 :].sum())

    @property
    def correlation(self) -> Float[Tensor, " levels"]:
        """The correlation of the noise with its prediction, by level."""
        both = self.predicted.mean(dim=1) * self.noise.mean(dim=1)
        return self.cross.mean(dim=1) / both.sqrt().clamp(min=1e-30)

    def levels(self) -> tuple[AtLevel, ...]:
        """What is seen at each noise level."""
        return tuple(
            AtLevel(sigma, mean(loss), mean(least), _correlation(c, p, z), ratio(c, p))
            for sigma, loss, least, c, p, z in zip(
                self.sigmas,
                *(v.numpy() for v in (self.loss, self.trivial, self.cross)),
                *(v.numpy() for v in (self.predicted, self.noise)),
                strict=True,
            )
        )


def _correlation(cross: np.ndarray, predicted: np.ndarray, noise: np.ndarray) -> Estimate:
    """The correlation, by the delta method."""
    c, p, z = cross.mean(), predicted.mean(), noise.mean()
    value = c / math.sqrt(p * z)
    found = mean(value + cross / math.sqrt(p * z) - 0.5 * value * (predicted / p + noise / z))
    return found


def look(
    reading: Reading,
    points: Points,
    sigmas: Sequence[float],
    claimed: Seen | None = None,
    n: int | None = None,
) -> Seen:
    """What is seen of a model under a reading at points, or the first ``n`` of them, that are
    noised, in the units in which the model has its data, to the same levels relative to their
    spread; the trivial denoiser's losses are those of the claim where the points are the same.
    """
    field = reading.field
    clean = reading.points(points.clean)
    scale = float(clean.std() / points.clean.std())
    law = None
    if claimed is None or clean is not points.clean:
        law = trivial(clean if points.others is None else reading.points(points.others))
    rows, losses = [], []
    least, most = field.sde.level_range
    device = device_of(field)
    z = points.noise if clean.shape == points.noise.shape else _like(clean)
    clean, z = clean[:n], z[:n]
    classes = None if points.classes is None else points.classes[:n].to(device)
    with exact(), evaluation_mode(field), torch.no_grad():
        for k, sigma in enumerate(sigmas):
            level = scale * sigma
            if claimed is not None and not least <= level <= most:
                # The process of the reading has no such level: nothing is gained there.
                rows.append([part[k] for part in claimed.parts])
                losses += [] if law is None else [claimed.trivial[k]]
                continue
            t = field.sde.time(torch.full((len(clean),), level, dtype=torch.float64))
            noisy = field.sde.perturb(clean, t, z, field.domain)
            found = field.predict_noise(noisy.to(device), t.to(device), classes).cpu()
            if not bool(found.isfinite().all()):
                raise DivergedError(f"the predicted noise is not finite at noise level {level:.3g}")
            if law is not None:
                linear = law.under(field.sde).predict_noise(noisy, t)
                losses.append(_per_point((linear - z).square()))
            products = ((found - z).square(), found * z, found.square(), z.square())
            rows.append([_per_point(values) for values in products])
    loss, *others = (torch.stack(values) for values in zip(*rows, strict=True))
    least_losses = torch.stack(losses) if claimed is None or losses else claimed.trivial
    return Seen(tuple(sigmas), loss, least_losses, *others)


def gain_of(
    reading: Reading, claimed: Seen, points: Points, sigmas: Sequence[float]
) -> Gain | None:
    """What another reading gains; ``None`` where it cannot be tried.

    A reading that is worse than the claim at every one of a few points is tried at no others. A
    network that is not made for a reading (a step beyond its table, an image of another size)
    refuses it, or gives what is no number.
    """
    few = claimed.few()
    try:
        seen, base = look(reading, points, few.sigmas, few, FIRST), few
        if bool((seen.skill.mean(dim=0) >= few.skill.mean(dim=0)).any()):
            seen, base = look(reading, points, sigmas, claimed), claimed
    except (UserError, RuntimeError, IndexError):
        return None
    return _gain(reading, base, seen)


def _gain(reading: Reading, claimed: Seen, seen: Seen) -> Gain:
    """What a reading gains over the claim at the same points."""
    change, sigmas = seen.skill - claimed.skill, seen.sigmas
    by_level = [mean(values.numpy()) for values in change]
    k = max(range(len(sigmas)), key=lambda k: _least(by_level[k], ERROR))
    return Gain(
        reading,
        mean(change.mean(dim=0).numpy()),
        by_level[k],
        sigmas[k],
        claimed=float(claimed.correlation[k]),
        found=float(seen.correlation[k]),
        fits=seen.misfits <= len(sigmas) // 4,
        lack=seen.lack if reading.kind in SAME else 0.0,
    )


def _per_point(values: Tensor) -> Tensor:
    return values.flatten(1).mean(dim=1)


def _like(clean: Tensor) -> Tensor:
    """Noise for points of another shape than the data's."""
    index = torch.arange(len(clean))
    return Noise(-1).normal("check/noise", clean.shape[1:], index, dtype=torch.float64)

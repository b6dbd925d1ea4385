"""The score error, the distance to the ideal score, and the loss of a field."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.checks import check_count, check_data, kind_of
from scorefield.diagnostics.protocol import Points, Profile, Protocol, measure
from scorefield.engine import exact
from scorefield.errors import UserError
from scorefield.estimate import Estimate, mean, root
from scorefield.fields.base import ScoreField, check_field, evaluation_mode
from scorefield.fields.classes import Classes
from scorefield.fields.inputs import check_event
from scorefield.noise import Noise
from scorefield.objectives.denoising import Batch, DenoisingScoreMatching
from scorefield.points import Given
from scorefield.targets.base import Target
from scorefield.targets.empirical import IdealScore


def score_error(
    field: ScoreField,
    truth: Target,
    protocol: Protocol,
    classes: Classes = None,
) -> Profile:
    r"""The error of the score in units of the noise, by noise level; a pure number.

    .. math:: \sqrt{\tfrac{1}{D}\,\mathbb{E}\,\sigma^2 \|s - s_{true}\|^2}

    A prediction of zero has an error of 1 at large :math:`\sigma`. The points come from ``truth``,
    the target with the exact score :math:`s_{true}`, which must have classes if any are given.
    ``field``, ``protocol`` and ``classes`` are those of :mod:`scorefield.diagnostics`.
    """
    check_field(field)
    if not isinstance(truth, Target):
        raise UserError(f"score_error needs a Target, whose score is known, got {kind_of(truth)}")
    at = _distance(field, truth.under(field.sde))
    return measure("score_error", "", at, field, truth, protocol, classes)


def distance_to_ideal(
    field: ScoreField,
    train: Tensor,
    protocol: Protocol,
    classes: Classes = None,
) -> Profile:
    r"""The distance of the score from that of the training set itself, by noise level; a pure
    number.

    .. math:: \sqrt{\tfrac{1}{D}\,\mathbb{E}\,\sigma^2 \|s - s_{ideal}\|^2}

    The points are noised training points. The :class:`~.IdealScore` minimises the training loss,
    and its samples are training points: a distance of 0 is a memorised training set; a field that
    generalises differs at noise levels at which the training points do not overlap.

    Arguments:
        train: The whole training set, of shape ``(n, *event)``.

    Raises:
        ValueError: If the training set has another event shape than the field or too few points.

    References:
        Elucidating the design space of diffusion-based generative models (Karras et al., 2022),
        equation 57.
    """
    check_field(field)
    check_data("the training set", train)
    check_event(field.domain.shape, train.shape[1:])
    at = _distance(field, IdealScore(train, field.sde, field.class_rows(classes, train)))
    return measure("distance_to_ideal", "", at, field, train, protocol, classes, train=len(train))


def denoising_loss(
    field: ScoreField,
    data: Target | Given,
    protocol: Protocol,
    classes: Classes = None,
) -> Profile:
    r"""The denoising loss :math:`\tfrac1D \mathbb{E}\,\|\hat\varepsilon - \varepsilon\|^2` by noise
    level; a pure number. ``field``, ``data``, ``protocol`` and ``classes`` are those of
    :mod:`scorefield.diagnostics`.
    """

    def at(points: Points) -> Estimate:
        error = field.predict_noise(points.noisy, points.t, points.classes) - points.z
        return mean(_per_point(error.square()))

    return measure("denoising_loss", "", at, field, data, protocol, classes)


def validation_loss(
    field: ScoreField,
    data: Tensor,
    denoising: DenoisingScoreMatching,
    draws: int = 1,
    seed: int = 0,
    classes: Tensor | None = None,
) -> Estimate:
    """The training loss on other points, in evaluation mode: the mean over points of means over
    their draws, with the standard error over points.

    Arguments:
        data: Clean points, of shape ``(n, *event)``.
        draws: The number of times and noises per point.
        seed: The seed of times and noise; their addresses have ``-1 - seed``, different from those
            of a training with that seed.
        classes: The class of each point, for a field that knows classes.

    Raises:
        ValueError: For fewer than two points or one draw, or points of another shape than the
            field's.
    """
    check_field(field)
    check_count("draws", draws)
    check_data("data", data)
    check_event(field.domain.shape, data.shape[1:])
    noise, index = Noise(-1 - seed), torch.arange(data.shape[0], device=data.device)
    total = torch.zeros(data.shape[0], dtype=torch.float64, device=data.device)
    with exact(), evaluation_mode(field), torch.no_grad():
        for draw in range(draws):
            t, z = denoising.draw(field, noise, index, draw)
            total += denoising(field, Batch(data, t.to(data.dtype), z.to(data.dtype), classes))
    return mean(
        total.div(draws).cpu().numpy(),
        weighting=denoising.weighting,
        law=str(denoising.law),
        draws=draws,
    )


def _distance(field: ScoreField, exact: ScoreField) -> Callable[[Points], Estimate]:
    """The root mean square difference of two fields' predicted noise at points."""

    def at(points: Points) -> Estimate:
        here = points.noisy, points.t, points.classes
        exact.to(points.noisy.device)
        error = field.predict_noise(*here) - exact.predict_noise(*here)
        return root(mean(_per_point(error.square())))

    return at


def _per_point(square: Tensor) -> list[float]:
    values: list[float] = square.reshape(square.shape[0], -1).mean(dim=1).tolist()
    return values

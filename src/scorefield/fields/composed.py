r"""Fields composed of other fields: guided towards a class, of one class alone, or one for each
range of noise levels.

By Bayes' rule the score of points of a class :math:`c` is

.. math:: \nabla_x \log p_t(x \mid c) = \nabla_x \log p_t(x) + \nabla_x \log p_t(c \mid x).

A classifier of noisy points supplies the second term to an unconditional field; for a
class-conditional field it is the difference of the conditional and the unconditional score. With
the second term multiplied by a scale :math:`\gamma`, the sum is the score of :math:`p_t(x)\,p_t(c
\mid x)^\gamma`, up to normalisation: 0 ignores the class, 1 gives the distribution of the class,
and larger values favour points that are typical of it, at the expense of variety. For
:math:`\gamma` other than 0 and 1 these densities are not the diffusion of one distribution.

References:
    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    equation 14 and appendix I.

    Diffusion models beat GANs on image synthesis (Dhariwal and Nichol, 2021), algorithm 1.

    Classifier-free diffusion guidance (Ho and Salimans, 2022), equation 6.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.checks import check_finite, check_not_negative, check_positive
from scorefield.errors import UserError
from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.classes import Classes, classes_at
from scorefield.fields.forms import Batch, Quantity, Times, affine, times
from scorefield.fields.gradient import gradient
from scorefield.rows import of_rows


class ClassifierGuidance(ScoreField):
    r"""A field plus the gradient of a classifier's log-probability.

    .. math:: s_\gamma(x, t \mid c) = s(x, t)
        + \gamma\,\nabla_x \log p\big(c \mid x / \alpha(t),\, \sigma(t) / \alpha(t)\big)

    Without a class it is the field itself. The classifier receives points and noise levels in units
    of the data: one that was trained for one process can be used with every process whose noise
    levels it covers. It computes in the dtype of its parameters.

    Arguments:
        field: The field to be guided.
        classifier: A module called as ``classifier(x, noise_level)``, with points of shape
            ``(batch, *event)`` and levels of shape ``(batch,)``; returns logits ``(batch,
            classes)``, each row independent of the others. Its attribute ``classes`` is their
            number.
        scale: The scale :math:`\gamma`.

    Raises:
        ValueError: If the classifier has no attribute ``classes``, or the scale is not finite; in a
            call, if the number of logits is not that of the classes.
    """

    def __init__(self, field: ScoreField, classifier: nn.Module, scale: float | int = 1.0) -> None:
        check_field(field)
        super().__init__(field.sde, field.domain)
        self.field = field
        self.classifier = classifier
        check_finite("the scale of guidance", scale)
        self.scale = float(scale)
        if getattr(classifier, "classes", None) is None:
            raise UserError(f"{type(classifier).__name__} has no number of classes, `classes`")

    @property
    def classes(self) -> int | None:
        return getattr(self.classifier, "classes", None)

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        rows, without = self.class_rows(classes, x), self.field.predict(x, t, quantity)
        if rows is None:
            return without
        clock = times(x, t)
        alpha, level = self.sde.alpha(clock), self.sde.noise_level(clock)
        pull = gradient(self._log_probability, x / alpha, level, rows) / alpha
        _, b = affine(x, t, self.sde, quantity)
        return without + self.scale * b * pull

    @property
    def has_potential(self) -> bool:
        return self.field.has_potential

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        rows, without = self.class_rows(classes, x), self.field.potential(x, t)
        if rows is None:
            return without
        clock = times(x, t)
        level = self.sde.noise_level(clock)
        return without + self.scale * self._log_probability(x / self.sde.alpha(clock), level, rows)

    def _log_probability(self, u: Tensor, level: Tensor, classes: Tensor) -> Tensor:
        dtype = next((p.dtype for p in self.classifier.parameters()), u.dtype)
        n = u.shape[0]
        logits: Tensor = self.classifier(u.to(dtype), level.reshape(-1).expand(n).to(dtype))
        if logits.shape != (n, self.classes):
            raise UserError(
                f"a classifier of {self.classes} classes gave logits of shape {tuple(logits.shape)}"
            )
        # Of no class, which follows the last one, every point is.
        logs = F.pad(F.log_softmax(logits, dim=1), (0, 1))
        return logs.gather(1, classes.unsqueeze(1)).squeeze(1).to(u.dtype)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


class ClassifierFreeGuidance(ScoreField):
    r"""A class-conditional field, extrapolated away from its unconditional score.

    .. math:: s_\gamma(x, t \mid c) = s(x, t) + \gamma\,\big(s(x, t \mid c) - s(x, t)\big)

    Without a class it is the field itself. Scale 0 is the unconditional field, 1 the field of the
    class; in the form :math:`(1 + w)\,s(x, t \mid c) - w\,s(x, t)` the weight is :math:`w = \gamma
    - 1`. Both terms come from one evaluation of the field, at twice as many points.

    Arguments:
        field: The field.
        scale: The scale :math:`\gamma`.

    Raises:
        ValueError: If the field has no classes or cannot be evaluated without them, or the scale is
            not finite.
    """

    def __init__(self, field: ScoreField, scale: float | int = 1.0) -> None:
        check_field(field)
        super().__init__(field.sde, field.domain)
        self.field = field
        check_finite("the scale of guidance", scale)
        self.scale = float(scale)
        if field.classes is None or not field.unlabelled:
            raise UserError(
                f"classifier-free guidance needs a field with classes and without, "
                f"{type(field).__name__} {'has none' if field.classes is None else 'needs them'}"
            )

    @property
    def classes(self) -> int | None:
        return self.field.classes

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        rows = self.class_rows(classes, x)
        if rows is None:
            return self.field.predict(x, t, quantity)
        return self._guided(self.field.predict(*self._twice(x, t), quantity, self._both(rows)))

    @property
    def has_potential(self) -> bool:
        return self.field.has_potential

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        rows = self.class_rows(classes, x)
        if rows is None:
            return self.field.potential(x, t)
        return self._guided(self.field.potential(*self._twice(x, t), self._both(rows)))

    def _both(self, classes: Tensor) -> Tensor:
        """No class for the first copy of the points, their own for the second."""
        assert self.classes is not None
        return torch.cat((torch.full_like(classes, self.classes), classes))

    def _guided(self, values: Tensor) -> Tensor:
        without, known = values.chunk(2)
        return without + self.scale * (known - without)

    @staticmethod
    def _twice(x: Tensor, t: Times) -> tuple[Tensor, Tensor]:
        """The points and their times, twice."""
        time = times(x, t).reshape(-1).expand(x.shape[0])
        return torch.cat((x, x)), torch.cat((time, time))

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


class OneClass(ScoreField):
    r"""The field of points of one class, :math:`\nabla_x \log p_t(x \mid c)`: as any field of a
    single density, it has no classes itself.

    Arguments:
        field: A class-conditional field; it is shared, not copied.
        number: The class :math:`c` of all points.

    Raises:
        ValueError: If the field has no such class.
    """

    def __init__(self, field: ScoreField, number: int) -> None:
        check_field(field)
        super().__init__(field.sde, field.domain)
        field.class_rows(number, torch.empty(0))
        self.field = field
        self.number = number

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        return self.field.predict(x, t, quantity, self._own(x, classes))

    @property
    def has_potential(self) -> bool:
        return self.field.has_potential

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        return self.field.potential(x, t, self._own(x, classes))

    @property
    def has_jacobian(self) -> bool:
        return self.field.has_jacobian

    def jacobian(
        self, x: Batch, t: Times, classes: Classes = None
    ) -> Float[Tensor, "batch dim dim"]:
        return self.field.jacobian(x, t, self._own(x, classes))

    def _own(self, x: Tensor, classes: Classes) -> int:
        self.class_rows(classes, x)
        return self.number

    def extra_repr(self) -> str:
        return f"number={self.number}"


class HybridField(ScoreField):
    r"""One field at or below a noise level, another above it.

    .. math:: s(x, t) = \begin{cases} s_{low}(x, t) & \sigma(t)/\alpha(t) \le \sigma_c \\
        s_{high}(x, t) & \text{otherwise} \end{cases}

    On a CPU each field is evaluated on its own points only. On another device, and in a compiled
    or exported graph, both are evaluated at all points, unless the time is a number: how many
    points are whose is not known to the host, which would have to wait. There each must be finite,
    with its derivatives, at all levels.

    Arguments:
        low: The field at low noise, typically a potential's gradient.
        high: The field at high noise.
        sigma_c: The noise level :math:`\sigma_c` of the boundary, in units of the data.

    Raises:
        ValueError: If the two fields differ in process, domain or number of classes, or
            ``sigma_c`` is not positive.
    """

    def __init__(self, low: ScoreField, high: ScoreField, sigma_c: float) -> None:
        check_field(low)
        check_field(high)
        check_alike("the two fields of a hybrid", low, high)
        check_positive("sigma_c", sigma_c)
        super().__init__(low.sde, low.domain)
        self.low = low
        self.high = high
        self.sigma_c = sigma_c

    @property
    def classes(self) -> int | None:
        return self.low.classes

    @property
    def unlabelled(self) -> bool:
        return self.low.unlabelled and self.high.unlabelled

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        # A number is known to the host.
        near = x if isinstance(t, Tensor) else x.new_empty(1, device="cpu")
        t = times(near, t).reshape(-1)
        below = self._is_low(self.sde.noise_level(t))
        if below.device.type != "cpu" or torch.compiler.is_compiling():
            one, other = (p.predict(x, t, quantity, classes) for p in (self.low, self.high))
            return torch.where(below.reshape(-1, *(1,) * (x.dim() - 1)), one, other)
        n_low = int(below.sum())
        if n_low in (0, below.numel()):
            return (self.low if n_low else self.high).predict(x, t, quantity, classes)
        known = self.class_rows(classes, x)
        low, high = (mask.nonzero().flatten() for mask in (below, ~below))
        with of_rows(self.low, low), of_rows(self.high, high):
            parts = (
                self.low.predict(x[low], t[low], quantity, classes_at(known, low)),
                self.high.predict(x[high], t[high], quantity, classes_at(known, high)),
            )
        return torch.cat(parts)[torch.argsort(torch.cat((low, high)))]

    def _is_low(self, level: Tensor) -> Tensor:
        return level <= self.sigma_c


class IntervalField(HybridField):
    """One field at noise levels in (least, sigma_c], another above and below; see
    :func:`guidance_interval`.
    """

    def __init__(self, low: ScoreField, high: ScoreField, sigma_c: float, least: float) -> None:
        super().__init__(low, high, sigma_c)
        self.least = least

    def _is_low(self, level: Tensor) -> Tensor:
        return (level > self.least) & super()._is_low(level)


def guidance_interval(
    guided: ScoreField, field: ScoreField, low: float | int, high: float | int
) -> HybridField:
    r"""Guidance at the noise levels :math:`low < \sigma / \alpha \le high` only, and the field
    without it at all others.

    Its authors find that guidance at high noise reduces the variety of samples, and that at low
    noise it is of no use. On a CPU only the plain field is evaluated outside of the interval; on
    another device both are, once at every level, as by :class:`HybridField`: more than guidance at
    all levels costs. The levels on both sides of an end have different densities: no diffusion.

    Arguments:
        guided: The field with guidance, such as :class:`ClassifierFreeGuidance`.
        field: The field without, with the same classes.
        low: The level at and below which there is no guidance, in units of the data; 0 for none.
        high: The level above which there is none.

    Raises:
        ValueError: If the fields differ in process, domain or number of classes, or unless
            ``0 <= low < high``.

    Example:
        >>> limited = guidance_interval(ClassifierFreeGuidance(field, 3.0), field, 0.2, 3.0)

    References:
        Applying guidance in a limited interval improves sample and distribution quality in
        diffusion models (Kynkäänniemi, Aittala, Karras, Laine, Aila and Lehtinen, 2024), section 3.
    """
    check_not_negative("the low end of a guidance interval", low)
    check_positive("the high end of a guidance interval", high)
    if not low < high:
        raise UserError(f"a guidance interval from {low:g} to {high:g} holds no noise level")
    return IntervalField(guided, field, float(high), float(low))


def check_alike(owners: str, first: ScoreField, *others: ScoreField) -> None:
    """Raises ``ValueError`` unless fields share process, domain and number of classes."""
    for other in others:
        if first.sde != other.sde or first.domain != other.domain:
            raise UserError(f"{owners} share one process and one domain")
        if first.classes != other.classes:
            raise UserError(
                f"{owners} know the same classes, not {first.classes or 'none'} "
                f"and {other.classes or 'none'}"
            )

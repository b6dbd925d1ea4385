r"""Fields that are steered towards a class.

By Bayes' rule the score of points of a class :math:`c` is

.. math:: \nabla_x \log p_t(x \mid c) = \nabla_x \log p_t(x) + \nabla_x \log p_t(c \mid x).

A classifier of noisy points supplies the second term to a field that knows no classes; a field
that knows them has both sides, and the second term is their difference. Multiplied by a scale
:math:`\gamma`, it is the score of :math:`p_t(x)\,p_t(c \mid x)^\gamma` up to a constant: 0 leaves
the class out, 1 asks for the law of the class, and more for points that are typical of it, at the
price of variety. For :math:`\gamma` other than 0 and 1 these are, over the times, not the diffusion
of one law.

References:
    Score-based generative modeling through stochastic differential equations (Song et al., 2021),
    equation 14 and appendix I.

    Diffusion models beat GANs on image synthesis (Dhariwal and Nichol, 2021), algorithm 1.

    Classifier-free diffusion guidance (Ho and Salimans, 2022), equation 6.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.errors import UserError
from scorefield.fields.base import Quantity, ScoreField, affine, times
from scorefield.fields.conditional import checked, classes_of, part
from scorefield.fields.gradient import gradient
from scorefield.fields.preconditioned import PreconditionedField


class ClassifierGuidance(ScoreField):
    r"""A field plus the gradient of a classifier's log-probability.

    .. math:: s_\gamma(x, t) = s(x, t)
        + \gamma\,\nabla_x \log p\big(c \mid x / \alpha(t),\, \sigma(t) / \alpha(t)\big)

    The classifier sees points in units of the data and the noise level in these units, whatever the
    process: one that was trained for one process serves all whose noise levels it knows. With
    :math:`\alpha = 1` these are :math:`x` and :math:`\sigma` themselves.

    Calls need autograd, so they work under ``torch.no_grad`` but not under
    ``torch.inference_mode``. The classifier computes in the dtype of its parameters.

    Arguments:
        field: The field to be steered.
        classifier: A module called as ``classifier(x, noise_level)``, with points of shape
            ``(batch, *event)`` and levels of shape ``(batch,)``; returns logits
            ``(batch, classes)``. Each row on its own.
        classes: The class :math:`c` of all points, or of each point of a batch.
        scale: The scale :math:`\gamma`.

    Raises:
        ValueError: If the classes are not integers, or the scale is not finite; in a call, if the
            classifier has no such class.
    """

    index: Tensor

    def __init__(
        self,
        field: ScoreField,
        classifier: nn.Module,
        classes: int | Int[Tensor, " batch"],
        scale: float | int = 1.0,
    ) -> None:
        super().__init__(field.sde, field.domain)
        self.field = field
        self.classifier = classifier
        self.scale = _finite(scale)
        known = getattr(classifier, "classes", None)
        index = checked(classes, 2**31 if known is None else known, classifier)
        self._least = 1 + int(index.max())
        self.register_buffer("index", index, persistent=False)

    @property
    def classes(self) -> int | None:
        return getattr(self.classifier, "classes", None)

    def given(self, classes: int | Int[Tensor, " batch"]) -> ClassifierGuidance:
        return ClassifierGuidance(self.field, self.classifier, classes, self.scale)

    def for_rows(self, rows: Int[Tensor, " rows"]) -> ClassifierGuidance:
        index = part(self.index, rows)
        return ClassifierGuidance(self.field.for_rows(rows), self.classifier, index, self.scale)

    def score(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor
    ) -> Float[Tensor, "batch *event"]:
        return self.predict(x, t, "score")

    def predict(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor, quantity: Quantity
    ) -> Float[Tensor, "batch *event"]:
        clock = times(x, t)
        alpha, level = self.sde.alpha(clock), self.sde.noise_level(clock)
        pull = gradient(lambda u: self._log_probability(u, level), x / alpha) / alpha
        _, b = affine(x, t, self.sde, quantity)
        return self.field.predict(x, t, quantity) + self.scale * b * pull

    @property
    def has_potential(self) -> bool:
        return self.field.has_potential

    def potential(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor
    ) -> Float[Tensor, " batch"]:
        clock = times(x, t)
        level = self.sde.noise_level(clock)
        pull = self._log_probability(x / self.sde.alpha(clock), level)
        return self.field.potential(x, t) + self.scale * pull

    def _log_probability(self, u: Tensor, level: Tensor) -> Tensor:
        dtype = next((p.dtype for p in self.classifier.parameters()), u.dtype)
        n = u.shape[0]
        logits: Tensor = self.classifier(u.to(dtype), level.reshape(-1).expand(n).to(dtype))
        if logits.dim() != 2 or logits.shape[1] < self._least:
            raise UserError(
                f"classes go up to {self._least - 1}, the classifier gave logits of shape "
                f"{tuple(logits.shape)}"
            )
        chosen = F.log_softmax(logits, dim=1).gather(1, classes_of(u, self.index).unsqueeze(1))
        return chosen.squeeze(1).to(u.dtype)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


class ClassifierFreeGuidance(ScoreField):
    r"""A field that knows classes, drawn away from what it says without them.

    .. math:: s_\gamma(x, t) = s(x, t) + \gamma\,\big(s(x, t \mid c) - s(x, t)\big)

    Scale 0 is the field without classes, 1 the field of the class. Written with a weight as
    :math:`(1 + w)\,s(x, t \mid c) - w\,s(x, t)`, the weight is :math:`w = \gamma - 1`.

    Of a :class:`~scorefield.fields.preconditioned.PreconditionedField` both terms come from one
    call of the network, at twice as many points.

    Arguments:
        field: The field; it answers :meth:`~scorefield.fields.base.ScoreField.given`.
        classes: The class :math:`c` of all points, or of each point of a batch.
        scale: The scale :math:`\gamma`.

    Raises:
        TypeError: If the field knows no classes.
        ValueError: If the classes are not integers or out of range, or the scale is not finite.

    References:
        Classifier-free diffusion guidance (Ho and Salimans, 2022), equation 6.
    """

    index: Tensor

    def __init__(
        self,
        field: ScoreField,
        classes: int | Int[Tensor, " batch"],
        scale: float | int = 1.0,
    ) -> None:
        super().__init__(field.sde, field.domain)
        self.field = field
        self.scale = _finite(scale)
        known, pair = field.given(classes), None
        count = 2**31 if field.classes is None else field.classes + 1
        index = checked(classes, count, field)
        self.register_buffer("index", index, persistent=False)
        if isinstance(field, PreconditionedField):
            without = torch.full_like(index, count - 1)
            # By turns, so that copies of a batch stay copies.
            pair = field.given(torch.stack((without, index), dim=1).reshape(-1))
        # In a tuple, their weights are not listed again beside those of the field.
        self._views: tuple[ScoreField, ScoreField | None] = (known, pair)

    @property
    def classes(self) -> int | None:
        return self.field.classes

    def given(self, classes: int | Int[Tensor, " batch"]) -> ClassifierFreeGuidance:
        return ClassifierFreeGuidance(self.field, classes, self.scale)

    def for_rows(self, rows: Int[Tensor, " rows"]) -> ClassifierFreeGuidance:
        index = part(self.index, rows)
        return ClassifierFreeGuidance(self.field.for_rows(rows), index, self.scale)

    def score(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor
    ) -> Float[Tensor, "batch *event"]:
        return self.predict(x, t, "score")

    def predict(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor, quantity: Quantity
    ) -> Float[Tensor, "batch *event"]:
        given, pair = self._views
        if pair is None:
            without, known = (f.predict(x, t, quantity) for f in (self.field, given))
        else:
            clock = times(x, t).reshape(-1).expand(x.shape[0]).repeat_interleave(2)
            both = pair.predict(x.repeat_interleave(2, dim=0), clock, quantity)
            without, known = both.unflatten(0, (-1, 2)).unbind(1)
        return without + self.scale * (known - without)

    @property
    def has_potential(self) -> bool:
        return self.field.has_potential and self._views[0].has_potential

    def potential(
        self, x: Float[Tensor, "batch *event"], t: float | Tensor
    ) -> Float[Tensor, " batch"]:
        without, known = (f.potential(x, t) for f in (self.field, self._views[0]))
        return without + self.scale * (known - without)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


def _finite(scale: float | int) -> float:
    if not math.isfinite(scale):
        raise UserError(f"the scale of guidance must be finite, got {scale}")
    return float(scale)

r"""Products, powers, quotients and mixtures of the densities of fields.

Of fields :math:`s_i = \nabla\phi_i` of densities :math:`p_{i,t} \propto e^{\phi_i(x, t)}` at the
noise level of a time :math:`t`:

.. math::
    \begin{aligned}
    \text{product} \quad & \textstyle\prod_i p_{i,t} & s &= \textstyle\sum_i s_i &
    \text{tempered} \quad & p_t^\beta & s &= \beta\,s \\
    \text{negation} \quad & p_{a,t} / p_{b,t}^\gamma & s &= s_a - \gamma\,s_b &
    \text{mixture} \quad & \textstyle\sum_i w_i\,p_{i,t} & s &= \textstyle\sum_i r_i\,s_i, \quad
        r = \mathrm{softmax}(\ln w_i + \phi_i) \\
    \text{autoguidance} \quad & p_{a,t}^\gamma / p_{b,t}^{\gamma - 1} &
        s &= s_b + \gamma\,(s_a - s_b) .
    \end{aligned}

Each is a density at every noise level, but only the mixture is the diffusion of the composed data:
noise and products do not commute,

.. math:: \prod_i \int p_{i,0}(x_0)\,p(x_t \mid x_0)\,\mathrm{d}x_0 \neq
    \int \prod_i p_{i,0}(x_0)\,p(x_t \mid x_0)\,\mathrm{d}x_0 .

A reverse process or probability flow with the sum of the scores therefore ends in another
distribution than the product, even where all scores are exact. :class:`~.AnnealedMCMC` samples the
composed density itself, at one noise level after the other.

References:
    Reduce, reuse, recycle: compositional generation with energy-based diffusion models and MCMC
    (Du, Durkan, Strudel, Tenenbaum, Dieleman, Fergus, Sohl-Dickstein, Doucet and Grathwohl, 2023,
    arXiv 2302.11552), the sections on products, mixtures and negation.

    Training products of experts by minimizing contrastive divergence (Hinton, 2002), equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.checks import check_count, check_positive
from scorefield.errors import UnsupportedError, UserError
from scorefield.fields.base import ScoreField, check_field
from scorefield.fields.classes import Classes
from scorefield.fields.composed import check_alike
from scorefield.fields.forms import Batch, Quantity, Times, affine


class _Composition(ScoreField):
    """A field of several others with one process, one domain and the same classes."""

    def __init__(self, name: str, fields: Sequence[ScoreField]) -> None:
        check_count(f"the number of fields of a {name}", len(fields))
        for field in fields:
            check_field(field)
        check_alike(f"the fields of a {name}", *fields)
        super().__init__(fields[0].sde, fields[0].domain)
        self.count = len(fields)
        for k, field in enumerate(fields):
            self.add_module(f"part{k}", field)

    @property
    def parts(self) -> list[ScoreField]:
        """The fields."""
        return [getattr(self, f"part{k}") for k in range(self.count)]

    @property
    def classes(self) -> int | None:
        return self.parts[0].classes

    @property
    def unlabelled(self) -> bool:
        return all(part.unlabelled for part in self.parts)


class PowerProduct(_Composition):
    r"""The field :math:`s = \sum_i c_i s_i` of the density :math:`\prod_i p_{i,t}^{c_i}`, which
    :func:`product`, :func:`tempered`, :func:`negation` and :func:`autoguidance` make. It has the
    potential :math:`\sum_i c_i \phi_i` where all of its fields have one.
    """

    def __init__(self, name: str, fields: Sequence[ScoreField], powers: Sequence[float]) -> None:
        super().__init__(name, fields)
        self.powers = tuple(map(float, powers))

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        # Of a form a x + b s the first term is had once, not as often as the powers add up to.
        total = torch.zeros_like(x)
        for power, part in zip(self.powers, self.parts, strict=True):
            total = total + power * part.predict(x, t, quantity, classes)
        spare = 1 - sum(self.powers)
        return total if spare == 0 else total + spare * affine(x, t, self.sde, quantity).of_x * x

    @property
    def has_potential(self) -> bool:
        return all(part.has_potential for part in self.parts)

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        for part in self.parts:
            if not part.has_potential:
                raise UnsupportedError(
                    f"a composition has a potential where all of its fields have one, and "
                    f"{type(part).__name__} has none"
                )
        values = [part.potential(x, t, classes) for part in self.parts]
        return torch.stack([c * v for c, v in zip(self.powers, values, strict=True)]).sum(dim=0)

    def extra_repr(self) -> str:
        return f"powers={self.powers}"


class MixtureField(_Composition):
    """The field of a weighted sum of densities; see :func:`mixture`, which makes it."""

    weights: Tensor

    def __init__(self, fields: Sequence[ScoreField], weights: Tensor) -> None:
        super().__init__("mixture", fields)
        self.register_buffer("weights", weights)

    def predict(self, x: Batch, t: Times, quantity: Quantity, classes: Classes = None) -> Batch:
        shares = self._logs(x, t, classes).softmax(dim=0)
        total = torch.zeros_like(x)
        for share, part in zip(shares, self.parts, strict=True):
            share = share.reshape(-1, *(1,) * (x.dim() - 1))
            total = total + share * part.predict(x, t, quantity, classes)
        return total

    @property
    def has_potential(self) -> bool:
        return True

    def potential(self, x: Batch, t: Times, classes: Classes = None) -> Float[Tensor, " batch"]:
        return self._logs(x, t, classes).logsumexp(dim=0)

    def _logs(self, x: Tensor, t: Times, classes: Classes) -> Tensor:
        values = torch.stack([part.potential(x, t, classes) for part in self.parts])
        return values + self.weights.log().to(values).unsqueeze(1)

    def extra_repr(self) -> str:
        return f"weights={tuple(self.weights.tolist())}"


def product(*fields: ScoreField) -> ScoreField:
    r"""The product of densities: points that are probable under all fields.

    At the noise level of :math:`t` it is the density :math:`\prod_i p_{i,t}` up to normalisation,
    with the score :math:`\sum_i s_i` and, where all fields have one, the potential
    :math:`\sum_i \phi_i`. A product of noisy densities is not the noisy density of the product, so
    that samplers of the reverse process and the probability flow do not sample it;
    :class:`~.AnnealedMCMC` does.

    The forms of the field, such as the denoiser, are its score converted: with the score of no
    diffusion they are not posterior means.

    Arguments:
        fields: The fields, of one process, one domain and the same classes; a field of one class
            is a :class:`~.OneClass`.

    Raises:
        TypeError: If something is no field.
        ValueError: If there is none, or they differ in process, domain or number of classes.

    Example:
        >>> both = product(OneClass(field, 3), OneClass(field, 5))

    References:
        Reduce, reuse, recycle: compositional generation with energy-based diffusion models and MCMC
        (Du et al., 2023, arXiv 2302.11552), the section on products.
    """
    return PowerProduct("product", fields, [1.0] * len(fields))


def tempered(field: ScoreField, beta: float) -> ScoreField:
    r"""The power :math:`p_t^\beta` of a density, at the inverse temperature :math:`\beta`: above 1
    nearer to its modes, below 1 farther.

    The score is :math:`\beta s`, the potential :math:`\beta\phi`. At the noise level of :math:`t`
    it is the power of the noisy density, not the noisy density of the power :math:`p_0^\beta`; see
    :func:`product`. A normal distribution of variance :math:`v` has the variance
    :math:`(\alpha^2 v + \sigma^2) / \beta` there, and the noisy power
    :math:`\alpha^2 v / \beta + \sigma^2`.

    Raises:
        TypeError: If it is no field.
        ValueError: If :math:`\beta` is not positive.

    References:
        Reduce, reuse, recycle: compositional generation with energy-based diffusion models and MCMC
        (Du et al., 2023, arXiv 2302.11552).
    """
    check_positive("the inverse temperature beta", beta)
    return PowerProduct("tempered field", [field], [beta])


def negation(field: ScoreField, negated: ScoreField, strength: float = 1.0) -> ScoreField:
    r"""The quotient :math:`p_{a,t} / p_{b,t}^\gamma` of densities: points that are probable under
    the first field and improbable under the second.

    The score is :math:`s_a - \gamma s_b`, the potential :math:`\phi_a - \gamma \phi_b`. At the
    noise level of :math:`t` it is the quotient of the noisy densities; see :func:`product`. It has
    a finite integral only where :math:`p_a` decays faster than :math:`p_b^\gamma`, which is not
    checked: of normal distributions with variances :math:`v_a, v_b` at the level, where
    :math:`\gamma v_a < v_b`. Elsewhere there is nothing to sample, and chains move away.

    Arguments:
        field: The field :math:`s_a`.
        negated: The field :math:`s_b`.
        strength: The exponent :math:`\gamma`.

    Raises:
        TypeError: If something is no field.
        ValueError: If the strength is not positive, or the fields differ in process, domain or
            number of classes.

    References:
        Reduce, reuse, recycle: compositional generation with energy-based diffusion models and MCMC
        (Du et al., 2023, arXiv 2302.11552), the section on negation.
    """
    check_positive("the strength of a negation", strength)
    return PowerProduct("negation", [field, negated], [1.0, -strength])


def autoguidance(field: ScoreField, weak: ScoreField, scale: float | int) -> ScoreField:
    r"""A field guided by a weaker version of itself: smaller, or trained for less time.

    .. math:: s = s_b + \gamma\,(s_a - s_b), \qquad p_{a,t}^\gamma / p_{b,t}^{\gamma - 1}

    is its density at the noise level of :math:`t`. Points that the better field finds more probable
    than the weaker one become more probable still. The potential is :math:`\gamma\phi_a - (\gamma
    - 1)\,\phi_b`.

    The probability flow samples another distribution. For normal distributions of the variances
    :math:`v < w` and the same mean it ends at the variance :math:`v^\gamma w^{1 - \gamma}`, where
    the noise at its start is far greater. That of the quotient, :math:`(\gamma / v - (\gamma - 1) /
    w)^{-1}`, is larger. Only where this is positive has the quotient a finite integral, which is
    not checked.

    Arguments:
        field: The field :math:`s_a`.
        weak: The weaker field :math:`s_b`.
        scale: The scale :math:`\gamma`; 1 is the field itself.

    Raises:
        TypeError: If something is no field.
        ValueError: If the scale is not positive, or the fields differ in process, domain or number
            of classes.

    References:
        Guiding a diffusion model with a bad version of itself (Karras, Aittala, Kynkäänniemi,
        Lehtinen, Aila and Laine, 2024), section 3.
    """
    check_positive("the scale of autoguidance", scale)
    return PowerProduct("field with autoguidance", [field, weak], [scale, 1 - scale])


def mixture(fields: Sequence[ScoreField], weights: Sequence[float]) -> ScoreField:
    r"""The mixture of densities: points that are probable under any of the fields.

    .. math:: p_t = \sum_i w_i\,p_{i,t}, \qquad s = \sum_i r_i(x, t)\,s_i, \qquad
        \phi = \ln \sum_i w_i\,e^{\phi_i}, \qquad r = \mathrm{softmax}(\ln w_i + \phi_i) .

    Densities add as noise is added to each of them: this is the noisy density of the mixture of the
    data, and every sampler samples it. The weights are those of the densities only where the
    potentials are normalised, as those of a :class:`~.Target` and of
    :func:`~.normalized.normalized` are; a trained potential is known up to a constant at each noise
    level, which multiplies its weight there.

    Arguments:
        fields: The fields, of one process, one domain and the same classes, each with a potential.
        weights: The weights :math:`w_i`, positive, up to a common factor.

    Raises:
        TypeError: If something is no field, or a field has no potential.
        ValueError: If there are no fields, not as many weights, a weight is not positive, or the
            fields differ in process, domain or number of classes.

    References:
        Reduce, reuse, recycle: compositional generation with energy-based diffusion models and MCMC
        (Du et al., 2023, arXiv 2302.11552), the section on mixtures.
    """
    if len(fields) != len(weights):
        raise UserError(
            f"a mixture of {len(fields)} fields has as many weights, not {len(weights)}"
        )
    for weight in weights:
        check_positive("a weight of a mixture", weight)
    for field in fields:
        check_field(field)
        if not field.has_potential:
            raise UnsupportedError(
                f"a mixture is weighted by potentials, and {type(field).__name__} has none"
            )
    w = torch.tensor([float(weight) for weight in weights], dtype=torch.float64)
    return MixtureField(fields, w / w.sum())
